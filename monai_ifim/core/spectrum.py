"""Eigenvalues of graded Gram matrices to high relative accuracy, their numerical rank, and the number of them to keep.

For a saturated prediction the columns of G differ by tens of orders of magnitude: K = diag(g) A diag(g) with unit diagonal
in A. A symmetric eigensolver returns every eigenvalue to within eps times the largest, so the small ones are lost. Pivoted
Cholesky factorisation followed by one-sided Jacobi rotations returns each to within eps times the condition number of A
(Demmel and Veselic, SIAM J. Matrix Anal. Appl. 13, 1992).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor

from monai_ifim.core.errors import IFIMError

GRADED = 1e-6  # ratio of smallest to largest diagonal entry of K below which Jacobi rotations are used
LARGEST_JACOBI = 256  # above this size rotations cost more than backward passes, and eigh is used
MAXIMUM_SWEEPS = 60
RESOLVED = 256.0  # relative size of rounding errors in a Gram matrix of n rows, in units of n eps of float64
ROW_NOISE = 64.0  # relative rounding error of a vector-Jacobian product, in units of its dtype's eps


@dataclass(frozen=True)
class Spectrum:
    """Nonzero eigenpairs of one image's K = G^T G.

    eigenvalues: [n] float64, descending, n the numerical rank. roots: their square roots, which keep more digits where the
    eigenvalues nearly underflow. coefficients: [n, r] float64, unit rows v_i. trace: that of K plus the estimate of the trace
    outside of it.
    """

    eigenvalues: Tensor
    roots: Tensor
    coefficients: Tensor
    trace: float

    def leading(self, count: int) -> Spectrum:
        """The first `count` eigenpairs, with the whole trace."""
        return Spectrum(self.eigenvalues[:count], self.roots[:count], self.coefficients[:count], self.trace)


def solve_spectrum(
    gram: Tensor, scales: Tensor, row_eps: float, trace_outside: float = 0.0, overwrite_gram: bool = False
) -> Spectrum:
    """Eigenpairs of K = diag(scales) gram diag(scales); raises IFIMError where K exceeds float64.

    gram: [r, r] float64, of unscaled rows. scales: [r] float64, >= 0. row_eps: machine epsilon of the rows' dtype, for the
    numerical rank: a row that is a combination of heavier rows to within its rounding adds nothing. trace_outside: estimate
    of the trace that the rows do not hold, added to the trace. overwrite_gram: use the memory of `gram`, which is then lost:
    besides it, the work takes one more matrix of its size.
    """
    gram, scales = gram.cpu(), scales.cpu()
    lengths = gram.diagonal().clamp_min(0).sqrt()
    graded = scales * lengths
    largest = float(graded.max()) if graded.numel() else 0.0
    if largest == 0.0:
        return Spectrum(graded[:0], graded[:0], gram[:0], trace_outside)
    if not math.isfinite(largest):
        raise IFIMError("the Fisher information is too large for float64: give the outputs or the image another unit.")
    weights = graded / largest  # so that squares of tiny scales do not underflow
    alive = (weights > 0).nonzero()[:, 0]
    kernel = gram if alive.numel() == gram.shape[0] else gram[alive][:, alive]
    if kernel is gram and not overwrite_gram:
        kernel = gram.clone()
    kernel.div_(lengths[alive, None]).div_(lengths[alive]).mul_(weights[alive, None]).mul_(weights[alive])
    tolerance = max(_row_noise(row_eps) ** 2, _resolution(alive.numel()))
    small = float(kernel.diagonal().min()) < GRADED * float(kernel.diagonal().max())
    values, vectors = _eigenpairs(kernel, tolerance, small)
    held = int((values * largest**2 > 0).sum())  # smaller eigenvalues underflow
    values, vectors = values[:held], vectors[:held]
    coefficients = vectors
    if alive.numel() < scales.numel():
        coefficients = torch.zeros(values.numel(), scales.numel(), dtype=torch.float64, device="cpu")
        coefficients[:, alive] = vectors
    return Spectrum(values * largest**2, values.sqrt() * largest, coefficients, float(graded.square().sum()) + trace_outside)


def count_kept(spectrum: Spectrum, energy: float, rank: int | None) -> int:
    """Number of leading eigenpairs to keep: `rank`, or the fewest that hold the share `energy` of the trace; at most all."""
    available = spectrum.eigenvalues.numel()
    if rank is not None:
        return min(rank, available)
    if available == 0 or energy >= 1.0:
        return available
    held = spectrum.eigenvalues.cumsum(0) / spectrum.trace
    return min(available, int((held < energy).sum()) + 1)


def cuts_through_tie(spectrum: Spectrum, kept: int, tolerance: float) -> bool:
    """True if the last kept and the first dropped eigenvalue agree to within the relative `tolerance`."""
    if kept == 0 or kept >= spectrum.eigenvalues.numel():
        return False
    last, following = spectrum.eigenvalues[kept - 1], spectrum.eigenvalues[kept]
    return bool(last - following <= tolerance * last)


def check_selection(energy: float, rank: int | None) -> tuple[float, int | None]:
    """(energy, rank) as Python numbers; raises IFIMError unless 0 < energy <= 1 and rank is None or 1, 2, ..."""
    share = float(energy) if isinstance(energy, Real) and not isinstance(energy, bool) else 0.0
    if not 0.0 < share <= 1.0:
        raise IFIMError(f"energy={energy!r} is the share of the trace to keep: give a number above 0 and up to 1.")
    if rank is None:
        return share, None
    if isinstance(rank, bool) or not isinstance(rank, Integral) or rank < 1:
        raise IFIMError(f"rank={rank!r} is the number of components to keep: give a whole number from 1 on.")
    return share, int(rank)


def _row_noise(row_eps: float) -> float:
    """Relative rounding error of a row: ROW_NOISE eps, less for half precision, whose sums run in float32."""
    return min(ROW_NOISE * row_eps, max(ROW_NOISE * torch.finfo(torch.float32).eps, 8 * row_eps))


def _resolution(count: int) -> float:
    """Smallest share of its squared length that one of `count` rows must have outside the span of the heavier rows."""
    return RESOLVED * count * torch.finfo(torch.float64).eps


def _eigenpairs(kernel: Tensor, tolerance: float, graded: bool) -> tuple[Tensor, Tensor]:
    """Eigenvalues [n] and eigenvectors [n, r] of the kernel, n its numerical rank; the kernel is overwritten."""
    lower, rank = _pivoted_cholesky(kernel, tolerance)
    if graded and rank <= LARGEST_JACOBI:
        return _one_sided_jacobi(lower)
    del lower
    return _leading_eigh(kernel, rank)


def _pivoted_cholesky(kernel: Tensor, tolerance: float) -> tuple[Tensor, int]:
    """L [r, n] with L L^T = kernel, and n; rows whose diagonal has shrunk to `tolerance` times its first value are left out.

    Each column is computed from those before it, so that no copy of the kernel is needed for what is left of it.
    """
    original = kernel.diagonal().clone()
    rest, columns, rank = original.clone(), torch.zeros_like(kernel), 0  # rest: of the diagonal
    waiting = torch.ones_like(rest)
    while rank < kernel.shape[0]:
        diagonal = torch.where(rest > tolerance * original, rest, 0.0)
        pivot = int(diagonal.argmax())
        if float(diagonal[pivot]) <= 0.0:
            break
        root = rest[pivot].sqrt()
        before, column = columns[:rank], columns[rank]
        torch.addmv(kernel[pivot], before.T, before[:, pivot], alpha=-1.0, out=column)
        column.mul_(waiting).div_(root)
        column[pivot] = root
        waiting[pivot] = 0.0
        rest.addcmul_(column, column, value=-1.0).mul_(waiting)
        rank += 1
    return columns[:rank].T, rank


def _one_sided_jacobi(lower: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [n] and unit eigenvectors [n, r] of lower lower^T: columns are rotated until all are orthogonal.

    Round robin: each step rotates disjoint pairs together, and n - 1 steps rotate every pair once.
    """
    count = lower.shape[1]
    columns = lower.T.contiguous()
    if count % 2:
        columns = torch.cat([columns, torch.zeros_like(columns[:1])])
    players = torch.arange(columns.shape[0], device="cpu")
    tolerance = columns.shape[0] * torch.finfo(torch.float64).eps
    for _ in range(MAXIMUM_SWEEPS):
        worst = 0.0
        for _ in range(columns.shape[0] - 1):
            half = players.numel() // 2
            worst = max(worst, _rotate(columns, players[:half], players[half:].flip(0)))
            players = torch.cat([players[:1], players[1:].roll(1)])
        if worst <= tolerance:
            break
    values = columns.square().sum(1)
    order = values.argsort(descending=True)[:count]
    return values[order], columns[order] / values[order].sqrt()[:, None]


def _rotate(columns: Tensor, first: Tensor, second: Tensor) -> float:
    """Make each pair of rows orthogonal in place; returns the largest cosine found."""
    a, b = columns[first], columns[second]
    alpha, beta, gamma = (a * a).sum(1), (b * b).sum(1), (a * b).sum(1)
    zeta = (beta - alpha) / (2 * gamma)
    length = torch.hypot(zeta, torch.ones_like(zeta))  # the square of zeta may overflow
    tangent = torch.where(zeta >= 0, 1.0, -1.0) / (zeta.abs() + length)
    tangent = torch.where(gamma == 0, 0.0, tangent)[:, None]
    cosine = (1 + tangent.square()).rsqrt()
    columns[first] = cosine * (a - tangent * b)
    columns[second] = cosine * (b + tangent * a)
    lengths = alpha.sqrt() * beta.sqrt()
    return float(torch.where(lengths > 0, gamma.abs() / lengths, 0.0).max())


def _leading_eigh(kernel: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The first `rank` eigenvalues and eigenvectors by LAPACK's syevr in the kernel's memory, those below its rounding left out.

    Of -K, so that they come in descending order. PyTorch's eigh would take three more matrices of this size.
    """
    from scipy.linalg import eigh  # takes a third of a second, and the package is imported without it

    values, vectors = eigh(kernel.neg_().numpy().T, overwrite_a=True, check_finite=False, driver="evr")
    values = -torch.from_numpy(values)[:rank]
    resolved = int((values > _resolution(kernel.shape[0]) * values[0]).sum())
    return values[:resolved], torch.from_numpy(vectors).T[:resolved]
