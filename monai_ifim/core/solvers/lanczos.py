"""The matrix-free method: leading eigenpairs of F = A A^T from products with A and A^T alone.

Lanczos iteration on A^T A, of size r x r, with full reorthogonalisation: v, A^T A v, ... are made orthonormal, and the
Rayleigh-Ritz method on their span gives the pairs. All images of a batch share the passes. The residual of each pair is computed
from the products themselves. After the first convergence the iteration goes on for a few steps from a new random direction: one
start vector finds a repeated eigenvalue only once.

Why no library solver: ARPACK (scipy.sparse.linalg.eigsh) takes one image at a time, on the CPU, and at least 20 products;
torch.lobpcg takes no operator. `tests/core/solvers/test_lanczos.py` compares with ARPACK.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from monai_ifim.core.errors import ConvergenceWarning, NetworkError, warn_caller
from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.base import Subspace
from monai_ifim.core.solvers.trace_probes import CONFIDENCE, TraceProbes, random_vectors
from monai_ifim.core.spectrum import ROW_NOISE

PROBES = 2  # of the trace
STEPS_A_PAIR, FURTHER_STEPS = 8, 48  # most steps for k pairs: 8 k + 48
STEPS_FOR_ENERGY = 96  # most steps where a share of the trace decides how many pairs
STEPS_AFTER_RESTART = 2
CHECK_EVERY = 2  # steps between two tests for convergence, each of which waits for the device
SINGLE_ELEMENTS = 2**20  # number of columns from which on the basis is kept in float32
ADJOINT_TOLERANCE = 0.05  # wide enough for half precision
BREAKDOWN = 1e-10  # share of its length that a vector inside the span keeps after reorthogonalisation


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
        dtype = torch.float64 if factor.columns < SINGLE_ELEMENTS else torch.float32
        table = scales.new_empty(scales.shape[0], capacity, factor.columns, dtype=dtype)
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

    def orthogonal(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """w [B, r] minus its projection onto V, normalised, and the share of the length of w outside V [B]."""
        before = w.norm(dim=1)
        basis = self.vectors[:, : self.count]
        for _ in range(2):
            w = w - torch.einsum("bmr,bm->br", basis, torch.einsum("bmr,br->bm", basis, w.to(basis))).to(w)
        after = w.norm(dim=1)
        share = torch.where(before > 0, after / torch.where(before > 0, before, 1.0), 0.0)
        return w / torch.where(after > 0, after, 1.0)[:, None], share

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Ritz values [B, m], descending, and their residual norms |A^T A y - theta y| [B, m], on the CPU.

        V^T A^T A V is symmetric up to the rounding of the passes, and the residuals are computed without assuming more.
        """
        m = self.count
        middle, squared = self.projected[:, :m, :m].cpu(), self.squared[:, :m, :m].cpu()
        values, coefficients = torch.linalg.eigh(0.5 * (middle + middle.mT))
        values, coefficients = values.flip(1).clamp_min(0), coefficients.flip(2)
        inner, outer = (torch.einsum("bmi,bmn,bni->bi", coefficients, matrix, coefficients) for matrix in (middle, squared))
        return values, (outer - 2 * values * inner + values.square()).clamp_min(0).sqrt()


def leading_pairs(factor: Factor, rows: FactorRows, settings: Settings, row_eps: float, generator: torch.Generator) -> Subspace:
    """Iterate until the residuals of the kept pairs of every image are below the tolerance, or the steps are used up.

    In the latter case it warns (ConvergenceWarning) and reports the pairs that are within the tolerance.
    """
    r = factor.columns
    most = most_steps(settings, r)
    probes = TraceProbes.draw(factor, PROBES, generator)
    basis = LanczosBasis.empty(factor, most)
    scores: list[Tensor] = []
    v, _ = basis.orthogonal(random_vectors(factor, generator))
    restarted_at: int | None = None
    while True:
        row, scale = factor.multiply(v)
        rows.append(row, scale)
        probes.remove(v, row, scale)
        w = factor.adjoint(row) * scale[:, None] if basis.count else verified_adjoint(factor, v, row, scale)
        basis.append(v, w)
        scores.append((v * factor.root.score).sum(1))
        if basis.count % CHECK_EVERY == 0 or basis.count == most:
            verdict = _Verdict.of(basis, probes, settings, row_eps, complete=basis.count == r)
            settled = restarted_at is not None and basis.count >= restarted_at + STEPS_AFTER_RESTART and verdict.enough
            if settled or basis.count == most:
                break
            if verdict.enough and restarted_at is None:
                restarted_at = basis.count
        fresh = random_vectors(factor, generator)
        v, share = basis.orthogonal(fresh if restarted_at == basis.count else w)
        replacement, _ = basis.orthogonal(fresh)
        v = torch.where((share > BREAKDOWN)[:, None], v, replacement)
    if not verdict.enough:
        _warn_unfinished(verdict, settings, most)
    outside = probes.estimate()
    whole = basis.count == r
    nothing = torch.zeros_like(outside)
    return Subspace(
        "matrix_free",
        rows,
        torch.stack(scores, dim=1),
        nothing if whole else outside,
        nothing if whole else probes.upper_bound(),
        1.0 if whole else CONFIDENCE,
        None if whole else verdict.good,
        verdict.residuals,
    )


def verified_adjoint(factor: Factor, v: Tensor, row: Tensor, scale: Tensor) -> Tensor:
    """A^T A v from A v = scale x row, checked by <v, A^T A v> = |A v|^2; v: [B, r].

    A backward pass that cannot be differentiated may return a derivative of zero without an error; then J u is formed the
    other way. Raises NetworkError where neither way is the transpose of the vector-Jacobian products.
    """
    expected = (row.to(scale.device).to(torch.float64).norm(dim=1) * scale).square()
    for _ in range(2):
        w = factor.adjoint(row) * scale[:, None]
        if bool((((v * w).sum(1) - expected).abs() <= ADJOINT_TOLERANCE * expected).all()):
            return w
        factor.jacobian.use_other_way()
    written = factor.jacobian.layers_with_own_backward()
    raise NetworkError(
        "Jacobian-vector products of this network are not the transpose of its vector-Jacobian products: one of its operations "
        "has a wrong first or second derivative. Use method='exact' or 'adaptive', which need vector-Jacobian products only."
        + (f" Look at these functions with a backward pass of their own: {', '.join(written)}." if written else "")
    )


def most_steps(settings: Settings, columns: int) -> int:
    """Largest number of steps of the iteration."""
    return min(columns, STEPS_FOR_ENERGY if settings.rank is None else STEPS_A_PAIR * settings.rank + FURTHER_STEPS)


@dataclass(frozen=True)
class _Verdict:
    """State of the iteration: good, for each image the number of leading pairs with residuals below the tolerance; wanted, the
    number the selection asks for, one more than there are where they do not hold the share of the trace; residuals, bounds of
    |F u - l u|, [m] for each image."""

    good: list[int]
    wanted: list[int]
    residuals: list[Tensor] = field(repr=False)

    @property
    def enough(self) -> bool:
        return all(good >= wanted for good, wanted in zip(self.good, self.wanted, strict=True))

    @classmethod
    def of(cls, basis: LanczosBasis, probes: TraceProbes, settings: Settings, row_eps: float, complete: bool) -> _Verdict:
        values, lengths = basis.ritz()
        outsides = probes.estimate().tolist()
        good, wanted, residuals = [], [], []
        for theta, length, outside in zip(values, lengths, outsides, strict=True):
            # F u - theta u = A (A^T A y - theta y) / sqrt(theta), and |A| <= sqrt(theta_1) up to the first residual.
            first = theta[0] + length[0]
            bound = torch.where(theta > 0, (first / torch.where(theta > 0, theta, 1.0)).sqrt() * length, 0.0)
            floor = ROW_NOISE * row_eps * theta[0]
            within = (bound <= torch.maximum(settings.tolerance * theta, floor)) | (theta <= floor)
            good.append(theta.numel() if complete else int(within.int().cumprod(0).sum()))
            wanted.append(_wanted(theta, outside, settings, basis.vectors.shape[2]))
            residuals.append(bound)
        return cls(good, wanted, residuals)


def _wanted(theta: Tensor, outside: float, settings: Settings, columns: int) -> int:
    """Number of Ritz pairs that the selection keeps; one more than there are where they do not suffice."""
    if settings.rank is not None:
        return min(settings.rank, columns)
    trace = float(theta.sum()) + outside
    if trace == 0.0:
        return 0
    short = int((theta.cumsum(0) < settings.energy * trace).sum())
    return short + 1 if theta.numel() < columns else min(short + 1, theta.numel())


def _warn_unfinished(verdict: _Verdict, settings: Settings, most: int) -> None:
    asked = f"rank={settings.rank}" if settings.rank is not None else f"energy={settings.energy}"
    warn_caller(
        f"matrix_free stopped after {most} steps with {min(verdict.good)} leading pair(s) within the tolerance; {asked} needs "
        f"{max(verdict.wanted)} or more. The pairs reported are accurate; ask for fewer components (rank=) or a larger "
        "tolerance=, or use method='exact'.",
        ConvergenceWarning,
    )
