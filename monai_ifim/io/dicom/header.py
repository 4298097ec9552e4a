"""The header of one DICOM file, and whether it is that of a whole image. No pixel is decoded, and no error quotes its values."""

from __future__ import annotations

import math
import os
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.config import disable_value_validation
from pydicom.uid import UID

from monai_ifim.io.errors import InputError

TAGS = [
    "SOPClassUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality", "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "InstanceNumber", "EchoNumbers", "EchoTime", "TemporalPositionIdentifier",
    "AcquisitionNumber", "TriggerTime", "AcquisitionTime", "ContentTime", "DiffusionBValue", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation", "RescaleSlope",
]  # fmt: skip
NUMBERS = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope")
NO_NUMBERS = "places, directions or spacings in its DICOM header are no numbers: export the image anew"
# SOP classes (PS3.4, B.5) by their standard names: of those that hold pixels, all but the last two.
IMAGE_CLASSES = re.compile(r"\bImage\b|Volume Storage|Volume Analysis|Map Storage|DICOS")
DRAWN_ON_IMAGES = ("Segmentation Storage", "RT Dose Storage")
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"  # SOP class of a DICOMDIR (PS3.3, F)
DEFLATED = "1.2.840.10008.1.2.1.99"
UNDEFINED = 0xFFFFFFFF  # length of compressed pixel data (PS3.5, A.4)


class NoImageError(InputError):
    """A DICOM file that by its own word is something else than an image: a report, a plan, a presentation state."""


def read_header(path: Path) -> Any:
    """The attributes TAGS of an image; raises InputError for a file whose header or pixels break off, NoImageError for
    one that is something else."""
    try:
        with path.open("rb") as file:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
            start = _pixel_start(file, header)
            held = os.fstat(file.fileno()).st_size - file.tell()
        directory = header.file_meta.get("MediaStorageSOPClassUID") == MEDIA_DIRECTORY
        complete = all(header.get(name) is not None for name in ("SOPInstanceUID", "Rows", "Columns"))
        kind = _other_kind(header, complete)
    except Exception:  # left out of the chain of causes, which a log may hold: its text may quote the header
        raise InputError(f"{path.name}: its DICOM header cannot be read: copy the file anew, or leave it out.") from None
    if directory:
        raise InputError(f"{path.name}: a DICOMDIR is an index of other files and no image: name the folder that holds those.")
    if kind is not None:
        raise NoImageError(f"{path.name}: it holds no image ({kind}): name the images that it goes with.")
    if not complete:
        raise InputError(f"{path.name}: its DICOM header breaks off, or it is no image: copy the file anew, or leave it out.")
    _check_numbers(path, header)
    if start is not None:
        _check_pixels(path, header, start, held)
    return header


def is_no_image(path: Path) -> bool:
    """Whether a DICOM file is by its own word none; False for a file of which nothing can be told."""
    try:
        with disable_value_validation():
            read_header(path)
    except InputError as error:
        return isinstance(error, NoImageError)
    return False


def _other_kind(header: Any, complete: bool) -> str | None:
    """The standard name of a SOP class that holds no image, or no image of its own; None for any other, unknown ones too."""
    name = UID(str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")).name
    if name in DRAWN_ON_IMAGES:
        return name
    return None if complete or "Storage" not in name or IMAGE_CLASSES.search(name) else name


def _check_numbers(path: Path, header: Any) -> None:
    try:
        stated = [float(value) for name in NUMBERS for value in _several(header.get(name))]
        sizes = [int(header.get(name) or 1) for name in ("NumberOfFrames", "SamplesPerPixel", "BitsAllocated")]
        sizes += [int(header.Rows), int(header.Columns)]
        str(header.get("PhotometricInterpretation"))
        slope = float(1 if header.get("RescaleSlope") in (None, "") else header.RescaleSlope)
    except Exception:  # pydicom converts a value when it is asked for, and raises much
        raise InputError(f"{path.name}: {NO_NUMBERS}.") from None
    if not all(math.isfinite(value) for value in stated):
        raise InputError(f"{path.name}: {NO_NUMBERS}.")
    if min(sizes) < 1:
        raise InputError(f"{path.name}: its DICOM header states an image of no size: export the image anew.")
    if slope == 0:
        raise InputError(f"{path.name}: its Rescale Slope is 0, which leaves nothing of the image: export the image anew.")


def _several(value: Any) -> list[Any]:
    """The values of an attribute, none where it is missing or empty."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, (str, int, float)) else list(value)


def _pixel_start(file: BinaryIO, header: Any) -> bytes | None:
    """The first bytes from the element on at which reading stopped; None where the file is deflated as a whole."""
    if header.file_meta.get("TransferSyntaxUID") == DEFLATED:
        return None
    return file.read(8 if header.original_encoding[0] else 12)  # implicit: tag and length; explicit: tag, type and length


def _check_pixels(path: Path, header: Any, start: bytes, held: int) -> None:
    """Refuse a file without pixels, or with fewer than its size needs: ITK fills them up with what happens to lie in memory.

    start: first bytes of the pixel data, which end with their length (PS3.5, 7.1); held: bytes of the file after these.
    """
    implicit, little = header.original_encoding
    if len(start) < (8 if implicit else 12):
        raise InputError(f"{path.name}: a DICOM file without pixel data: export the image anew, or leave the file out.")
    (length,) = struct.unpack("<L" if little else ">L", start[-4:])
    if length == UNDEFINED or "42" in str(header.get("PhotometricInterpretation", "")):  # YBR_FULL_422 and the like: fewer
        return
    counts = [header.get(name) or 1 for name in ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel")]
    needed = math.ceil(math.prod(int(count) for count in counts) * int(header.get("BitsAllocated") or 1) / 8)
    if min(length, held) < needed:
        raise InputError(f"{path.name}: its pixel data break off: copy the file anew, or leave it out.")
