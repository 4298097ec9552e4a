"""results.json: what is written is read back, null for what has no value, and damaged files are refused with the cure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.records import (
    SCHEMA_VERSION,
    CellRecord,
    Claim,
    Comparison,
    Curve,
    Estimate,
    Example,
    ExperimentRecord,
    FailedCell,
    Tally,
    read_experiment,
    write_experiment,
)

NORMS = np.array([0.0, 0.1, 0.3])
CURVE = Curve("noise_high", "divergence", NORMS, np.array([5.0, 5.0, 4.0]), NORMS * 2, NORMS, np.array([0.0, math.nan, 1.0]))
NUMBERS = (9, 0.5, 0.25, 0.25, 0.1, 0.4, "bca", 0.01, 0.9, None, 0.02, True, False)
COMPARISON = Comparison("noise_high", "noise_low", "absolute_change", "area", *NUMBERS)
CELL = CellRecord(
    task="kidney",
    architecture="Net",
    task_title="Kidney",
    classes=("cyst", "stone"),
    spatial_shape=(9, 7),
    classifier={"accuracy": np.float64(0.5), "epochs": np.int64(3), "macro_auroc": math.nan, "folder": Path("weights")},
    examples=(Example("image_0", "cyst", "stone", 0.75),),
    images=9,
    curves=(CURVE,),
    comparisons=(COMPARISON,),
    macro_auroc_area=Estimate(0.1, -0.1, 0.3, 9),
    divergence_ratio={"inside": Estimate(1.0, 0.9, 1.1, 9, 40)},
    by_class={"cyst": {"rank": Estimate(2.0, images=4)}},
)
TALLY = Tally(1, 1, 1, 0)
RECORD = ExperimentRecord(
    name="made up",
    seed=4,
    settings={"largest": math.inf},
    relative_norms=(0.0, 0.1, 0.3),
    tasks=({"name": "all_failed", "title": "All failed"},),
    cells=(CELL,),
    claim=Claim("noise_high", "noise_low", "absolute_change", TALLY, {"kidney": TALLY}, {"absolute_change": TALLY}),
    failed=(FailedCell("all_failed", "Net", "no memory"),),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_experiment(tmp_path / "results.json", RECORD)
    return tmp_path / "results.json"


def test_a_record_survives_its_file(path: Path) -> None:
    read = read_experiment(path)
    assert (read.name, read.seed, read.claim, read.failed, read.relative_norms) == (
        RECORD.name,
        RECORD.seed,
        RECORD.claim,
        RECORD.failed,
        RECORD.relative_norms,
    )
    (cell,) = read.cells
    assert (cell.comparisons, cell.examples, cell.divergence_ratio) == (CELL.comparisons, CELL.examples, CELL.divergence_ratio)
    (curve,) = cell.curves
    for name in ("relative_norm", "images", "mean", "low", "high"):
        np.testing.assert_array_equal(getattr(curve, name), getattr(CURVE, name))
    write_experiment(path.with_name("again.json"), read)
    assert path.with_name("again.json").read_bytes() == path.read_bytes()


def test_what_has_no_value_is_null(path: Path) -> None:
    content = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert content["schema_version"] == SCHEMA_VERSION
    assert content["settings"] == {"largest": None}
    assert content["cells"][0]["curves"][0]["high"] == [0.0, None, 1.0]
    assert content["cells"][0]["classifier"] == {"accuracy": 0.5, "epochs": 3, "macro_auroc": None, "folder": "weights"}


def test_titles_come_from_cells_or_else_from_the_configuration() -> None:
    assert RECORD.task_names() == ["kidney", "all_failed"]
    assert [RECORD.title(name) for name in ("kidney", "all_failed", "other")] == ["Kidney", "All failed", "other"]


def test_comparisons_and_curves_are_found_by_what_they_are_of() -> None:
    assert RECORD.asked(CELL) is COMPARISON
    assert CELL.comparison("noise_high", "noise_low", "absolute_change", "removal") is None
    assert CELL.curve("noise_high", "divergence") is CURVE
    assert CELL.curve("noise_low", "divergence") is None
    assert COMPARISON.estimate == Estimate(0.25, 0.1, 0.4, 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema_version=1), r"schema version 1, this report reads 2; run the experiment again"),
        (lambda c: c.pop("schema_version"), r"schema version None, this report reads 2"),
        (lambda c: c.pop("claim"), r"'claim' is missing; run the experiment again"),
        (lambda c: c["cells"][0]["comparisons"][0].pop("p_value"), r"'p_value' is missing in .*cells\[0\]\.comparisons\[0\]"),
        (lambda c: c["cells"][0]["curves"][0]["mean"].pop(), "another form.*columns of different lengths"),
        (lambda c: c["cells"][0]["curves"][0].update(mean="high"), "another form"),
        (lambda c: c["cells"][0]["curves"][0].update(mean=[1, "x", 2]), "another form"),
        (lambda c: c["cells"].append(7), r"another form.*\$\.cells\[1\]"),
        (lambda c: c["cells"][0].update(images="many"), r"another form.*\$\.cells\[0\]\.images"),
    ],
)
def test_damaged_files_are_refused_with_the_place_and_the_cure(
    path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(IFIMError, match=message):
        read_experiment(path)


@pytest.mark.parametrize("text", [b'{"schema_version": 2, ', b"\xff\xfe", b"", b'{"seed": NaN}'])
def test_what_is_no_json_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "results.json").write_bytes(text)
    with pytest.raises(IFIMError, match="no JSON .*; run the experiment again"):
        read_experiment(tmp_path / "results.json")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IFIMError, match="no such file; pass the folder that an experiment was written to"):
        read_experiment(tmp_path / "results.json")
