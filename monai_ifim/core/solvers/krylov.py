"""The orthonormal basis of a Krylov space of A^T A, and its Ritz pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from monai_ifim.core.operator.factor import Factor

SINGLE_ELEMENTS = 2**20  # number of columns from which on the basis is kept in float32


def basis_dtype(columns: int) -> torch.dtype:
    """What the basis is kept in."""
    return torch.float64 if columns < SINGLE_ELEMENTS else torch.float32


def basis_bytes(columns: int, capacity: int) -> int:
    """Memory of a `LanczosBasis` of one image: two tables of `capacity` vectors over the columns."""
    return 2 * capacity * columns * basis_dtype(columns).itemsize


@dataclass(frozen=True)
class RitzPairs:
    """Approximate eigenpairs (theta, y) of A^T A, on the CPU, float64.

    values: theta [B, k], descending. coefficients: y = V c, [B, m, k]. lengths: |A^T A y - theta y|, [B, k].
    """

    values: Tensor
    coefficients: Tensor
    lengths: Tensor

    def leading(self, count: int) -> RitzPairs:
        """The first `count` pairs."""
        return RitzPairs(self.values[:, :count], self.coefficients[:, :, :count], self.lengths[:, :count])


@dataclass
class LanczosBasis:
    """Orthonormal basis V of the Krylov space, A^T A V, and their inner products.

    vectors: V, images: A^T A V, both [B, capacity, r]. projected: V^T A^T A V, squared: (A^T A V)^T A^T A V, [B, m, m] float64.
    """

    vectors: Tensor
    images: Tensor
    projected: Tensor
    squared: Tensor
    count: int = 0

    @classmethod
    def empty(cls, factor: Factor, capacity: int) -> LanczosBasis:
        """Room for `capacity` vectors."""
        scales = factor.root.scales
        table = scales.new_empty(scales.shape[0], capacity, factor.columns, dtype=basis_dtype(factor.columns))
        small = scales.new_zeros(scales.shape[0], capacity, capacity)
        return cls(table, torch.empty_like(table), small, small.clone())

    def append(self, v: Tensor, w: Tensor) -> None:
        """Add v [B, r] and w = A^T A v."""
        n = self.count
        self.vectors[:, n], self.images[:, n] = v.to(self.vectors), w.to(self.images)
        self.count = n + 1
        known, products = self.vectors[:, : n + 1], self.images[:, : n + 1]
        self.projected[:, : n + 1, n] = torch.einsum("bmr,br->bm", known, w.to(known)).to(self.projected)
        self.projected[:, n, : n + 1] = torch.einsum("bmr,br->bm", products, v.to(products)).to(self.projected)
        inner = torch.einsum("bmr,br->bm", products, w.to(products)).to(self.squared)
        self.squared[:, : n + 1, n], self.squared[:, n, : n + 1] = inner, inner

    def outside(self, w: Tensor) -> Tensor:
        """w [B, r] minus its projection onto V."""
        basis = self.vectors[:, : self.count]
        for _ in range(2):  # the second time removes what rounding left
            w = w - torch.einsum("bmr,bm->br", basis, torch.einsum("bmr,br->bm", basis, w.to(basis))).to(w)
        return w

    def orthogonal(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """w [B, r] minus its projection onto V, normalised, and the share of the length of w outside V [B]."""
        before = w.norm(dim=1)
        w = self.outside(w)
        after = w.norm(dim=1)
        share = torch.where(before > 0, after / torch.where(before > 0, before, 1.0), 0.0)
        return w / torch.where(after > 0, after, 1.0)[:, None], share

    def ritz(self) -> RitzPairs:
        """The Ritz pairs of all of V.

        V^T A^T A V is symmetric up to the rounding of the passes, and the residuals are computed without assuming more.
        """
        m = self.count
        middle, squared = self.projected[:, :m, :m].cpu(), self.squared[:, :m, :m].cpu()
        values, coefficients = torch.linalg.eigh(0.5 * (middle + middle.mT))
        values, coefficients = values.flip(1).clamp_min(0), coefficients.flip(2)
        inner, outer = (torch.einsum("bmi,bmn,bni->bi", coefficients, matrix, coefficients) for matrix in (middle, squared))
        lengths = (outer - 2 * values * inner + values.square()).clamp_min(0).sqrt()
        return RitzPairs(values, coefficients, lengths)

    def residual_vectors(self, pairs: RitzPairs) -> Tensor:
        """A^T A y - theta y of each pair, [B, k, r]."""
        coefficients = pairs.coefficients.to(self.vectors)
        vectors, images = self.vectors[:, : self.count], self.images[:, : self.count]
        found = torch.einsum("bmk,bmr->bkr", coefficients, images)
        return found - pairs.values.to(found)[:, :, None] * torch.einsum("bmk,bmr->bkr", coefficients, vectors)
