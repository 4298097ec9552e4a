"""Files that are either whole or absent: written under a temporary name, flushed to disk, then renamed.

The temporary file is locked by its process (`core.memory.locks`), so that a later one removes only what a killed process left.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from monai_ifim.core.memory import locks

PARTIAL = ".partial-"
_OURS = re.compile(rf"{re.escape(PARTIAL)}[0-9a-z_]{{8,32}}(\.\w+)*")


def write_bytes(path: Path, content: bytes) -> str:
    """Write `content` to `path`, whole or not at all; returns its hex SHA-256.

    Raises OSError that names `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacement(path) as file:
            file.write(content)
    except OSError as error:  # the original error names the temporary file, or none
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    return hashlib.sha256(content).hexdigest()


def write_text(path: Path, content: str) -> str:
    r"""`write_bytes` for UTF-8 text; bytes of a file name that is not UTF-8 are written as \udc.., as in JSON."""
    return write_bytes(path, content.encode("utf-8", "backslashreplace"))


@contextmanager
def replacement(path: Path) -> Iterator[BinaryIO]:
    """A new file that replaces `path` at the end of the block; if the block raises, it is removed."""
    with partial_file(path.parent, path.suffix) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        os.replace(file.name, path)


@contextmanager
def partial_file(folder: Path, suffix: str = "") -> Iterator[BinaryIO]:
    """A new, locked file in `folder` under a temporary name; removed at the end of the block unless it was renamed."""
    file = _held(folder, suffix)
    try:
        with file:
            yield file
    finally:
        Path(file.name).unlink(missing_ok=True)


@contextmanager
def sole_use(folder: Path, name: str) -> Iterator[None]:
    """In the block nobody else is in such a block for this name in this folder: another thread or process waits.

    The folder is made where it is missing. On a file system without locks nobody waits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{PARTIAL}{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}.claim"
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            if locks.hold(descriptor, path) and _lies_at(descriptor, path):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(descriptor)


def _lies_at(descriptor: int, path: Path) -> bool:
    """True if the open file is still the one of that path: whoever held it last may have removed it."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False


def check_folder(folder: Path) -> None:
    """Raise OSError if no file can be created in a folder."""
    with partial_file(folder):
        pass


def remove_partial(folder: Path) -> None:
    """Remove the temporary files that killed processes left in `folder`; those being written now stay."""
    for file in folder.glob(f"{PARTIAL}*"):
        _remove_unless_held(file)


def remove_partial_below(folder: Path) -> None:
    """`remove_partial` for `folder` and the folders right below it."""
    remove_partial(folder)
    with os.scandir(folder) as entries:
        below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for place in below:
        with suppress(PermissionError):  # another user's
            for name in os.listdir(place):
                if _OURS.fullmatch(name):
                    _remove_unless_held(Path(place, name))


def _held(folder: Path, suffix: str) -> BinaryIO:
    while True:
        path = folder / f"{PARTIAL}{secrets.token_hex(8)}{suffix}"
        file = path.open("x+b")
        if locks.hold(file.fileno(), path):
            return file
        file.close()


def _remove_unless_held(path: Path) -> None:
    with suppress(FileNotFoundError, PermissionError, IsADirectoryError), path.open("r+b") as file:
        if locks.lock_state(file.fileno()) != "held":  # without locks, two runs must not write into one folder
            path.unlink(missing_ok=True)
