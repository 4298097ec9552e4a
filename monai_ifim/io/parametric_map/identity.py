"""The patient and study of a Parametric Map: what is copied from its source, and when that cannot be done truly."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.charset import python_encoding
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from monai_ifim.io.dicom.forms import LONGEST_UID, UID_FORM
from monai_ifim.io.dicom.identity import CHARACTER_SET, UNDECODED, Identity, identity_of
from monai_ifim.io.errors import OutputError

# Attributes copied from the source: those that file an object under its patient and study, and those that the standard demands.
IDENTITY = [
    "SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "PatientSpeciesDescription", "PatientSpeciesCodeSequence", "PatientBreedDescription", "PatientBreedCodeSequence",
    "BreedRegistrationSequence", "ResponsiblePerson", "ResponsiblePersonRole", "ResponsibleOrganization",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence", "StudyInstanceUID", "StudyDate",
    "StudyTime", "StudyID", "AccessionNumber", "IssuerOfAccessionNumberSequence", "ReferringPhysicianName",
    "FrameOfReferenceUID", "PositionReferenceIndicator", "Laterality", "LossyImageCompression", "LossyImageCompressionRatio",
    "LossyImageCompressionMethod", "BurnedInAnnotation", "RecognizableVisualFeatures",
]  # fmt: skip
# Attributes kept in items of sequences: those of the standard for issuers (PS3.3, 10.14), codes (8) and registrations.
ITEM_ELEMENTS = {
    "LocalNamespaceEntityID", "UniversalEntityID", "UniversalEntityIDType", "CodeValue", "LongCodeValue", "URNCodeValue",
    "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning", "BreedRegistrationNumber", "BreedRegistryCodeSequence",
}  # fmt: skip
TEXTS = {*IDENTITY, *ITEM_ELEMENTS}
LATERALITIES = ("R", "L")  # PS3.3, C.7.3.1
EMPTY_IF_UNKNOWN = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
    "ReferringPhysicianName", "PositionReferenceIndicator", "Laterality",
)  # fmt: skip
REFERENCE = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "FrameOfReferenceUID", "StudyInstanceUID"]
UIDS = {
    "StudyInstanceUID": "Study Instance UID",
    "SeriesInstanceUID": "Series Instance UID",
    "FrameOfReferenceUID": "Frame of Reference UID",
    "SOPInstanceUID": "SOP Instance UID",
    "SOPClassUID": "SOP Class UID",
}


def read_identity(file: Path, known: Identity | None) -> Dataset:
    """REFERENCE and IDENTITY of a file, each element read to its value.

    known: the identity that the file had when its volume was checked. Raises OutputError, which quotes nothing, for a file that
    is of somebody else now, and for texts that would not be the same in another file.
    """
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*REFERENCE, *IDENTITY])
        same = known in (None, identity_of(header))
        list(header)
        for keyword in IDENTITY:
            if keyword in header:
                _prune(header[keyword])
        if "Laterality" in header and header.Laterality not in LATERALITIES:
            del header.Laterality  # it identifies nothing, and may be any text
        clear = _settle_characters(header)
    except Exception:  # pydicom raises many types, and their text may quote the header
        raise unreadable(file) from None
    if not same:
        raise OutputError(f"{file.name}: the file is of another patient or study than a moment ago: run the same command again.")
    if not clear:
        raise OutputError(
            f"{file.name}: its Specific Character Set is none of DICOM's, or not that of its texts, and a Parametric Map could "
            "be filed under another name: correct it (for UTF-8: dcmodify -m SpecificCharacterSet='ISO_IR 192'), or leave "
            "--dicom-pm out."
        )
    return header


def reference_of(file: Path, header: Dataset) -> Dataset:
    """REFERENCE of a header that was read before; raises OutputError if a value cannot be read."""
    kept = Dataset()
    try:
        for keyword in REFERENCE:
            if keyword in header:
                kept[keyword] = header[keyword]
    except Exception:
        raise unreadable(file) from None
    return kept


def check_uids(name: str, headers: Iterable[Dataset]) -> None:
    """Raise OutputError if a UID that a map has or refers to is missing or no UID (PS3.5, 9.1); name: what the message names."""
    for header in headers:
        for keyword, called in UIDS.items():
            uid = str(header.get(keyword) or "")
            if len(uid) > LONGEST_UID or not UID_FORM.fullmatch(uid):
                raise OutputError(
                    f"{name}: its {called} is {'no UID' if uid else 'missing'}, so a Parametric Map cannot belong to it or refer "
                    "to it: give its files valid UIDs, those that belong together the same one, or leave --dicom-pm out."
                )


def give_identity(dataset: Dataset, header: Dataset) -> None:
    """Copy patient, study and frame of reference of `read_identity` into `dataset`.

    Values are copied unchanged, even invalid ones, because a PACS compares them letter by letter.
    """
    for keyword in IDENTITY:
        if header.get(keyword) not in (None, ""):
            dataset[keyword] = copy.deepcopy(header[keyword])
        elif keyword in EMPTY_IF_UNKNOWN:
            setattr(dataset, keyword, None)


def unreadable(file: Path) -> OutputError:
    """The error for an element that cannot be converted."""
    return OutputError(
        f"{file.name}: an element of its DICOM header that a Parametric Map takes over cannot be read: export the image again, "
        "or leave --dicom-pm out."
    )


def _prune(element: DataElement) -> None:
    """Remove all but ITEM_ELEMENTS from the items of a sequence."""
    for item in element.value if element.VR == "SQ" else ():
        for part in list(item):
            if part.keyword in ITEM_ELEMENTS:
                _prune(part)
            else:
                del item[part.tag]


def _settle_characters(header: Dataset) -> bool:
    """False if the texts would not be the same in a file of this character set (PS3.3, C.12.1.1.2).

    A set that is none of DICOM's is removed where all texts are ASCII, which means the same in every set.
    """
    stated = header.get(CHARACTER_SET) or ""
    terms = [stated] if isinstance(stated, str) else list(stated)
    texts = list(_texts(header))
    if not all(term in python_encoding for term in terms):
        del header[CHARACTER_SET]
        return all(text.isascii() and "\x1b" not in text for text in texts)
    copied, file = Dataset(), BytesIO()
    give_identity(copied, header)
    copied.save_as(file, implicit_vr=False, little_endian=True)
    file.seek(0)
    again = pydicom.dcmread(file, force=True)
    return list(_texts(again)) == texts and not any(UNDECODED & set(text) for text in texts)


def _texts(dataset: Dataset) -> Iterator[str]:
    """All texts of these attributes, those of items too, in the order of their tags."""
    for element in dataset:
        if element.keyword not in TEXTS:
            continue
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item)
        else:
            values: Any = element.value if element.VM > 1 else [element.value]
            yield from (str(value) for value in values if value not in (None, ""))
