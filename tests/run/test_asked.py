"""A decomposition of part of an answer says so in its line, table, page and scene."""

from __future__ import annotations

import csv
import html
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from monai_ifim.cli.main import app
from monai_ifim.display.asked import asked_text

pytestmark = pytest.mark.usefixtures("blank_figure")


@pytest.mark.parametrize("head", ["categorical", "bernoulli"])
def test_one_label_of_a_classifier_is_named_wherever_its_numbers_are(
    tmp_path: Path, make_bundle: Callable[..., Path], write_scan: Callable[..., Path], oblique: npt.NDArray[Any], head: str
) -> None:
    bundle, output = make_bundle(tmp_path / "bundle"), tmp_path / "out"
    scan = write_scan(tmp_path / "scan.nii.gz", (9, 7, 11), oblique)
    words = ["decompose", str(scan), "--bundle", str(bundle), "--output", str(output), "--head", head, "--answer", "class 1"]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert re.search(r"^ok +scan \(.*\), of class 1 against the rest", result.output, re.MULTILINE)
    with (output / "cases.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["decomposed"] == "class 1 against the rest"
    assert row["rank"] == "1"
    page = html.unescape((output / "index.html").read_text(encoding="utf-8"))
    assert '<b>Decomposed:</b> <bdi dir="auto">class 1 against the rest</bdi>.' in page
    scene = ET.parse(output / "scan" / "scan.mrml").getroot()
    assert [node.get("title") for node in scene.iter("PlotChart")] == ["Sensitivity by component, of class 1 against the rest"]
    sidecar = json.loads((output / "scan" / "scan_ifim.json").read_text())
    p = sidecar["prediction"]["probability"]["class 1"]
    assert np.isfinite(sidecar["trace"])
    assert 0 < p < 1
    assert CliRunner().invoke(app, ["verify", str(output), "--bundle", str(bundle), "--input", str(scan)]).exit_code == 0


@pytest.mark.parametrize(
    ("answer", "head", "said"),
    [
        (None, "categorical", ""),
        ({"label": 2, "name": "mass", "mask": None, "voxels": None}, "categorical", "mass against the rest"),
        ({"label": 2, "name": None, "mask": None, "voxels": None}, "bernoulli", "2 against the rest"),
        ({"label": 1, "name": "tumour", "mask": None, "voxels": None}, "volumes", "the volume of tumour"),
        ({"label": 1, "name": "tumour", "mask": {}, "voxels": 70}, "volumes_bernoulli", "the volume of tumour inside of a mask"),
        ({"label": None, "name": None, "mask": {}, "voxels": 70}, "volumes", "volumes inside of a mask (70 voxels)"),
        ({"label": 1, "name": "tumour", "mask": None, "voxels": 1}, "voxelwise", "the voxels predicted as tumour (1 voxel)"),
        ({"label": None, "name": None, "mask": {}, "voxels": 9}, "voxelwise", "the voxels inside of a mask (9 voxels)"),
    ],
)
def test_the_part_in_words(answer: dict[str, Any] | None, head: str, said: str) -> None:
    assert asked_text(answer, head) == said
