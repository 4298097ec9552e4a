"""Residual shortcuts of type A: decompositions against difference quotients, on every way, and the modules afterwards."""

from __future__ import annotations

import copy
import threading
from functools import partial
from typing import Any

import pytest
import torch
from monai.networks.nets import ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from monai_ifim import decompose
from monai_ifim.core.dense import dense_fisher
from monai_ifim.core.errors import GradientWarning
from monai_ifim.core.operator.shortcuts import ATTRIBUTE, WholeShortcut, whole_shortcuts
from ways import WAYS
from zoo.truth import quadratic_forms

SIZES = {2: (9, 7), 3: (7, 6, 5)}


def _resnet(dims: int, shortcut: str = "A", block: str = "basic") -> nn.Module:
    torch.manual_seed(dims)
    network = ResNet(
        block, [1, 1, 1, 1], [4, 6, 7, 8], dims, 1, 3, no_max_pool=True, shortcut_type=shortcut, num_classes=3
    ).double()
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def _image(dims: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, 1, *SIZES[dims], generator=torch.Generator().manual_seed(dims)).double()


def _shortcuts(network: nn.Module) -> list[object]:
    return [vars(module)[ATTRIBUTE] for module in network.modules() if vars(module).get(ATTRIBUTE) is not None]


def _deviation(network: nn.Module, image: Tensor, **options: Any) -> float:
    """Largest relative deviation of v^T F u_i from difference quotients, over eigenvectors and random directions v."""
    d = decompose(network, image, **({"energy": 1.0} | options))
    vectors, values = d.eigenvectors[0].double(), d.eigenvalues[0]
    random = torch.randn(3, *image.shape[1:], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    directions = torch.cat([vectors, random])
    wide = copy.deepcopy(network).double()
    truth = quadratic_forms(wide, "categorical", image.double(), directions)
    claimed = (directions.flatten(1) @ vectors.flatten(1).T) * values
    roots = truth.diagonal().sqrt()
    return float(((claimed - truth[:, : len(values)]).abs() / torch.outer(roots, roots[: len(values)])).max())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dims", [2, 3])
def test_every_way_has_the_gradient_of_the_shortcut(dims: int, way: str) -> None:
    network, image = _resnet(dims), _image(dims)
    if way == "float64":
        network, image = network.float(), image.float()
    originals, state = _shortcuts(network), copy.deepcopy(network.state_dict())
    assert _deviation(network, image, **WAYS[way]) < 1e-6
    assert all(after is before for after, before in zip(_shortcuts(network), originals, strict=True))
    assert all(torch.equal(network.state_dict()[name], value) for name, value in state.items())


def test_the_shortcut_is_cut_without_the_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_ifim.core.operator.shortcuts.NAMES", ())
    with pytest.warns(GradientWarning):
        assert _deviation(_resnet(2), _image(2)) > 0.1


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_the_output_stays_the_same_and_a_wrapped_network_is_corrected(block: str) -> None:
    network, image = _resnet(2, block=block), _image(2, batch=2)
    wrapped = nn.DataParallel(nn.Sequential(nn.Identity(), network)).eval()
    d = decompose(wrapped, image, energy=1.0)
    with torch.no_grad():
        assert torch.equal(d.logits, network(image))
    assert _deviation(wrapped.module, image[:1]) < 1e-6
    (sentence,) = d.record["corrections"]
    assert "type A" in sentence
    assert sentence.count(ATTRIBUTE) == len(_shortcuts(network))
    assert "'1.layer2.0.downsample'" in sentence


def test_other_networks_have_no_corrections() -> None:
    assert decompose(_resnet(2, "B"), _image(2)).record["corrections"] == []


def test_the_dense_reference_has_the_gradient_too() -> None:
    network, image = _resnet(2), _image(2)
    values = torch.linalg.eigvalsh(dense_fisher(network, image)).flip(0)[:2]
    torch.testing.assert_close(decompose(network, image, energy=1.0).eigenvalues[0], values, rtol=1e-8, atol=0)


def downsample_basic_block(x: Tensor, planes: int, stride: int, no_cuda: bool = False) -> Tensor:
    """The shortcut of MedicalNet's own code."""
    out = F.avg_pool3d(x, kernel_size=1, stride=stride)
    zero_pads = torch.zeros(out.size(0), planes - out.size(1), *out.shape[2:], dtype=x.dtype)
    return torch.autograd.Variable(torch.cat([out.data, zero_pads], dim=1))


class Block(nn.Module):
    """A residual block as MedicalNet writes it."""

    def __init__(self, planes: int, shortcut: Any) -> None:
        super().__init__()
        self.convolution, self.downsample = nn.Conv3d(2, planes, 3, stride=2, padding=1), shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.convolution(torch.tanh(x))
        out += self.downsample(x)
        return out.relu()


def _medicalnet(shortcut: Any) -> nn.Module:
    torch.manual_seed(2)
    layers = (nn.Conv3d(1, 2, 1), Block(5, shortcut), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(5, 3))
    return nn.Sequential(*layers).double().eval()


def test_the_shortcut_of_medicalnet_is_corrected() -> None:
    network = _medicalnet(partial(downsample_basic_block, planes=5, stride=2, no_cuda=True))
    assert _deviation(network, _image(3)) < 1e-6


def test_a_function_of_that_name_with_another_output_is_left_alone() -> None:
    def shifted(x: Tensor, planes: int, stride: int) -> Tensor:
        return downsample_basic_block(x, planes, stride) + 1

    shifted.__name__ = "downsample_basic_block"
    network = _medicalnet(partial(shifted, planes=5, stride=2))
    with torch.no_grad():
        expected = network(_image(3))
    with pytest.warns(GradientWarning):
        d = decompose(network, _image(3), energy=1.0)
    assert torch.equal(d.logits, expected)
    assert d.record["corrections"] == []


def test_what_is_not_a_number_stays_so() -> None:
    shortcut = WholeShortcut(partial(downsample_basic_block, planes=3, stride=1))
    image = torch.full((1, 2, 2, 2, 2), float("nan"))
    assert shortcut(image)[0, 0].isnan().all()
    assert shortcut.checked


def test_threads_share_a_network() -> None:
    network, image = _resnet(2), _image(2)
    originals = _shortcuts(network)
    expected = decompose(network, image, energy=1.0)
    found: list[Tensor] = []

    def work() -> None:
        found.extend(decompose(network, image, energy=1.0).eigenvalues[0] for _ in range(4))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    for values in found:
        torch.testing.assert_close(values, expected.eigenvalues[0], rtol=1e-9, atol=0)
    assert all(after is before for after, before in zip(_shortcuts(network), originals, strict=True))


def test_the_last_user_gives_the_shortcut_back() -> None:
    network = _resnet(2)
    originals = _shortcuts(network)
    first, second = whole_shortcuts(network), whole_shortcuts(network)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert all(isinstance(shortcut, WholeShortcut) for shortcut in _shortcuts(network))
    second.__exit__(None, None, None)
    assert all(after is before for after, before in zip(_shortcuts(network), originals, strict=True))


def test_modules_are_restored_after_an_error() -> None:
    network = _resnet(2)
    originals = _shortcuts(network)
    with pytest.raises(ValueError, match="stop"), whole_shortcuts(network):
        raise ValueError("stop")
    assert all(after is before for after, before in zip(_shortcuts(network), originals, strict=True))
