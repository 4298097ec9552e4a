"""Scratch folders go with their process, however that ends."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import torch

from monai_ifim.core.memory.offload import Offload
from monai_ifim.core.memory.scratch import PREFIX, ScratchFolder

HOLDER = """
import sys, time, torch
from monai_ifim.core.memory.offload import Offload
store = Offload()
held = store.put(torch.ones(100))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_folder_goes_at_the_end_of_the_block_and_with_the_object_without_a_warning(
    place: Path, recwarn: pytest.WarningsRecorder
) -> None:
    with ScratchFolder() as folder:
        (folder / "work").write_text("x")
        assert list(place.iterdir()) == [folder]
    assert list(place.iterdir()) == []
    store = Offload()
    held = store.put(torch.arange(50.0))
    assert torch.equal(held.get(), torch.arange(50.0))
    assert len(list(place.iterdir())) == 1
    del held, store
    assert list(place.iterdir()) == []
    assert not recwarn.list


def test_next_one_removes_what_a_killed_process_left_and_spares_the_living(place: Path) -> None:
    environment = os.environ | {"TMPDIR": str(place)}
    holders = [subprocess.Popen([sys.executable, "-c", HOLDER], env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for holder in holders:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
        assert len(list(place.iterdir())) == 2
        holders[0].send_signal(signal.SIGKILL)
        holders[0].wait()
        with ScratchFolder():
            assert len(list(place.iterdir())) == 2  # the other's and this
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()
    with ScratchFolder() as folder:
        assert list(place.iterdir()) == [folder]


def test_what_only_looks_like_one_is_left(place: Path) -> None:
    (place / f"{PREFIX}file").write_text("x")
    (place / "elsewhere").mkdir()
    (place / f"{PREFIX}link").symlink_to(place / "elsewhere")
    (place / "monai_ifim-other").mkdir()
    with ScratchFolder():
        pass
    assert sorted(path.name for path in place.iterdir()) == ["elsewhere", "monai_ifim-other", f"{PREFIX}file", f"{PREFIX}link"]


def test_many_at_the_same_time_do_not_take_each_other_for_abandoned(place: Path) -> None:
    lost: list[Path] = []

    def use() -> None:
        for _ in range(40):
            with ScratchFolder() as folder:
                (folder / "work").write_text("x")
                if not (folder / "work").is_file():
                    lost.append(folder)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == []
    assert list(place.iterdir()) == []


def test_a_folder_is_its_owners_whatever_the_umask() -> None:
    before = os.umask(0)
    try:
        with ScratchFolder() as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        os.umask(before)
