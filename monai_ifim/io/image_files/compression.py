"""Whether a file is compressed by gzip, by its content: names tell it wrongly often enough."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, BinaryIO, cast

from nibabel.fileholders import FileHolder

GZIP = b"\x1f\x8b"
GZIP_NAMES = (".gz", ".mgz")  # by which nibabel unpacks a file


def is_gzip(path: Path) -> bool:
    """True if the file begins as gzip does; raises OSError."""
    with path.open("rb") as file:
        return file.read(len(GZIP)) == GZIP


def unpacked(path: Path) -> BinaryIO:
    """The file opened once for reading, through gzip if its content is gzip; raises OSError."""
    file = path.open("rb")
    packed = file.read(len(GZIP)) == GZIP
    file.seek(0)
    if not packed:
        return file
    through = gzip.GzipFile(fileobj=file)
    through.myfileobj = file  # type: ignore[assignment] # which is closed with it
    return cast(BinaryIO, through)


def holder(path: Path) -> Any:
    """The file for nibabel: by its name where that tells rightly whether it is compressed, else opened; raises OSError."""
    if is_gzip(path) == path.name.lower().endswith(GZIP_NAMES):
        return FileHolder(str(path))
    return FileHolder(fileobj=unpacked(path))
