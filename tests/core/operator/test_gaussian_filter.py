"""Wide Gaussians made of two narrower ones: as near to the exact matrix as stated, symmetric, and cheaper."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from monai_ifim.core.operator import gaussian_filter
from monai_ifim.core.operator.gaussian_filter import SPACING, gaussian_filtered


def matrix(size: int, sigma: float) -> torch.Tensor:
    """The filter's matrix [size, size] along an axis, of its action on unit vectors."""
    units = torch.eye(size, dtype=torch.float64).reshape(size, 1, size, 1)
    return gaussian_filtered(units, [sigma, 0.0])[:, 0, :, 0].T


def exact(size: int, sigma: float) -> torch.Tensor:
    """Sums of a sampled Gaussian over all mirror images of each voxel."""
    offsets = torch.arange(-60 * size, 60 * size + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma).square())
    weights /= weights.sum()
    folded = torch.zeros(size, size, dtype=torch.float64)
    for row in range(size):
        mirrored = (row + offsets.long()) % (2 * size)
        folded[row].index_add_(0, torch.minimum(mirrored, 2 * size - 1 - mirrored), weights)
    return folded


@pytest.mark.parametrize(("size", "sigma"), [(31, 2.6), (64, 3.4), (17, 9.0), (5, 6.0), (1, 4.0), (40, 1.1)])
def test_matrix_is_the_gaussian_within_the_stated_error_and_symmetric(size: int, sigma: float) -> None:
    found, stated = matrix(size, sigma), 2 * math.exp(-((math.pi * SPACING) ** 2))
    assert float(torch.linalg.matrix_norm(found - exact(size, sigma), 2)) <= stated
    torch.testing.assert_close(found, found.T, rtol=0, atol=1e-16)
    assert float(torch.linalg.eigvalsh(found).min()) > -1e-7


def test_two_narrow_matrices_take_little_more_than_half_of_the_products_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for worth in (gaussian_filter.WORTH, 0.0):  # 0: one matrix an axis
        monkeypatch.setattr(gaussian_filter, "WORTH", worth)
        with FlopCounterMode(display=False) as counter:
            gaussian_filtered(torch.zeros(1, 1, 96, 80, 88), [4.0] * 3)
        counts.append(counter.get_total_flops())
    assert counts[0] < 0.6 * counts[1]
