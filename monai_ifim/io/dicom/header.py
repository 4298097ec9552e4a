"""DICOM files and their headers, and checks that each holds a whole image. No pixel is decoded; no error quotes a value."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.config import disable_value_validation
from pydicom.tag import Tag
from pydicom.uid import UncompressedTransferSyntaxes

from monai_ifim.io.case_files import results_in
from monai_ifim.io.dicom.deflated import DEFLATED, readable_head
from monai_ifim.io.dicom.dimensions import TAGS_READ
from monai_ifim.io.dicom.forms import several
from monai_ifim.io.dicom.identity import KEYWORDS, Identity, forget_patient, identity_of
from monai_ifim.io.dicom.mosaic import MOSAIC_TAGS, Mosaic, mosaic_of
from monai_ifim.io.dicom.object_kinds import (
    DIRECTORY,
    KIND_TAGS,
    UNKNOWN,
    NoImageError,
    is_known_image_class,
    kind_without_image,
)
from monai_ifim.io.dicom.spacing import SPACING_TAGS, STATED
from monai_ifim.io.dicom.values import VALUE_TAGS
from monai_ifim.io.errors import InputError
from monai_ifim.io.source import is_dangling, not_fetched

TAGS = [
    Tag(name) for name in (
        "SeriesInstanceUID", "SOPInstanceUID", "Modality", "Rows", "Columns", "NumberOfFrames",
        "ImagePositionPatient", "ImageOrientationPatient", "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation", "RescaleSlope",
        "SeriesNumber", "SliceThickness", "HighBit", *KEYWORDS, *TAGS_READ, *KIND_TAGS, *MOSAIC_TAGS, *SPACING_TAGS, *VALUE_TAGS,
    )
]  # fmt: skip
NUMBERS = ("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", *STATED)
NO_NUMBERS = "places, directions or spacings in its DICOM header are not numbers: export the image again"
COLUMNS = 0x0028_0011  # the tag of Columns, which follows Rows
SHORTEST_START = 8  # bytes of the tag and length of an element (PS3.5, 7.1)
UNDEFINED = 0xFFFFFFFF  # length of compressed pixel data (PS3.5, A.4)


@dataclass(frozen=True, eq=False)
class DicomFile:
    """A DICOM file with the attributes TAGS of its header, or the error that refuses it; one of the two is None.

    identity: of its patient, study and frame of reference; the header itself no longer names the patient. mosaic: how its picture
    holds the slices of a volume side by side, None if it does not.
    """

    path: Path
    header: Any = None
    refusal: InputError | None = None
    identity: Identity | None = None
    mosaic: Mosaic | None = None


def is_dicom(path: Path) -> bool:
    """True for a file that begins as DICOM does (PS3.10, 7.1: "DICM" after the 128-byte preamble)."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _begins_as_dicom(file)


def dicom_files(path: Path) -> list[Path]:
    """The DICOM files that lie in a folder itself, results of earlier runs left out, sorted by name; or the file if it is one.

    Links to no file that are called as these are among them: slices that were not fetched.
    """
    candidates = _candidates(path)
    found = [file for file in candidates if is_dicom(file)]
    return sorted([*found, *_lost(candidates, found)])


def read_dicom_files(path: Path) -> list[DicomFile]:
    """`dicom_files` with their headers; each file is opened once."""
    found = []
    candidates = _candidates(path)
    with disable_value_validation():  # its warnings would show the patient's data
        for candidate in candidates:
            try:
                with candidate.open("rb") as file:
                    if _begins_as_dicom(file):
                        found.append(_read(candidate, file))
            except FileNotFoundError:
                if not is_dangling(candidate):
                    raise
    lost = _lost(candidates, [each.path for each in found])
    return sorted([*found, *map(read_dicom_file, lost)], key=lambda each: each.path) if lost else found


def read_dicom_file(path: Path) -> DicomFile:
    """A file that is known to be DICOM, with its header or the error that refuses it."""
    try:
        with disable_value_validation(), path.open("rb") as file:
            return _read(path, file)
    except OSError:
        return DicomFile(path, refusal=not_fetched(path.name) if is_dangling(path) else _unreadable(path))


def is_no_image(path: Path) -> bool:
    """True for a DICOM file that holds no image of its own; False if the header cannot be read."""
    return isinstance(read_dicom_file(path).refusal, NoImageError)


def _candidates(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(path.iterdir()) if path.is_dir() else []
    results = results_in(path, [file.name for file in files])
    seen = [file for file in files if not file.name.startswith(".") and file.name not in results]
    return [file for file in seen if file.is_file() or is_dangling(file)]


def _lost(candidates: Iterable[Path], found: Collection[Path]) -> list[Path]:
    """Links to no file that have the suffix of one of the DICOM files found."""
    suffixes = {file.suffix.lower() for file in found}
    others = set(candidates).difference(found) if found else set()
    return sorted(file for file in others if file.suffix.lower() in suffixes and is_dangling(file))


def _begins_as_dicom(file: BinaryIO) -> bool:
    return file.read(132)[128:] == b"DICM"


def _read(path: Path, file: BinaryIO) -> DicomFile:
    file.seek(0)
    try:
        header, identity = _checked_header(path, file)
        return DicomFile(path, header, identity=identity, mosaic=_mosaic(path, file, header))
    except NoImageError as error:
        return DicomFile(path, refusal=error)
    except InputError as error:
        named = path.name.upper() == "DICOMDIR"  # PS3.10, 8.6: the name is reserved, so a damaged one is no lost slice
        return DicomFile(path, refusal=NoImageError(path.name, DIRECTORY) if named else error)


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
        sized = all(header.get(name) is not None for name in ("Rows", "Columns"))
        complete = sized and header.get("SOPInstanceUID") is not None
        kind = kind_without_image(header, sized=complete, pixels=start is None or len(start) >= SHORTEST_START)
        if kind is None and not complete and not is_known_image_class(header) and _reaches_beyond_size(file):
            kind = UNKNOWN
        identity = identity_of(header)
        forget_patient(header)
    except Exception:  # without its cause, whose text may quote the header
        raise _unreadable(path) from None
    if kind is not None:
        raise NoImageError(path.name, kind)
    if sized and not complete:  # elements ascend by tag, so the header does not break off (PS3.5, 7.1)
        raise InputError(
            f"{path.name}: its DICOM header states no SOP Instance UID, which every image has: export the image again, or give "
            "it one (dcmodify -gin)."
        )
    if not complete:
        raise InputError(f"{path.name}: its DICOM header breaks off, or it is no image: copy the file again, or leave it out.")
    _check_numbers(path, header)
    _check_bits(path, header)
    if start is not None:
        _check_pixels(path, header, start, held)
    return header, identity


def _mosaic(path: Path, file: BinaryIO, header: Any) -> Mosaic | None:
    """The mosaic that a picture is, or None; only what may be one has the rest of its header read."""

    def whole() -> Any:
        file.seek(0)
        return pydicom.dcmread(readable_head(file), stop_before_pixels=True)

    try:
        return mosaic_of(header, whole)
    except Exception:  # without its cause, whose text may quote the header
        raise _unreadable(path) from None


def _reaches_beyond_size(file: BinaryIO) -> bool:
    """True if the header has elements after those of rows and columns: it does not break off before them (PS3.5, 7.1)."""
    file.seek(0)
    tags = pydicom.dcmread(readable_head(file), stop_before_pixels=True).keys()
    return max(tags, default=0) > COLUMNS


def _check_numbers(path: Path, header: Any) -> None:
    try:
        stated = [float(value) for name in NUMBERS for value in several(header.get(name))]
        sizes = [int(header.get(name) or 1) for name in ("NumberOfFrames", "SamplesPerPixel", "BitsAllocated")]
        sizes += [int(header.Rows), int(header.Columns)]
        bits = [int(header.get(name) or 0) for name in ("BitsStored", "HighBit")]
        str(header.get("PhotometricInterpretation"))
        slope = float(1 if header.get("RescaleSlope") in (None, "") else header.RescaleSlope)
    except Exception:  # pydicom converts a value when it is asked for, and raises much
        raise InputError(f"{path.name}: {NO_NUMBERS}.") from None
    if not all(math.isfinite(value) for value in stated):
        raise InputError(f"{path.name}: {NO_NUMBERS}.")
    if min(sizes) < 1 or min(bits) < 0:
        raise InputError(f"{path.name}: its DICOM header states an image of no size: export the image again.")
    if slope == 0:
        raise InputError(f"{path.name}: its Rescale Slope is 0, which leaves nothing of the image: export the image again.")


def _check_bits(path: Path, header: Any) -> None:
    """Raise InputError for values in the upper bits of their words: ITK takes the lower ones, other programs the whole word."""
    allocated, stored, high = (int(header.get(name) or 0) for name in ("BitsAllocated", "BitsStored", "HighBit"))
    if stored < allocated and high >= stored > 0 and header.file_meta.get("TransferSyntaxUID") in UncompressedTransferSyntaxes:
        raise InputError(
            f"{path.name}: its header says that the {stored} bits of a value end with bit {high} of its word (High Bit), which "
            f"DICOM no longer allows and programs read differently: move the values down by {high - stored + 1} bits and state a "
            f"High Bit of {stored - 1}, or, if they lie there already, correct the High Bit alone (dcmodify -m HighBit="
            f"{stored - 1})."
        )


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
