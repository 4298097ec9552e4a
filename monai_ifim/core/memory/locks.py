"""Locks on temporary files and folders: a lock ends with its process, so that later ones know what a killed process left."""

from __future__ import annotations

import fcntl
from contextlib import suppress
from pathlib import Path
from typing import Literal

Use = Literal["held", "abandoned", "unknown"]


def hold(descriptor: int, path: Path) -> bool:
    """Lock a new file or folder until its descriptor is closed; False if another process removed it before it was locked.

    On a file system without locks nothing is locked, and `use_of` says "unknown".
    """
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return path.exists()


def use_of(descriptor: int) -> Use:
    """Whether a living process holds a file or folder. If it is abandoned, it is locked from then on by the caller."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    except OSError:  # a file system without locks
        return "unknown"
    return "abandoned"
