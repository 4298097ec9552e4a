"""Mosaics made on the spot, Siemens' and United Imaging's, whose values tell their places."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

Array = npt.NDArray[Any]
CSA_ITEMS = 6  # Siemens writes so many items in each element, the last ones empty


@dataclass(frozen=True)
class Tiles:
    """A volume to store as a mosaic.

    axes: directions of columns, rows and slices as columns, LPS; a left-handed triple has slices that run against the normal of
    their plane. size: columns and rows of a tile; spacing: mm between columns, rows, slices; origin: of the first voxel, LPS mm.
    """

    axes: Array
    count: int
    size: tuple[int, int] = (7, 5)
    spacing: tuple[float, float, float] = (0.8, 1.3, 2.5)
    origin: tuple[float, float, float] = (-31.0, 12.5, 70.25)

    @property
    def values(self) -> Array:
        """[columns, rows, slices]"""
        return np.random.default_rng(self.count).integers(1, 2000, (*self.size, self.count)).astype(np.int16)

    def picture(self, across: int, down: int) -> Array:
        """[rows, columns], zero where no tile lies."""
        columns, rows = self.size
        picture = np.zeros((down * rows, across * columns), np.int16)
        for k in range(self.count):
            row, column = divmod(k, across)
            picture[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns] = self.values[:, :, k].T
        return picture

    def world(self) -> Array:
        """RAS mm of all voxels, in the order of `values.reshape(-1)`."""
        voxels = np.indices(self.values.shape).reshape(3, -1).T
        lps = np.array(self.origin) + (voxels * np.array(self.spacing)) @ self.axes.T
        return np.asarray(lps * [-1.0, -1.0, 1.0])


def siemens(tiles: Tiles, csa: Mapping[str, Sequence[Any]] | None = None) -> Dataset:
    """One file of a Siemens series. csa: further elements of its CSA image header, or other values of those that it has.

    The position is that of the corner of a slice as large as the whole picture, with the same centre, as Siemens states it.
    """
    side = int(np.ceil(np.sqrt(tiles.count)))
    image = _image(tiles, tiles.picture(side, side))
    image.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    image.Manufacturer = "SIEMENS"
    image.SpacingBetweenSlices = tiles.spacing[2]
    moved = np.array(tiles.size) * (side - 1) / 2 * np.array(tiles.spacing[:2])
    image.ImagePositionPatient = [*(np.array(tiles.origin) - tiles.axes[:, :2] @ moved)]
    elements: dict[str, Sequence[Any]] = {
        "EchoLinePosition": [16],
        "ProtocolSliceNumber": [0],
        "AcquisitionMatrixText": ["{}*{}".format(*tiles.size)],
        "NumberOfImagesInMosaic": [tiles.count],
        "SliceNormalVector": [f"{value:.8f}" for value in tiles.axes[:, 2]],
    }
    block = image.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", csa_header(elements | dict(csa or {})))
    return image


def united_imaging(tiles: Tiles) -> Dataset:
    """One file of a series of United Imaging Healthcare in its grid format; each slice states its own place."""
    across = int(np.ceil(np.sqrt(tiles.count)))
    image = _image(tiles, tiles.picture(across, -(-tiles.count // across)))
    image.ImageType = ["ORIGINAL", "PRIMARY", "M", "VFRAME"]
    image.Manufacturer = "UIH"
    image.SpacingBetweenSlices = tiles.spacing[2]
    del image.ImagePositionPatient
    items = []
    for k in range(tiles.count):
        item = Dataset()
        item.ImagePositionPatient = [*(np.array(tiles.origin) + k * tiles.spacing[2] * tiles.axes[:, 2])]
        items.append(item)
    block = image.private_block(0x0065, "Image Private Header", create=True)
    block.add_new(0x50, "DS", str(tiles.count))
    block.add_new(0x51, "SQ", items)
    return image


def csa_header(elements: Mapping[str, Sequence[Any]], version: int = 2) -> bytes:
    """A CSA header of Siemens.

    Version 1 is that of software before VB: without `SV10`, and with lengths that are too large by the first element's items.
    """
    parts = [struct.pack("<II", len(elements), 77)]
    if version == 2:
        parts.insert(0, b"SV10\4\3\2\1")
    for name, values in elements.items():
        items = max(CSA_ITEMS, len(values))
        parts.append(struct.pack("<64si4s3i", name.encode(), len(values), _kind(values), 0, items, 77))
        for k in range(items):
            text = f"{values[k]}\0".encode() if k < len(values) else b""
            length = len(text) + (CSA_ITEMS if version == 1 else 0)
            parts += [struct.pack("<4i", length, len(text), 77, len(text)), text, b"\0" * (-len(text) % 4)]
    return b"".join(parts)


def _kind(values: Sequence[Any]) -> bytes:
    """Representation of an element: of whole numbers, of numbers or of text."""
    if all(isinstance(value, int) for value in values):
        return b"IS\0\0"
    with suppress(ValueError):
        return b"FD\0\0" if np.array(values, dtype=np.float64).size else b"LO\0\0"
    return b"LO\0\0"


def _image(tiles: Tiles, picture: Array) -> Dataset:
    image = pydicom.dcmread(str(get_testdata_file("MR_small.dcm", download=False)))
    image.remove_private_tags()
    for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue"):
        image.pop(keyword, None)
    image.SeriesInstanceUID, image.StudyInstanceUID, image.FrameOfReferenceUID = (generate_uid() for _ in range(3))
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.Rows, image.Columns = picture.shape
    image.PixelSpacing = [tiles.spacing[1], tiles.spacing[0]]
    image.SliceThickness = 0.75 * tiles.spacing[2]
    image.ImageOrientationPatient = [*tiles.axes[:, 0], *tiles.axes[:, 1]]
    image.PixelData = picture.tobytes()
    return image
