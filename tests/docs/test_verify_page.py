"""What docs/verify.md shows is what `monai-ifim verify` prints, and the entries that it names are there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from monai_ifim.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "verify.md").read_text(encoding="utf-8")
BUNDLE = "lumpy_lesion_detection_3d"


@pytest.fixture
def results(
    write_scan: Callable[..., Path],
    oblique: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    blank_figure: None,
) -> Path:
    for name in "ab":
        write_scan(tmp_path / "scans" / f"{name}.nii.gz", (11, 9, 14), oblique)
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(app, ["decompose", "scans", "--bundle", BUNDLE, "--output", "results"])
    assert made.exit_code == 0, made.output
    return tmp_path / "results"


def test_the_output_is_that_of_the_page(results: Path) -> None:
    command, output, *_ = (text.strip().splitlines() for text in re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    words = command[0].split()[1:]
    assert CliRunner().invoke(app, words).exit_code == 0
    (results / "a" / "a_ifim_high.nii.gz").write_bytes(b"another")
    (results / "b" / "b.mrml").unlink()
    (results / "b" / "notes.txt").write_text("mine")
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 1
    assert found.stdout.splitlines() == output
    said = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    names = re.search(r"one JSON object: (.*?)\.\n", PAGE, re.DOTALL)
    assert names is not None
    assert set(re.findall(r"`(\w+)`", names[1])) == {*said, *said["findings"][0]}


def test_the_entries_that_the_page_names_are_there(results: Path) -> None:
    sidecar = json.loads((results / "a" / "a_ifim.json").read_text())
    record = json.loads((results / "run.json").read_text())
    assert {"written", "sidecar_sha256", "input"} <= set(sidecar)
    assert {"bundle_sha256", "files"} <= set(sidecar["model"])
    assert set(record["written"]) == {"cases.csv", "cases.parquet", "index.html"}
    assert (list(sidecar)[-1], list(record)[-1]) == ("sidecar_sha256", "run_sha256")
    assert record["bundle"]["bundle_sha256"] == sidecar["model"]["bundle_sha256"]
