"""Saturation: whether any change as large as the image's own contrast could move the answer at all, by the eigenvalues of F.

A change d costs d^T F d / 2 nats, at most lambda_1 |d|^2 / 2. The scale of d is taken from the image itself: its contrast, the L2
norm of its deviation from the mean of each channel. Then lambda_1 contrast^2 / 2 stays as it is under another unit and another
zero of the intensities: for x -> a x + b, F is divided by a^2 and contrast^2 multiplied by it, while b cancels in the
deviation. |x|^2 would not do: 1000 added to Hounsfield units would multiply it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["BOUND", "Saturation", "contrast_of", "largest_cost", "saturation_of"]

BLOCK = 2**20  # values that are float64 at once
BOUND = 1e-6  # nats; by Pinsker's inequality no probability then moves by more than sqrt(BOUND / 2) = 0.0007


@dataclass(frozen=True)
class Saturation:
    """What a change as large as the image's own contrast could move at most.

    nats: the divergence that such a change costs along the most sensitive direction, by its eigenvalue; None where the image is
    constant, and so has no scale of its own, or a number is not finite. contrast: of the image, in its unit. bound: the answer is
    saturated where nats lie below it.
    """

    nats: float | None
    contrast: float
    bound: float = BOUND

    @property
    def saturated(self) -> bool | None:
        """True where no change of that size moves the answer; None where nothing is known."""
        return None if self.nats is None else self.nats < self.bound

    def described(self) -> dict[str, Any]:
        """As plain data, for records."""
        contrast = self.contrast if math.isfinite(self.contrast) else None
        return {"nats": self.nats, "bound": self.bound, "contrast": contrast, "saturated": self.saturated}


def contrast_of(image: Tensor) -> float:
    """L2 norm of the deviation of an image [channel, *spatial] from the mean of each of its channels, in float64; 0 for a
    deviation that is rounding."""
    values = _plain(image).flatten(1)
    epsilon = torch.finfo(values.dtype if values.is_floating_point() else torch.float64).eps
    largest = float(values.abs().max()) if values.numel() else 0.0
    if largest == 0 or not math.isfinite(largest):
        return largest
    squares = [
        ((block.to(torch.float64) - mean) / largest).square().sum()  # which neither underflow nor overflow
        for channel, mean in zip(values, values.mean(1, dtype=torch.float64), strict=True)
        for block in channel.split(BLOCK)
    ]
    contrast = math.sqrt(float(torch.stack(squares).sum()))
    return largest * contrast if contrast > epsilon * math.sqrt(values.numel()) else 0.0


def largest_cost(eigenvalues: Sequence[float], lengths: Sequence[float], contrast: float) -> float | None:
    """The largest lambda_i (contrast / length_i)^2 / 2, in nats; None for a contrast of 0, and where a number is not finite.

    eigenvalues: of components that change the image by length_i for one unit. F = 0 moves nothing, whatever the contrast.

    >>> largest_cost([4.0, 1.0], [1.0, 0.25], 0.5)
    2.0
    """
    known = list(zip(eigenvalues, lengths, strict=True))
    if not all(math.isfinite(number) for pair in (*known, (contrast,)) for number in pair):
        return None
    moving = [(value, length) for value, length in known if value > 0 and length > 0]
    if not moving:
        return 0.0
    if contrast == 0:
        return None
    cost = max(math.sqrt(value) * contrast / length for value, length in moving) ** 2 / 2  # the square root: no underflow
    return cost if math.isfinite(cost) else None


def saturation_of(image: Tensor, eigenvalues: Tensor, changes: Tensor | None, trace: float, converged: bool) -> Saturation:
    """Whether the answer for an image [channel, *spatial] is saturated.

    eigenvalues: [k] of the components kept, among which the most sensitive direction is sought; changes: [k, channel, *spatial],
    what one unit along each changes the image by, None where that is a unit vector. Where there are none, or the iteration
    ended early, so that a larger eigenvalue may have been missed, the trace stands for the eigenvalue: it is never smaller.
    """
    values, contrast = eigenvalues.tolist(), contrast_of(image)
    lengths = [1.0] * len(values) if changes is None else [_length(change) for change in changes]
    if not values or not converged:
        values, lengths = [trace], [min(lengths, default=1.0)]
    return Saturation(largest_cost(values, lengths, contrast), contrast)


def _length(change: Tensor) -> float:
    return float(torch.linalg.vector_norm(_plain(change), dtype=torch.float64))


def _plain(values: Tensor) -> Tensor:
    """The values where they lie, or on the CPU where their device has no float64 (Apple's MPS)."""
    plain = values.detach().as_subclass(Tensor)
    return plain.cpu() if plain.device.type == "mps" else plain
