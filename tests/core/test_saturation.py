"""Saturation against the closed form of a linear network, and what leaves it unchanged."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import NoiseLevel, decompose
from monai_ifim.core.dense import dense_fisher
from monai_ifim.core.saturation import BOUND, Saturation, contrast_of, largest_cost

SHAPE = (2, 5, 3)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 400 - 90


def linear(gap: float = 0.0, classes: int = 3, scale: float = 0.01) -> nn.Module:
    """A network whose first class is ahead by about `gap`."""
    torch.manual_seed(1)
    layer = nn.Linear(math.prod(SHAPE), classes).double()
    with torch.no_grad():
        layer.weight.mul_(scale)
        layer.bias.zero_()
        layer.bias[0] += gap
    return nn.Sequential(nn.Flatten(), layer).eval()


def test_nats_are_half_the_largest_eigenvalue_of_the_dense_matrix_times_the_squared_contrast(images: Tensor) -> None:
    network = linear()
    d = decompose(network, images, energy=1.0)
    for b, found in enumerate(d.saturation):
        values = images[b].numpy()
        contrast = np.sqrt(sum(((channel - channel.mean()) ** 2).sum() for channel in values))
        leading = np.linalg.eigvalsh(dense_fisher(network, images[b : b + 1]).numpy())[-1]
        assert found.contrast == pytest.approx(contrast, rel=1e-12)
        assert found.nats == pytest.approx(leading * contrast**2 / 2, rel=1e-9)
        assert found.saturated is False


@pytest.mark.parametrize(("unit", "zero"), [(1000.0, 0.0), (1e-6, 0.0), (1.0, -1024.0), (-3.0, 1e4)])
def test_neither_the_unit_nor_the_zero_of_the_intensities_matters(images: Tensor, unit: float, zero: float) -> None:
    network = linear(4.0)
    own = decompose(network, images).saturation
    moved = decompose(lambda x: network((x - zero) / unit), unit * images + zero).saturation
    assert [found.nats for found in moved] == pytest.approx([found.nats for found in own], rel=1e-7)


def test_neither_does_the_unit_of_a_metric(images: Tensor) -> None:
    network = linear(4.0)
    plain = [found.nats for found in decompose(network, images).saturation]
    for sigma in (0.01, 25.0):
        assert [found.nats for found in decompose(network, images, metric=NoiseLevel(sigma)).saturation] == pytest.approx(plain)


def test_a_change_as_large_as_the_contrast_moves_no_probability_of_a_saturated_answer(images: Tensor) -> None:
    network = linear(60.0)
    d = decompose(network, images)
    assert [found.saturated for found in d.saturation] == [True, True]
    generator = torch.Generator().manual_seed(0)
    directions = torch.cat([d.eigenvectors[0], torch.randn(200, *SHAPE, generator=generator, dtype=torch.float64)])
    lengths = torch.linalg.vector_norm(directions.flatten(1), dim=1)[:, None, None, None]
    moved = images[0] + d.saturation[0].contrast * torch.cat([directions, -directions]) / torch.cat([lengths, lengths])
    with torch.no_grad():
        change = (network(moved).softmax(1) - network(images[:1]).softmax(1)).abs().max()
    assert float(change) < math.sqrt(BOUND / 2)


def test_the_bound_lies_where_it_is_said_to_lie(images: Tensor) -> None:
    """The gap at which nats cross the bound, from p (1 - p) |w|^2 contrast^2 / 2 of a network of two classes."""
    gaps = np.linspace(0, 40, 9)
    for gap in gaps:
        network = linear(gap, 2)
        with torch.no_grad():
            z = network(images[:1])[0]
            p = float(z.softmax(0)[0])
            weight = network[1].weight.detach()
        square = float((weight[0] - weight[1]).square().sum())
        rest = float(torch.sigmoid(z[1] - z[0]))
        nats = p * rest * square * contrast_of(images[0]) ** 2 / 2
        found = decompose(network, images[:1]).saturation[0]
        assert found.nats == pytest.approx(nats, rel=1e-6)
        assert found.saturated is (nats < BOUND)
    assert BOUND == 1e-6


def test_a_constant_image_has_no_scale_of_its_own_unless_nothing_moves_the_answer_anyway() -> None:
    flat = torch.full((1, *SHAPE), 3.3, dtype=torch.float64)
    assert decompose(linear(), flat).saturation[0].saturated is None
    assert decompose(lambda x: 0.0 * linear()(x), flat).saturation[0].saturated is True
    third = torch.full((1, 4001), 1 / 3, dtype=torch.float32)
    assert contrast_of(third) == 0  # its mean is rounded
    assert contrast_of(torch.tensor([[7, 7, 8]])) == pytest.approx(math.sqrt(2 / 3))


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_number_that_is_not_finite_says_nothing(odd: float) -> None:
    assert largest_cost([odd, 1.0], [1.0, 1.0], 1.0) is None
    assert largest_cost([1.0], [1.0], odd) is None
    described = Saturation(None, odd).described()
    assert described == {"nats": None, "bound": BOUND, "contrast": None, "saturated": None}


def test_squares_of_tiny_and_huge_numbers_neither_vanish_nor_overflow() -> None:
    assert largest_cost([1e-300], [1.0], 1e150) == pytest.approx(0.5)
    assert largest_cost([1e-200, 4e-200], [1.0, 1.0], 1e10) == pytest.approx(2e-180)
    image = torch.tensor([[-1e200, 1e200]], dtype=torch.float64)
    assert contrast_of(image) == pytest.approx(math.sqrt(2) * 1e200)
    assert contrast_of(torch.tensor([[1e-200, 3e-200]], dtype=torch.float64)) == pytest.approx(math.sqrt(2) * 1e-200)


def test_of_an_iteration_that_ended_early_the_trace_stands_for_the_eigenvalue(images: Tensor) -> None:
    d = decompose(linear(), images, energy=1.0)
    early = replace(d, converged=torch.tensor([False, True]))
    assert early.saturation[0].nats == pytest.approx(float(d.trace[0]) * d.saturation[0].contrast ** 2 / 2)
    assert early.saturation[1] == d.saturation[1]


def test_the_most_sensitive_of_several_components_of_a_metric_decides() -> None:
    assert largest_cost([4.0, 1.0], [2.0, 0.5], 3.0) == pytest.approx(18.0)  # the second: 1 * (3 / 0.5)^2 / 2
