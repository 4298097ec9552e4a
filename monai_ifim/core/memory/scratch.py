"""Scratch folders in the system's folder for temporary files. Those that killed processes left are removed."""

from __future__ import annotations

import os
import shutil
import weakref
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from types import TracebackType

from monai_ifim.core.memory import locks

PREFIX = "monai_ifim-work-"  # folders with this prefix are removed unless a process holds them


class ScratchFolder:
    """A folder that is removed with this object, or at the end of a `with` block, and locked as long as its process lives.

    place: where it is made, by default the system's folder for temporary files.
    """

    def __init__(self, place: Path | None = None) -> None:
        place = Path(gettempdir()) if place is None else place
        remove_abandoned(place)
        while True:
            self.path = Path(mkdtemp(prefix=PREFIX, dir=place))
            self._removal = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
            if self._hold():
                return

    def _hold(self) -> bool:
        """Lock the folder; False if another process removed it before it was locked."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return False
        weakref.finalize(self, os.close, descriptor)
        return locks.hold(descriptor, self.path)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._removal()


def remove_abandoned(place: Path) -> None:
    """Remove this user's scratch folders in `place` that no living process holds."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):  # removed meanwhile, or not a folder
            if folder.lstat().st_uid == os.geteuid():
                _remove_unless_held(folder)


def _remove_unless_held(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if locks.lock_state(descriptor) == "abandoned":  # without locks, another process of this user may be using it
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
