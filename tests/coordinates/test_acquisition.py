"""Offset, gain, gamma, blur, and what belongs to a modality: closed forms, differences of the moves, refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_ifim.coordinates import Acquisition, Place
from monai_ifim.core import IFIMError

SPACING = (1.5, 2.0, 1.2)
AFFINE = np.diag([-1.5, -2.0, 1.2, 1.0])


def place(modality: str = "", raw: bool = True) -> Place:
    return Place(torch.from_numpy(AFFINE), modality, raw)


def noise(shape: tuple[int, ...] = (2, 9, 8, 7), scale: float = 300.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def gaussian(sigma: float, sizes: tuple[int, ...] = (61, 47, 69)) -> tuple[Tensor, Tensor]:
    """A Gaussian of unit integral, and the square of the distance from its centre."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(sizes, SPACING, strict=True)]
    squares = sum(np.square(a).reshape([-1 if k == i else 1 for k in range(3)]) for i, a in enumerate(axes))
    values = np.exp(-0.5 * squares / sigma**2) / (2 * math.pi * sigma**2) ** 1.5
    return torch.from_numpy(values)[None], torch.from_numpy(np.asarray(squares))[None]


def test_blur_of_a_gaussian_adds_its_variance_and_starts_as_half_the_laplacian() -> None:
    sigma = 9.0
    x, squares = gaussian(sigma)
    family = Acquisition().bound(x, place())
    at = family.names.index("blur")
    assert family.units[at] == "mm^2"
    expected = 0.5 * (squares / sigma**4 - 3 / sigma**2) * x
    found = family.tangents(x, at, at + 1)[0]
    inner = (slice(None), *[slice(4, -4)] * 3)
    assert float((found - expected)[inner].norm() / expected.norm()) < 1e-4
    for variance in (20.0, -1.5):
        theta = [0.0] * len(family.names)
        theta[at] = variance
        moved = family.moved(x, theta)
        wider, _ = gaussian(math.sqrt(sigma**2 + variance))
        assert float((moved - wider)[inner].norm() / (wider - x).norm()) < 1e-3
        assert float(moved.sum()) == pytest.approx(float(x.sum()), rel=1e-12)


@pytest.mark.parametrize("modality", ["any", "ct", "mr", "radiograph"])
@pytest.mark.parametrize("shape", [(2, 9, 8, 7), (1, 9, 8)])
def test_tangents_are_differences_of_the_moves(modality: str, shape: tuple[int, ...]) -> None:
    x = noise(shape)
    x.clamp_(-400, 500)
    family = Acquisition(modality).bound(x, place())
    count = len(family.names)
    assert len(family.units) == count == len(set(family.names))
    tangents = torch.cat([family.tangents(x, 0, 2), family.tangents(x, 2, count)])
    assert torch.equal(family.moved(x, [0.0] * count), x)
    for i in range(count):
        theta = [1e-4 * (j == i) for j in range(count)]
        slope = (family.moved(x, theta) - family.moved(x, [-t for t in theta])) / 2e-4
        torch.testing.assert_close(tangents[i], slope, rtol=1e-4, atol=1e-4 * float(slope.abs().max()), msg=family.names[i])


def test_what_each_coordinate_of_a_ct_does_in_hounsfield_units() -> None:
    x = torch.full((1, 9, 7, 5), -1000.0, dtype=torch.float64)
    x[:, 2:7, 1:6] = 40.0
    family = Acquisition().bound(x, place("CT"))
    assert (family.names, family.units) == (("offset", "gain", "blur", "cupping"), ("HU", "%", "mm^2", "HU"))
    offset, gain, _, cupping = family.tangents(x, 0, 4)
    assert bool((offset == 1).all())
    assert float(gain[0, 4, 3, 2]) == pytest.approx(10.4)  # 1 % of 1040 HU above air
    assert float(gain[0, 0, 0, 0]) == 0.0
    assert float(cupping[0, 4, 3, 2]) == 0.0  # the centre
    assert float(cupping[0, 4, 5, 2]) == pytest.approx((4.0 / 6.0) ** 2)  # half a width is 6 mm along both axes
    assert float(cupping[0, 0, 0, 0]) == 0.0  # air


def test_the_modality_is_that_of_the_header_where_the_values_are_the_scanners() -> None:
    x = noise()
    general = ("offset", "gain", "gamma", "blur")
    assert Acquisition().bound(x, place("CT", raw=False)).names == general
    assert Acquisition().bound(x, place("PT")).names == general
    assert Acquisition("ct").bound(x, place("MR")).names == ("offset", "gain", "blur", "cupping")
    assert Acquisition().bound(x, place("DX")).names == (*general, "window centre", "window width")
    mr = Acquisition().bound(x, place("MR"))
    assert len(mr.names) == 4 + 19
    assert "bias field, axis 0 degree 1 x axis 2 degree 2" in mr.names
    with pytest.raises(IFIMError, match="unknown modality 'xray'.*any, ct, mr, radiograph"):
        Acquisition("xray")


def test_a_bias_field_is_a_legendre_polynomial_times_the_image() -> None:
    x = noise((1, 9, 8, 7)) + 2000
    family = Acquisition("mr").bound(x, place())
    found = family.tangents(x, 0, len(family.names))[family.names.index("bias field, axis 0 degree 2 x axis 1 degree 1")]
    first, second = torch.linspace(-1, 1, 9, dtype=torch.float64), torch.linspace(-1, 1, 8, dtype=torch.float64)
    field = (1.5 * first**2 - 0.5)[:, None, None] * second[:, None]
    torch.testing.assert_close(found, x * field / 100)


def test_values_at_the_ends_of_a_window_stay_there() -> None:
    x = torch.linspace(-2, 3, 24, dtype=torch.float64).clamp(0, 1).reshape(1, 6, 4)
    family = Acquisition("radiograph").bound(x, Place())
    centre, width = family.tangents(x, 4, 6)
    ends = (x == 0) | (x == 1)
    assert not bool(centre[ends].any() or width[ends].any())
    assert bool((centre[~ends] == -0.01).all())
    torch.testing.assert_close(width[~ends], -(x[~ends] - 0.5) / 100)
    moved = family.moved(x, [0, 0, 0, 0, 30.0, 0])
    assert bool((moved[ends] == x[ends]).all())
    assert float(moved.min()) == 0.0


def test_a_constant_image_has_no_gamma() -> None:
    x = torch.full((1, 6, 5), 3.0, dtype=torch.float64)
    family = Acquisition().bound(x, Place())
    at = family.names.index("gamma")
    assert not bool(family.tangents(x, at, at + 1).any())
    assert torch.equal(family.moved(x, [5.0 * (i == at) for i in range(4)]), x)
    assert family.units == ("unit of the image", "%", "%", "pixel^2")


def test_a_sheared_grid_is_refused() -> None:
    sheared: Any = np.eye(4)
    sheared[0, 1] = 0.3
    with pytest.raises(IFIMError, match="not at right angles: resample"):
        Acquisition(affine=sheared).bound(noise(), Place())
