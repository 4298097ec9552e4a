"""The lock on OUT: one run at a time writes into it. It ends with the process that holds it, however that ends."""

from __future__ import annotations

import json
import logging
import os
import shlex
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from monai_ifim.core.memory import locks
from monai_ifim.io.atomic import new_file
from monai_ifim.io.containment import real_folder
from monai_ifim.io.errors import OutputError, single_line

LOCK = ".ifim-lock"  # lies in OUT during a run, and after one that was killed
LONGEST = 4096  # bytes that are read of it
LONGEST_HOST = 64  # characters of a name of a machine that are shown


@contextmanager
def locked_output(output: Path) -> Iterator[None]:
    """OUT, locked for this run until the end of the block.

    Raises OutputError, with who holds it and the cure, if another run does. On a file system without locks a warning is logged
    and the run goes on.
    """
    with real_folder(output, root=output) as folder:
        descriptor = _taken(folder, output)
        try:
            yield
        finally:
            if locks.is_called(descriptor, LOCK, folder):
                with suppress(FileNotFoundError):
                    os.unlink(LOCK, dir_fd=folder)
            os.close(descriptor)


def _taken(folder: int, output: Path) -> int:
    """A descriptor of the lock file, which this process holds; it is made, or taken over from a run that was killed."""
    while True:
        descriptor = _opened(folder, output)
        try:
            state = locks.lock_state(descriptor)
            holder = _holder(descriptor)
            if state == "held":
                raise OutputError(
                    f"{output}: another run is writing into it{holder}: wait until it has ended and run the same command again, "
                    "or choose another --output."
                )
            if locks.is_called(descriptor, LOCK, folder):
                if state == "unknown":
                    _warn_without_locks(output, holder)
                _write(descriptor, folder)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its run ended just now and removed it


def _opened(folder: int, output: Path) -> int:
    """A descriptor of the lock file, new or not; raises OutputError if what has its name could be a file elsewhere."""
    while True:
        with suppress(FileExistsError):
            return new_file(folder, LOCK)
        try:
            named = os.stat(LOCK, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISREG(named.st_mode) or named.st_nlink > 1:
                path, remove = output / LOCK, "rmdir" if stat.S_ISDIR(named.st_mode) else "rm"
                raise OutputError(f"{path}: is a link or no file: remove it ({remove} {shlex.quote(str(path))}).")
            return _open_existing(folder)
        except FileNotFoundError:
            continue


def _open_existing(folder: int) -> int:
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(LOCK, os.O_RDWR | flags, dir_fd=folder)
    except PermissionError:  # another user's file can be locked where it can be read
        return os.open(LOCK, os.O_RDONLY | flags, dir_fd=folder)


def _warn_without_locks(output: Path, holder: str) -> None:
    other = f" Another run{holder} is writing into it, or was killed." if holder else ""
    logging.getLogger("monai_ifim").warning(
        "%s: its file system has no locks.%s Start no second run into it before this one has ended.", output, other
    )


def _write(descriptor: int, folder: int) -> None:
    """Say in the file who holds it, unless it has other names, elsewhere."""
    named = os.stat(LOCK, dir_fd=folder, follow_symlinks=False)
    if named.st_nlink > 1 or not os.path.samestat(named, os.fstat(descriptor)):
        return
    facts = {"process": os.getpid(), "host": os.uname().nodename, "since": time.strftime("%Y-%m-%d %H:%M:%S %Z")}
    with suppress(OSError):  # a full disk, or another user's file: the lock holds without
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(facts).encode("utf-8"), 0)


def _holder(descriptor: int) -> str:
    """Who holds or held the lock, as a part of a sentence; empty if that is not known."""
    try:
        facts = json.loads(os.pread(descriptor, LONGEST, 0))
        process, host, since = int(facts["process"]), str(facts["host"]), str(facts["since"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ""
    return f" (process {process} on {single_line(host)[:LONGEST_HOST]}, since {single_line(since)[:LONGEST_HOST]})"
