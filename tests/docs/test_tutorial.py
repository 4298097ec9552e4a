"""Every command and block of the tutorial, and every block of the theory page, is run in order in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_ifim.io import read_sidecar

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Example:
    """A block of a page, and the output that the page states for it, None if it states none."""

    language: str
    code: str
    printed: str | None


def examples(page: str) -> list[Example]:
    """The blocks of docs/PAGE in their order; a text block is the output of the code right before it."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    found: list[Example] = []
    for language, code in blocks:
        if language == "text":
            found[-1] = Example(found[-1].language, found[-1].code, code)
        else:
            found.append(Example(language, code, None))
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        yield tmp_path


def _python(example: Example, names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    exec(compile(example.code, "page", "exec"), names)
    printed = capsys.readouterr().out
    assert example.printed is None or printed == example.printed
    return printed


def _shell(example: Example) -> str:
    """Output of the commands; programs of the environment that runs the tests are found first."""
    found_first = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example.code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": found_first, "COLUMNS": "120"},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = {" ".join(line.split()) for line in ended.stdout.splitlines()}
    assert {" ".join(line.split()) for line in (example.printed or "").splitlines()} <= lines
    return ended.stdout


@pytest.mark.soak
def test_tutorial_from_demo_to_a_bundle_of_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install, *steps = examples("tutorial.md")
    assert install.code.strip() in (ROOT / "README.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    printed = []
    for step in steps:
        assert step.language in ("bash", "python")
        printed.append(_shell(step) if step.language == "bash" else _python(step, names, capsys))
    said = "".join(printed)

    inside, outside = (float(number) for number in re.findall(r"side moves a probability by ([\d.]+)", said))
    assert inside > 10 * outside
    assert names["accuracy"] > 0.75
    assert "fit for monai_ifim" in said
    assert float(re.findall(r"([\d.]+) times as sensitive near the lesion", said)[0]) > 2
    sidecar = read_sidecar(folder / "results" / "image-3" / "image-3_ifim.json")
    assert sidecar["model"]["class_names"] == ["no lesion", "lesion"]
    cases = names["cases"].set_index("case")
    assert list(cases.index) == [f"image-{i}" for i in range(6)]
    surest, least_sure = cases["probability"].idxmax(), cases["probability"].idxmin()
    assert cases["trace"][surest] < cases["trace"][least_sure]


def test_theory_prints_what_it_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    blocks = examples("theory.md")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in blocks:
            assert block.language == "python"
            _python(block, names, capsys)
    assert sum(block.printed is not None for block in blocks) == len(blocks) - 1 == 8
