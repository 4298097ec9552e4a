"""How far computed eigenpairs are from the exact ones."""

from __future__ import annotations

import torch
from torch import Tensor


def largest_relative_error(values: Tensor, exact: Tensor) -> float:
    """Largest |values_i - exact_i| / exact_i over the leading eigenvalues that both have, 0 where there are none."""
    count = min(values.numel(), exact.numel())
    ours, reference = values[:count].cpu().to(torch.float64), exact[:count].cpu().to(torch.float64)
    kept = reference > 0
    errors = (ours[kept] - reference[kept]).abs() / reference[kept]
    return float(errors.max()) if errors.numel() else 0.0


def projector_distance(first: Tensor, second: Tensor) -> float:
    """Spectral norm of P1 - P2 for the spans of two sets of vectors [k, ...]: the sine of the largest principal angle.

    Taken from the part of one span outside the other, which is exact where the cosine's difference from 1 is rounded away.
    """
    if first.shape[0] != second.shape[0]:
        return 1.0
    a, b = (torch.linalg.qr(vectors.flatten(1).to(torch.float64).T)[0] for vectors in (first, second))
    return float(torch.linalg.matrix_norm(b - a @ (a.T @ b), ord=2))
