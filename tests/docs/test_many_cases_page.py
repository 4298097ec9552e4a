"""Every command of docs/many_cases.md is run as it stands, and all give the same result."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from monai_ifim import read_cases
from monai_ifim.io.installation import resolve_bundle

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "many_cases.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
CASES = 3


def run(command: str, folder: Path) -> str:
    """Runs a command in a shell that finds the programs installed beside this Python."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(ROOT)
    finished = subprocess.run(
        ["bash", "-e", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert finished.returncode == 0, finished.stdout[-1000:] + finished.stderr[-2000:]
    return finished.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, module_scans: Callable[[Path, int], Path]) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    shutil.copytree(resolve_bundle("lumpy_lesion_detection_3d"), folder / "my_bundle")
    module_scans(folder / "scans", CASES)
    return folder


@pytest.fixture(scope="module")
def module_scans(write_scan: Callable[..., Path], turned: Callable[..., Any]) -> Callable[[Path, int], Path]:
    def write(folder: Path, count: int) -> Path:
        for i in range(count):
            write_scan(folder / f"s{i}.nii.gz", (11 + i, 9, 14 - i), turned((1.1, 2.3, 3.1), (0.2 * i, 0.1, -0.3)), shift=0.1 * i)
        return folder

    return write


@pytest.fixture(scope="module")
def results(place: Path) -> dict[str, pd.DataFrame]:
    """The table that each command of the page writes into a folder that was empty."""
    tables = {}
    for command in COMMANDS:
        shutil.rmtree(place / "results", ignore_errors=True)
        run(command, place / "my_bundle" if "configs/" in command else place)
        tables[command] = read_cases(place / "results")
    return tables


@pytest.mark.soak
def test_all_commands_give_one_table(results: dict[str, pd.DataFrame]) -> None:
    assert len(results) == 5
    expected = results[COMMANDS[0]]
    assert list(expected["case"]) == [f"s{i}" for i in range(CASES)]
    assert set(expected["status"]) == {"done"}
    for table in results.values():
        columns = [name for name in expected.columns if name not in ("seconds", "deviation", "verified_by")]
        pd.testing.assert_frame_equal(table[columns], expected[columns])


@pytest.mark.soak
def test_the_same_command_again_keeps_every_case(results: dict[str, pd.DataFrame], place: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (place / "results").rglob("*.nii.gz")}
    output = run(COMMANDS[0], place)
    assert f"0 done, 0 failed, {CASES} kept" in " ".join(output.split())
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.soak
def test_the_python_of_the_page_prints_the_table(
    results: dict[str, pd.DataFrame], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    exec(compile(code, "many_cases.md", "exec"), {})
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]] == [f"s{i}" for i in range(CASES)]


def test_the_extra_that_the_page_names_exists() -> None:
    named = re.search(r'pip install -c constraints\.txt "\.\[(\w+)\]"', PAGE)
    assert named is not None
    assert named[1] in (metadata("monai-ifim").get_all("Provides-Extra") or [])


def test_only_blocks_that_are_run_stand_on_the_page() -> None:
    assert set(re.findall(r"^```(\w*)$", PAGE, flags=re.MULTILINE)) == {"bash", "python", ""}
