"""The pixels of a DICOM volume, decoded by ITK and rescaled, its slices in the order of their places.

No geometry comes from ITK: of a single slice it takes the distance to a neighbour for the thickness, and it does not read a file
at all that states a distance of 0. `grid.slice_grid` places the slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import itk
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.config import disable_value_validation
from pydicom.uid import UID, UncompressedTransferSyntaxes

from monai_ifim.core.memory.scratch import ScratchFolder
from monai_ifim.io.dicom.bare_pixels import bare_copy
from monai_ifim.io.dicom.forms import MODALITY_FORM, UID_FORM
from monai_ifim.io.dicom.grid import slice_grid
from monai_ifim.io.dicom.measures import chosen_values
from monai_ifim.io.dicom.mosaic import Mosaic
from monai_ifim.io.dicom.tables import applied
from monai_ifim.io.dicom.values import WITH_RESCALE, ChosenValues
from monai_ifim.io.dicom.volume import DicomVolume
from monai_ifim.io.errors import CURES, InputError, redacted
from monai_ifim.io.source import ValueChoice

NO_GEOMETRY = ("Zero-valued spacing", "Bad direction")  # ITK's words for a size or directions that it does not take
NO_MEMORY = ("Failed to allocate memory", "bad_alloc")
STATED = ["PhotometricInterpretation", "BitsAllocated", "SamplesPerPixel"]


def decoded(name: str, volume: DicomVolume, choice: ValueChoice) -> Any:
    """The volume as an ITK image [columns, rows, slices] of the values that are chosen, without its geometry.

    Its slices are in the order of `slice_grid`, where they have a place. name: what an error calls the volume. Raises InputError
    with the cause if the pixels cannot be decoded, or if their headers do not say what their values are.
    """
    chosen = chosen_values(name, volume, choice)
    try:
        image = _stack(name, volume, chosen) if len(volume.files) > 1 else _of_one_file(name, volume, chosen)
    except InputError:
        raise
    except Exception as error:
        raise _refusal(name, volume, error) from redacted(error)
    return _sorted(image, volume)


def _is_coloured(header: Any) -> bool:
    """True if ITK reads the file's pixels as RGB."""
    # In a function, because the first name that is taken from itk loads its libraries, which takes a second.
    return header.GetPixelType() in (itk.CommonEnums.IOPixel_RGB, itk.CommonEnums.IOPixel_RGBA)


def _stack(name: str, volume: DicomVolume, chosen: ChosenValues | None) -> Any:
    """The slices of several files, each read as a picture, whose place ITK need not know."""
    if chosen is not None and (chosen.stated_by != WITH_RESCALE or volume.inverted_by_itk):
        stored = [_stored(file, volume) for file in volume.files]
        return itk.image_from_array(applied(name, chosen.mappings, np.concatenate(stored)))
    columns, rows = volume.size
    image = itk.Image[itk.F, 3].New()
    image.SetRegions([columns, rows, len(volume.files)])
    image.Allocate()
    slices = itk.array_view_from_image(image)
    for k, file in enumerate(volume.files):
        slices[k] = itk.array_view_from_image(_picture(file, itk.Image[itk.F, 2]))
    return image


def _of_one_file(name: str, volume: DicomVolume, chosen: ChosenValues | None) -> Any:
    image = _values(name, volume, chosen)
    return image if volume.mosaic is None else _taken_apart(image, volume.mosaic)


def _values(name: str, volume: DicomVolume, chosen: ChosenValues | None) -> Any:
    """The frames of one file that belong to the volume; ITK rescales all by the slope and intercept of the first."""
    file = volume.files[0]
    if chosen is None or not volume.inverted_by_itk:
        image, decoder = _image(file)
        own = decoder.GetRescaleSlope(), decoder.GetRescaleIntercept()
        if chosen is None or _is_coloured(decoder) or all(each.is_line(*own) for each in chosen.mappings):
            return _chosen(image, volume)
        stored = _undone(image, decoder)
    else:
        stored = _stored(file, volume)
    stored = stored if volume.frames is None else stored[list(volume.frames)]
    return itk.image_from_array(applied(name, chosen.mappings, stored))


def _chosen(image: Any, volume: DicomVolume) -> Any:
    """The image of the frames of a multi-frame file that belong to the volume, in the order of its slices."""
    return image if volume.frames is None else _taken(image, list(volume.frames))


def _stored(file: Path, volume: DicomVolume) -> npt.NDArray[Any]:
    """The stored values [frames, rows, columns] of a file."""
    if not volume.inverted_by_itk:
        return _undone(*_image(file))
    with ScratchFolder() as folder:
        return np.array(itk.array_from_image(_image(bare_copy(file, folder))[0]))


def _undone(image: Any, decoder: Any) -> npt.NDArray[Any]:
    """The stored values of an image that ITK rescaled."""
    values, slope, intercept = itk.array_from_image(image), decoder.GetRescaleSlope(), decoder.GetRescaleIntercept()
    return np.array(values) if (slope, intercept) == (1.0, 0.0) else np.rint((values.astype(np.float64) - intercept) / slope)


def _image(file: Path) -> tuple[Any, Any]:
    """The image of one file, of one frame or several, in the type of its values, and its decoder."""
    header = itk.GDCMImageIO.New()
    header.SetFileName(str(file))
    header.ReadImageInformation()
    colored = _is_coloured(header)
    if colored and header.GetComponentType() != itk.CommonEnums.IOComponent_UCHAR:
        # itk.imread would fail too, but only after it has loaded all of ITK to list its types, which takes half a minute
        raise InputError(
            f"{file.name}: its pixels cannot be decoded (colours of more than 8 bits each): convert it to grey values."
        )
    try:
        return itk.imread(str(file), imageio=header), header
    except RuntimeError as error:
        single = all(header.GetDimensions(axis) == 1 for axis in range(2, header.GetNumberOfDimensions()))
        if not single or not any(words in str(error) for words in NO_GEOMETRY):
            raise
    pixel = itk.RGBPixel[itk.UC] if colored else itk.F
    values = itk.array_from_image(_picture(file, itk.Image[pixel, 2]))
    return itk.image_from_array(values[None], ttype=itk.Image[pixel, 3]), header


def _picture(file: Path, kind: Any) -> Any:
    reader = itk.ImageFileReader[kind].New(FileName=str(file), ImageIO=itk.GDCMImageIO.New())
    reader.Update()
    return reader.GetOutput()


def _taken_apart(image: Any, mosaic: Mosaic) -> Any:
    """The slices of a mosaic as an image [slices, rows, columns]; raises ValueError for a picture of another size."""
    values = itk.array_from_image(image)
    colored = image.GetNumberOfComponentsPerPixel() > 1
    picture = values.reshape(values.shape[-3 if colored else -2 :])
    return itk.image_from_array(np.ascontiguousarray(mosaic.slices(picture)), is_vector=colored)


def _sorted(image: Any, volume: DicomVolume) -> Any:
    """The image with its slices in the order of their places, in which the frames of a file need not be."""
    grid = slice_grid(volume)
    if grid is None or len(grid.order) < 2 or np.array_equal(grid.order, np.arange(len(grid.order))):
        return image
    return _taken(image, grid.order)


def _taken(image: Any, slices: Any) -> Any:
    """The image of some of its slices, by their numbers."""
    colored = image.GetNumberOfComponentsPerPixel() > 1
    return itk.image_from_array(itk.array_from_image(image)[slices], is_vector=colored)


def _refusal(name: str, volume: DicomVolume, error: Exception) -> InputError:
    """Why the pixels of a volume were not decoded: a file that is gone, memory, a header without a geometry, or the pixels."""
    said = str(error)
    if isinstance(error, MemoryError) or any(words in said for words in NO_MEMORY):
        return InputError(f"{name}: not enough memory for its pixels: take a smaller image, or a machine with more of it.")
    if any(words in said for words in NO_GEOMETRY):
        return InputError(f"{name}: its header states a size of 0, or directions that are none: export the images again.")
    for file in volume.files:
        try:
            with file.open("rb") as stream:
                stream.read(1)
        except OSError as gone:
            cure = CURES.get(gone.errno or 0, "copy it again")
            return InputError(f"{file.name}: it can no longer be read ({gone.strerror}): {cure}.")
    return _undecodable(name, volume.files)


def _undecodable(name: str, files: Sequence[Path]) -> InputError:
    with disable_value_validation():
        headers = [pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(STATED)) for file in files]
        syntaxes = [header.file_meta.get("TransferSyntaxUID") for header in headers]
        compressed = {uid for uid in syntaxes if uid is not None and uid not in UncompressedTransferSyntaxes}
        if not compressed:
            return InputError(
                f"{name}: its pixels cannot be decoded ({_pixel_kind(headers[0])}, not compressed): convert it to grey values of "
                "8 or 16 bits, or copy it again."
            )
    named = ", ".join(sorted(str(UID(uid).name) if UID_FORM.fullmatch(uid) else "no UID" for uid in compressed))
    return InputError(
        f"{name}: its pixels cannot be decoded (transfer syntax: {named}): convert the file to an uncompressed transfer syntax "
        "(dcmconv, gdcmconv), or export it again."
    )


def _pixel_kind(header: Any) -> str:
    """For example `PALETTE COLOR, 1 x 16 bits`: codes and numbers only, as any other text may be a name."""
    photometric = str(header.get("PhotometricInterpretation") or "")
    code = photometric if MODALITY_FORM.fullmatch(photometric) else "no known colour space"
    return f"{code}, {int(header.get('SamplesPerPixel') or 1)} x {int(header.get('BitsAllocated') or 0)} bits"
