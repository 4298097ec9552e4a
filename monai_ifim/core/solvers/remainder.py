"""The part of F outside of a subspace, from random columns: unbiased estimates of its diagonal and its trace, with errors.

V: an orthonormal basis [r, m] with A V known. For g = A (I - V V^T) omega with independent standard normal omega,
E[g g^T] = A (I - V V^T) A^T = F - (A V)(A V)^T, so the mean of g * g is an unbiased estimate of the diagonal, and that of |g|^2
of the trace. V has to be independent of omega, and is: omega is drawn after the iteration.

Why not XDiag or XTrace (Epperly, Tropp, Webber, SIAM J. Matrix Anal. Appl. 45, 2024): they take products with F, which cost a
product with A^T each besides, and gain from a low-rank part that V holds here already. `docs/theory.md` has the comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.solvers.krylov import LanczosBasis
from monai_ifim.core.solvers.trace_probes import random_vectors, slack

NEIGHBOURHOOD = 3  # voxels along each axis that the error of a voxel is averaged over


@dataclass(frozen=True)
class Remainder:
    """Estimates of F outside of a subspace; float64.

    trace, trace_error, trace_bound: [B], its trace, the standard error of that, and an upper bound of it with the probability
    `trace_probes.CONFIDENCE`. diagonal, diagonal_error: [B, D], its diagonal and the standard error of that.
    """

    trace: Tensor
    trace_error: Tensor
    trace_bound: Tensor
    diagonal: Tensor
    diagonal_error: Tensor


def sample_remainder(factor: Factor, basis: LanczosBasis, rows: FactorRows, count: int, generator: torch.Generator) -> Remainder:
    """The estimates from `count` >= 2 random columns outside of the basis, one product each; they are appended to `rows`."""
    for _ in range(count):
        rows.append(*factor.multiply(basis.outside(random_vectors(factor, generator))))
    scales = rows.scales
    gram = rows.gram() * scales[:, :, None] * scales[:, None, :]
    trace = gram.diagonal(dim1=1, dim2=2).mean(1)
    diagonal = rows.diagonal() / count
    error = diagonal_error(diagonal.reshape(factor.image.shape), count).flatten(1)
    return Remainder(trace, trace_error(gram), trace * slack(count), diagonal, error)


def trace_error(gram: Tensor) -> Tensor:
    """Standard error [B] of the mean of |g_i|^2 from the inner products [B, n, n] of the columns.

    The variance of |g|^2 is 2 trace R^2, R being the remainder, and the mean of (g_i . g_j)^2 over pairs is an unbiased estimate
    of trace R^2. It scatters less than the spread of the n values |g_i|^2 does.
    """
    count = gram.shape[1]
    largest = gram.diagonal(dim1=1, dim2=2).amax(1)
    relative = gram / torch.where(largest > 0, largest, 1.0)[:, None, None]  # so that squares do not underflow
    squares = relative.square()
    pairs = squares.sum((1, 2)) - squares.diagonal(dim1=1, dim2=2).sum(1)
    return largest * (2.0 * pairs / (count * (count - 1)) / count).sqrt()


def diagonal_error(diagonal: Tensor, count: int) -> Tensor:
    """Standard error of the mean of g * g over `count` columns, from that mean [B, channel, *spatial].

    g is normal at each voxel, hence the variance of the mean is 2 R^2 / n, and 2 / (n + 2) times the square of the mean is an
    unbiased estimate of it. A mean that came out too low would have too low an error too: where the average of the variance
    over the neighbouring voxels is larger, that is taken.
    """
    largest = diagonal.flatten(1).amax(1).reshape(-1, *[1] * (diagonal.ndim - 1))
    relative = diagonal / torch.where(largest > 0, largest, 1.0)
    own = relative.square()
    axes = diagonal.ndim - 2
    average = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[axes]
    margins = [NEIGHBOURHOOD // 2] * (2 * axes)  # padded here: PyTorch pools no image that is smaller than the window
    parts, there = (functional.pad(values, margins) for values in (own, torch.ones_like(own)))
    around = average(parts, NEIGHBOURHOOD, stride=1) / average(there, NEIGHBOURHOOD, stride=1)
    return largest * torch.maximum(own, around).mul_(2.0 / (count + 2)).sqrt_()
