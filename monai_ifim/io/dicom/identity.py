"""Whose a DICOM file is: its patient, study and frame of reference, compared by meaning and kept as keyed hashes only.

Two texts mean the same if they differ in padding, in empty parts at the end of a name, in the case of a name's letters, or in the
character set that encodes them (PS3.5, 6.1 and 6.2; 6.2.1.1 for names).
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.tag import Tag

from monai_ifim.io.errors import InputError

PATIENT = {
    "PatientID": "Patient ID",
    "IssuerOfPatientID": "Issuer of Patient ID",
    "PatientName": "Patient's Name",
    "PatientBirthDate": "Patient's Birth Date",
}
PLACE = {"StudyInstanceUID": "Study Instance UID", "FrameOfReferenceUID": "Frame of Reference UID"}
KEYWORDS = (*PATIENT, *PLACE)
TAGS = {keyword: Tag(keyword) for keyword in KEYWORDS}
CHARACTER_SET = "SpecificCharacterSet"
OLD_DATE = re.compile(r"(\d{4})\.(\d\d)\.(\d\d)")  # of ACR-NEMA (PS3.5, 6.2: DA)
PADDING = b" \0"
UNDECODED = {"\N{REPLACEMENT CHARACTER}", "\x1b"}  # what pydicom leaves of bytes that the character set does not explain
ENDS_OF_PARTS = {ord("^"), ord("="), ord("\\")}

_KEY = os.urandom(16)  # of this process: a hash tells nothing to any other


@dataclass(frozen=True)
class Identity:
    """Keyed hashes of KEYWORDS, in their order; they compare within this process alone."""

    digests: tuple[bytes, ...]


def identity_of(header: Any) -> Identity:
    """The identity of a header (pydicom) as it was read; raises anything that a damaged one makes pydicom raise."""
    return Identity(tuple(_digest(_meaning(header, keyword)) for keyword in KEYWORDS))


def forget_patient(header: Any) -> None:
    """Remove what names the patient from a header, so that no later step can repeat it."""
    for keyword in (*PATIENT, CHARACTER_SET):
        if keyword in header:
            del header[keyword]


def differing(volume: Iterable[Identity], series: Iterable[Identity]) -> tuple[str, ...]:
    """Names of the attributes that differ between the files of a volume, or, of those that name the patient, of its series.

    Each volume of a series may have a study and a frame of reference of its own.
    """
    inside, around = (list(zip(*(each.digests for each in files), strict=True)) for files in (volume, series))
    names = {**PATIENT, **PLACE}
    compared = [inside[k] if keyword in PLACE else around[k] for k, keyword in enumerate(KEYWORDS)]
    return tuple(names[keyword] for keyword, stated in zip(KEYWORDS, compared, strict=True) if len(set(stated)) > 1)


def check_one_patient(name: str, disagreeing: tuple[str, ...]) -> None:
    """Raise InputError for a volume whose files are of several patients, studies or frames of reference.

    name: what the message calls the volume; disagreeing: as `differing` gives it. No value is quoted.
    """
    if disagreeing:
        raise InputError(
            f"{name}: its files are not all of one patient, study and frame of reference: they do not agree in "
            f"{', '.join(disagreeing)} (which some may lack). Put the files of each into a folder of their own; if they are of "
            "one, state it alike in all of them (dcmodify, or anonymise all of them at once)."
        )


def _digest(meaning: str) -> bytes:
    return hashlib.blake2b(meaning.encode("utf-8", "surrogatepass"), digest_size=16, key=_KEY).digest()


def _meaning(header: Any, keyword: str) -> str:
    """The value in the form in which equal meanings are equal texts; empty if it is missing or empty."""
    element = header.get_item(TAGS[keyword])
    value = b"" if element is None or element.value is None else element.value
    if not isinstance(value, bytes):
        text = str(value)
    elif value.isascii() and b"\x1b" not in value:  # the same in every character set
        text = value.decode("ascii")
    else:
        text = _decoded(value, header.get(CHARACTER_SET))
    text = unicodedata.normalize("NFC", text).strip(" \0")
    if keyword == "PatientName":
        return _name(text)
    return OLD_DATE.sub(r"\1\2\3", text) if keyword == "PatientBirthDate" else text


def _decoded(value: bytes, stated: Any) -> str:
    """The text, or, where its character set does not say what it is, the bytes together with the set."""
    terms = [stated] if isinstance(stated, str) else list(stated or ("",))
    if all(term in python_encoding for term in terms):
        text: str = decode_bytes(value, convert_encodings(terms), ENDS_OF_PARTS)
        if not UNDECODED & set(text):
            return text
    return f"{terms} {value.strip(PADDING).hex()}"


def _name(text: str) -> str:
    """A person's name without what has no meaning: spaces around its parts, empty parts at its end, the case of letters."""
    groups = ["^".join(" ".join(part.split()) for part in group.split("^")).rstrip("^") for group in text.split("=")]
    return "=".join(groups).rstrip("=").casefold()
