"""A trained segmentation network on a T1 scan of a head: it finds the tissue, and a run writes components that add up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from typer.testing import CliRunner

from meshnet_bundle import T1
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.cli.main import app


def test_the_bundle_finds_white_and_grey_matter_in_the_middle_of_a_head(
    meshnet_bundle: Callable[[int], Path], real_data: Path
) -> None:
    bundle = load_bundle(meshnet_bundle(64))
    image = bundle.preprocess(real_data / T1)
    assert image.shape == (1, 64, 64, 64)
    with torch.no_grad():
        labels = bundle.network(image.as_tensor()[None]).argmax(1)
    shares = torch.bincount(labels.flatten(), minlength=3) / labels.numel()
    assert bool((shares > 0.04).all()), shares


def test_a_run_on_a_scan_writes_components_that_add_up_to_what_the_network_saw(
    meshnet_bundle: Callable[[int], Path], real_data: Path, tmp_path: Path, blank_figure: None
) -> None:
    out, bundle = tmp_path / "out", meshnet_bundle(48)
    words = ["decompose", str(real_data / T1), "--bundle", str(bundle), "--head", "volumes", "-o", str(out)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    [path] = out.glob("*/*_ifim.json")
    sidecar = json.loads(path.read_text(encoding="utf-8"))
    assert 1 <= sidecar["rank"] <= 2
    assert sidecar["verification"]["outcome"] == "agrees"
    assert sidecar["locality_is_lower_bound"] is False
    assert min(sidecar["locality_radius"]) > 0
    files = {file["kind"]: nib.load(path.parent / file["file"]) for file in sidecar["files"]}
    values = {kind: np.asarray(files[kind].dataobj) for kind in ("input", "high", "low", "source")}
    assert values["input"].shape == values["source"].shape == nib.load(real_data / T1).shape
    np.testing.assert_allclose(values["high"] + values["low"], values["input"], rtol=0, atol=1e-5)
