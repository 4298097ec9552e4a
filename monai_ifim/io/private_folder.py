"""A folder of results that only its owner can read."""

from __future__ import annotations

import logging
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from monai_ifim.io.case_files import AUDIT_LOG, PULLED, RUN_FILES, SIDECAR, UNFINISHED
from monai_ifim.io.containment import NOT_OWNER, OPENING, is_private, real_folder
from monai_ifim.io.errors import OutputError

OF_EXPERIMENTS = (
    "cells", "figures", "results.json", "measurements.parquet", "images.csv", "comparisons.csv", "cells.csv", "report.md",
    "report.html",
)  # fmt: skip


def make_private(output: Path) -> None:
    """Make OUT, if it is missing, and close it to everybody but its owner; results that it holds are closed too, with a word.

    Files that are made in it later are closed as the folder is (`containment.permissions`). Raises OutputError if OUT is another
    user's, or holds what is no result and would be closed with it.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    made = False
    with suppress(FileExistsError):
        output.mkdir(mode=0o700)
        made = True
    with real_folder(output, root=output) as folder:
        if made:
            os.fchmod(folder, 0o700)  # whatever the umask
        if is_private(folder):
            return
        if os.fstat(folder).st_uid != os.geteuid():
            raise OutputError(f"{output}: belongs to another user, so --private cannot close it: choose another --output.")
        others = next(_others(folder), None)
        if others is not None:
            raise OutputError(
                f"{output}: holds {others}, which is no result, and would be closed to others too (--private, pacs by default): "
                f"choose another --output, or close the folder yourself (chmod 700 {shlex.quote(str(output))})."
            )
        os.fchmod(folder, 0o700)  # from here on nobody else reaches what is in it
        closed = sum(_close_files(folder))
    if closed:
        logging.getLogger("monai_ifim").warning("%s: closed to everybody but you, with its %d files (--private).", output, closed)


def _others(folder: int) -> Iterator[str]:
    """Names in OUT of what is no result of a run."""
    for name in sorted(os.listdir(folder)):
        if name.startswith(".") or name in (*RUN_FILES, *OF_EXPERIMENTS, AUDIT_LOG, PULLED) or _is_case(folder, name):
            continue
        yield name


def _is_case(folder: int, name: str) -> bool:
    """True for a real folder of a case, finished or not, or an empty one."""
    try:
        below = os.open(name, OPENING | os.O_NOFOLLOW, dir_fd=folder)
    except OSError:
        return False
    try:
        names = os.listdir(below)
    finally:
        os.close(below)
    return not names or f"{name}{SIDECAR}" in names or UNFINISHED in names


def _close_files(folder: int) -> Iterator[bool]:
    """Close all files and folders below a folder; True for each file. A file with a name elsewhere too is left as it is."""
    for _, folders, files, opened in os.fwalk(".", dir_fd=folder, follow_symlinks=False):
        for name in (*folders, *files):
            try:
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened)
            except OSError:  # a link, another user's file, or gone
                continue
            try:
                yield _close(descriptor)
            finally:
                os.close(descriptor)


def _close(descriptor: int) -> bool:
    found = os.fstat(descriptor)
    is_folder = stat.S_ISDIR(found.st_mode)
    if found.st_uid != os.geteuid() or not (is_folder or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1)):
        return False
    os.fchmod(descriptor, stat.S_IMODE(found.st_mode) & ~NOT_OWNER)
    return not is_folder
