"""`DicomReader`: DICOM volumes for MONAI's LoadImage, grouped and checked by their headers, decoded by ITK, never guessed.

MONAI's own readers take the first of several series, average uneven gaps and leave a gantry's tilt out; a reader that raises
is passed over in silence for the next one. This one refuses where it is asked for the data, which LoadImage does not catch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import itk
import numpy as np
from monai.data import ITKReader
from monai.transforms import Compose, LoadImage, LoadImaged
from monai.utils import ensure_tuple

from monai_ifim.io.dicom.regularity import check_volume
from monai_ifim.io.dicom.volumes import DicomVolume, choose_volume, index_dicom, undecoded
from monai_ifim.io.errors import InputError
from monai_ifim.io.source import dicom_files

HEADER_ELEMENT = re.compile("[0-9a-f]{4}\\|[0-9a-f]{4}", flags=re.IGNORECASE)  # "0010|0010": ITK's name for one


@dataclass(frozen=True)
class Refusal:
    """What `read` returns in the place of an image that may not be read: LoadImage would hide an error raised there."""

    error: InputError


class DicomReader(ITKReader):
    """Reads DICOM files and folders of one volume; everything else is left to MONAI's other readers. The metadata tell the
    volume's place and shape; the header's own elements (names, dates, free text) are left out of them.

    series: which volume of a folder of several, by its key (`DicomVolume.key`). drop_slice_axis: give a single slice as
    [x, y], as MONAI's PydicomReader does, and not as [x, y, 1]. Other arguments as MONAI's ITKReader. Through LoadImage,
    InputError says why a folder is no volume: several series, uneven gaps, a tilted gantry, a broken file.
    """

    def __init__(self, series: str | None = None, drop_slice_axis: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.series, self.drop_slice_axis = series, drop_slice_axis

    def verify_suffix(self, filename: Sequence[PathLike[str]] | PathLike[str] | str) -> bool:
        """Whether all the names are DICOM, told by content."""
        return all(bool(dicom_files(Path(name))) for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike[str]] | PathLike[str] | str, **kwargs: Any) -> Any:
        """ITK images, or a `Refusal`; raises OSError for what is not DICOM, so that LoadImage goes on to its next reader."""
        names = [Path(name) for name in ensure_tuple(data)]
        if not self.verify_suffix(data):
            raise OSError(f"{names[0].name} is not DICOM.")
        try:
            images = [self._volume(path) for path in names]
        except InputError as error:
            return Refusal(error)
        return images if len(images) > 1 else images[0]

    def get_data(self, img: Any) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        """Array and metadata as MONAI's ITKReader gives them; raises InputError where the volume was refused."""
        if isinstance(img, Refusal):
            raise img.error
        values, meta = super().get_data(img)
        meta = {name: value for name, value in meta.items() if not HEADER_ELEMENT.fullmatch(name)}
        if self.drop_slice_axis and values.ndim == 3 and values.shape[-1] == 1:
            values = values[..., 0]
            meta["spatial_shape"] = np.asarray(values.shape)
        return values, meta

    def _volume(self, path: Path) -> Any:
        volume = choose_volume(path.name, index_dicom(dicom_files(path)), self.series)
        check_volume(path.name, volume)
        names = [str(file) for file in volume.files]
        try:
            image = itk.imread(names[0]) if len(names) == 1 else itk.imread(names, itk.F)
        except Exception as error:
            raise undecoded(path.name, volume) from error
        return _placed(_rescaled(image, names[0], volume), volume)


def register_dicom_reader(preprocessing: Compose) -> None:
    """Let every LoadImage in a pipeline read DICOM by `DicomReader`, before any reader that it has."""
    for step in preprocessing.flatten().transforms:
        loader = step._loader if isinstance(step, LoadImaged) else step
        if isinstance(loader, LoadImage) and not any(isinstance(reader, DicomReader) for reader in loader.readers):
            named = None if loader.auto_select or not loader.readers else type(loader.readers[-1]).__name__
            loader.register(DicomReader(drop_slice_axis=named == "PydicomReader"))


def _rescaled(image: Any, name: str, volume: DicomVolume) -> Any:
    """The image with each frame in its own units: ITK gives all frames of a file the slope and intercept of the first."""
    if volume.rescale is None:
        return image
    header = itk.GDCMImageIO.New()
    header.SetFileName(name)
    header.ReadImageInformation()
    stored = np.rint((itk.array_from_image(image) - header.GetRescaleIntercept()) / header.GetRescaleSlope())
    slopes, intercepts = (each[:, None, None] for each in volume.rescale.T)
    rescaled = itk.image_from_array((stored * slopes + intercepts).astype(np.float32))
    rescaled.CopyInformation(image)
    return rescaled


def _placed(image: Any, volume: DicomVolume) -> Any:
    """The image with the slices in the order of their places, at the places that their headers state (LPS mm)."""
    positions, orientation = volume.positions, volume.orientation
    if positions is None or orientation is None or len(positions) < 2 or volume.spacing is None:
        return image
    normal = np.cross(orientation[:3], orientation[3:])
    order = np.argsort(positions @ normal, kind="stable")
    if not np.array_equal(order, np.arange(len(order))):
        image = itk.image_from_array(itk.array_from_image(image)[order])
        positions = positions[order]
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    gap = float(np.linalg.norm(step))
    image.SetSpacing([*volume.spacing, gap])
    image.SetOrigin([float(value) for value in positions[0]])
    image.SetDirection(itk.matrix_from_array(np.column_stack([orientation[:3], orientation[3:], step / gap])))
    return image
