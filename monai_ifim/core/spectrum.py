"""Eigenvalues of graded Gram matrices to high relative accuracy, their numerical rank, and how many of them to keep.

With a saturated prediction the columns of G differ by tens of orders of magnitude, K = diag(g) A diag(g) with unit
diagonal in A. A symmetric eigensolver returns every eigenvalue to within eps times the largest, which loses the small
ones. Pivoted Cholesky followed by one-sided Jacobi rotations returns each to within eps times the condition of A alone
(Demmel and Veselic, SIAM J. Matrix Anal. Appl. 13, 1992).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor

from monai_ifim.core.errors import IFIMError

GRADED = 1e-6  # ratio of smallest to largest diagonal entry of K below which the small eigenvalues need Jacobi
LARGEST_JACOBI = 256  # above this size rotations cost more than backward passes; eigh's absolute accuracy has to do
MAXIMUM_SWEEPS = 60
RESOLVED = 256.0  # below this many n eps of float64 nothing in a Gram matrix of n rows tells an eigenvector from rounding
ROW_NOISE = 64.0  # rounding error of a row of vector-Jacobian products, in units of its dtype's eps


@dataclass(frozen=True)
class Spectrum:
    """Nonzero eigenpairs of one image's K = G^T G.

    eigenvalues: [n] float64, descending, n the numerical rank; roots: their square roots, which float64 holds to more
    digits where the eigenvalues are about to underflow. coefficients: [n, r] float64, unit rows v_i.
    trace: sum of the diagonal of K, and of what K leaves out.
    """

    eigenvalues: Tensor
    roots: Tensor
    coefficients: Tensor
    trace: float

    def leading(self, count: int) -> Spectrum:
        """The first `count` eigenpairs alone, the trace as it is."""
        return Spectrum(self.eigenvalues[:count], self.roots[:count], self.coefficients[:count], self.trace)


def solve_spectrum(gram: Tensor, scales: Tensor, row_eps: float, trace_outside: float = 0.0) -> Spectrum:
    """Eigenpairs of diag(scales) gram diag(scales); trace_outside: trace of what the rows leave out.

    gram: [r, r] float64, of unscaled rows; scales: [r] float64, >= 0; row_eps: machine epsilon of the rows' dtype, from
    which numerical rank is judged: a row that is a combination of heavier rows to within its own rounding adds nothing.
    """
    gram, scales = gram.cpu(), scales.cpu()
    lengths = gram.diagonal().clamp_min(0).sqrt()
    graded = scales * lengths
    largest = float(graded.max()) if graded.numel() else 0.0
    if largest == 0.0:
        return Spectrum(graded[:0], graded[:0], gram[:0], trace_outside)
    if not math.isfinite(largest):
        raise IFIMError("the Fisher information is too large for float64: give the outputs or the image another unit.")
    weights = graded / largest  # so that squares of tiny scales stay inside float64
    alive = (weights > 0).nonzero()[:, 0]
    kernel = gram.clone() if alive.numel() == gram.shape[0] else gram[alive][:, alive]
    kernel.div_(lengths[alive, None]).div_(lengths[alive]).mul_(weights[alive, None]).mul_(weights[alive])
    tolerance = max(_row_noise(row_eps) ** 2, _resolution(alive.numel()))
    small = float(kernel.diagonal().min()) < GRADED * float(kernel.diagonal().max())
    values, vectors = _eigenpairs(kernel, tolerance, small)
    held = int((values * largest**2 > 0).sum())  # below that float64 has no number for an eigenvalue
    values, vectors = values[:held], vectors[:held]
    coefficients = vectors
    if alive.numel() < gram.shape[0]:
        coefficients = torch.zeros(values.numel(), gram.shape[0], dtype=torch.float64, device="cpu")
        coefficients[:, alive] = vectors
    return Spectrum(values * largest**2, values.sqrt() * largest, coefficients, float(graded.square().sum()) + trace_outside)


def count_kept(spectrum: Spectrum, energy: float, rank: int | None) -> int:
    """How many leading eigenpairs to keep: `rank` of them, or the fewest that hold the share `energy` of the trace."""
    available = spectrum.eigenvalues.numel()
    if rank is not None:
        return min(rank, available)
    if available == 0 or energy >= 1.0:
        return available
    held = spectrum.eigenvalues.cumsum(0) / spectrum.trace
    return min(available, int((held < energy).sum()) + 1)


def cuts_through_tie(spectrum: Spectrum, kept: int, tolerance: float) -> bool:
    """Whether the last kept and the first dropped eigenvalue agree to within the relative `tolerance`."""
    if kept == 0 or kept >= spectrum.eigenvalues.numel():
        return False
    last, following = spectrum.eigenvalues[kept - 1], spectrum.eigenvalues[kept]
    return bool(last - following <= tolerance * last)


def check_selection(energy: float, rank: int | None) -> tuple[float, int | None]:
    """Both as plain numbers (configs bring numpy's); raises IFIMError unless 0 < energy <= 1 and rank is None or 1, 2, ..."""
    share = float(energy) if isinstance(energy, Real) and not isinstance(energy, bool) else 0.0
    if not 0.0 < share <= 1.0:
        raise IFIMError(f"energy={energy!r} is the share of the trace to keep: give a number above 0 and up to 1.")
    if rank is None:
        return share, None
    if isinstance(rank, bool) or not isinstance(rank, Integral) or rank < 1:
        raise IFIMError(f"rank={rank!r} is the number of components to keep: give a whole number from 1 on.")
    return share, int(rank)


def _row_noise(row_eps: float) -> float:
    """Relative rounding error of a row: ROW_NOISE eps, less steep for half precision, whose sums run in float32."""
    return min(ROW_NOISE * row_eps, max(ROW_NOISE * torch.finfo(torch.float32).eps, 8 * row_eps))


def _resolution(count: int) -> float:
    """Smallest part of itself that a row of `count` may keep once the heavier rows are taken off, squared lengths."""
    return RESOLVED * count * torch.finfo(torch.float64).eps


def _eigenpairs(kernel: Tensor, tolerance: float, graded: bool) -> tuple[Tensor, Tensor]:
    """Eigenvalues [n] and eigenvectors [n, r] of the kernel, n its numerical rank."""
    lower, rank = _pivoted_cholesky(kernel, tolerance)
    if graded and rank <= LARGEST_JACOBI:
        return _one_sided_jacobi(lower)
    del lower
    return _leading_eigh(kernel, rank)


def _pivoted_cholesky(kernel: Tensor, tolerance: float) -> tuple[Tensor, int]:
    """L [r, n] with L L^T = kernel; a row is left out once its own diagonal has shrunk below `tolerance` of itself."""
    rest, original = kernel.clone(), kernel.diagonal().clone()
    columns, rank = torch.zeros_like(kernel), 0  # row by row; nothing is allocated in the loop that outlives a step
    while rank < kernel.shape[0]:
        diagonal = torch.where(rest.diagonal() > tolerance * original, rest.diagonal(), 0.0)
        pivot = int(diagonal.argmax())
        if float(diagonal[pivot]) <= 0.0:
            break
        column = columns[rank]
        torch.div(rest[:, pivot], rest[pivot, pivot].sqrt(), out=column)
        rest.addr_(column, column, alpha=-1.0)
        rest[pivot, :], rest[:, pivot] = 0.0, 0.0
        rank += 1
    return columns[:rank].T, rank


def _one_sided_jacobi(lower: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [n] and unit eigenvectors [n, r] of lower lower^T: rotate columns until all are orthogonal.

    Round robin: each step rotates disjoint pairs together, n - 1 steps meet every pair once.
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
    """Make each pair of rows orthogonal in place; returns the largest cosine met."""
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
    values, vectors = torch.linalg.eigh(kernel)
    values = values.flip(0)[:rank]
    resolved = int((values > _resolution(kernel.shape[0]) * values[0]).sum())
    return values[:resolved], vectors[:, -resolved:].T.flip(0)
