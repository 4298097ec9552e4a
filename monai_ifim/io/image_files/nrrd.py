"""The data files that an NRRD header names (https://teem.sourceforge.net/nrrd/format.html), without reading any.

The header is read strictly: what teem (in ITK) and pynrrd would read differently is refused.
"""

from __future__ import annotations

import re
from os import fsdecode
from pathlib import Path

from monai_ifim.io.errors import InputError
from monai_ifim.io.image_files.patterns import LONGEST_LIST, numbered_names

MAGIC = b"NRRD"
LONGEST_HEADER = 1 << 22  # bytes; diffusion scans have some hundred lines
FIELDS = (b"data file", b"datafile")
FIELD = re.compile(rb"data ?file: [ \t]*(\S|\S.*\S)", flags=re.IGNORECASE)


def data_names(path: Path) -> tuple[str, ...]:
    """Names of the data files as the header states them; none if the data follow the header. Raises InputError, OSError."""
    with path.open("rb") as file:
        content = file.read(LONGEST_HEADER)
    lines = [line.removesuffix(b"\r") for line in content.split(b"\n")]
    size = next((number for number, line in enumerate(lines) if not line), len(lines))
    if (size == len(lines) and len(content) == LONGEST_HEADER) or any(set(line) & set(b"\r\0") for line in lines[:size]):
        raise _unclear(path)
    stated = [number for number in range(1, size) if _names_data(lines[number])]
    if not stated:
        return ()
    field = FIELD.fullmatch(lines[stated[0]])
    if field is None or len(stated) > 1:
        raise _unclear(path)
    value = field[1]
    if value.startswith(b"LIST"):
        return _listed(path, value, lines[stated[0] + 1 :])
    if b"%" in value:
        names = numbered_names(fsdecode(value))
        if names is None:
            raise _unclear(path)
        return names
    return (fsdecode(value),)


def _names_data(line: bytes) -> bool:
    """True for a line that one reader or another takes for the field of the data file."""
    if line.startswith(b"#"):
        return False
    keys = (line.partition(colon)[0] for colon in (b":", b": "))
    return any(b" ".join(key.lower().split()) in FIELDS for key in keys)


def _listed(path: Path, value: bytes, lines: list[bytes]) -> tuple[str, ...]:
    """The names in the lines after the field, up to the end of the file."""
    if lines and not lines[-1]:
        lines = lines[:-1]
    if not re.fullmatch(rb"LIST( \d+)?", value) or not 0 < len(lines) <= LONGEST_LIST or not all(lines):
        raise _unclear(path)
    return tuple(map(fsdecode, lines))


def _unclear(path: Path) -> InputError:
    return InputError(
        f"{path.name}: its NRRD header does not say clearly where the voxels are: write the image again as one .nrrd file, or as "
        "NIfTI."
    )
