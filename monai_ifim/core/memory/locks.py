"""Locks on temporary files and folders: a lock ends with its process, so that later ones know what a killed process left."""

from __future__ import annotations

import fcntl
from contextlib import suppress
from pathlib import Path
from typing import Literal

Use = Literal["held", "abandoned", "unknown"]


def hold(descriptor: int, path: Path) -> bool:
    """Lock a new file or folder until its descriptor is closed; False if another process removed it before it was locked.

    On a file system without locks nothing is locked, and `lock_state` says "unknown".
    """
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return path.exists()


def lock_state(descriptor: int) -> Use:
    """State of the lock on a file or folder; an abandoned one is from then on locked by the caller."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    except OSError:  # a file system without locks
        return "unknown"
    return "abandoned"
