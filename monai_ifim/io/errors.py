"""The errors of `io`, and one-line messages for any error: what, where, the cure."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from monai_ifim.core.errors import IFIMError

LONGEST_TOLD = 1800  # characters of a message; a list of twelve volumes has half as many
_ROOM = "make room and run the same command again, whole cases are kept"
_RIGHTS = "choose another place, or get the right to use this one"
_IN_THE_WAY = "another file or folder has its name: move it away, or choose another --output"
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
_ADDRESS = re.compile(r"^(ITK ERROR: )?\w+\(0x[0-9a-f]+\): ")  # memory address of an ITK object, which differs between runs
# Messages of readers that say why a file cannot be read and quote nothing of it. Others may repeat its text.
_UNQUOTING = re.compile(
    r"end-of-stream marker was reached|Valid slope but invalid intercept (nan|-?inf)|Expected \d+ bytes, got \d+ bytes"
    r"|image file is truncated( \(\d+ bytes not processed\))?|data code -?\d+ not (recognized|supported)"
    r"|Error -\d+ while decompressing data(: [a-z ]+)?|cannot find a suitable reader"
    r"|cannot reshape array of size \d+ into shape \([\d, ]+\)|EOF: reading array data, expected \d+ bytes got \d+"
)
_UNKNOWN_FORMAT = ("Could not create IO object", "cannot identify image file")


class InputError(IFIMError):
    """An input that cannot be decomposed as it is."""


class GeometryError(IFIMError):
    """A grid in world coordinates that the files to write cannot represent."""


class OutputError(IFIMError):
    """Results that cannot be written as requested."""


def innermost(error: BaseException) -> str:
    """The message of the first IFIMError in the `__cause__` chain, or else of the chain's innermost error, in one line.

    Readers put their own source line before the message of the innermost error.
    """
    error = _root(error)
    lines = [_ADDRESS.sub("", line.strip()) for line in str(error).splitlines()]
    return next((line.rstrip(".") for line in lines if line and not line.endswith(":")), type(error).__name__)


class ReaderError(Exception):
    """Stands for an error of a reader in tracebacks: it has the place of that error, and none of its text."""


def unquoted(error: BaseException) -> str:
    """Why a file cannot be read, without anything that may be its text: known words of readers, or else the type of the error."""
    root = _root(error)
    said = " ".join(str(root).split())
    if isinstance(root, IFIMError):
        return said.rstrip(".")
    if isinstance(root, OSError) and root.errno is not None and root.strerror:
        return root.strerror
    known = _UNQUOTING.search(said)
    if known is not None:
        return known.group()
    return "no format that is known" if any(words in said for words in _UNKNOWN_FORMAT) else type(root).__name__


def redacted(error: BaseException) -> BaseException:
    """What takes the place of a reader's error as the cause of another: itself if memory ran out, else a `ReaderError`."""
    root = _root(error)
    return root if isinstance(root, MemoryError) else ReaderError(unquoted(root)).with_traceback(root.__traceback__)


def _root(error: BaseException) -> BaseException:
    """The first IFIMError in the `__cause__` chain, or else the innermost error with a message."""
    while error.__cause__ is not None and not isinstance(error, IFIMError) and not _says_more(error, error.__cause__):
        error = error.__cause__
    return error


def reason_of(error: Exception) -> str:
    """Why one case of many failed, in one line: the message of an IFIMError, any other with its type."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, IFIMError) else f"{type(error).__name__}: {text}"


def _says_more(error: BaseException, cause: BaseException) -> bool:
    """True if the cause has no message, and the error is not MONAI's wrapper, which only names a transform."""
    return not str(cause) and not str(error).startswith("applying transform")


def refusal(error: BaseException) -> IFIMError | None:
    """First IFIMError in the `__cause__` chain; None if there is none."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, IFIMError):
        found = found.__cause__
    return found


def explained(error: BaseException) -> str:
    """Message of an error for the user, in one line.

    An IFIMError keeps its message; an OSError is stated with its file and the cure; any other error is reported as a bug.
    """
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
    """The line without its middle if it is too long: the fault is at its beginning, the cure at its end."""
    half = LONGEST_TOLD // 2
    return line if len(line) <= LONGEST_TOLD else f"{line[:half]} ... {line[-half:]}"


def single_line(text: str) -> str:
    """A text as one printable line: white space becomes one blank, unprintable characters their escape sequences."""
    line = " ".join(text.split())
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in line
    )
