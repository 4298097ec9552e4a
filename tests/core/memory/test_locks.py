"""Locks tell a temporary file in use from one that its process has left."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from monai_ifim.core.memory.locks import hold, lock_state

HOLDER = """
import os, sys, time
from pathlib import Path
from monai_ifim.core.memory.locks import hold
path = Path(sys.argv[1])
print(hold(os.open(path, os.O_RDONLY), path), flush=True)
time.sleep(600)
"""


@pytest.fixture(params=["file", "folder"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir() if request.param == "folder" else made.touch()
    return made


def test_a_file_is_held_as_long_as_its_process_lives(path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        assert lock_state(descriptor) == "held"
        holder.kill()
        holder.wait()
        assert lock_state(descriptor) == "abandoned"
    finally:
        holder.kill()
        holder.wait()
        os.close(descriptor)


def test_what_was_removed_before_it_was_locked_is_told(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    assert hold(descriptor, path)
    path.rmdir() if path.is_dir() else path.unlink()
    assert not hold(descriptor, path)
    os.close(descriptor)


def test_without_locks_the_use_is_unknown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    descriptor = os.open(path, os.O_RDONLY)
    assert hold(descriptor, path)
    assert lock_state(descriptor) == "unknown"
    os.close(descriptor)
