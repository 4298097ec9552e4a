"""The values of a DICOM volume: its files decoded by ITK, and their stored values transformed as the headers say.

ITK itself applies Rescale Slope and Intercept, those of the first frame to all frames. It inverts MONOCHROME1, and knows neither
Modality LUT nor real-world values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import itk
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import FileMetaDataset
from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage, SecondaryCaptureImageStorage, generate_uid

from monai_ifim.core.memory.scratch import ScratchFolder
from monai_ifim.io.dicom.measures import chosen_values
from monai_ifim.io.dicom.mosaic import Mosaic
from monai_ifim.io.dicom.tables import applied
from monai_ifim.io.dicom.values import WITH_RESCALE, ChosenValues
from monai_ifim.io.dicom.volume import DicomVolume
from monai_ifim.io.dicom.volumes import undecoded
from monai_ifim.io.errors import InputError, redacted
from monai_ifim.io.source import ValueChoice

PIXEL_MODULE = [  # PS3.3, C.7.6.3
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PlanarConfiguration", "PixelData",
]  # fmt: skip
COLOURS = (itk.CommonEnums.IOPixel_RGB, itk.CommonEnums.IOPixel_RGBA)

Stored = npt.NDArray[Any]


def image_of(name: str, volume: DicomVolume, choice: ValueChoice) -> Any:
    """The volume as an ITK image, whose slices are in the order of its files and frames; name: what a message calls it.

    Raises InputError if the pixels cannot be decoded, or their headers do not say what their values are.
    """
    chosen = chosen_values(name, volume, choice)
    try:
        if len(volume.files) == 1:
            image = _single(volume.files[0], volume, chosen)
            return image if volume.mosaic is None else _taken_apart(image, volume.mosaic)
        if chosen is None or _itk_rescales(volume, chosen):
            return itk.imread([str(file) for file in volume.files], itk.F)
        stored = np.concatenate([_stored(file, volume) for file in volume.files])
        return itk.image_from_array(applied(chosen.mappings, stored))
    except InputError as error:
        raise InputError(f"{name}: {error}.") from None
    except Exception as error:
        raise undecoded(name, volume) from redacted(error)


def slices_of(name: str, volume: DicomVolume, choice: ValueChoice) -> npt.NDArray[np.float32]:
    """The values [slices, rows, columns] of a volume of several files, in their order; raises as `image_of`."""
    return np.asarray(itk.array_from_image(image_of(name, volume, choice)), dtype=np.float32)


def _itk_rescales(volume: DicomVolume, chosen: ChosenValues) -> bool:
    """True if ITK gives these values of files with one frame each."""
    return chosen.stated_by == WITH_RESCALE and not _inverted_by_itk(volume)


def _inverted_by_itk(volume: DicomVolume) -> bool:
    return volume.values is not None and any(volume.values.bright_is_low)


def _single(file: Path, volume: DicomVolume, chosen: ChosenValues | None) -> Any:
    """The image of one file, of one or several frames."""
    if chosen is None or not _inverted_by_itk(volume):
        image, decoder = _decoded(file)
        if chosen is None or decoder.GetPixelType() in COLOURS:
            return image
        own = decoder.GetRescaleSlope(), decoder.GetRescaleIntercept()
        if all(mapping.table is None and (mapping.slope, mapping.intercept) == own for mapping in chosen.mappings):
            return image
        stored = _undone(itk.array_from_image(image), decoder)
        values = itk.image_from_array(applied(chosen.mappings, stored))
        values.CopyInformation(image)
        return values
    decoder = _decoder(file)
    values = itk.image_from_array(applied(chosen.mappings, _stored(file, volume)))
    axes = range(3)
    values.SetSpacing([decoder.GetSpacing(axis) for axis in axes])
    values.SetOrigin([decoder.GetOrigin(axis) for axis in axes])
    values.SetDirection(itk.matrix_from_array(np.column_stack([np.array(decoder.GetDirection(axis)) for axis in axes])))
    return values


def _taken_apart(image: Any, mosaic: Mosaic) -> Any:
    """The slices of a mosaic as an image [slices, rows, columns]; raises ValueError for a picture of another size."""
    values = itk.array_from_image(image)
    colored = image.GetNumberOfComponentsPerPixel() > 1
    picture = values.reshape(values.shape[-3 if colored else -2 :])
    return itk.image_from_array(np.ascontiguousarray(mosaic.slices(picture)), is_vector=colored)


def _stored(file: Path, volume: DicomVolume) -> Stored:
    """The stored values [frames, rows, columns] of a file."""
    if not _inverted_by_itk(volume):
        image, decoder = _decoded(file)
        return _undone(itk.array_from_image(image), decoder)
    with ScratchFolder() as folder:
        image, _ = _decoded(_bare_copy(file, folder))
        return np.array(itk.array_from_image(image))


def _bare_copy(file: Path, folder: Path) -> Path:
    """A copy of the pixels alone, as MONOCHROME2, so that ITK gives them as they are stored; it names nobody."""
    with disable_value_validation():
        copy = pydicom.dcmread(file, specific_tags=PIXEL_MODULE)
        syntax = copy.file_meta.TransferSyntaxUID
        several = int(copy.get("NumberOfFrames") or 1) > 1
        copy.PhotometricInterpretation = "MONOCHROME2"
        copy.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage if several else SecondaryCaptureImageStorage
        copy.SOPInstanceUID = generate_uid()
        copy.file_meta = FileMetaDataset()
        copy.file_meta.TransferSyntaxUID = syntax
        copy.preamble = None
        copy.save_as(folder / "pixels.dcm", enforce_file_format=True)
    return folder / "pixels.dcm"


def _undone(values: Stored, decoder: Any) -> Stored:
    """The stored values of those that ITK rescaled."""
    slope, intercept = decoder.GetRescaleSlope(), decoder.GetRescaleIntercept()
    return np.array(values) if (slope, intercept) == (1.0, 0.0) else np.rint((values - intercept) / slope)


def _decoder(file: Path) -> Any:
    decoder = itk.GDCMImageIO.New()
    decoder.SetFileName(str(file))
    decoder.ReadImageInformation()
    return decoder


def _decoded(file: Path) -> tuple[Any, Any]:
    """The image of one file, and its decoder. Raises ValueError for colours of more than 8 bits, as ITK has no type for them.

    itk.imread would fail too, but only after it has loaded all of ITK to list the types that it has, which takes half a minute.
    """
    decoder = _decoder(file)
    if decoder.GetPixelType() in COLOURS and decoder.GetComponentType() != itk.CommonEnums.IOComponent_UCHAR:
        raise ValueError("colours of more than 8 bits")
    return itk.imread(str(file), imageio=decoder), decoder
