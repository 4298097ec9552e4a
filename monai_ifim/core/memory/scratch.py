"""Scratch folders in the system's folder for temporary files; those of killed processes are removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import weakref
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from types import TracebackType

PREFIX = "monai_ifim-work-"  # of scratch folders only: any other folder of this name would be removed


class ScratchFolder:
    """A folder that is removed with this object, or at the end of a `with` block.

    It is locked while its process lives, so that other processes know it is in use.
    """

    def __init__(self) -> None:
        remove_abandoned(Path(gettempdir()))
        while True:
            self._folder = TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
            self.path = Path(self._folder.name)
            if self._hold():
                return

    def _hold(self) -> bool:
        """Lock the folder; False if another process removed it before it was locked."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return False
        weakref.finalize(self, os.close, descriptor)
        with suppress(OSError):  # a file system without locks, where other processes cannot lock it either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        return self.path.exists()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._folder.cleanup()


def remove_abandoned(place: Path) -> None:
    """Remove this user's scratch folders in `place` that no living process has locked."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):  # removed meanwhile, no folder, or locked
            if folder.lstat().st_uid == os.geteuid():
                _remove_unless_held(folder)


def _remove_unless_held(folder: Path) -> None:
    """Remove the folder; raises OSError if a process has locked it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
