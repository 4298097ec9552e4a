"""`decompose --from`: one table, a verdict in words and in the exit status, and wrong use that cannot be taken for a verdict."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest
from typer.testing import CliRunner, Result

from monai_ifim.cli.main import app

pytestmark = pytest.mark.usefixtures("blank_figure")


def invoke(*words: Any) -> Result:
    return CliRunner().invoke(app, ["decompose", *(str(word) for word in words)], env={"COLUMNS": "200"})


@pytest.fixture
def bundle(tmp_path: Path, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def sidecar(tmp_path: Path, bundle: Path, write_scan: Callable[..., Path], oblique: npt.NDArray[Any]) -> Path:
    scan = write_scan(tmp_path / "in" / "scan.nii.gz", (9, 7, 11), oblique)
    words = ("--rank", 2, "--head", "categorical", "--deterministic", "--mrb")
    assert invoke(scan, "--bundle", bundle, "-o", tmp_path / "out", *words).exit_code == 0
    return tmp_path / "out" / "scan" / "scan_ifim.json"


def test_a_case_that_agrees_ends_with_0_and_leaves_nothing(sidecar: Path, bundle: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = invoke("--from", sidecar, "--bundle", bundle)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "scan agrees bit for bit"
    assert [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in path.parts] == before
    assert json.loads(sidecar.read_text())["computation"]["deterministic"] is True


def test_the_repetition_is_kept_where_a_folder_is_named(sidecar: Path, bundle: Path, tmp_path: Path) -> None:
    assert invoke("--from", sidecar, "--bundle", bundle, "-o", tmp_path / "again").exit_code == 0
    again = json.loads((tmp_path / "again" / "scan" / "scan_ifim.json").read_text())
    assert again["eigenvalues"] == json.loads(sidecar.read_text())["eigenvalues"]


def test_a_case_that_does_not_agree_ends_with_1_and_says_what_by_how_much_and_why(
    sidecar: Path, bundle: Path, tmp_path: Path
) -> None:
    content = json.loads(sidecar.read_text())
    content.update(trace=content["trace"] * 1.25)
    content["versions"]["monai"] = "0.9"
    sidecar.write_text(json.dumps(content))
    result = invoke("--from", sidecar, "--bundle", bundle)
    assert result.exit_code == 1
    assert result.output.splitlines()[-2:] == [
        "scan disagrees: total sensitivity, 0.20 apart where 0.0010 is allowed",
        "likely cause: another version of monai",
    ]
    [line] = [line.split() for line in result.output.splitlines() if line.startswith("total sensitivity ")]
    assert line[-3:] == ["0.20", "0.0010", "differs"]
    content["versions"] = json.loads((tmp_path / "out" / "run.json").read_text())["versions"]
    sidecar.write_text(json.dumps(content))
    assert "nothing recorded differs" in invoke("--from", sidecar, "--bundle", bundle).output


def test_a_case_that_cannot_be_compared_ends_with_4(sidecar: Path, bundle: Path, tmp_path: Path) -> None:
    for words, reason in (
        (("--from", sidecar), "--bundle DIR"),
        (("--from", tmp_path / "gone_ifim.json", "--bundle", bundle), "give the sidecar of a case"),
        (("--from", sidecar, "--bundle", bundle, "-o", tmp_path / "out"), "choose another --output"),
        (("--from", sidecar, "--bundle", bundle, "--image", tmp_path / "gone.nii"), "no such file or folder"),
        (("--from", sidecar, "--bundle", bundle, "--image", bundle / "models" / "model.pt"), "scan cannot be repeated: model.pt"),
        (("--from", sidecar, "--bundle", bundle, "--device", "magic"), "device 'magic'"),
    ):
        result = invoke(*words)
        assert result.exit_code == 4, (words, result.output)
        assert "error: " in result.output
        assert reason in result.output


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--from", "scan_ifim.json", "--energy", "0.5"), "--energy"),
        (("--from", "scan_ifim.json", "--deterministic"), "--deterministic"),
        (("--from", "scan_ifim.json", "scan.nii"), "INPUT..."),
        (("scan.nii", "--bundle", "b", "-o", "out", "--image", "scan.nii"), "--image"),
        (("scan.nii", "-o", "out"), "--bundle"),
        (("scan.nii", "--bundle", "b"), "--output"),
        (("--bundle", "b", "-o", "out"), "INPUT..."),
    ],
)
def test_wrong_use_ends_with_2(words: tuple[str, ...], reason: str) -> None:
    result = invoke(*words)
    assert result.exit_code == 2
    assert reason in result.output


def test_an_operation_without_a_deterministic_form_fails_its_case_with_the_cure(
    tmp_path: Path, make_bundle: Callable[..., Path], write_scan: Callable[..., Path], oblique: npt.NDArray[Any]
) -> None:
    put = "$lambda x: x.put_(__import__('torch').tensor([0]), x.new_zeros(1))"
    steps = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd", "keys": "image"}]
    steps += [
        {"_target_": "Lambdad", "keys": "image", "func": put},
        {"_target_": "Resized", "keys": "image", "spatial_size": [9, 8, 7]},
    ]
    root, scan = make_bundle(tmp_path / "put", steps=steps), write_scan(tmp_path / "in" / "scan.nii.gz", (9, 7, 11), oblique)
    words = (scan, "--bundle", root, "-o", tmp_path / "out")
    result = invoke(*words, "--deterministic")
    assert result.exit_code == 3
    assert "put_ has no form that repeats to the last bit" in result.output
    assert invoke(*words).exit_code == 0
    assert "1 done" in invoke(*words, "--overwrite").output


def test_a_case_made_without_is_made_again_and_one_made_with_is_kept(sidecar: Path, bundle: Path, tmp_path: Path) -> None:
    words = (tmp_path / "in", "--bundle", bundle, "--rank", 2, "--head", "categorical")
    assert "1 kept" in invoke(*words, "-o", tmp_path / "out").output
    assert "1 done" in invoke(*words, "-o", tmp_path / "other").output
    assert "1 done, 0 failed;" in invoke(*words, "-o", tmp_path / "other", "--deterministic").output
    assert "1 kept" in invoke(*words, "-o", tmp_path / "other", "--deterministic").output
