"""Shares of an image in its corners, along its border and in fine detail, where shortcut features often lie."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["border_mask", "corner_mask", "fine_mask", "fine_share", "region_share", "region_shares"]

CORNER_PART = 8  # a corner takes the eighth part of each axis
BORDER_PART = 16  # the border takes the sixteenth part at either end of each axis
FINE_FREQUENCY = 0.25  # cycles per voxel: half the Nyquist frequency


def corner_mask(shape: Sequence[int]) -> Tensor:
    """True in the 2^n corners of a grid of n axes, each a box of an eighth of every axis: bool [*shape]."""
    ends = [_ends(size, CORNER_PART) for size in shape]
    mask = torch.ones(tuple(shape), dtype=torch.bool)
    for axis, end in enumerate(ends):
        mask &= _along(end, axis, len(ends))
    return mask


def border_mask(shape: Sequence[int]) -> Tensor:
    """True in the frame of a sixteenth of every axis at both ends: bool [*shape]."""
    mask = torch.zeros(tuple(shape), dtype=torch.bool)
    for axis, size in enumerate(shape):
        mask |= _along(_ends(size, BORDER_PART), axis, len(shape))
    return mask


def region_share(amounts: Tensor, mask: Tensor) -> float:
    """Share of nonnegative amounts [channel, *spatial] that lies inside the mask [*spatial]; NaN where all are zero."""
    total = float(amounts.sum(dtype=torch.float64))
    return float(amounts[:, mask].sum(dtype=torch.float64)) / total if total > 0 else math.nan


def fine_mask(shape: Sequence[int]) -> Tensor:
    """True at the spatial frequencies beyond half of Nyquist, in the order of a discrete Fourier transform: bool [*shape]."""
    squared = torch.zeros(tuple(shape), dtype=torch.float64)
    for axis, size in enumerate(shape):
        squared = squared + _along(torch.fft.fftfreq(size, dtype=torch.float64).square(), axis, len(shape))
    return squared.sqrt() > FINE_FREQUENCY


def fine_share(image: Tensor) -> float:
    """Share of the variance of an image [channel, *spatial] at spatial frequencies beyond half of Nyquist; NaN if constant."""
    axes = tuple(range(1, image.ndim))
    power = torch.fft.fftn(image.to(torch.float64), dim=axes).abs().square()
    power[(slice(None), *(0,) * len(axes))] = 0.0
    constant = float(power.sum()) <= 1e-20 * float(image.double().square().sum()) * math.prod(image.shape[1:])
    return math.nan if constant else region_share(power, fine_mask(image.shape[1:]))


def region_shares(image: Tensor, high: Tensor, sensitivity: Tensor) -> dict[str, float]:
    """Shares of |high|^2 and of the sensitivity in corners and border beside those of the area, and of fine detail.

    All three are [channel, *spatial]. The shares of area are the expected shares of white noise.
    """
    found: dict[str, float] = {}
    for name, mask in (("corner", corner_mask(image.shape[1:])), ("border", border_mask(image.shape[1:]))):
        found[f"{name}_share_high"] = region_share(high.square(), mask)
        found[f"{name}_share_sensitivity"] = region_share(sensitivity, mask)
        found[f"{name}_share_area"] = float(mask.double().mean())
    found |= {"fine_share_high": fine_share(high), "fine_share_image": fine_share(image)}
    return {**found, "fine_share_area": float(fine_mask(image.shape[1:]).double().mean())}


def _ends(size: int, part: int) -> Tensor:
    """True in the first and last part of an axis, one voxel at least."""
    width = max(1, round(size / part))
    position = torch.arange(size)
    return (position < width) | (position >= size - width)


def _along(values: Tensor, axis: int, axes: int) -> Tensor:
    return values.reshape([-1 if a == axis else 1 for a in range(axes)])
