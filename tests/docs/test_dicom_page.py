"""Every command and block of docs/dicom.md is run, on two series in one folder and on one with uneven gaps."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from typer.testing import CliRunner

from monai_ifim.cli.main import app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "dicom.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```bash\nmonai-ifim (.+)\n```$", PAGE, flags=re.MULTILINE)
[BLOCK] = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.usefixtures("blank_figure")


def _write_series(folder: Path, heights: list[float], name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    uid, values = generate_uid(), np.random.default_rng(1).integers(0, 900, (len(heights), 9, 11)).astype(np.int16)
    for k, height in enumerate(heights):
        image = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
        image.SeriesInstanceUID = uid
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.Rows, image.Columns, image.PixelData = 9, 11, values[k].tobytes()
        image.ImagePositionPatient = [-20.0, 7.5, height]
        image.save_as(folder / f"{name}{k}")


def _write_times(folder: Path, times: int) -> None:
    """A series of several volumes."""
    uid = generate_uid()
    for time in range(times):
        _write_series(folder, [0.0, 2.0, 4.0], f"{time}-")
    for file in folder.iterdir():
        image = pydicom.dcmread(file)
        image.SeriesInstanceUID, image.TemporalPositionIndex = uid, int(file.name[0]) + 1
        image.save_as(file)


@pytest.fixture
def folder(tmp_path: Path, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    make_bundle(tmp_path / "my_bundle")
    _write_series(tmp_path / "study", [0.0, 2.0, 4.0, 6.0, 8.0], "a")
    _write_series(tmp_path / "study", [1.0, 4.0, 7.0, 10.0], "b")
    _write_series(tmp_path / "irregular", [0.0, 2.0, 4.0, 7.0, 9.0, 11.0], "c")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(command: str) -> Any:
    words = shlex.split(command)
    return CliRunner().invoke(app, [*words, "--head", "categorical"])


def _state_two_values(file: Path) -> None:
    image, mapping = pydicom.dcmread(file), pydicom.Dataset()
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 0.5, 7.0
    image.RescaleSlope, image.RescaleIntercept, image.RealWorldValueMappingSequence = 2, 0, [mapping]
    image.save_as(file)


@pytest.mark.slow
def test_commands_do_what_the_page_says(folder: Path) -> None:
    refused, all_series, framed, fixed, chosen = COMMANDS
    assert _run(refused).exit_code == 3
    table = (folder / "results" / "cases.csv").read_text()
    assert "2 volumes in one folder; choose with --series UID, or --series all. It holds CT, 11 x 9" in table
    assert _run(all_series).exit_code == 0
    assert len(list((folder / "results").glob("study_series-*/*_ifim.json"))) == 2
    _write_times(folder / "fmri", 4)
    assert _run(framed.replace(" --frame 3", "")).exit_code == 3
    assert "choose one with --frame N, N from 0 to 3" in (folder / "results" / "cases.csv").read_text()
    assert _run(framed).exit_code == 0
    sidecar = json.loads((folder / "results" / "fmri_frame-003" / "fmri_frame-003_ifim.json").read_text())
    assert sidecar["input"]["reading"]["volume"] == 3
    assert _run(fixed).exit_code == 0
    sidecar = json.loads((folder / "results" / "irregular" / "irregular_ifim.json").read_text())
    assert sidecar["input"]["resampled"] is True
    assert _run(fixed.replace(" --fix-geometry", "")).exit_code == 3
    _write_series(folder / "pet", [0.0, 2.0, 4.0], "d")
    for file in (folder / "pet").iterdir():
        _state_two_values(file)
    assert _run(chosen.replace(" --values rescale", "")).exit_code == 3
    assert "choose with --values rescale or --values real-world" in (folder / "results" / "cases.csv").read_text()
    assert _run(chosen).exit_code == 0


def test_block_reads_one_series(folder: Path) -> None:
    _write_series(folder / "study" / "one_series", [0.0, 2.0, 4.0], "d")
    names: dict[str, Any] = {}
    exec(compile(BLOCK, "dicom.md", "exec"), names)
    assert names["image"].shape == (11, 9, 3)
