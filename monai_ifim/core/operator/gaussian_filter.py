"""Gaussian filter along the spatial axes of images, edges continued by reflection, exactly self-adjoint.

The matrix K along an axis of n voxels is the symmetric circulant of period 2n, folded at the borders. A wide Gaussian is made of
two narrower ones with samples between them, K = R^T R: R [m, n] averages with 1 / sqrt(2) of the width around m < n places, so
that all other axes are filtered on m places instead of n voxels. The product of two Gaussians with the same centre is smooth, and
the sum over places h apart differs from its integral by exp(-pi^2 s^2 / h^2) on either side (Poisson), s the width of R.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from monai_ifim.core.memory.allocation import in_large_pages

REACH = 6.0  # standard deviations at which a Gaussian is cut off: 1e-8 of its peak
BLOCK = 32  # rows of a matrix that are multiplied together
SPACING = 1.3  # standard deviations of R over the distance of its places: |R^T R - K| <= 2 exp(-pi^2 1.3^2) = 1.2e-7 of |K| = 1
WORTH = 0.7  # places over voxels up to which two matrices take less time than one


def gaussian_filtered(images: Tensor, widths: Sequence[float]) -> Tensor:
    """`images` [B, channel, *spatial] filtered along each spatial axis; widths: standard deviations in voxels, 0 for none."""
    single, double = [], []
    for axis, width in enumerate(widths, start=2):
        size = images.shape[axis]
        places = math.ceil(size * SPACING * math.sqrt(2.0) / width) if width > 0 else size
        if places <= WORTH * size:
            double.append((axis, _averages(size, width, places).to(images)))
        elif width > 0:
            single.append((axis, _averages(size, width).to(images)))
    double.sort(key=lambda pair: pair[1].shape[0] / pair[1].shape[1])  # what shortens most comes first
    for axis, matrix in (*double, *single):
        images = _multiplied(matrix, images, axis)
    for axis, matrix in reversed(double):
        images = _multiplied(matrix.T, images, axis)
    return images


def _averages(size: int, sigma: float, places: int | None = None) -> Tensor:
    """K [size, size] of standard deviation sigma, float64; with places, R [places, size] of the same K = R^T R.

    Each row of K sums to one, each row of R to the square root of the distance between two places, in voxels.
    """
    distance, width = (1.0, sigma) if places is None else (size / places, sigma / math.sqrt(2.0))
    centres = (torch.arange(places or size, dtype=torch.float64, device="cpu") + 0.5) * distance - 0.5
    nearest, reach = centres.round(), math.ceil(REACH * width)
    voxels = nearest[:, None] + torch.arange(-reach, reach + 1, device="cpu")
    weights = torch.exp(-0.5 * ((voxels - centres[:, None]) / width).square())
    weights *= math.sqrt(distance) / weights.sum(1, keepdim=True)
    folded = voxels.to(torch.int64) % (2 * size)
    folded = torch.minimum(folded, 2 * size - 1 - folded)
    rows = torch.zeros(len(centres), size, dtype=torch.float64, device="cpu")
    return rows.scatter_add(1, folded, weights)


def _multiplied(matrix: Tensor, images: Tensor, axis: int) -> Tensor:
    """The images with a matrix [to, from] applied along one axis, a block of rows at a time, without its columns of zeros."""
    lines = images.reshape(math.prod(images.shape[:axis]), images.shape[axis], -1)
    result = in_large_pages(lines.new_empty(lines.shape[0], matrix.shape[0], lines.shape[2]))
    for rows, near in _bands(matrix):
        block = matrix[rows, near]
        if lines.shape[2] == 1:
            result[:, rows, 0] = lines[:, near, 0] @ block.T
        else:
            result[:, rows] = torch.bmm(block.expand(lines.shape[0], -1, -1), lines[:, near])
    return result.reshape(*images.shape[:axis], matrix.shape[0], *images.shape[axis + 1 :])


def _bands(matrix: Tensor) -> Iterator[tuple[slice, slice]]:
    """Blocks of rows with the columns from their first to their last entry that is not zero."""
    for start in range(0, matrix.shape[0], BLOCK):
        rows = slice(start, min(start + BLOCK, matrix.shape[0]))
        columns = matrix[rows].any(dim=0).nonzero()[:, 0]
        yield rows, slice(int(columns[0]), int(columns[-1]) + 1)
