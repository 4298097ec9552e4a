"""Runs whose output nobody reads: a closed pipe or a closed terminal stops none, and leaves no traceback."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from started_run import TROUBLE, Started, in_table, slow_steps, whole

CASES = 8


def cut(words: list[Any]) -> tuple[int, str, str]:
    """Exit status, the first line on standard output, and standard error of a program whose reader goes after that line."""
    command = [sys.executable, "-m", "monai_ifim.cli.main", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stderr is not None
    first = process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    return process.wait(180), first, said


@pytest.mark.slow
def test_decompose_goes_on_without_its_reader_and_writes_the_tables(
    tmp_path: Path, make_bundle: Callable[..., Path], write_cohort: Callable[..., Path]
) -> None:
    """`| head -1`, with an unreadable case: the exit status is that of the run."""
    bundle, scans, out = make_bundle(tmp_path / "bundle"), write_cohort(tmp_path / "in", 3), tmp_path / "out"
    (scans / "s001.nii.gz").write_bytes(b"no image")
    status, first, said = cut(["decompose", scans, "--bundle", bundle, "--head", "categorical", "--save", "low", "-o", out])
    assert status == 3
    assert first.startswith("bundle: ")
    assert said == ""
    assert in_table(out) == ["s000", "s001", "s002"]
    assert (out / "index.html").is_file()


@pytest.mark.parametrize("verb", [pytest.param("check", marks=pytest.mark.soak), pytest.param("--help", marks=pytest.mark.slow)])
def test_other_verbs_end_without_a_word(verb: str, tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    words = ["check", "--bundle", make_bundle(tmp_path / "bundle")] if verb == "check" else ["decompose", verb]
    status, first, said = cut(words)
    assert status == 0
    assert first
    assert not any(trouble in said for trouble in TROUBLE), said


@pytest.mark.soak
def test_closed_terminal_stops_the_run_after_the_cases_in_hand(
    tmp_path: Path, make_bundle: Callable[..., Path], write_cohort: Callable[..., Path]
) -> None:
    """Shell and system both send SIGHUP, and what is printed goes to a terminal that is gone."""
    bundle, out = make_bundle(tmp_path / "bundle", steps=slow_steps(0.4)), tmp_path / "out"
    scans = write_cohort(tmp_path / "in", CASES)
    controller, terminal = pty.openpty()
    words = ["decompose", scans, "--bundle", bundle, "--head", "categorical", "--save", "low", "-o", out]
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and programs started here inherit that
    started = Started(*words, stdout=terminal, stderr=terminal)
    signal.signal(signal.SIGHUP, before)
    os.close(terminal)
    started.wait_for(lambda: len(whole(out)) >= 2)
    os.close(controller)
    for _ in range(2):
        started.send(signal.SIGHUP)
        time.sleep(0.2)
    assert started.process.wait(180) == 128 + signal.SIGHUP
    assert 2 <= len(whole(out)) < CASES
    assert in_table(out) == whole(out)
