"""Nothing outside of OUT: file names that cannot lead out of a folder, and folders that are reached without following links."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from monai_ifim.io.errors import OutputError

LONGEST = 255  # bytes of a file name on nearly all file systems
OPENING = os.O_RDONLY | os.O_DIRECTORY
NOT_OWNER = 0o077  # permission bits of everybody but the owner


class LinkedFolderError(OutputError):
    """A link where a folder of results belongs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder}: is a link to another place, and results are written into real folders only: remove the link "
            f"(rm {shlex.quote(str(folder))}), or choose another --output."
        )


def is_plain_name(name: object) -> bool:
    """True for the name of an entry right in a folder, on any operating system: no separators, no "..", not too long."""
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0"):
        return False
    return len(name.encode("utf-8", "surrogatepass")) <= LONGEST


@contextmanager
def real_folder(folder: Path, root: Path | None = None, make: bool = False) -> Iterator[int]:
    """A descriptor of `folder`, which stays that of this folder whatever takes its name meanwhile.

    root: the folder from which on no link is followed, OUT as a rule; it may be a link itself. By default the folder above, so
    that `folder` is no link. make: make what is missing. Raises LinkedFolderError for a link between the two; OSError.
    """
    start, parts = _route(folder, root)
    if make:
        start.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(start, OPENING)
    try:
        for i, name in enumerate(parts):
            below = _below(descriptor, name, start.joinpath(*parts[: i + 1]), make)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def check_real(folder: Path, root: Path | None = None) -> None:
    """Raise LinkedFolderError if a link lies between `root` (as `real_folder` takes it) and `folder`; it need not exist."""
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError), real_folder(folder, root):
        pass


def permissions(folder: int, wanted: int) -> int:
    """`wanted` without the permissions of those (owner, group, others) who have none for the folder of this descriptor."""
    granted = os.fstat(folder).st_mode
    return wanted & sum(0o7 << shift for shift in (6, 3, 0) if granted >> shift & 0o7)


def is_private(folder: int) -> bool:
    """True if the folder of this descriptor is closed to everybody but its owner."""
    return not stat.S_IMODE(os.fstat(folder).st_mode) & NOT_OWNER


def _route(folder: Path, root: Path | None) -> tuple[Path, tuple[str, ...]]:
    """Where to start, and the names of the folders to open one after the other."""
    if root is None:
        root = folder.parent if is_plain_name(folder.name) else folder
    if not folder.is_relative_to(root) or ".." in folder.relative_to(root).parts:
        raise OutputError(f"{folder}: does not lie in {root}, the folder for results: choose another name.")
    return root, folder.relative_to(root).parts


def _below(parent: int, name: str, path: Path, make: bool) -> int:
    """A descriptor of the folder `name` in `parent`; path: for messages."""
    made = False
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, permissions(parent, 0o777), dir_fd=parent)
            made = True
    try:
        descriptor = os.open(name, OPENING | os.O_NOFOLLOW, dir_fd=parent)
    except OSError as error:
        if _is_link(parent, name):
            raise LinkedFolderError(path) from error
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    if made and is_private(parent):
        os.fchmod(descriptor, 0o700)  # whatever the umask
    return descriptor


def _is_link(parent: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except OSError:
        return False
