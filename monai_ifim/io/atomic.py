"""Files that are either whole or absent.

What is being written lies under a temporary name that its process holds a lock on. The lock goes with the process, however that
ends, and so a later one can tell what was left half-written from what another is writing at this moment.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial-"
_OURS = re.compile(rf"{re.escape(PARTIAL)}[0-9a-z_]{{8,32}}(\.\w+)*")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name beside `path`, flush it to disk, then rename; nothing is left on failure.

    Raises OSError that names `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacement(path) as file:
            file.write(content)
    except OSError as error:  # the disk's names the temporary file or none
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def write_text(path: Path, content: str) -> None:
    r"""`write_bytes` for UTF-8 text; what UTF-8 cannot hold, of a file name that is none, is spelt out as \udc.., as in JSON."""
    write_bytes(path, content.encode("utf-8", "backslashreplace"))


@contextmanager
def replacement(path: Path) -> Iterator[BinaryIO]:
    """A file to write into that takes the place of `path` at the end of the block; where that raises, nothing is left."""
    with partial_file(path.parent, path.suffix) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        os.replace(file.name, path)


@contextmanager
def partial_file(folder: Path, suffix: str = "") -> Iterator[BinaryIO]:
    """A new file in `folder` under a temporary name, held until the end of the block, where it goes unless it was renamed."""
    file = _held(folder, suffix)
    try:
        with file:
            yield file
    finally:
        Path(file.name).unlink(missing_ok=True)


def check_folder(folder: Path) -> None:
    """Raise OSError where no file can be made in a folder."""
    with partial_file(folder):
        pass


def remove_partial(folder: Path) -> None:
    """Remove what processes that were killed while writing into `folder` left there; what another is writing now stays."""
    for file in folder.glob(f"{PARTIAL}*"):
        _remove_unless_held(file)


def remove_partial_below(folder: Path) -> None:
    """`remove_partial` for `folder` and the folders in it, of which nothing but files of the names given here is touched."""
    remove_partial(folder)
    with os.scandir(folder) as entries:
        below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for place in below:
        with suppress(PermissionError):  # somebody else's
            for name in os.listdir(place):
                if _OURS.fullmatch(name):
                    _remove_unless_held(Path(place, name))


def _held(folder: Path, suffix: str) -> BinaryIO:
    while True:
        file = (folder / f"{PARTIAL}{secrets.token_hex(8)}{suffix}").open("x+b")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another process came between making and locking it


def _remove_unless_held(path: Path) -> None:
    with suppress(FileNotFoundError, PermissionError, IsADirectoryError), path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:  # a file system without locks: as ever, no two runs may write into one folder there
            pass
        path.unlink(missing_ok=True)
