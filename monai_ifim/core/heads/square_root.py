"""A square root S of the Fisher information of an output, S S^T = E[grad_z log p grad_z log p^T], and how to make one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from monai_ifim.core.errors import HeadError

COLUMN_CHUNK = 64  # cotangents built at a time: bounds their memory for any number of classes


@dataclass(frozen=True)
class ValueGradients:
    """How the columns of a factor combine to the gradients of the L values that an answer consists of.

    coefficients: [B, L, r] float64, grad_x value_l = sum_j coefficients[l, j] A e_j. tolerances: [B, L] float64, the standard
    deviation of each value, in its unit.
    """

    coefficients: Tensor
    tolerances: Tensor


@dataclass(frozen=True)
class SquareRoot:
    """Columns of S for a batch: `scales[b, j] * cotangents(j)[b]`, heaviest column first.

    scales: [B, r] float64. score: [B, r] float64, coefficients w with grad_x log p(predicted class) = J^T S w; it fixes
    the sign of the eigenvectors. `build` makes unit rows [B, rows, *output] for a slice of the columns, in float64, or of maps in
    the output's dtype, at least float32; `multiply` and `adjoint` are S v and S^T w without the columns, for heads whose S has
    structure. chunk: most columns to build at a time.
    values: of an answer that consists of values with a tolerance.
    """

    scales: Tensor
    score: Tensor
    build: Callable[[int, int], Tensor]
    multiply: Callable[[Tensor], Tensor] | None = None
    adjoint: Callable[[Tensor], Tensor] | None = None
    chunk: int = COLUMN_CHUNK
    values: ValueGradients | None = None

    @property
    def columns(self) -> int:
        """Number of columns r, that is of vector-Jacobian products."""
        return self.scales.shape[1]

    def cotangents(self, start: int, stop: int) -> Tensor:
        """Unit cotangents [B, stop - start, *output]."""
        return self.build(start, stop)

    def product(self, v: Tensor) -> Tensor:
        """S v, [B, *output], of v [B, r]."""
        if self.multiply is not None:
            return self.multiply(v)
        weights = v * self.scales
        parts = [
            torch.einsum("bj,bj...->b...", weights[:, start:stop], self.build(start, stop))
            for start, stop in self.chunks(0, self.columns)
        ]
        return torch.stack(parts).sum(0)

    def adjoint_product(self, w: Tensor) -> Tensor:
        """S^T w, [B, r] float64, of w [B, *output]."""
        if self.adjoint is not None:
            return self.adjoint(w)
        parts = [torch.einsum("bj...,b...->bj", self.build(start, stop), w) for start, stop in self.chunks(0, self.columns)]
        return torch.cat(parts, dim=1) * self.scales

    def chunks(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Slices (first, end) of the columns start to stop that are built together."""
        return [(first, min(first + self.chunk, stop)) for first in range(start, stop, self.chunk)]


def exclusive_root(log_p: Tensor, where: Tensor | None = None) -> SquareRoot:
    """The root of `CategoricalHead` from log-probabilities [B, C], or [B, C, *spatial] with a softmax at every voxel.

    Its r = (C - 1) x voxels columns are those of each voxel's own root, class by class; float64. where: bool [B, 1, *spatial],
    outside of which they are zero; None for all.
    """
    order = log_p.argsort(dim=1, descending=True, stable=True)
    predicted, others = order[:, :1], order[:, 1:]
    s = (0.5 * log_p.gather(1, others)).exp()
    s = s if where is None else torch.where(where, s, 0.0)
    r = (0.5 * log_p.gather(1, predicted)).exp()
    q = log_p.gather(1, others).exp()
    # |e_j - a q - r e_m|^2, entry by entry; r^2 = p_m and |q|^2 is the sum over the classes not predicted.
    a = 1 / (1 + r)
    norm = (1 - 2 * a * q + a.square() * q.square().sum(1, keepdim=True) + r.square()).sqrt()

    def build(start: int, stop: int) -> Tensor:
        if log_p.ndim > 2:
            raise HeadError("a softmax at every voxel has a column for each voxel and class: use method='matrix_free'.")
        rows = torch.zeros_like(log_p).scatter(1, others, -a * q).scatter(1, predicted, -r)
        rows = rows[:, None].repeat(1, stop - start, 1)
        rows.scatter_add_(2, others[:, start:stop, None], torch.ones_like(rows[:, :, :1]))
        return rows / norm[:, start:stop, None]

    def multiply(v: Tensor) -> Tensor:
        weighted = s * v.reshape(s.shape)
        total = weighted.sum(1, keepdim=True)
        return torch.zeros_like(log_p).scatter(1, others, weighted - a * q * total).scatter(1, predicted, -r * total)

    def adjoint(w: Tensor) -> Tensor:
        rest = w.gather(1, others)
        return (s * (rest - a * (q * rest).sum(1, keepdim=True) - r * w.gather(1, predicted))).flatten(1)

    # grad log p_m = -U q = -(U B) s / r, because B^{-1} q = s / r.
    return SquareRoot((s * norm).flatten(1), (-s / r).flatten(1), build, multiply, adjoint)


def diagonal_root(scales: Tensor, score: Tensor) -> SquareRoot:
    """A root whose columns are multiples of the unit vectors, sorted by weight."""
    scales, order = scales.sort(dim=1, descending=True, stable=True)
    outputs = scales.shape[1]
    return SquareRoot(
        scales,
        score.gather(1, order),
        lambda start, stop: functional.one_hot(order[:, start:stop], outputs).to(scales.dtype),
        lambda v: torch.zeros_like(scales).scatter(1, order, scales * v),
        lambda w: scales * w.gather(1, order),
    )
