"""Files are whole or absent."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_ifim.io import atomic
from monai_ifim.io.nifti import write_volume


@pytest.fixture(params=["replace", "fsync"])
def full_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, request.param, fail)


def test_a_failing_write_leaves_no_file(tmp_path: Path, full_disk: None) -> None:
    with pytest.raises(OSError, match="No space left"):
        atomic.write_bytes(tmp_path / "new.bin", b"content")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_volume_leaves_no_file(tmp_path: Path, full_disk: None) -> None:
    with pytest.raises(OSError, match="No space left"):
        write_volume(tmp_path / "new.nii.gz", np.ones((3, 4, 5), np.float32), np.eye(4))
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_leaves_the_earlier_file_intact(tmp_path: Path, full_disk: None) -> None:
    (tmp_path / "old.txt").write_bytes(b"earlier")
    with pytest.raises(OSError, match="No space left"):
        atomic.write_text(tmp_path / "old.txt", "later")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"old.txt": b"earlier"}


def test_text_is_utf8_replaces_the_earlier_file_and_makes_its_folder(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "note.txt"
    atomic.write_text(target, "first")
    atomic.write_text(target, "Größe µ\n")
    assert target.read_bytes() == b"Gr\xc3\xb6\xc3\x9fe \xc2\xb5\n"
    assert [path.name for path in target.parent.iterdir()] == ["note.txt"]


def test_permissions_follow_the_umask_and_the_umask_stays(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic.write_bytes(tmp_path / "file", b"x")
        after = os.umask(0o027)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert after == 0o027
