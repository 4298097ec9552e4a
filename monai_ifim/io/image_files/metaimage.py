"""The data files that a MetaImage header names (ITK's MetaIO), without reading any.

The header is read strictly, line by line: MetaIO reads on over the ends of lines that it does not understand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import fsdecode
from pathlib import Path

from monai_ifim.io.errors import InputError
from monai_ifim.io.image_files.patterns import LONGEST_LIST, numbered_names

SUFFIXES = (".mhd", ".mha")
LONGEST_HEADER = 1 << 20  # bytes
LONGEST_LINE = 480  # bytes; MetaIO stops at 500
KEY = b"ElementDataFile"
LINE = re.compile(rb"[ \t]*([^\s=:][^=:]*?)[ \t]*[=:](.*)")


def data_names(path: Path) -> tuple[str, ...]:
    """Names of the data files as the header states them; none if the data follow the header. Raises InputError, OSError."""
    with path.open("rb") as file:
        content = file.read(LONGEST_HEADER)
    lines = [line.removesuffix(b"\r") for line in content.split(b"\n")]
    fields: dict[bytes, bytes] = {}
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        field = LINE.fullmatch(line)
        if field is None or len(line) > LONGEST_LINE or set(line) & set(b"\r\0"):
            break
        key, value = field[1], field[2].lstrip(b" \t=:").rstrip()
        if key == KEY:
            names = _named(value, lines[number + 1 :], fields)
            if names is None:
                break
            return names
        if KEY.lower() in key.lower():
            break
        fields[key] = value
    raise InputError(
        f"{path.name}: its MetaImage header does not say clearly where the voxels are: write the image again as one .mha file, "
        "or as NIfTI."
    )


def _named(value: bytes, lines: list[bytes], fields: Mapping[bytes, bytes]) -> tuple[str, ...] | None:
    """The names that the field of the data file stands for; None for a form that is not clear.

    lines: after the field; fields: before it. Of a list that is too short, MetaIO leaves the rest of the image uninitialised.
    """
    if value in (b"LOCAL", b"Local", b"local"):
        return ()
    if value.startswith(b"LIST"):
        whole = value == b"LIST" and lines[-1:] == [b""]  # MetaIO leaves out a last line without its end
        listed = tuple(fsdecode(line.rstrip()) for line in lines[:-1])
    elif b"%" in value:
        whole, listed = True, numbered_names(fsdecode(value)) or ()
    else:
        return (fsdecode(value),)
    slices = fields.get(b"DimSize", b"").split()[-1:]
    return listed if whole and [str(len(listed)).encode()] == slices and len(listed) <= LONGEST_LIST else None
