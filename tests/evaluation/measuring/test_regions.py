"""Shares of an image in its corners, along its border and in fine detail, against counting by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_ifim.evaluation.measuring.regions import border_mask, corner_mask, fine_share, region_share, region_shares


@pytest.mark.parametrize("shape", [(33, 24), (17, 40, 26)])
def test_masks_hold_what_counting_voxel_by_voxel_gives(shape: tuple[int, ...]) -> None:
    corner, border = np.zeros(shape, bool), np.zeros(shape, bool)
    for index in np.ndindex(*shape):
        to_end = [min(i, size - 1 - i) for i, size in zip(index, shape, strict=True)]
        corner[index] = all(d < max(1, round(size / 8)) for d, size in zip(to_end, shape, strict=True))
        border[index] = any(d < max(1, round(size / 16)) for d, size in zip(to_end, shape, strict=True))
    np.testing.assert_array_equal(corner_mask(shape).numpy(), corner)
    np.testing.assert_array_equal(border_mask(shape).numpy(), border)


def test_share_is_that_of_the_sum_over_channels() -> None:
    amounts = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 0.0], [1.0, 4.0]]])
    mask = torch.tensor([[True, False], [False, True]])
    assert region_share(amounts, mask) == pytest.approx(14 / 20)
    assert math.isnan(region_share(torch.zeros(1, 2, 2), mask))


@pytest.mark.parametrize(("cycles", "expected"), [((3, 0), 0.0), ((0, 13), 1.0), ((8, 8), 1.0), ((6, 6), 0.0)])
def test_fine_share_of_a_wave_tells_on_which_side_of_half_nyquist_it_lies(cycles: tuple[int, int], expected: float) -> None:
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(36.0), indexing="ij")
    wave = torch.cos(2 * math.pi * (cycles[0] * rows / 40 + cycles[1] * columns / 36))
    assert fine_share(5.0 + wave[None]) == pytest.approx(expected, abs=1e-9)
    assert math.isnan(fine_share(torch.full((1, 40, 36), 2.5)))


def test_white_noise_has_each_share_in_proportion() -> None:
    noise = torch.randn(1, 256, 256, generator=torch.Generator().manual_seed(3))
    shares = region_shares(noise, noise, noise.square())
    assert shares["corner_share_area"] == pytest.approx(1 / 16)
    assert shares["corner_share_high"] == pytest.approx(1 / 16, rel=0.05)
    assert shares["border_share_sensitivity"] == pytest.approx(1 - (7 / 8) ** 2, rel=0.05)
    assert shares["fine_share_high"] == pytest.approx(1 - math.pi / 16, rel=0.01)  # a disc of radius 1/4 in a unit square
    assert shares["fine_share_area"] == pytest.approx(1 - math.pi / 16, rel=0.01)
