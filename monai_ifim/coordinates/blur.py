"""Blur as a semigroup: its variance adds up, it may be negative a little, and its derivative at 0 is half the Laplacian.

Each axis has the symmetric difference of sixth order for the second derivative, reflected at the borders, and the blur is the
exponential of it, which a cosine transform makes diagonal. A sampled Gaussian would have no derivative at 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import fft, ndimage

from monai_ifim.coordinates.grid import Matrix

SECOND = np.array([1 / 90, -3 / 20, 3 / 2, -49 / 18, 3 / 2, -3 / 20, 1 / 90])  # Fornberg, Math. Comp. 51 (1988)
REACH = len(SECOND) // 2


def blurred(values: Matrix, variance: float, spacing: Sequence[float]) -> Matrix:
    """Values [channel, *spatial] blurred by a kernel of this variance along each axis, in the square of the spacing's unit."""
    for axis, step in enumerate(spacing, start=1):
        if values.shape[axis] == 1:
            continue
        angles = np.pi * np.arange(values.shape[axis]) / values.shape[axis]
        symbol = SECOND[REACH] + 2 * sum(SECOND[REACH + k] * np.cos(k * angles) for k in range(1, REACH + 1))
        factors = np.exp(0.5 * variance / step**2 * symbol).reshape([-1 if k == axis else 1 for k in range(values.ndim)])
        values = fft.idct(factors * fft.dct(values, axis=axis), axis=axis)
    return values


def half_laplacian(values: Matrix, spacing: Sequence[float]) -> Matrix:
    """Derivative of `blurred` with respect to the variance at 0."""
    total = np.zeros_like(values)
    for axis, step in enumerate(spacing, start=1):
        if values.shape[axis] > 1:
            total += ndimage.correlate1d(values, 0.5 * SECOND / step**2, axis, mode="reflect")
    return total
