"""Folders for work in progress, in the system's folder for temporary files; what killed processes left of theirs is removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import weakref
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from types import TracebackType

PREFIX = "monai_ifim-work-"  # nothing else may begin with it: what is not held is removed


class ScratchFolder:
    """A folder that goes with this object, or at the end of a `with` block.

    It is locked as long as its process lives: that is how others know that it is needed.
    """

    def __init__(self) -> None:
        remove_abandoned(Path(gettempdir()))
        while True:
            self._folder = TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
            self.path = Path(self._folder.name)
            if self._hold():
                return

    def _hold(self) -> bool:
        """Lock the folder; whether it is still there then: another process may have come between making and locking it."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return False
        weakref.finalize(self, os.close, descriptor)
        with suppress(OSError):  # a file system without locks, where nobody else can lock it either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        return self.path.exists()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._folder.cleanup()


def remove_abandoned(place: Path) -> None:
    """Remove this user's scratch folders in `place` that no living process holds."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):  # gone meanwhile, no folder, or held
            if folder.lstat().st_uid == os.geteuid():
                _remove_unless_held(folder)


def _remove_unless_held(folder: Path) -> None:
    """Raises OSError where it is held."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
