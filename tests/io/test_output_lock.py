"""One run at a time writes into OUT; a run that was killed keeps nobody out."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from monai_ifim.io.containment import LinkedFolderError
from monai_ifim.io.errors import OutputError
from monai_ifim.io.output_lock import LOCK, locked_output

HOLDER = """
import sys, time
from pathlib import Path
from monai_ifim.io.output_lock import locked_output
with locked_output(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
BUSY = r"out: another run is writing into it \(process \d+ on .+, since \d{4}-\d\d-\d\d .+\): wait until it has ended and run"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def test_a_second_run_is_told_who_writes_there_and_the_lock_leaves_nothing(out: Path) -> None:
    with locked_output(out):
        with pytest.raises(OutputError, match=BUSY) as refused, locked_output(out):
            pass
        assert f"process {os.getpid()} on {os.uname().nodename}" in str(refused.value)
        assert json.loads((out / LOCK).read_text())["process"] == os.getpid()
    assert list(out.iterdir()) == []
    with locked_output(out):  # the cure
        pass


def test_a_lock_holds_for_every_name_of_the_folder(out: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(out)
    with locked_output(tmp_path / "link"):
        with pytest.raises(OutputError, match="another run"), locked_output(out):
            pass
        with pytest.raises(OutputError, match="another run"), locked_output(tmp_path / "out" / ".." / "out"):
            pass


def test_a_killed_run_keeps_nobody_out(out: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(out)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(OutputError, match=f"process {holder.pid} on"), locked_output(out):
            pass
    finally:
        holder.kill()
        holder.wait()
    assert (out / LOCK).is_file()
    with locked_output(out):
        assert json.loads((out / LOCK).read_text())["process"] == os.getpid()
    assert list(out.iterdir()) == []


def test_of_many_runs_that_start_at_once_one_goes_on_at_any_time(out: Path) -> None:
    inside, most, entered = 0, 0, 0
    guard, start = threading.Lock(), threading.Barrier(8)

    def run() -> None:
        nonlocal inside, most, entered
        start.wait()
        for _ in range(60):
            with suppress(OutputError), locked_output(out):
                with guard:
                    inside += 1
                    most, entered = max(most, inside), entered + 1
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert entered >= 8
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "folder", "pipe"])
def test_what_could_be_a_file_elsewhere_is_no_lock(kind: str, out: Path, tmp_path: Path) -> None:
    target = tmp_path / "theirs"
    target.write_text("theirs")
    if kind == "hard link":
        (out / LOCK).hardlink_to(target)
    elif kind == "folder":
        (out / LOCK).mkdir()
    elif kind == "pipe":
        os.mkfifo(out / LOCK)
    else:
        (out / LOCK).symlink_to(target if kind == "link" else tmp_path / "nothing")
    with pytest.raises(OutputError, match="is a link or no file: remove it") as refused, locked_output(out):
        pass
    assert target.read_text() == "theirs"
    assert not (tmp_path / "nothing").exists()
    command = re.findall(r"\((.*)\)", str(refused.value))[0]
    subprocess.run(command, shell=True, check=True)
    with locked_output(out):
        pass
    assert target.read_text() == "theirs"


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"process": "x"}', "\0" * 9000, '{"process": 1, "host": "a\\nb\\u001b", "since": 3}']
)
def test_a_lock_that_says_nothing_still_holds(content: str, out: Path) -> None:
    with locked_output(out):
        (out / LOCK).write_text(content)
        with pytest.raises(OutputError, match="another run is writing into it") as refused, locked_output(out):
            pass
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF])
def test_without_locks_the_run_goes_on_with_a_word(
    code: int, out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked_output(out):
        assert "its file system has no locks. Start no second run into it" in caplog.text
        assert "Another run" not in caplog.text
        with locked_output(out):
            assert f"Another run (process {os.getpid()} on {os.uname().nodename}, since" in caplog.text


def test_a_disk_that_is_full_locks_all_the_same(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with locked_output(out), pytest.raises(OutputError, match="another run"), locked_output(out):
        pass


def test_no_descriptor_is_left_open(out: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        with locked_output(out), pytest.raises(OutputError), locked_output(out):
            pass
    (out / LOCK).symlink_to(out)
    with pytest.raises(OutputError), locked_output(out):
        pass
    assert len(os.listdir("/dev/fd")) == before


def test_a_folder_that_is_not_there_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked_output(tmp_path / "nothing"):
        pass
    (tmp_path / "case").symlink_to(tmp_path)
    with locked_output(tmp_path / "case"):
        pass  # OUT may be a link
    assert issubclass(LinkedFolderError, OutputError)
