"""Files are whole or absent."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_ifim.io import atomic
from monai_ifim.io.nifti import write_volume


@pytest.fixture(params=["replace", "fsync"])
def full_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
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


def test_several_texts_are_written_at_once_and_none_of_them_in_part(tmp_path: Path) -> None:
    texts = {f"note-{i}.txt": f"µ {i}\n" * i for i in range(11)}
    found = atomic.write_texts(tmp_path / "case", texts)
    assert {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "case").iterdir()} == texts
    assert found == {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def test_several_texts_that_fail_leave_no_file(tmp_path: Path, full_disk: None) -> None:
    with pytest.raises(OSError, match="No space left"):
        atomic.write_texts(tmp_path, {"one.txt": "1", "two.txt": "2"})
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
    tmp_path.chmod(0o755)
    before = os.umask(0o027)
    try:
        atomic.write_bytes(tmp_path / "case" / "file", b"x")
        after = os.umask(0o027)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "case" / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "case").stat().st_mode) == 0o750
    assert after == 0o027


@pytest.mark.parametrize(
    ("umask", "around", "folder", "file"),
    [
        (0, 0o755, 0o777, 0o666), (0, 0o700, 0o700, 0o600), (0, 0o750, 0o770, 0o660), (0o177, 0o700, 0o700, 0o600),
        (0o022, 0o711, 0o755, 0o644), (0o022, 0o705, 0o705, 0o604),
    ],
)  # fmt: skip
def test_no_file_is_open_to_people_for_whom_its_folder_is_closed(
    umask: int, around: int, folder: int, file: int, tmp_path: Path
) -> None:
    tmp_path.chmod(around)
    before = os.umask(umask)
    try:
        atomic.write_bytes(tmp_path / "case" / "file", b"x")
        with atomic.partial_file(tmp_path / "case") as partial:
            assert stat.S_IMODE(os.fstat(partial.fileno()).st_mode) == file
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "case").stat().st_mode) == folder
    assert stat.S_IMODE((tmp_path / "case" / "file").stat().st_mode) == file


WRITER = """
import sys, time
from pathlib import Path
from monai_ifim.io import atomic
with atomic.replacement(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_sweep_takes_what_a_killed_process_left_and_spares_what_a_living_one_writes(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / name)], stdout=subprocess.PIPE)
        for name in ("killed.csv", "case/killed.nii.gz", "case/living.nii.gz", "living.csv")
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"writing\n"
        for writer in writers[:2]:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        before = set(tmp_path.rglob(".partial-*"))
        assert len(before) == 4
        atomic.remove_partial_below(tmp_path)
        after = set(tmp_path.rglob(".partial-*"))
        assert after < before
        assert sorted(path.parent.name for path in after) == ["case", tmp_path.name]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    atomic.remove_partial_below(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_sweep_leaves_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "case" / "below").mkdir(parents=True)
    (tmp_path / ".partial-folder").mkdir()
    others = ["case/.partial-download of mine", "case/below/.partial-0123456789abcdef", "case/partial.txt", "whole.csv"]
    for name in others:
        (tmp_path / name).write_text("x")
    outside = tmp_path.with_name(f"{tmp_path.name}-outside")
    outside.mkdir()
    (outside / ".partial-0123456789abcdef").write_text("x")
    (tmp_path / "link").symlink_to(outside)
    atomic.remove_partial_below(tmp_path)
    assert all((tmp_path / name).is_file() for name in others)
    assert (outside / ".partial-0123456789abcdef").is_file()
    assert (tmp_path / ".partial-folder").is_dir()


def test_writers_and_sweepers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    done = threading.Event()

    def sweep() -> None:
        while not done.is_set():
            atomic.remove_partial(tmp_path)

    sweepers = [threading.Thread(target=sweep) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    try:
        for i in range(300):
            atomic.write_bytes(tmp_path / f"{i % 7}.bin", bytes([i % 251]) * 1000)
    finally:
        done.set()
        for sweeper in sweepers:
            sweeper.join()
    assert {path.name: path.read_bytes()[0] for path in tmp_path.iterdir()} == {f"{i % 7}.bin": i % 251 for i in range(293, 300)}


def test_many_threads_that_write_leave_the_umask_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    before = os.umask(0o027)
    try:
        threads = [
            threading.Thread(target=lambda i=i: [atomic.write_bytes(tmp_path / f"{i}-{j}", b"x") for j in range(40)])  # type: ignore[misc]
            for i in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = os.umask(0o027)
    finally:
        os.umask(before)
    assert after == 0o027
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o640}
