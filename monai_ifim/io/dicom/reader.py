"""`DicomReader`: DICOM volumes for MONAI's LoadImage, grouped and checked by their headers and decoded by ITK.

MONAI's own readers take the first of several series, average uneven gaps and ignore a gantry's tilt; and LoadImage silently
tries the next reader if `read` raises. This reader therefore raises in `get_data`, where LoadImage lets the error pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import itk
import numpy as np
from monai.data import ITKReader, NibabelReader
from monai.transforms import Compose, LoadImage, LoadImaged
from monai.utils import ensure_tuple

from monai_ifim.io.dicom.header import dicom_files
from monai_ifim.io.dicom.mosaic import Mosaic
from monai_ifim.io.dicom.regularity import check_volume
from monai_ifim.io.dicom.volume import DicomVolume
from monai_ifim.io.dicom.volumes import choose_volume, index_dicom, undecoded
from monai_ifim.io.errors import InputError, redacted
from monai_ifim.io.image_files.guard import FormatGuard, Refusal
from monai_ifim.io.image_files.parts import refuse_bruker
from monai_ifim.io.image_files.tiff import TiffReader
from monai_ifim.io.nibabel_files.reader import NibabelFileReader

HEADER_ELEMENT = re.compile("[0-9a-f]{4}\\|[0-9a-f]{4}", flags=re.IGNORECASE)  # ITK's name for an element, such as "0010|0010"

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

    The metadata hold the volume's position and shape, and none of the header's own elements (names, dates, free text).
    series: which volume of a folder of several, by its key (`DicomVolume.key`). drop_slice_axis: return a single slice as
    [x, y], as MONAI's PydicomReader does, instead of [x, y, 1]. Other arguments as MONAI's ITKReader. LoadImage raises
    InputError for a folder that is no volume: several series, uneven gaps, a tilted gantry, a broken file.
    """

    def __init__(self, series: str | None = None, drop_slice_axis: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.series, self.drop_slice_axis = series, drop_slice_axis

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
        volume = _KNOWN.get().get(path) or choose_volume(path.name, index_dicom(dicom_files(path)), self.series)
        check_volume(path.name, volume)
        names = [str(file) for file in volume.files]
        try:
            image = _decoded(names[0]) if len(names) == 1 else itk.imread(names, itk.F)
            if volume.mosaic is not None:
                image = _taken_apart(image, volume.mosaic)
        except Exception as error:
            raise undecoded(path.name, volume) from redacted(error)
        return _placed(_rescaled(image, names[0], volume), volume)


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
    loader.register(DicomReader(drop_slice_axis=type(named).__name__ == "PydicomReader"))
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


def _decoded(name: str) -> Any:
    """The image of one file. Raises ValueError for colours of more than 8 bits, for which ITK's Python has no type.

    itk.imread would fail too, but only after it has loaded all of ITK to list the types that it has, which takes half a minute.
    """
    file = itk.GDCMImageIO.New()
    file.SetFileName(name)
    file.ReadImageInformation()
    colored = file.GetPixelType() in (itk.CommonEnums.IOPixel_RGB, itk.CommonEnums.IOPixel_RGBA)
    if colored and file.GetComponentType() != itk.CommonEnums.IOComponent_UCHAR:
        raise ValueError("colours of more than 8 bits")
    return itk.imread(name, imageio=file)


def _rescaled(image: Any, name: str, volume: DicomVolume) -> Any:
    """The image with each frame rescaled by its own slope and intercept: ITK uses those of the first frame for all."""
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


def _taken_apart(image: Any, mosaic: Mosaic) -> Any:
    """The slices of a mosaic as an image [slices, rows, columns]; raises ValueError for a picture of another size."""
    values = itk.array_from_image(image)
    colored = image.GetNumberOfComponentsPerPixel() > 1
    picture = values.reshape(values.shape[-3 if colored else -2 :])
    return itk.image_from_array(np.ascontiguousarray(mosaic.slices(picture)), is_vector=colored)


def _placed(image: Any, volume: DicomVolume) -> Any:
    """The image with its slices sorted by position, and with the geometry that their headers state (LPS mm)."""
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
