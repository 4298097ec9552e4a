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
import pydicom
from pydicom.config import disable_value_validation
from pydicom.uid import UID, UncompressedTransferSyntaxes

from monai_ifim.io.dicom.forms import MODALITY_FORM, UID_FORM
from monai_ifim.io.dicom.grid import slice_grid
from monai_ifim.io.dicom.mosaic import Mosaic
from monai_ifim.io.dicom.volume import DicomVolume
from monai_ifim.io.errors import CURES, InputError, redacted

NO_GEOMETRY = ("Zero-valued spacing", "Bad direction")  # ITK's words for a size or directions that it does not take
NO_MEMORY = ("Failed to allocate memory", "bad_alloc")
COLOURED = (itk.CommonEnums.IOPixel_RGB, itk.CommonEnums.IOPixel_RGBA)
STATED = ["PhotometricInterpretation", "BitsAllocated", "SamplesPerPixel"]


def decoded(name: str, volume: DicomVolume) -> Any:
    """The volume as an ITK image [columns, rows, slices] of rescaled values, without its geometry.

    Its slices are in the order of `slice_grid`, where they have a place. name: what an error calls the volume. Raises InputError
    with the cause if the pixels cannot be decoded.
    """
    try:
        image = _stack(volume) if len(volume.files) > 1 else _of_one_file(volume)
    except InputError:
        raise
    except Exception as error:
        raise _refusal(name, volume, error) from redacted(error)
    return _sorted(image, volume)


def _stack(volume: DicomVolume) -> Any:
    """The slices of several files, each read as a picture, whose place ITK need not know."""
    columns, rows = volume.size
    image = itk.Image[itk.F, 3].New()
    image.SetRegions([columns, rows, len(volume.files)])
    image.Allocate()
    slices = itk.array_view_from_image(image)
    for k, file in enumerate(volume.files):
        slices[k] = itk.array_view_from_image(_picture(file, itk.Image[itk.F, 2]))
    return image


def _of_one_file(volume: DicomVolume) -> Any:
    image = _image(volume.files[0])
    if volume.mosaic is not None:
        image = _taken_apart(image, volume.mosaic)
    return _rescaled(_chosen(image, volume), volume)


def _chosen(image: Any, volume: DicomVolume) -> Any:
    """The image of the frames of a multi-frame file that belong to the volume, in the order of its slices."""
    return image if volume.frames is None else itk.image_from_array(itk.array_from_image(image)[list(volume.frames)])


def _image(file: Path) -> Any:
    """The image of one file, of one frame or several, in the type of its values."""
    header = itk.GDCMImageIO.New()
    header.SetFileName(str(file))
    header.ReadImageInformation()
    colored = header.GetPixelType() in COLOURED
    if colored and header.GetComponentType() != itk.CommonEnums.IOComponent_UCHAR:
        # itk.imread would fail too, but only after it has loaded all of ITK to list its types, which takes half a minute
        raise InputError(
            f"{file.name}: its pixels cannot be decoded (colours of more than 8 bits each): convert it to grey values."
        )
    try:
        return itk.imread(str(file), imageio=header)
    except RuntimeError as error:
        single = all(header.GetDimensions(axis) == 1 for axis in range(2, header.GetNumberOfDimensions()))
        if not single or not any(words in str(error) for words in NO_GEOMETRY):
            raise
    pixel = itk.RGBPixel[itk.UC] if colored else itk.F
    values = itk.array_from_image(_picture(file, itk.Image[pixel, 2]))
    return itk.image_from_array(values[None], ttype=itk.Image[pixel, 3])


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


def _rescaled(image: Any, volume: DicomVolume) -> Any:
    """The image with each frame rescaled by its own slope and intercept: ITK uses those of the first frame for all."""
    if volume.rescale is None:
        return image
    header = itk.GDCMImageIO.New()
    header.SetFileName(str(volume.files[0]))
    header.ReadImageInformation()
    stored = np.rint((itk.array_from_image(image) - header.GetRescaleIntercept()) / header.GetRescaleSlope())
    slopes, intercepts = (each[:, None, None] for each in volume.rescale.T)
    return itk.image_from_array((stored * slopes + intercepts).astype(np.float32))


def _sorted(image: Any, volume: DicomVolume) -> Any:
    """The image with its slices in the order of their places, in which the frames of a file need not be."""
    grid = slice_grid(volume)
    if grid is None or len(grid.order) < 2 or np.array_equal(grid.order, np.arange(len(grid.order))):
        return image
    return itk.image_from_array(itk.array_from_image(image)[grid.order], is_vector=image.GetNumberOfComponentsPerPixel() > 1)


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
