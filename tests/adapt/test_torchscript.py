"""Bundles whose network comes as TorchScript, with no Python class at hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_ifim import IFIMError, IFIMInferer, decompose
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.check.network import check_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.core import NetworkError
from monai_ifim.core.dense import dense_fisher, top_eigenpairs
from monai_ifim.io import InputError, identify_bundle

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
MakeBundle = Callable[..., Path]
IMAGE = torch.rand(1, 1, 9, 8, 7, generator=torch.Generator().manual_seed(1))


def normalised() -> nn.Module:
    """A network whose layers behave otherwise in train mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        first, last = nn.Conv3d(1, 4, 3, padding=1), nn.Linear(32, 3)
    norm = nn.BatchNorm3d(4)
    norm.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))  # type: ignore[union-attr]
    return nn.Sequential(first, norm, nn.GELU(), nn.Dropout(0.5), nn.AdaptiveAvgPool3d(2), nn.Flatten(), last).eval()


def scripted(root: Path, script: Any, definition: Any = None) -> Path:
    """The bundle at `root` with TorchScript in the place of weights, and another network_def or none."""
    (root / "models" / "model.pt").unlink()
    torch.jit.save(script, root / "models" / "model.ts")
    path = root / "configs" / "inference.json"
    content = json.loads(path.read_text())
    content.pop("network_def")
    path.write_text(json.dumps(content if definition is None else content | {"network_def": definition}))
    return root


EXPORTS: dict[str, Callable[[nn.Module], Any]] = {
    "scripted": torch.jit.script,
    "scripted in train mode": lambda network: torch.jit.script(network.train()),
    "traced": lambda network: torch.jit.trace(network, IMAGE),
    "frozen": lambda network: torch.jit.freeze(torch.jit.script(network)),
}


@pytest.mark.parametrize("export", EXPORTS)
@pytest.mark.parametrize("definition", [None, {"_target_": "nowhere.Net"}], ids=["no network_def", "no such class"])
def test_torchscript_is_loaded_and_decomposed(export: str, definition: Any, tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = scripted(make_bundle(tmp_path / "tiny"), EXPORTS[export](normalised()), definition)
    bundle = load_bundle(root)
    assert check_bundle(bundle, None, CaseSettings()).fit
    fisher = dense_fisher(normalised(), IMAGE)
    values, vectors = top_eigenpairs(fisher, 2)
    high = (vectors.T @ (vectors @ IMAGE.double().flatten())).reshape(IMAGE.shape).float()
    for _ in range(2):  # the executor rewrites its graph after the first runs
        found = decompose(bundle.network, IMAGE, rank=2)
        torch.testing.assert_close(found.eigenvalues[0], values, rtol=1e-4, atol=0)
        torch.testing.assert_close(found.high, high, rtol=0, atol=1e-5)
    torch.testing.assert_close(IFIMInferer(rank=2)(IMAGE, bundle.network)["ifim_high"].as_tensor(), high, rtol=0, atol=1e-5)


def test_identity_is_the_hash_of_the_file_that_is_loaded(tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = make_bundle(tmp_path / "tiny")
    weights, script = root / "models" / "model.pt", root / "models" / "model.ts"
    torch.jit.save(torch.jit.script(normalised()), script)
    assert load_bundle(root).identity.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.unlink()
    expected = hashlib.sha256(script.read_bytes()).hexdigest()
    assert (load_bundle(root).identity.weights_sha256, identify_bundle(root).weights_sha256) == (expected, expected)
    script.unlink()
    assert identify_bundle(root).weights_sha256 is None


def test_torchscript_loaded_in_inference_mode_can_be_differentiated(tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = scripted(make_bundle(tmp_path / "tiny"), torch.jit.script(normalised()))
    with torch.inference_mode():
        bundle = load_bundle(root)
    decompose(bundle.network, IMAGE)


@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.5), nn.Dropout3d(0.5), nn.BatchNorm3d(1)], ids=["dropout", "dropout3d", "batch norm"]
)
def test_a_trace_made_in_train_mode_is_refused_for_a_single_image_too(
    layer: nn.Module, tmp_path: Path, make_bundle: MakeBundle
) -> None:
    trace = torch.jit.trace(nn.Sequential(layer, normalised()).train(), IMAGE.repeat(2, 1, 1, 1, 1), check_trace=False)
    bundle = load_bundle(scripted(make_bundle(tmp_path / "tiny"), trace))
    for network in (bundle.network, nn.Sequential(nn.Identity(), bundle.network).eval()):
        with pytest.raises(NetworkError, match=r"train mode.*network\.eval\(\) before torch\.jit\.trace"):
            decompose(network, IMAGE)
    assert not check_bundle(bundle, None, CaseSettings()).fit


class Cut(nn.Module):
    """Computes without a graph."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.network(x)


def test_torchscript_without_gradient_is_refused_with_the_cure(tmp_path: Path, make_bundle: MakeBundle) -> None:
    bundle = load_bundle(scripted(make_bundle(tmp_path / "tiny"), torch.jit.script(Cut(normalised()))))
    with pytest.raises(NetworkError, match="no gradient flows.*Pass the differentiable PyTorch module or TorchScript"):
        decompose(bundle.network, IMAGE)
    failed = [finding for finding in check_bundle(bundle, None, CaseSettings()).findings if not finding.passed]
    assert [finding.name for finding in failed] == ["decomposition"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"no archive"),
        lambda path: path.write_bytes(path.read_bytes()[:900]),
        lambda path: torch.save(normalised().state_dict(), path),
    ],
    ids=["text", "cut short", "plain weights"],
)
def test_a_file_that_is_no_torchscript_is_refused(spoil: Callable[[Path], Any], tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = scripted(make_bundle(tmp_path / "tiny"), torch.jit.script(normalised()))
    spoil(root / "models" / "model.ts")
    with pytest.raises(InputError, match=r"bundle tiny: models/model\.ts cannot be loaded .*torch\.jit\.save"):
        load_bundle(root)


def test_torchscript_under_the_name_of_weights_is_refused_with_its_right_name(tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = make_bundle(tmp_path / "tiny")
    torch.jit.save(torch.jit.script(normalised()), root / "models" / "model.pt")
    with pytest.raises(InputError, match=r"models/model\.pt holds no plain weights .*name it models/model\.ts"):
        load_bundle(root)


def test_where_the_class_is_missing_beside_weights_the_torchscript_is_named(tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = make_bundle(tmp_path / "tiny")
    weights = (root / "models" / "model.pt").read_bytes()
    scripted(root, torch.jit.script(normalised()), {"_target_": "nowhere.Net"})
    (root / "models" / "model.pt").write_bytes(weights)
    with pytest.raises(IFIMError, match=r"'network_def' cannot be built.*move models/model\.pt out"):
        load_bundle(root)
