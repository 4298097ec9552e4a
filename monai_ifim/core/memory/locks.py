"""Locks on temporary files and folders: a lock ends with its process, so that later ones know what a killed process left."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from os import PathLike
from typing import Literal

Use = Literal["held", "abandoned", "unknown"]


def hold(descriptor: int, path: str | PathLike[str], folder: int | None = None) -> bool:
    """Lock a file or folder until its descriptor is closed; False if another process removed it before it was locked.

    path: its name, in the folder of the descriptor `folder` if that is given. Waits as long as another process holds it. On a
    file system without locks nothing is locked, and `lock_state` says "unknown".
    """
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return is_called(descriptor, path, folder)


def is_called(descriptor: int, path: str | PathLike[str], folder: int | None = None) -> bool:
    """True if what lies at `path`, as `hold` takes it, is the open file or folder itself."""
    try:
        found = os.stat(path, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def lock_state(descriptor: int) -> Use:
    """State of the lock on a file or folder; an abandoned one is from then on locked by the caller."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    except OSError:  # a file system without locks
        return "unknown"
    return "abandoned"
