"""SOP instances: files with one SOP Instance UID are one instance, taken once (PS3.3, C.12.1)."""

from __future__ import annotations

import filecmp
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom

from monai_ifim.io.dicom.deflated import DEFLATED
from monai_ifim.io.dicom.header import DicomFile
from monai_ifim.io.errors import InputError

# What makes the values of an image and their places. Other elements may differ between copies: a time of export, a routing node.
CONTENT = (
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored",
    "PixelRepresentation", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "RealWorldValueMappingSequence", "Units", "ImagerPixelSpacing",
    "NominalScannedPixelSpacing", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "PixelData", "FloatPixelData", "DoubleFloatPixelData",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Instance:
    """A file, and the further files that repeat it."""

    file: DicomFile
    repeats: tuple[DicomFile, ...] = ()


def instances_of(files: Iterable[DicomFile]) -> list[Instance]:
    """The instances among files with headers, in their order; the first file of each is taken.

    Raises InputError if two files of one SOP Instance UID and series differ in places, sizes or pixels.
    """
    groups: dict[object, list[DicomFile]] = {}
    for file in files:
        uids = tuple(str(file.header.get(name) or "") for name in ("SeriesInstanceUID", "SOPInstanceUID"))
        groups.setdefault(uids if uids[1] else file.path, []).append(file)
    for first, *others in groups.values():
        for other in others:
            if not _same(first, other):
                raise InputError(
                    f"{first.path.name} and {other.path.name}: two files of one SOP Instance UID, which differ in places, sizes, "
                    "pixels or transfer syntax: leave one of them out."
                )
    return [Instance(first, tuple(others)) for first, *others in groups.values()]


def _same(one: DicomFile, other: DicomFile) -> bool:
    if filecmp.cmp(one.path, other.path, shallow=False):
        return True
    syntaxes = {str(file.header.file_meta.get("TransferSyntaxUID", "")) for file in (one, other)}
    if len(syntaxes) > 1 or DEFLATED in syntaxes:
        return False
    return bool(_content(one.path) == _content(other.path))


def _content(path: Path) -> Any:
    try:
        found = pydicom.dcmread(path, specific_tags=list(CONTENT))
        if "SpecificCharacterSet" in found:
            del found.SpecificCharacterSet
    except Exception:  # its text may quote the header
        raise InputError(f"{path.name}: its DICOM header cannot be read: copy the file again, or leave it out.") from None
    return found
