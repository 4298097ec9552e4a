"""Real signals to real processes: a run stops cleanly, says how to go on, and that command goes on."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_ifim.cli.interruption import stopping, with_hint
from monai_ifim.run.stop_request import StoppedError, StopRequest
from started_run import Started, in_table, is_clean, slow_steps, whole

CASES = 12


@pytest.fixture
def words(tmp_path: Path, make_bundle: Callable[..., Path], write_cohort: Callable[..., Path]) -> list[Any]:
    bundle = make_bundle(tmp_path / "bundle", steps=slow_steps(0.4))
    scans = write_cohort(tmp_path / "the scans", CASES)
    return ["decompose", scans, "--bundle", bundle, "--head", "categorical", "--save", "low", "-o", tmp_path / "out"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
def test_run_stops_after_the_cases_in_hand_and_the_hint_goes_on(number: signal.Signals, words: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    started = Started(*words)
    started.wait_for(lambda: len(whole(out)) >= 2)
    started.send(number)
    status, said, err = started.ended()
    assert status == 128 + number
    assert err.strip() == "stopping once the cases in hand are done; once more to stop at once"
    done = whole(out)
    assert 2 <= len(done) < CASES
    assert in_table(out) == done
    assert is_clean(out)
    assert not (out / "index.html").exists()
    last = said.splitlines()[-1]
    told = re.fullmatch(rf"stopped by {number.name}: {CASES - len(done)} of {CASES} cases left\. To go on: (.+)", last)
    assert told is not None, said
    assert shlex.split(told[1]) == started.words
    if number == signal.SIGTERM:
        return
    finished = subprocess.run(told[1], shell=True, capture_output=True, text=True, timeout=120, check=True)
    assert f"{CASES - len(done)} done, 0 failed, {len(done)} kept" in " ".join(finished.stdout.split())
    assert len(in_table(out)) == len(whole(out)) == CASES
    assert is_clean(out)


@pytest.mark.slow
def test_second_signal_stops_at_once(tmp_path: Path, make_bundle: Callable[..., Path], write_cohort: Callable[..., Path]) -> None:
    bundle, scans = make_bundle(tmp_path / "bundle", steps=slow_steps(600)), write_cohort(tmp_path / "in", 2)
    started = Started("decompose", scans, "--bundle", bundle, "-o", tmp_path / "out", "--overwrite")
    started.wait_for((tmp_path / "out").is_dir)
    time.sleep(1)
    started.send(signal.SIGINT)
    time.sleep(1)
    assert started.process.poll() is None
    started.send(signal.SIGINT)
    status, _, err = started.ended(within=10)
    assert status == 130
    assert "stopped at once. To go on (--overwrite would make all cases again): " in err


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [*(pytest.param(each, marks=pytest.mark.soak) for each in (1.0, 3.5)), 2.0])
def test_signal_while_it_loads_ends_it_without_a_word(seconds: float, words: list[Any], tmp_path: Path) -> None:
    started = Started(*words)
    time.sleep(seconds)
    started.send(signal.SIGINT)
    status, out, err = started.ended()
    assert status in (130, -signal.SIGINT)  # the same to a shell
    if not (tmp_path / "out").exists():
        assert (out + err).strip() == ""


def test_signal_that_is_to_be_ignored_is_ignored() -> None:
    """As `nohup` and a shell's & ask for; and afterwards all is as it was."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop_request = StopRequest()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping(stop_request):
            os.kill(os.getpid(), signal.SIGINT)
            assert stop_request.signal is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop_request.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before[0])
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_run_that_stops_by_itself_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/monai-ifim", "decompose", "my scans", "-o", "out"])
    with pytest.raises(StoppedError, match=r"^the disk is full\. To go on: monai-ifim decompose 'my scans' -o out$"), with_hint():
        raise StoppedError("the disk is full.")


@pytest.mark.soak
def test_ranks_of_torchrun_stop_together_and_write_one_table(words: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai_ifim.cli.main")
    started = Started(*words, launcher=torchrun)
    started.wait_for(lambda: len(whole(out)) >= 2)
    started.send(signal.SIGINT)
    try:
        out_text, err = started.process.communicate(timeout=90)
    finally:
        if started.process.poll() is None:
            started.send(signal.SIGKILL)
    assert started.process.returncode != 0
    assert "To go on, give the same torchrun command again." in out_text, out_text + err
    assert 2 <= len(whole(out)) < CASES
    assert in_table(out) == whole(out)
    assert is_clean(out)


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_pacs_that_waits_for_its_server_ends_and_records_it(
    number: signal.Signals, tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/dicom-web"
        bundle = make_bundle(tmp_path / "bundle")
        started = Started("pacs", "--url", url, "--study", "1.2.3", "--bundle", bundle, "-o", tmp_path / "out")
        silent.settimeout(60)
        connection, _ = silent.accept()
        started.send(number)
        status, _, _ = started.ended()
        connection.close()
    assert status == 128 + number
    lines = [json.loads(line) for line in (tmp_path / "out" / "pacs-audit.jsonl").read_text().splitlines()]
    assert [(line["step"], line["outcome"]) for line in lines] == [
        ("run", "begun"), ("list", "begun"), ("list", "interrupted"), ("run", "interrupted")
    ]  # fmt: skip
    assert {line["reason"] for line in lines[2:]} == {number.name}


@pytest.mark.soak
def test_evaluate_ends_with_130(tmp_path: Path) -> None:
    started = Started("evaluate", "quick", "-o", tmp_path / "out", "--cache", tmp_path / "cache")
    started.wait_for((tmp_path / "out").is_dir)
    time.sleep(2)
    started.send(signal.SIGINT)
    status, _, _ = started.ended()
    assert status == 130
