"""Random probes of the trace of F outside a subspace: an unbiased estimate and an upper confidence bound.

For g = A omega with independent standard normal omega, E |g|^2 = trace F. A known direction v contributes (omega . v) A v to
a probe, which is subtracted once A v is known; so the same probes serve for every larger subspace.
The weights are normal, not random signs: with signs two parallel columns cancel in half of all draws, and no confidence above
one half could be stated. With normal weights n |g|^2 / T stays above the chi-squared quantile with the stated confidence for
any columns; the worst case is a single column, or several parallel ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.rows import float64_device

CONFIDENCE = 0.95  # probability that the bound holds, at all looks together
FIRST_LOOK = 0.8  # share of the risk spent on the first look; the rest is spent on later looks as 1, 1/4, 1/9, ...


@dataclass
class TraceProbes:
    """Probes g_i = A omega_i, without the contributions of the directions removed so far.

    weights: omega_i, n of [B, r] float64. rows, scales: g_i = scales_i rows_i, n of [B, D] in the image's dtype, of [B] float64.
    looks: how often the bound was computed, each time at a share of the risk.
    """

    weights: list[Tensor] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)
    scales: list[Tensor] = field(default_factory=list)
    looks: int = 0

    @classmethod
    def draw(cls, factor: Factor, count: int, generator: torch.Generator, known: int = 0) -> TraceProbes:
        """`count` probes of all columns but the first `known`, one vector-Jacobian product each."""
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
        """Remove a direction v with A v = scale x row; v: [B, r], of unit length, orthogonal to those removed before."""
        for omega, probe, unit in zip(self.weights, self.rows, self.scales, strict=True):
            share = torch.where(unit > 0, (omega * v).sum(1) * scale / torch.where(unit > 0, unit, 1.0), 0.0)
            probe -= share.to(probe)[:, None] * row

    def remove_column(self, j: int, row: Tensor, scale: Tensor) -> None:
        """Remove the unit vector of column j, with A e_j = scale x row."""
        for omega, probe, unit in zip(self.weights, self.rows, self.scales, strict=True):
            share = torch.where(unit > 0, omega[:, j] * scale / torch.where(unit > 0, unit, 1.0), 0.0)
            probe -= share.to(probe)[:, None] * row

    def estimate(self) -> Tensor:
        """Unbiased estimate of the trace outside the removed directions, [B] float64."""
        squares = [
            probe.to(float64_device(probe)).to(torch.float64).square().sum(1) * scale.square()
            for probe, scale in zip(self.rows, self.scales, strict=True)
        ]
        return torch.stack(squares).mean(0)

    def upper_bound(self) -> Tensor:
        """Upper bound of that trace, [B] float64, with CONFIDENCE over all calls; each call is a look, and widens the next."""
        bound = self.estimate() * slack(len(self.rows), self.looks)
        self.looks += 1
        return bound

    def extend(self, more: TraceProbes) -> None:
        """Add probes of the same remaining columns."""
        self.weights += more.weights
        self.rows += more.rows
        self.scales += more.scales


@cache
def slack(count: int, looks: int = 0) -> float:
    """Factor from the estimate of `count` probes to their upper bound; looks: number of earlier looks."""
    share = FIRST_LOOK if looks == 0 else (1 - FIRST_LOOK) * 6 / math.pi**2 / looks**2
    return count / chi_squared_quantile(count, (1 - CONFIDENCE) * share)


def random_vectors(factor: Factor, generator: torch.Generator) -> Tensor:
    """Standard normal [B, r] float64, drawn on the CPU: one seed gives the same on every device."""
    shape = (factor.image.shape[0], factor.columns)
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
    return drawn.to(factor.root.scales.device)


def chi_squared_quantile(freedom: int, probability: float) -> float:
    """Lower quantile of the chi-squared distribution, by bisection of the regularised incomplete gamma function.

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
