"""Channels that are one grey image: which preprocessings tie them, and F of the grey image against the dense matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    ClipIntensityPercentiles,
    Compose,
    CropForeground,
    GaussianSmooth,
    Lambda,
    NormalizeIntensity,
    RepeatChannel,
    Resize,
    ScaleIntensity,
    ScaleIntensityRange,
    SpatialPad,
)
from torch import Tensor, nn

from monai_ifim.adapt.tied_channels import APART, FAILING, REGRIDDED, UNMOVED, Tie, find_tie, tied_network
from monai_ifim.core import decompose, locality_radius
from monai_ifim.core.dense import dense_fisher

SHAPE = (7, 5)
FACTORS = (1.0, 0.7, -1.3)
MEAN, SPREAD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
IMAGENET = NormalizeIntensity(subtrahend=MEAN, divisor=SPREAD, channel_wise=True)
LUMINANCE = torch.tensor([[0.299, 0.587, 0.114]])
UNEQUAL = (1.0, SPREAD[0] / SPREAD[1], SPREAD[0] / SPREAD[2])
WINDOWS = ((-1000.0, 400.0), (-160.0, 240.0), (300.0, 1500.0))


def noise(channels: int, low: float = 0.0, high: float = 255.0) -> MetaTensor:
    values = torch.rand(channels, 17, 13, generator=torch.Generator().manual_seed(channels))
    return MetaTensor(low + (high - low) * values)


def windowed(image: Tensor) -> Tensor:
    return torch.cat([((image - low) / (high - low)).clamp(0, 1) for low, high in WINDOWS])


def probed(steps: Callable[[Any], Any], read: MetaTensor) -> Tie | str:
    before, image = read.clone(), steps(read.clone())
    found = find_tie(lambda changed: steps(changed.clone()), read, image if isinstance(image, MetaTensor) else MetaTensor(image))
    assert torch.equal(read, before)
    return found


@pytest.mark.parametrize(
    ("steps", "channels", "factors"),
    [
        ([RepeatChannel(3)], 1, (1, 1, 1)),
        ([ScaleIntensity(), RepeatChannel(3), IMAGENET], 1, UNEQUAL),
        ([Lambda(lambda x: x.repeat(3, 1, 1)), Resize((9, 11)), IMAGENET, SpatialPad((16, 16))], 1, UNEQUAL),
        ([ClipIntensityPercentiles(5, 95), ScaleIntensity(), RepeatChannel(2)], 1, (1, 1)),
        ([RepeatChannel(3), NormalizeIntensity(channel_wise=True, nonzero=True)], 1, (1, 1, 1)),
        ([Lambda(lambda x: torch.cat([x, 3 - 2 * x, 0.5 * x]))], 1, (1, -2, 0.5)),
        ([Lambda(lambda x: (x.round() // 1).expand(3, -1, -1))], 1, (1, 1, 1)),  # as through an 8-bit picture
        ([Lambda(lambda x: x.mean(0, keepdim=True)), RepeatChannel(3)], 3, (1, 1, 1)),  # a colour picture made grey
        ([Lambda(lambda x: (LUMINANCE @ x.flatten(1)).reshape(1, *x.shape[1:]).expand(3, -1, -1))], 3, (1, 1, 1)),
        ([GaussianSmooth(1.5), RepeatChannel(2)], 1, (1, 1)),
    ],
)
def test_the_factors_are_those_of_the_preprocessing_whatever_its_names(
    steps: list[Any], channels: int, factors: tuple[float, ...]
) -> None:
    found = probed(Compose(steps), noise(channels))
    assert isinstance(found, Tie)
    np.testing.assert_allclose(found.factors, factors, rtol=5e-6)
    assert torch.equal(found.grey.as_subclass(Tensor), found.image.as_subclass(Tensor)[:1])


@pytest.mark.parametrize(
    ("steps", "read", "why"),
    [
        ([ScaleIntensity()], noise(3), APART),
        ([IMAGENET], MetaTensor(noise(1).expand(3, -1, -1)), APART),  # a grey picture stored in colours: its channels are free
        ([Lambda(windowed)], noise(1, -1024, 2000), APART),
        ([Lambda(lambda x: torch.cat([x, x.square() / 255]))], noise(1), APART),
        ([Lambda(lambda x: torch.cat([x, x - x.mean()]))], noise(1), APART),
        ([Lambda(lambda x: torch.cat([x, x.roll(1, -1)]))], noise(1), APART),
        ([RepeatChannel(2), ScaleIntensityRange(0, 255, 0, 1), Lambda(lambda x: x * torch.rand(2, 1, 1))], noise(1), APART),
        ([Lambda(lambda x: torch.cat([x, 0 * x + 1]))], noise(1), UNMOVED),
        ([RepeatChannel(2)], MetaTensor(torch.zeros(1, 5, 4)), UNMOVED),
        ([CropForeground(select_fn=lambda x: x > 255), RepeatChannel(2)], MetaTensor(250 + 5 * noise(1) / 255), REGRIDDED),
        ([Lambda(lambda x: x.repeat(3, 1, 1) if float(x.max()) < 256 else 1 / 0)], noise(1, 200, 255), FAILING),
    ],
    ids=["colours", "grey-in-colours", "windows", "square", "mean", "shift", "random", "constant", "zeros", "crop", "failing"],
)
def test_what_is_not_tied_by_constant_factors_is_not_tied_and_says_why(steps: list[Any], read: MetaTensor, why: str) -> None:
    assert probed(Compose(steps), read) == why


def test_a_kink_outside_of_the_middle_is_seen() -> None:
    """A part of the image is tried first; the whole decides."""
    steps = Compose([Lambda(lambda x: torch.cat([x, x.clamp(max=400)]))])
    read = noise(1, high=100).repeat(1, 40, 40)
    assert isinstance(probed(steps, read), Tie)
    read[0, 3, 2] = 500
    assert probed(steps, read) == APART


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = (nn.Conv2d(3, 4, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(4 * SHAPE[0] * SHAPE[1], 4))
        return nn.Sequential(*layers).double().eval()


def tied(network: nn.Module, grey: Tensor, factors: tuple[float, ...]) -> tuple[Tie, nn.Module, tuple[Tensor, ...], Tensor]:
    """The tie of an image [1, *SHAPE], its network, the further arguments, and T [3 D, D], written out."""
    offset = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)[:, None, None]
    weights = torch.tensor(factors, dtype=torch.float64)
    tie = Tie(MetaTensor(offset + weights[:, None, None] * grey), factors)
    wrapped, further = tied_network(network, [tie], "cpu")
    assert isinstance(wrapped, nn.Module)
    return tie, wrapped, further, torch.kron(weights[:, None], torch.eye(grey.numel(), dtype=torch.float64))


def test_f_of_the_grey_image_is_the_dense_t_f_t(network: nn.Module) -> None:
    grey = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    tie, wrapped, further, spread = tied(network, grey, FACTORS)
    image = tie.image.as_subclass(Tensor)[None]
    found = decompose(wrapped, tie.grey.as_subclass(Tensor)[None], energy=1.0, network_args=further)

    fisher = spread.T @ dense_fisher(network, image) @ spread
    values, vectors = torch.linalg.eigh(fisher)
    values, vectors = values.flip(0)[:3], vectors.flip(1)[:, :3]
    torch.testing.assert_close(found.eigenvalues[0], values, rtol=1e-9, atol=0)
    ours = found.eigenvectors[0].flatten(1).T
    torch.testing.assert_close(ours @ ours.T, vectors @ vectors.T, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.sensitivity.flatten(), fisher.diagonal(), rtol=1e-9, atol=0)
    grey = tie.grey.as_subclass(Tensor)[None]
    torch.testing.assert_close(found.high.flatten(), vectors @ (vectors.T @ grey.flatten()), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.high + found.low, grey, rtol=0, atol=1e-12)
    assert torch.equal(found.logits, network(image))  # at the image itself the network sees what the preprocessing made

    wrong = torch.tensor([[1, 0.7, -1.2]], dtype=torch.float64)
    other = decompose(wrapped, grey, energy=1.0, network_args=(image, wrong))
    assert not torch.allclose(other.eigenvalues, found.eigenvalues, rtol=1e-3)


def test_images_of_a_batch_have_their_own_factors(network: nn.Module) -> None:
    ties = [
        tied(network, torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), factors)[0]
        for seed, factors in enumerate([FACTORS, (1.0, 2.0, 0.25)])
    ]
    wrapped, further = tied_network(network, ties, "cpu")
    greys = torch.stack([tie.grey.as_subclass(Tensor) for tie in ties])
    together = decompose(wrapped, greys, rank=2, network_args=further)
    for b, tie in enumerate(ties):
        alone_network, alone_further = tied_network(network, [tie], "cpu")
        alone = decompose(alone_network, greys[b : b + 1], rank=2, network_args=alone_further)
        torch.testing.assert_close(together.eigenvalues[b], alone.eigenvalues[0], rtol=1e-9, atol=0)
        torch.testing.assert_close(together.high[b], alone.high[0], rtol=0, atol=1e-9)


def test_the_divergence_of_a_grey_change_is_that_of_the_tied_change(network: nn.Module) -> None:
    """By differences of the untouched network: KL(p(x) || p(x + e T u)) = e^2 l / 2."""
    tie, wrapped, further, spread = tied(network, torch.rand(1, *SHAPE, dtype=torch.float64), FACTORS)
    found = decompose(wrapped, tie.grey.as_subclass(Tensor)[None], rank=1, network_args=further)
    step = 0.05 * float(locality_radius(wrapped, found, network_args=further)[0, 0])
    image = tie.image.as_subclass(Tensor)[None]
    change = (spread @ found.eigenvectors[0, 0].flatten()).reshape(image.shape)
    with torch.no_grad():
        before, after = (network(each).log_softmax(1) for each in (image, image + step * change))
    divergence = float((before.exp() * (before - after)).sum())
    assert divergence == pytest.approx(step**2 * float(found.eigenvalues[0, 0]) / 2, rel=0.02)
    predicted = int(before.argmax())
    assert after[0, predicted] > before[0, predicted]  # along +u the grey image, and no other, raises the predicted class


@pytest.mark.parametrize(("method", "precision", "budget"), [("adaptive", "float32", "64KiB"), ("matrix_free", None, None)])
def test_other_methods_budgets_and_precisions_see_the_same_grey_image(
    network: nn.Module, method: Any, precision: Any, budget: str | None
) -> None:
    tie, wrapped, further, _ = tied(network, torch.rand(1, *SHAPE, dtype=torch.float64), FACTORS)
    grey = tie.grey.as_subclass(Tensor)[None]
    exact = decompose(wrapped, grey, rank=2, network_args=further)
    options = {"method": method, "tolerance": 1e-6, "precision": precision, "memory_budget": budget}
    found = decompose(wrapped, grey, rank=2, network_args=further, **options)
    torch.testing.assert_close(found.eigenvalues, exact.eigenvalues, rtol=1e-4, atol=0)
    assert found.eigenvectors.shape == (1, 2, 1, *SHAPE)
