"""`monai-ifim check`: what its JSON holds, and that standard output holds nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from monai_ifim.cli.main import app

ROOT = Path(__file__).resolve().parents[2]


def check(root: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["check", "--bundle", str(root), "--device", "cpu", *words])


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def bundle(tmp_path: Path, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path / "bundle")


def test_json_tells_classes_head_and_cost(bundle: Path) -> None:
    result = check(bundle, "--json")
    content = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (content["fit"], content["outputs"], content["head"]) == (True, 3, "categorical")
    assert content["bundle"]["class_names"] == ["class 0", "class 1", "class 2"]
    cost = content["cost"]
    assert (cost["device"], cost["products"]) == ("cpu", 2)
    beside = cost["locality_seconds"] + cost["files_seconds"]
    assert cost["seconds"] == pytest.approx(cost["forward_seconds"] + 2 * cost["product_seconds"] + beside)
    assert cost["seconds"] <= cost["most_seconds"]
    assert cost["peak_bytes"] > cost["weights_bytes"] == 4 * (4 * 27 + 4 + 3 * 32 + 3)


def test_names_and_number_of_classes_that_disagree_with_the_network_are_found(bundle: Path) -> None:
    edit(bundle / "configs" / "metadata.json", lambda m: m["network_data_format"]["outputs"]["pred"].update(num_channels=2))
    edit(bundle / "configs" / "metadata.json", lambda m: m["network_data_format"]["outputs"]["pred"]["channel_def"].pop("1"))
    result = check(bundle)
    assert result.exit_code == 1
    assert "FAILED class count: metadata.json states 2 output(s) and the network gives 3" in result.output
    assert "FAILED class names: 2 class names for 3 outputs" in result.output


@pytest.mark.parametrize("names", [{}, {"lesion": 0, "no lesion": 1}], ids=["none", "not numbered"])
def test_a_bundle_without_names_that_can_be_read_is_fit_and_says_so(names: dict[str, Any], bundle: Path) -> None:
    edit(bundle / "configs" / "metadata.json", lambda m: m["network_data_format"]["outputs"]["pred"].update(channel_def=names))
    result = check(bundle)
    assert result.exit_code == 0
    assert "class names: none stated" in result.output


def test_a_bundle_that_cannot_be_loaded_is_one_json_object_and_status_1(bundle: Path) -> None:
    (bundle / "models" / "model.pt").unlink()
    result = check(bundle, "--json")
    content = json.loads(result.stdout)
    assert (result.exit_code, content["fit"]) == (1, False)
    assert "no weights at models/model.safetensors or models/model.pt" in content["error"]


@pytest.mark.soak
def test_what_a_bundle_prints_does_not_reach_standard_output(bundle: Path) -> None:
    def talk(config: dict[str, Any]) -> None:
        config["network_def"] = "$(print('noise'), " + config["network_def"].removeprefix("$") + ")[1]"

    edit(bundle / "configs" / "inference.json", talk)
    command = [sys.executable, "-m", "monai_ifim.cli.main", "check", "--bundle", str(bundle), "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout)["fit"] is True
    assert "noise" in done.stderr
