"""`DicomReader`: DICOM volumes for MONAI's LoadImage, grouped and checked by their headers and decoded by ITK.

MONAI's own readers take the first of several series, average uneven gaps and ignore a gantry's tilt; and LoadImage silently
tries the next reader if `read` raises. This reader therefore raises in `get_data`, where LoadImage lets the error pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import itk
import numpy as np
from monai.data import ITKReader, NibabelReader
from monai.transforms import Compose, LoadImage, LoadImaged
from monai.utils import ensure_tuple

from monai_ifim.io.dicom.grid import slice_grid
from monai_ifim.io.dicom.header import dicom_files
from monai_ifim.io.dicom.measures import reading_of_values
from monai_ifim.io.dicom.pixels import decoded
from monai_ifim.io.dicom.regularity import check_volume
from monai_ifim.io.dicom.volume import DicomVolume
from monai_ifim.io.dicom.volumes import choose_volume, index_dicom
from monai_ifim.io.errors import InputError
from monai_ifim.io.image_files.guard import FormatGuard, Refusal
from monai_ifim.io.image_files.parts import refuse_bruker
from monai_ifim.io.image_files.tiff import TiffReader
from monai_ifim.io.nibabel_files.reader import NibabelFileReader
from monai_ifim.io.source import ValueChoice

HEADER_ELEMENT = re.compile("[0-9a-f]{4}\\|[0-9a-f]{4}", flags=re.IGNORECASE)  # ITK's name for an element, such as "0010|0010"

INVERTED = "inverted"  # entry of the metadata: 1 if MONOCHROME1 was inverted

_KNOWN: ContextVar[Mapping[Path, DicomVolume | None]] = ContextVar("known", default=MappingProxyType({}))


@contextmanager
def known_volume(path: Path, volume: DicomVolume | None) -> Iterator[None]:
    """Context in which every `DicomReader` of this thread reads `path` as `volume`, without reading headers again.

    volume: None for a path that is not DICOM.
    """
    token = _KNOWN.set({path: volume})
    try:
        yield
    finally:
        _KNOWN.reset(token)


class DicomReader(ITKReader):
    """Reads DICOM files, and folders that hold one volume; all else is left to MONAI's other readers.

    The metadata hold the volume's position and shape, and whether it was inverted, and none of the header's own elements
    (names, dates, free text). series: which volume of a folder of several, by its key (`DicomVolume.key`). frame: which volume
    of a series of several, from 0. drop_slice_axis: return a single slice as [x, y], as MONAI's PydicomReader does, instead of
    [x, y, 1]. choice: which values. monochrome1: what the choice "reader" means, "inverted" as MONAI's ITKReader or "stored" as
    its PydicomReader. Other arguments as MONAI's ITKReader. LoadImage raises InputError for a folder that is no volume: several
    series, uneven gaps, a tilted gantry, a broken file.
    """

    def __init__(
        self,
        series: str | None = None,
        drop_slice_axis: bool = False,
        frame: int | None = None,
        choice: ValueChoice | None = None,
        monochrome1: Literal["stored", "inverted"] = "inverted",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.series, self.drop_slice_axis, self.frame = series, drop_slice_axis, frame
        self.choice, self.monochrome1 = choice or ValueChoice(), monochrome1

    def verify_suffix(self, filename: Sequence[PathLike[str]] | PathLike[str] | str) -> bool:
        """True if all the paths hold DICOM, by their content."""
        return all(_holds_dicom(Path(name)) for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike[str]] | PathLike[str] | str, **kwargs: Any) -> Any:
        """ITK images, or a `Refusal`; raises OSError for other files, so that LoadImage tries its next reader."""
        names = [Path(name) for name in ensure_tuple(data)]
        if not self.verify_suffix(data):
            raise OSError(f"{names[0].name} is not DICOM.")
        try:
            images = [self._volume(path) for path in names]
        except InputError as error:
            return Refusal(error)
        return images if len(images) > 1 else images[0]

    def get_data(self, img: Any) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        """Array and metadata as MONAI's ITKReader gives them; raises InputError if the volume was refused."""
        if isinstance(img, Refusal):
            raise img.error
        values, meta = super().get_data(img)
        meta = {name: value for name, value in meta.items() if not HEADER_ELEMENT.fullmatch(name)}
        if self.drop_slice_axis and values.ndim == 3 and values.shape[-1] == 1:
            values = values[..., 0]
            meta["spatial_shape"] = np.asarray(values.shape)
        return values, meta

    def _volume(self, path: Path) -> Any:
        refuse_bruker(path)
        volume = _KNOWN.get().get(path) or choose_volume(path.name, index_dicom(dicom_files(path)), self.series, self.frame)
        check_volume(path.name, volume)
        choice = volume.choice or self.choice
        if choice.monochrome1 == "reader":
            choice = replace(choice, monochrome1=self.monochrome1)
        image = _placed(decoded(path.name, volume, choice), volume)
        image[INVERTED] = int(reading_of_values(volume, choice).inverted or False)
        return image


def register_dicom_reader(preprocessing: Compose) -> None:
    """Make every LoadImage of a pipeline try `DicomReader` before its other readers, and `FormatGuard` before all of them.

    `NibabelFileReader` reads NIfTI, Analyze, MGH and AFNI, and `TiffReader` TIFF where ITK would.
    """
    for step in preprocessing.flatten().transforms:
        loader = step._loader if isinstance(step, LoadImaged) else step
        if isinstance(loader, LoadImage) and not any(isinstance(reader, DicomReader) for reader in loader.readers):
            _register(loader)


def _register(loader: LoadImage) -> None:
    named = None if loader.auto_select or not loader.readers else loader.readers[-1]
    foreign = any(not type(reader).__module__.startswith("monai.") for reader in loader.readers)
    if isinstance(named, ITKReader) and not foreign:
        same = {name: getattr(named, name) for name in ("channel_dim", "reverse_indexing", "affine_lps_to_ras")}
        loader.register(TiffReader(**same))
    elif loader.auto_select:
        loader.register(TiffReader())
    _register_nibabel(loader, named)
    pydicom = type(named).__name__ == "PydicomReader"
    loader.register(DicomReader(drop_slice_axis=pydicom, monochrome1="stored" if pydicom else "inverted"))
    loader.register(FormatGuard(known_formats=not foreign))


def _register_nibabel(loader: LoadImage, named: Any) -> None:
    """`NibabelFileReader` before MONAI's readers, with the options of the named one, and after readers of somebody else's."""
    if isinstance(named, ITKReader):
        options = {name: getattr(named, name) for name in ("channel_dim", "reverse_indexing", "affine_lps_to_ras")}
        reader = NibabelFileReader(squeeze_non_spatial_dims=True, **options)  # ITK has no axes of one beyond the third
    else:
        monais = [each for each in loader.readers if isinstance(each, NibabelReader)]
        names = ("channel_dim", "as_closest_canonical", "squeeze_non_spatial_dims")
        reader = NibabelFileReader(**{name: getattr(monais[-1], name) for name in names} if monais else {})
    foreign = (i for i, each in enumerate(loader.readers) if not type(each).__module__.startswith(("monai.", "monai_ifim.")))
    loader.readers.insert(next(foreign, len(loader.readers)), reader)


def _holds_dicom(path: Path) -> bool:
    known = _KNOWN.get()
    return known[path] is not None if path in known else bool(dicom_files(path))


def _placed(image: Any, volume: DicomVolume) -> Any:
    """The decoded image with the place that its headers state (LPS mm)."""
    grid = slice_grid(volume)
    if grid is not None:
        columns, rows = volume.spacing or tuple(image.GetSpacing())[:2]
        image.SetSpacing([float(columns), float(rows), grid.step])
        image.SetOrigin([float(value) for value in grid.origin])
        image.SetDirection(itk.matrix_from_array(grid.directions))
    elif volume.spacing is not None:  # a projection has no place: it lies at the origin
        dimensions = image.GetImageDimension()
        image.SetSpacing([*volume.spacing, *[1.0] * (dimensions - 2)])
        image.SetOrigin([0.0] * dimensions)
        image.SetDirection(itk.matrix_from_array(np.eye(dimensions)))
    return image
