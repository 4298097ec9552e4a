"""How far an iteration is: residuals of its pairs against the tolerance, and the pairs that are reported if it ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.krylov import LanczosBasis, RitzPairs
from monai_ifim.core.spectrum import ROW_NOISE

TELLING = 0.5  # residual over eigenvalue above which a pair says little; only the first of an image is reported nevertheless
SAME_DIRECTION = 1e-8  # share of the squared length below which residual vectors add no direction
LEFT_OUT = 1e-3  # of a residual: more than what is left out with such directions


@dataclass(frozen=True)
class Verdict:
    """State of an iteration: good, for each image the number of leading pairs with residuals below the tolerance; wanted, the
    number that the selection asks for, one more than there are where they do not hold the share of the trace; values, residuals:
    of all pairs, eigenvalues and bounds of |F u - l u|, [m] for each image. by_rank: if a number of pairs is asked for."""

    good: list[int]
    wanted: list[int]
    values: Tensor = field(repr=False)
    residuals: Tensor = field(repr=False)
    by_rank: bool = True

    @classmethod
    def of(
        cls, pairs: RitzPairs, outside: list[float], settings: Settings, row_eps: float, columns: int, complete: bool
    ) -> Verdict:
        """outside: estimate of the trace outside of the basis; columns: r; complete: if the basis has all r vectors."""
        selection = settings.resolved
        theta, lengths = pairs.values, pairs.lengths
        # F u - theta u = A (A^T A y - theta y) / sqrt(theta), and |A| <= sqrt(theta_1) up to the first residual.
        first = (theta + lengths)[:, :1]
        bound = torch.where(theta > 0, (first / torch.where(theta > 0, theta, 1.0)).sqrt() * lengths, 0.0)
        floor = ROW_NOISE * row_eps * theta[:, :1]
        within = (bound <= torch.maximum(selection.tolerance * theta, floor)) | (theta <= floor)
        good = [theta.shape[1]] * len(theta) if complete else within.int().cumprod(1).sum(1).tolist()
        wanted = [
            wanted_pairs(values, rest, selection.energy, selection.rank, columns)
            for values, rest in zip(theta, outside, strict=True)
        ]
        return cls(good, wanted, theta, bound, selection.rank is not None)

    @property
    def converged(self) -> list[bool]:
        """If every pair asked for is within the tolerance, for each image."""
        return [good >= wanted for good, wanted in zip(self.good, self.wanted, strict=True)]

    @property
    def enough(self) -> bool:
        """True if the iteration may end."""
        return all(self.converged)

    @property
    def reported(self) -> list[int]:
        """Number of pairs that are reported of each image: those within the tolerance, and of an image that is not converged
        the best others: as many as are asked for, and of a share of the trace those that tell something."""
        return [self._reported(b) for b in range(len(self.good))]

    def _reported(self, b: int) -> int:
        if self.converged[b]:
            return self.good[b]
        there = self.values.shape[1]
        if self.by_rank:
            return min(self.wanted[b], there)
        telling = int((self.residuals[b] <= TELLING * self.values[b]).int().cumprod(0).sum())
        return min(max(1, self.good[b], telling), self.wanted[b], there)

    def largest(self) -> tuple[int, float]:
        """(image, residual over eigenvalue): the largest of the pairs that an image asks for; infinite where there are fewer."""
        found = []
        for b, wanted in enumerate(self.wanted):
            ratios = self.residuals[b][:wanted] / self.values[b][:wanted]
            ratios = ratios[torch.isfinite(ratios)]
            lacking = not self.converged[b] and (ratios.numel() == 0 or (self.by_rank and wanted > self.values.shape[1]))
            found.append((self.converged[b], math.inf if lacking else float(ratios.amax()) if ratios.numel() else 0.0, b))
        _, worst, b = min(found, key=lambda one: (one[0], -one[1]))
        return b, worst


def wanted_pairs(theta: Tensor, outside: float, energy: float, rank: int | None, columns: int) -> int:
    """Number of Ritz pairs that the selection keeps; one more than there are where they do not suffice."""
    if rank is not None:
        return min(rank, columns)
    trace = float(theta.sum()) + outside
    if trace == 0.0:
        return 0
    short = int((theta.cumsum(0) < energy * trace).sum())
    return short + 1 if theta.numel() < columns else min(short + 1, theta.numel())


def measured_residuals(factor: Factor, basis: LanczosBasis, pairs: RitzPairs) -> Tensor:
    """|F u - l u| of Ritz pairs, [B, k] float64 on the CPU, from products with A: it is |A w| / sqrt(l) with w = A^T A y - l y.

    The w of all pairs lie in a space of one dimension, two after a restart, so that one or two products give all.
    """
    w = basis.residual_vectors(pairs).to(torch.float64)
    sizes, turns = torch.linalg.eigh(torch.einsum("bkr,blr->bkl", w, w))
    sizes, turns = sizes.flip(1).clamp_min(0), turns.flip(2)
    count = int((sizes > SAME_DIRECTION * sizes[:, :1]).sum(1).max())
    if count == 0:
        return torch.zeros_like(pairs.values)
    rows = FactorRows(factor.image)
    for i in range(count):
        rows.append(*factor.multiply(torch.einsum("bk,bkr->br", turns[:, :, i], w)))
    gram = rows.gram() * rows.scales[:, :, None] * rows.scales[:, None, :]
    squares = torch.einsum("bki,bij,bkj->bk", turns[:, :, :count], gram, turns[:, :, :count]).clamp_min(0).cpu()
    values = pairs.values
    return (1 + LEFT_OUT) * torch.where(values > 0, squares / torch.where(values > 0, values, 1.0), 0.0).sqrt()
