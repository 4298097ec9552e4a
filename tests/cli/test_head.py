"""The head on the command line: read from the bundle and told, refused with a cure that works, stated in its own words."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from typer.testing import CliRunner, Result

from monai_ifim.cli.main import app
from monai_ifim.options import on_command_line

pytestmark = pytest.mark.usefixtures("blank_figure")
MAPS = "$torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv3d(4, 3, 1))"
SIGMOID = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
ARGMAX = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
SAVE = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}


def decompose(bundle: Path, scan: Path, out: Path, *words: str) -> Result:
    arguments = ["decompose", str(scan), "--bundle", str(bundle), "-o", str(out), "--device", "cpu", "--no-locality"]
    return CliRunner().invoke(app, [*arguments, "--space", "network", "--save", "sensitivity", *words])


def postprocess(bundle: Path, *steps: dict[str, Any], **entries: Any) -> None:
    path = bundle / "configs" / "inference.json"
    content = json.loads(path.read_text()) | {"postprocessing": {"_target_": "Compose", "transforms": list(steps)}} | entries
    path.write_text(json.dumps(content))


def model(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "scan" / "scan_ifim.json").read_text())["model"]
    return found


@pytest.fixture
def scan(tmp_path: Path, write_scan: Callable[..., Path], oblique: npt.NDArray[Any]) -> Path:
    return write_scan(tmp_path / "in" / "scan.nii.gz", (9, 7, 11), oblique)


@pytest.fixture
def bundle(tmp_path: Path, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def segmenter(bundle: Path) -> Path:
    """The bundle with a network that answers at every voxel."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        network = eval(MAPS.removeprefix("$"))
    torch.save(network.state_dict(), bundle / "models" / "model.pt")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    metadata["network_data_format"]["outputs"]["pred"] |= {"type": "image", "format": "segmentation"}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
    postprocess(bundle, network_def=MAPS)
    return bundle


def test_a_sigmoid_after_the_network_makes_independent_labels(bundle: Path, scan: Path, tmp_path: Path) -> None:
    postprocess(bundle, SIGMOID)
    result = decompose(bundle, scan, tmp_path / "out")
    assert result.exit_code == 0, result.output
    told = "read from configs/inference.json: postprocessing[0] Activationsd(sigmoid=True)"
    assert f"head: bernoulli (independent labels), {told}\n" in result.output
    assert "warning:" not in result.output
    assert model(tmp_path / "out")["head"] == "bernoulli"
    assert model(tmp_path / "out")["head_source"] == told
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["settings"]["head"] == "bernoulli"
    again = decompose(bundle, scan, tmp_path / "out")
    assert "1 kept from an earlier run" in again.output
    assert "0 kept" not in decompose(bundle, scan, tmp_path / "out", "--head", "bernoulli").output


def test_an_argmax_at_every_voxel_makes_a_segmentation(segmenter: Path, scan: Path, tmp_path: Path) -> None:
    postprocess(segmenter, SAVE, ARGMAX)
    result = decompose(segmenter, scan, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "head: volumes (classes that exclude one another, an answer at every voxel), read from" in result.output
    assert model(tmp_path / "out")["head"] == "volumes"


def test_a_contradiction_is_refused_before_anything_is_written_and_its_cure_works(
    segmenter: Path, scan: Path, tmp_path: Path
) -> None:
    postprocess(segmenter, SIGMOID)
    loss = {"loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True}}
    (segmenter / "configs" / "train.json").write_text(json.dumps(loss))
    refused = decompose(segmenter, scan, tmp_path / "out")
    assert refused.exit_code == 1
    assert not (tmp_path / "out").exists()
    said = on_command_line(str(refused.exception))
    assert "postprocessing[0] Activationsd(sigmoid=True)" in said
    assert "configs/train.json: loss DiceCELoss(softmax=True, to_onehot_y=True)" in said
    cures = re.findall(r"--head \w+", said)
    assert cures == ["--head volumes_bernoulli", "--head volumes"]
    for number, cure in enumerate(cures):
        cured = decompose(segmenter, scan, tmp_path / f"out-{number}", *shlex.split(cure))
        assert cured.exit_code == 0, cured.output
        made = model(tmp_path / f"out-{number}")
        assert (made["head"], made["head_source"]) == (cure.split()[1], "asked for")


def test_a_guess_is_a_warning_whose_cure_silences_it(bundle: Path, scan: Path, tmp_path: Path) -> None:
    result = decompose(bundle, scan, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "warning: the head is a guess (outputs that end in no activation are the logits of classes" in result.output
    assert "state it with --head if that is wrong" in result.output
    assert model(tmp_path / "out")["head"] == "categorical"
    assert model(tmp_path / "out")["head_source"].startswith("assumed, as the bundle does not say it: ")
    stated = decompose(bundle, scan, tmp_path / "stated", "--head", "categorical")
    assert "warning:" not in stated.output
    assert "head: categorical, asked for\n" in stated.output


def test_a_case_of_a_run_that_left_the_head_open_is_kept_if_the_bundle_asks_for_the_one_that_was_taken(
    bundle: Path, scan: Path, tmp_path: Path
) -> None:
    made = decompose(bundle, scan, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "scan" / "scan_ifim.json").read_text())["settings"]["head"] == "auto"
    assert "1 kept" in decompose(bundle, scan, tmp_path / "out", "--head", "categorical").output, made.output
    assert "1 done, 0 failed; " in decompose(bundle, scan, tmp_path / "out", "--head", "gaussian").output


def test_a_softmax_in_the_network_is_read_as_probabilities(bundle: Path, scan: Path, tmp_path: Path) -> None:
    path = bundle / "configs" / "inference.json"
    definition = json.loads(path.read_text())["network_def"].removeprefix("$")
    state = torch.load(bundle / "models" / "model.pt")
    torch.save({f"0.{name}": value for name, value in state.items()}, bundle / "models" / "model.pt")
    postprocess(bundle, ARGMAX, network_def=f"$torch.nn.Sequential({definition}, torch.nn.Softmax(1))")
    result = decompose(bundle, scan, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert model(tmp_path / "out")["head"] == "probabilities"
    logits = decompose(bundle, scan, tmp_path / "logits", "--head", "categorical")
    assert "already a softmax" in logits.output
    assert "pass --head probabilities" in logits.output  # and not head=, which is Python's


@pytest.mark.parametrize(
    ("said", "here"),
    [
        (
            "pass head='bernoulli', or head='gaussian' for a regression.",
            "pass --head bernoulli, or --head gaussian for a regression.",
        ),
        ("pass head='categorical' or 'bernoulli' for logits.", "pass --head categorical or bernoulli for logits."),
        ("use method='exact' or 'adaptive', which need", "use --method exact or adaptive, which need"),
        ("ask for fewer (rank=) or a larger tolerance=, or", "ask for fewer (--rank) or a larger --tolerance, or"),
        ("name it with output_key, or output_key=2.", "name it with --output-key, or --output-key 2."),
        ("rank=3: energy=0.99.", "--rank 3: --energy 0.99."),
        ("memory_budget is 5 MiB", "--memory-budget is 5 MiB"),
        ("metric=0.1 and locality=True, not locality=False", "--noise 0.1 and --locality, not --no-locality"),
        ("or --set head=bernoulli, of evaluate", "or --set head=bernoulli, of evaluate"),
        ("choose one of 'auto', 'volumes', or pass a Head.", "choose one of 'auto', 'volumes'."),
        ("the head='x' in image=3 and subhead=4", "the --head x in image=3 and subhead=4"),
    ],
)
def test_messages_name_options_in_the_words_of_the_command_line(said: str, here: str) -> None:
    assert on_command_line(said) == here


def test_components_of_the_sigmoid_network_are_those_of_independent_labels(bundle: Path, scan: Path, tmp_path: Path) -> None:
    """The number of components tells the heads apart: three labels have three directions, three classes two."""
    postprocess(bundle, SIGMOID)
    decompose(bundle, scan, tmp_path / "labels", "--energy", "1")
    decompose(bundle, scan, tmp_path / "classes", "--energy", "1", "--head", "categorical")
    ranks = [json.loads((tmp_path / name / "scan" / "scan_ifim.json").read_text())["rank"] for name in ("labels", "classes")]
    np.testing.assert_array_equal(ranks, [3, 2])
