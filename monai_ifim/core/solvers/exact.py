"""The exact method: every column of the factor, one vector-Jacobian product each."""

from __future__ import annotations

import torch

from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.solvers.base import Subspace


def whole_factor(factor: Factor, rows: FactorRows) -> Subspace:
    """A itself, V being the identity: one vector-Jacobian product for each column."""
    factor.jacobian.expected = factor.columns
    for start, stop in factor.column_chunks(0, factor.columns):
        cotangents = factor.cotangents(start, stop)
        for j in range(start, stop):
            rows.append(*factor.column(cotangents[:, j - start], j, last=j == factor.columns - 1))
    nothing = torch.zeros_like(factor.root.scales[:, 0])
    return Subspace("exact", rows, factor.root.score, nothing, nothing)
