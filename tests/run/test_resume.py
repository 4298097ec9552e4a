"""Many cases, killed without warning and started again: the end is that of a run nobody disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CASES = 200


def command(bundle: Path, scans: Path, output: Path) -> list[str]:
    options = ["--space", "network", "--save", "low,eigenvectors", "--head", "categorical", "-o", str(output)]
    return [sys.executable, "-m", "monai_ifim.cli.main", "decompose", str(scans), "--bundle", str(bundle), *options]


def whole(output: Path) -> int:
    return sum(1 for _ in output.glob("*/*_ifim.json"))


def kill_at(count: int, words: list[str], output: Path) -> None:
    """SIGKILL once `count` cases are whole; the run must not be over by then."""
    running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while whole(output) < count:
        assert running.poll() is None
        assert time.monotonic() < until
        time.sleep(0.001)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert not (output / "cases.csv").exists()


@pytest.mark.slow
def test_killed_twice_and_run_again_is_an_undisturbed_run(
    tmp_path: Path,
    make_bundle: Callable[..., Path],
    write_cohort: Callable[..., Path],
    contents_of: Callable[[Path], Any],
    rows_of: Callable[[Path], list[dict[str, str]]],
) -> None:
    bundle, scans = make_bundle(tmp_path / "bundle"), write_cohort(tmp_path / "in", CASES)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    subprocess.run(command(bundle, scans, undisturbed), check=True, stdout=subprocess.DEVNULL)
    for count in (37, 121):
        kill_at(count, command(bundle, scans, killed), killed)
    (killed / ".partial-left.csv").write_text("half a tab")  # as a kill in the middle of writing the table leaves it
    before = {path: os.stat(path).st_mtime_ns for path in killed.glob("*/*_ifim.json")}
    finished = subprocess.run(command(bundle, scans, killed), check=True, capture_output=True, text=True)
    assert f"{CASES - len(before)} done, 0 failed, {len(before)} kept" in " ".join(finished.stdout.split())
    assert {path: os.stat(path).st_mtime_ns for path in before} == before
    assert contents_of(killed) == contents_of(undisturbed)
    assert {path.name for path in killed.iterdir()} == {path.name for path in undisturbed.iterdir()}
    expected = [row | {"status": ""} for row in rows_of(undisturbed)]
    assert [row | {"status": ""} for row in rows_of(killed)] == expected
    assert len({row["case"] for row in expected}) == len(expected) == CASES
