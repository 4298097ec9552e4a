"""A trained segmentation network on a T1 scan of a head: it finds the tissue, and a run writes components that add up."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from meshnet_bundle import T1
from monai_ifim import decompose
from monai_ifim.adapt.answer_facts import voxel_volume
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


@pytest.mark.soak
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


@pytest.mark.slow
def test_gradients_of_tissue_volumes_are_differences_of_them(meshnet_bundle: Callable[[int], Path], real_data: Path) -> None:
    bundle, step = load_bundle(meshnet_bundle(40)), 1e-6  # longer ones cross kinks of rectifiers
    image = bundle.preprocess(real_data / T1)
    x, voxel = image.as_tensor()[None], voxel_volume(image)
    assert voxel == pytest.approx(0.001, rel=1e-4)
    d = decompose(bundle.network, x, head="volumes", energy=1.0, voxel_volume=voxel, verify="never")
    assert d.answer_slopes is not None
    wide = copy.deepcopy(bundle.network).double()

    def volumes(moved: Tensor) -> Tensor:
        with torch.no_grad():
            return 0.001 * wide(moved).softmax(1).flatten(2).sum(2)[0]

    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = d.answer_gradients()[0].flatten(1)
    for direction in (
        *d.eigenvectors[0].double(),
        noise[0] / noise.norm(),
        gradients[1].reshape(x.shape[1:]) / gradients[1].norm(),
    ):
        quotient = (volumes(x.double() + step * direction) - volumes(x.double() - step * direction)) / (2 * step)
        expected = gradients @ direction.flatten()
        torch.testing.assert_close(quotient, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    torch.testing.assert_close(gradients.norm(dim=1), d.answer_slopes[0], rtol=1e-4, atol=0)
