"""Unbiased probes of what a subspace of the factor's columns leaves out of the trace, with an upper confidence bound.

For g = A omega with independent standard normal omega, E |g|^2 = trace F. What a known direction v adds to a probe,
(omega . v) A v, can be taken off again once A v is known, so one probe serves for every larger subspace: it is never
thrown away. Normal weights rather than random signs: two columns that are parallel cancel in half of all draws of signs,
and no confidence above one half could be stated. With normal weights n |g|^2 / T stays above the chi-squared quantile with
the stated confidence whatever the columns are, a single column (or several parallel ones) being the worst case.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.rows import float64_device

CONFIDENCE = 0.95  # that the bound holds, over all looks at it together
FIRST_LOOK = 0.8  # share of the risk that the first look takes; the later ones share the rest as 1, 1/4, 1/9, ...


@dataclass
class TailProbes:
    """Probes A omega_i of the columns' complement.

    weights: n of [B, r] float64; rows: n of [B, D] in the image's dtype, times scales, n of [B] float64.
    """

    weights: list[Tensor] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)
    scales: list[Tensor] = field(default_factory=list)
    looks: int = 0

    @classmethod
    def draw(cls, factor: Factor, count: int, generator: torch.Generator, known: int = 0) -> TailProbes:
        """`count` probes, one vector-Jacobian product each, of all columns but the first `known`."""
        probes = cls()
        for _ in range(count):
            omega = random_vectors(factor, generator)
            omega[:, :known] = 0.0
            row, scale = factor.multiply(omega)
            probes.weights.append(omega)
            probes.rows.append(row.clone())
            probes.scales.append(scale)
        return probes

    def remove(self, v: Tensor, row: Tensor, scale: Tensor) -> None:
        """Take a direction off whose product is known: A v = scale x row, v [B, r] a unit vector orthogonal to all before."""
        for omega, probe, unit in zip(self.weights, self.rows, self.scales, strict=True):
            share = torch.where(unit > 0, (omega * v).sum(1) * scale / torch.where(unit > 0, unit, 1.0), 0.0)
            probe -= share.to(probe)[:, None] * row

    def remove_column(self, j: int, row: Tensor, scale: Tensor) -> None:
        """The same for the unit vector of column j."""
        for omega, probe, unit in zip(self.weights, self.rows, self.scales, strict=True):
            share = torch.where(unit > 0, omega[:, j] * scale / torch.where(unit > 0, unit, 1.0), 0.0)
            probe -= share.to(probe)[:, None] * row

    def estimate(self) -> Tensor:
        """Trace of what is left, unbiased, [B] float64."""
        squares = [
            probe.to(float64_device(probe)).to(torch.float64).square().sum(1) * scale.square()
            for probe, scale in zip(self.rows, self.scales, strict=True)
        ]
        return torch.stack(squares).mean(0)

    def upper_bound(self) -> Tensor:
        """What the trace of the rest stays below with CONFIDENCE, [B] float64; each call is a look and costs confidence."""
        bound = self.estimate() * slack(len(self.rows), self.looks)
        self.looks += 1
        return bound

    def extend(self, more: TailProbes) -> None:
        """Take further probes of the same rest in."""
        self.weights += more.weights
        self.rows += more.rows
        self.scales += more.scales


@cache
def slack(count: int, looks: int = 0) -> float:
    """By how much the bound of `count` probes exceeds their estimate after so many looks before."""
    share = FIRST_LOOK if looks == 0 else (1 - FIRST_LOOK) * 6 / math.pi**2 / looks**2
    return count / chi_squared_quantile(count, (1 - CONFIDENCE) * share)


def random_vectors(factor: Factor, generator: torch.Generator) -> Tensor:
    """Standard normal [B, r] float64, drawn on the CPU: one seed gives the same on every device."""
    shape = (factor.image.shape[0], factor.columns)
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
    return drawn.to(factor.root.scales.device)


def chi_squared_quantile(freedom: int, probability: float) -> float:
    """The lower quantile of the chi-squared distribution, by bisection of the regularised incomplete gamma function.

    >>> round(chi_squared_quantile(2, 0.05), 6)  # -2 log(0.95)
    0.102587
    """
    half = torch.tensor(freedom / 2, dtype=torch.float64, device="cpu")
    low, high = 0.0, 4.0 * freedom + 40.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        below = float(torch.special.gammainc(half, torch.tensor(middle / 2, dtype=torch.float64, device="cpu"))) < probability
        low, high = (middle, high) if below else (low, middle)
        if high - low <= 1e-12 * high:
            break
    return 0.5 * (low + high)
