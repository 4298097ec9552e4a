"""DICOM files and their headers, and checks that each holds a whole image. No pixel is decoded; no error quotes a value."""

from __future__ import annotations

import math
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.config import disable_value_validation
from pydicom.uid import UID

from monai_ifim.io.case_files import results_in
from monai_ifim.io.dicom import spacing, values
from monai_ifim.io.dicom.deflated import DEFLATED, readable_head
from monai_ifim.io.dicom.identity import KEYWORDS, Identity, forget_patient, identity_of
from monai_ifim.io.errors import InputError

TAGS = [
    "SOPClassUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality", "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient",
    "ImageOrientationPatient", "InstanceNumber", "EchoNumbers", "EchoTime", "TemporalPositionIdentifier",
    "AcquisitionNumber", "TriggerTime", "AcquisitionTime", "ContentTime", "DiffusionBValue", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation", "RescaleSlope",
    "SeriesNumber", *KEYWORDS, *spacing.KEYWORDS, *values.KEYWORDS,
]  # fmt: skip
NUMBERS = ("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", *spacing.STATED)
NO_NUMBERS = "places, directions or spacings in its DICOM header are not numbers: export the image again"
# SOP classes (PS3.4, B.5) by their standard names: of those that hold pixels, all but the last two.
IMAGE_CLASSES = re.compile(r"\bImage\b|Volume Storage|Volume Analysis|Map Storage|DICOS")
DRAWN_ON_IMAGES = ("Segmentation Storage", "RT Dose Storage")
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"  # SOP class of a DICOMDIR (PS3.3, F)
UNDEFINED = 0xFFFFFFFF  # length of compressed pixel data (PS3.5, A.4)


class NoImageError(InputError):
    """A DICOM file whose SOP class is not that of an image: a report, a plan, a presentation state."""


@dataclass(frozen=True, eq=False)
class DicomFile:
    """A DICOM file with the attributes TAGS of its header, or the error that refuses it; one of the two is None.

    identity: of its patient, study and frame of reference; the header itself no longer names the patient.
    """

    path: Path
    header: Any = None
    refusal: InputError | None = None
    identity: Identity | None = None


def is_dicom(path: Path) -> bool:
    """True for a file that begins as DICOM does (PS3.10, 7.1: "DICM" after the 128-byte preamble)."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _begins_as_dicom(file)


def dicom_files(path: Path) -> list[Path]:
    """The DICOM files that lie in a folder itself, results of earlier runs left out, sorted by name; or the file if it is one."""
    return [file for file in _candidates(path) if is_dicom(file)]


def read_dicom_files(path: Path) -> list[DicomFile]:
    """`dicom_files` with their headers; each file is opened once."""
    found = []
    with disable_value_validation():  # its warnings would show the patient's data
        for candidate in _candidates(path):
            with candidate.open("rb") as file:
                if _begins_as_dicom(file):
                    found.append(_read(candidate, file))
    return found


def read_dicom_file(path: Path) -> DicomFile:
    """A file that is known to be DICOM, with its header or the error that refuses it."""
    try:
        with disable_value_validation(), path.open("rb") as file:
            return _read(path, file)
    except OSError:
        return DicomFile(path, refusal=_unreadable(path))


def is_no_image(path: Path) -> bool:
    """True for a DICOM file whose SOP class is not that of an image; False if the header cannot be read."""
    return isinstance(read_dicom_file(path).refusal, NoImageError)


def _candidates(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(path.iterdir()) if path.is_dir() else []
    results = results_in(path, [file.name for file in files])
    seen = [file for file in files if not file.name.startswith(".") and file.name not in results]
    return [file for file in seen if file.name.upper() != "DICOMDIR" and file.is_file()]


def _begins_as_dicom(file: BinaryIO) -> bool:
    return file.read(132)[128:] == b"DICM"


def _read(path: Path, file: BinaryIO) -> DicomFile:
    file.seek(0)
    try:
        header, identity = _checked_header(path, file)
        return DicomFile(path, header, identity=identity)
    except InputError as error:
        return DicomFile(path, refusal=error)


def _unreadable(path: Path) -> InputError:
    return InputError(f"{path.name}: its DICOM header cannot be read: copy the file again, or leave it out.")


def _checked_header(path: Path, file: BinaryIO) -> tuple[Any, Identity]:
    """The attributes TAGS of an image, and its identity.

    Raises InputError for a truncated header or pixels, NoImageError for no image.
    """
    try:
        header = pydicom.dcmread(readable_head(file), stop_before_pixels=True, specific_tags=TAGS)
        start = _pixel_start(file, header)
        held = os.fstat(file.fileno()).st_size - file.tell()
        directory = header.file_meta.get("MediaStorageSOPClassUID") == MEDIA_DIRECTORY
        complete = all(header.get(name) is not None for name in ("SOPInstanceUID", "Rows", "Columns"))
        kind = _other_kind(header, complete)
        identity = identity_of(header)
        forget_patient(header)
    except Exception:  # without its cause, whose text may quote the header
        raise _unreadable(path) from None
    if directory:
        raise InputError(f"{path.name}: a DICOMDIR is an index of other files, not an image: name the folder that holds those.")
    if kind is not None:
        raise NoImageError(f"{path.name}: it holds no image ({kind}): give the images that it belongs to.")
    if not complete:
        raise InputError(f"{path.name}: its DICOM header breaks off, or it is no image: copy the file again, or leave it out.")
    _check_numbers(path, header)
    if start is not None:
        _check_pixels(path, header, start, held)
    return header, identity


def _other_kind(header: Any, complete: bool) -> str | None:
    """The standard name of a SOP class without an image, or with one drawn on others; None for any other or unknown class."""
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
        raise InputError(f"{path.name}: its DICOM header states an image of no size: export the image again.")
    if slope == 0:
        raise InputError(f"{path.name}: its Rescale Slope is 0, which leaves nothing of the image: export the image again.")


def _several(value: Any) -> list[Any]:
    """The values of an attribute; none if it is missing or empty."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, (str, int, float)) else list(value)


def _pixel_start(file: BinaryIO, header: Any) -> bytes | None:
    """The bytes that begin the pixel data element; None for a deflated file, whose bytes cannot be counted."""
    if header.file_meta.get("TransferSyntaxUID") == DEFLATED:
        return None
    return file.read(8 if header.original_encoding[0] else 12)  # implicit: tag and length; explicit: tag, type and length


def _check_pixels(path: Path, header: Any, start: bytes, held: int) -> None:
    """Raise InputError for a file with fewer pixels than its size needs: ITK would fill them up with uninitialised memory.

    start: tag, type and length of the pixel data (PS3.5, 7.1); held: number of bytes in the file after these.
    """
    implicit, little = header.original_encoding
    if len(start) < (8 if implicit else 12):
        raise InputError(f"{path.name}: a DICOM file without pixel data: export the image again, or leave the file out.")
    (length,) = struct.unpack("<L" if little else ">L", start[-4:])
    if length == UNDEFINED or "42" in str(header.get("PhotometricInterpretation", "")):  # YBR_FULL_422 and the like: fewer
        return
    counts = [header.get(name) or 1 for name in ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel")]
    needed = math.ceil(math.prod(int(count) for count in counts) * int(header.get("BitsAllocated") or 1) / 8)
    if min(length, held) < needed:
        raise InputError(f"{path.name}: its pixel data break off: copy the file again, or leave it out.")
