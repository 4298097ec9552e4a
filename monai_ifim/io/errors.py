"""What `io` raises: what, where, the cure; and how any error is told in one line."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from monai_ifim.core.errors import IFIMError

LONGEST_TOLD = 1800  # characters; a list of twelve volumes has half as many
_ROOM = "make room and run the same command again, whole cases are kept"
_RIGHTS = "choose another place, or get the right to use this one"
_IN_THE_WAY = "something else lies in its place: move it away, or choose another --output"
CURES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENAMETOOLONG: "give it a shorter name, or choose an --output whose path is shorter",
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
}
_ADDRESS = re.compile(r"^(ITK ERROR: )?\w+\(0x[0-9a-f]+\): ")  # of an object of ITK's: another in every run


class InputError(IFIMError):
    """An input file that cannot be decomposed as it stands."""


class GeometryError(IFIMError):
    """A world frame that the written files could not hold truly."""


class OutputError(IFIMError):
    """Results that cannot be written as asked."""


def innermost(error: BaseException) -> str:
    """What the first error of a chain says, in one line; readers put the place in their own source before it.

    An error of ours in the chain has said what there is to say.
    """
    while error.__cause__ is not None and not isinstance(error, IFIMError) and not _says_more(error, error.__cause__):
        error = error.__cause__
    lines = [_ADDRESS.sub("", line.strip()) for line in str(error).splitlines()]
    return next((line.rstrip(".") for line in lines if line and not line.endswith(":")), type(error).__name__)


def reason_of(error: Exception) -> str:
    """What stopped one case of many, in one line: an expected error's own words, any other's with its type."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, IFIMError) else f"{type(error).__name__}: {text}"


def _says_more(error: BaseException, cause: BaseException) -> bool:
    """Where the cause is a bare type; what MONAI puts in front of it names an object alone."""
    return not str(cause) and not str(error).startswith("applying transform")


def refusal(error: BaseException) -> IFIMError | None:
    """The error of ours that a chain began with or passed through; None where there is none."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, IFIMError):
        found = found.__cause__
    return found


def explained(error: BaseException) -> str:
    """What a user is told of an error, in one line: an expected one's own words; of the disk's, what, where and the cure; any
    other's with its type and the word that it is a bug."""
    if isinstance(error, IFIMError):
        return _bounded(single_line(str(error)))
    if isinstance(error, OSError) and error.strerror is not None:
        named = isinstance(error.filename, (str, bytes))
        place = f"{'/'.join(Path(os.fsdecode(error.filename)).parts[-2:])}: " if named else ""
        cure = CURES.get(error.errno or 0)
        return single_line(f"{place}{error.strerror}{'' if cure is None else f': {cure}'}.")
    said = single_line(str(error))
    if isinstance(error, MemoryError):
        return f"not enough memory{f' ({said})' if said else ''}: take a smaller image, or a machine with more of it."
    return f"{type(error).__name__}{f': {said}' if said else ''} (this is a bug; --debug shows where)"


def _bounded(line: str) -> str:
    """What is wrong stands at the beginning, the cure at the end: of a line that quotes a whole file the middle is left out."""
    half = LONGEST_TOLD // 2
    return line if len(line) <= LONGEST_TOLD else f"{line[:half]} ... {line[-half:]}"


def single_line(text: str) -> str:
    """A text as one line that any terminal shows: white space is one blank, what cannot be printed is spelt out."""
    line = " ".join(text.split())
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in line
    )
