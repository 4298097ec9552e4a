"""Names of cases: readable, safe as the name of a folder on any file system, and each a function of the input's own name."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from monai_ifim.io.case_files import AUDIT_LOG, RUN_FILES

LONGEST_NAME = 128  # characters; the names of a case's files are longer, and file systems take 255 bytes
SUFFIXES = (8, 16, 32, 64)  # hexadecimal digits of a SHA-256, tried in this order
DIGITS = re.compile(r"-[0-9a-f]{8}$")  # of the input's hash, in the name of a case whose first name another input has
NOT_FOR_CASES = (*RUN_FILES, AUDIT_LOG)  # in any spelling


def name_of(parts: Sequence[str]) -> str:
    """The name of a case that lies in these folders and has this base name (the last part): letters, digits, dot, dash and
    underscore only.

    Where a part is not ASCII, or nothing of it remains, letters lose their accents, other characters are left out, and eight
    hexadecimal digits of the hash of all parts follow, so that names that differ in such characters alone stay different. The
    hash is that of the composed form (NFC), because file systems store one of several forms.
    """
    plain = [_plain(part) for part in parts]
    readable = "_".join(filter(None, plain)) or "case"
    if readable.lower() in NOT_FOR_CASES:
        readable = f"case_{readable}"
    if not all(plain) or not all(part.isascii() for part in parts):
        readable += f"-{digits_of('/'.join(parts))}"
    return bounded_name(readable)


def bounded_name(name: str) -> str:
    """The name; if it is longer than LONGEST_NAME, its beginning and eight hexadecimal digits of the hash of all of it."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}-{digits_of(name)}"


def digits_of(text: str, digits: int = SUFFIXES[0]) -> str:
    """The first hexadecimal digits of the SHA-256 of a text, which may be any name of a file."""
    composed = unicodedata.normalize("NFC", text)
    return hashlib.sha256(composed.encode("utf-8", "surrogatepass")).hexdigest()[:digits]


def _plain(part: str) -> str:
    """The part in ASCII: letters without accents, a run of other characters as one underscore."""
    if not part.isascii():
        decomposed = unicodedata.normalize("NFKD", part)
        part = "".join(each for each in decomposed if each.isascii() or not unicodedata.combining(each))
        part = re.sub(r"[^\x00-\x7f]+", "_", part)
    return re.sub(r"[^\w.-]+", "_", part, flags=re.ASCII).strip("._-")
