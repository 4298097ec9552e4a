"""The benchmark of a hundred random kills, with a few of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.slow
def test_random_kills_lose_and_damage_nothing(tmp_path: Path) -> None:
    words = ["-m", "benchmarks.kills", "--kills", "2", "--cases", "6", "--seed", "3", "--output", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    finished = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]
    record = json.loads((tmp_path / "kills.json").read_text())
    assert sum(record["kills"].values()) == 2
    assert (record["wrong"], record["cases"]) == ([], 6)
    assert "nothing was lost, damaged or left behind" in (tmp_path / "kills.md").read_text()


def test_the_record_is_of_a_hundred_kills_over_fifty_cases() -> None:
    record = json.loads((RESULTS / "kills.json").read_text())
    assert (sum(record["kills"].values()), record["cases"], record["wrong"]) == (100, 50, [])
    assert all(count >= 5 for count in record["kills"].values())
