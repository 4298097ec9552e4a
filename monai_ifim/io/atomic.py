"""Files that are either whole or absent: written under a temporary name, flushed to disk, then renamed.

Folders are reached without following links (`containment.real_folder`, which says what `root` is), and a file replaces a link
of its name, so that nothing outside of OUT is changed. No file is open to people for whom its folder is closed. The temporary
file is locked by its process (`core.memory.locks`), so that a later one removes only what a killed process left.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from monai_ifim.core.memory import locks
from monai_ifim.io.containment import OPENING, is_private, permissions, real_folder

PARTIAL = ".partial-"
FLUSHED_AT_ONCE = 8
MARKING = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OURS = re.compile(rf"{re.escape(PARTIAL)}[0-9a-z_]{{8,32}}(\.\w+)*")


def write_bytes(path: Path, content: bytes, root: Path | None = None) -> str:
    """Write `content` to `path`, whole or not at all, and make the folders that are missing; returns its hex SHA-256.

    Raises OSError that names `path`; LinkedFolderError for a link between `root` and `path`.
    """
    try:
        with real_folder(path.parent, root, make=True) as folder, _replacement(folder, path) as file:
            file.write(content)
    except OSError as error:  # the original error names the temporary file, or none
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    return hashlib.sha256(content).hexdigest()


def write_text(path: Path, content: str, root: Path | None = None) -> str:
    r"""`write_bytes` for UTF-8 text; bytes of a file name that is not UTF-8 are written as \udc.., as in JSON."""
    return write_bytes(path, content.encode("utf-8", "backslashreplace"), root)


def write_texts(folder: Path, texts: Mapping[str, str], root: Path | None = None) -> dict[str, str]:
    """`write_text` for several files of a folder at once, by their names; returns their hashes by name.

    Each is flushed to disk on its own; the flushes wait for the disk beside each other.
    """
    with ThreadPoolExecutor(FLUSHED_AT_ONCE) as pool:
        jobs = {name: pool.submit(write_text, folder / name, text, root) for name, text in texts.items()}
    return {name: job.result() for name, job in jobs.items()}


def touch(path: Path, root: Path | None = None) -> None:
    """Make an empty file, not flushed to disk; what is called so already stays."""
    with real_folder(path.parent, root, make=True) as folder, suppress(FileExistsError):
        os.close(new_file(folder, path.name))


@contextmanager
def replacement(path: Path, root: Path | None = None) -> Iterator[BinaryIO]:
    """A new file that replaces `path` at the end of the block; if the block raises, it is removed."""
    with real_folder(path.parent, root) as folder, _replacement(folder, path) as file:
        yield file


@contextmanager
def partial_file(folder: Path, suffix: str = "", root: Path | None = None) -> Iterator[BinaryIO]:
    """A new, locked file in `folder` under a temporary name, the file's `name`; removed at the end of the block."""
    with real_folder(folder, root) as opened, _partial(opened, suffix) as file:
        yield file


@contextmanager
def marker(path: Path, root: Path | None = None) -> Iterator[None]:
    """An empty file, locked until the end of the block and then removed; if the process dies in the block, it stays."""
    with real_folder(path.parent, root) as folder:
        descriptor = os.open(path.name, MARKING | os.O_CREAT, permissions(folder, 0o666), dir_fd=folder)
        try:
            locks.lock_state(descriptor)  # locks it, where nobody else does
            yield
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path.name, dir_fd=folder)
            os.close(descriptor)


def is_left_behind(path: Path, root: Path | None = None) -> bool:
    """True for the `marker` of a process that died, and, on a file system without locks, for any."""
    try:
        with real_folder(path.parent, root) as folder:
            descriptor = os.open(path.name, MARKING, dir_fd=folder)
    except OSError:  # none
        return False
    try:
        return locks.lock_state(descriptor) != "held"
    finally:
        os.close(descriptor)


@contextmanager
def held_folder(folder: Path, root: Path | None = None) -> Iterator[None]:
    """The folder, made where it is missing, locked until the end of the block; another that wants to hold it waits."""
    while True:
        with real_folder(folder, root, make=True) as opened:
            if locks.hold(opened, folder):
                yield
                return


@contextmanager
def sole_use(folder: Path, name: str) -> Iterator[None]:
    """In the block nobody else is in such a block for this name in this folder: another thread or process waits.

    The folder is made where it is missing. On a file system without locks nobody waits.
    """
    file = f"{PARTIAL}{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}.claim"
    with real_folder(folder, folder, make=True) as opened:
        while True:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=opened)
            try:
                if locks.hold(descriptor, file, opened):
                    try:
                        yield
                    finally:
                        os.unlink(file, dir_fd=opened)
                    return
            finally:
                os.close(descriptor)


def check_folder(folder: Path, root: Path | None = None) -> None:
    """Raise OSError if no file can be created in a folder."""
    with partial_file(folder, root=root):
        pass


def remove(path: Path, root: Path | None = None) -> None:
    """Remove a file, or the link of its name; nothing happens where there is none."""
    remove_files(path.parent, path.name.__eq__, root)


def remove_files(folder: Path, chosen: Callable[[str], bool], root: Path | None = None) -> None:
    """Remove the files right in `folder`, and links, whose names are chosen; folders stay."""
    with suppress(FileNotFoundError), real_folder(folder, root) as opened:
        for name in filter(chosen, os.listdir(opened)):
            with suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(name, dir_fd=opened)


def remove_partial(folder: Path, root: Path | None = None) -> None:
    """Remove the temporary files that killed processes left in `folder`; those being written now stay."""
    with suppress(FileNotFoundError), real_folder(folder, root) as opened:
        for name in os.listdir(opened):
            if name.startswith(PARTIAL):
                _remove_unless_held(opened, name)


def remove_partial_below(folder: Path, also: Callable[[str, Collection[str]], Iterable[str]] = lambda name, files: ()) -> None:
    """`remove_partial` for `folder`, which may be a link, and the folders right below it.

    also: which other files to remove, of the folder of this name with these files.
    """
    remove_partial(folder, root=folder)
    with real_folder(folder, root=folder) as opened:
        with os.scandir(opened) as entries:
            below = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        for name in below:
            with suppress(PermissionError, FileNotFoundError, NotADirectoryError):  # another user's, or another thing by now
                _remove_ours(opened, name, also)


def _remove_ours(parent: int, name: str, also: Callable[[str, Collection[str]], Iterable[str]]) -> None:
    folder = os.open(name, OPENING | os.O_NOFOLLOW, dir_fd=parent)
    try:
        files = os.listdir(folder)
        for file in filter(_OURS.fullmatch, files):
            _remove_unless_held(folder, file)
        for file in also(name, files):
            os.unlink(file, dir_fd=folder)
    finally:
        os.close(folder)


@contextmanager
def _replacement(folder: int, path: Path) -> Iterator[BinaryIO]:
    with _partial(folder, path.suffix) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        os.replace(file.name, path.name, src_dir_fd=folder, dst_dir_fd=folder)


@contextmanager
def _partial(folder: int, suffix: str) -> Iterator[BinaryIO]:
    file = _held(folder, suffix)
    try:
        with file:
            yield file
    finally:
        with suppress(FileNotFoundError):  # it was renamed
            os.unlink(file.name, dir_fd=folder)


def _held(folder: int, suffix: str) -> BinaryIO:
    while True:
        name = f"{PARTIAL}{secrets.token_hex(8)}{suffix}"
        file = open(name, "x+b", opener=lambda name, flags: new_file(folder, name, flags))  # noqa: SIM115 # `_partial` closes it
        if locks.hold(file.fileno(), name, folder):
            return file
        file.close()


def new_file(folder: int, name: str, flags: int = os.O_RDWR | os.O_CREAT | os.O_EXCL) -> int:
    """A descriptor of a new file in the folder of a descriptor, with the permissions that the umask and the folder leave."""
    descriptor = os.open(name, flags | os.O_NOFOLLOW, permissions(folder, 0o666), dir_fd=folder)
    if is_private(folder):
        os.fchmod(descriptor, 0o600)  # whatever the umask
    return descriptor


def _remove_unless_held(folder: int, name: str) -> None:
    """Remove a file unless a process holds it; a link is removed, and not followed."""
    with suppress(FileNotFoundError, PermissionError, IsADirectoryError):
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except OSError:  # ELOOP: a link; of a pipe or a socket too, nothing is being written
            os.unlink(name, dir_fd=folder)
            return
        try:
            if locks.lock_state(descriptor) != "held":  # without locks, two runs must not write into one folder
                os.unlink(name, dir_fd=folder)
        finally:
            os.close(descriptor)
