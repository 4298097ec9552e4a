"""The matrix-free method: leading eigenpairs of F = A A^T from products with A and A^T alone.

Lanczos iteration on A^T A, of size r x r, with full reorthogonalisation: v, A^T A v, ... are made orthonormal, and the
Rayleigh-Ritz method on their span gives the pairs. All images of a batch share the passes. The residual of each pair is computed
from the products themselves. After the first convergence the iteration goes on for a few steps from a new random direction: one
start vector finds a repeated eigenvalue only once. Where the iteration ends before every pair is within the tolerance, because
its steps are used up or because it was asked to, it gives the best pairs so far, and says so.

Why no library solver: ARPACK (scipy.sparse.linalg.eigsh) takes one image at a time, on the CPU, and at least 20 products;
torch.lobpcg takes no operator. `tests/core/solvers/test_lanczos.py` compares with ARPACK.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from monai_ifim.core.errors import NetworkError
from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.base import Stopped, Subspace
from monai_ifim.core.solvers.convergence import Verdict, measured_residuals
from monai_ifim.core.solvers.krylov import LanczosBasis
from monai_ifim.core.solvers.remainder import sample_remainder
from monai_ifim.core.solvers.trace_probes import CONFIDENCE, TraceProbes, random_vectors
from monai_ifim.core.solvers.watch import IterationState, Watch, steps_left

EARLY_PROBES = 2  # of the trace, where a share of it decides when the iteration may end
STEPS_A_PAIR, FURTHER_STEPS = 8, 48  # most steps for k pairs: 8 k + 48
STEPS_FOR_ENERGY = 96  # most steps where a share of the trace decides how many pairs
STEPS_AFTER_RESTART = 2
CHECK_EVERY = 2  # steps between two tests for convergence, each of which waits for the device
ADJOINT_TOLERANCE = 0.05  # wide enough for half precision
BREAKDOWN = 1e-10  # share of its length that a vector inside the span keeps after reorthogonalisation
PRODUCTS_A_STEP = 2
RESIDUAL_PRODUCTS = 2  # at most, for the residuals of pairs that are not converged
CLOSING_PRODUCTS = RESIDUAL_PRODUCTS + 1  # and for the verification


@dataclass
class _Iteration:
    """The iteration so far: basis with A V in `rows`, scores V^T w, early probes where a share of the trace decides, the step
    after which a new direction was taken, and the residuals at each test."""

    factor: Factor
    rows: FactorRows
    settings: Settings
    basis: LanczosBasis
    probes: TraceProbes
    v: Tensor
    scores: list[Tensor] = field(default_factory=list)
    restarted_at: int | None = None
    history: list[tuple[int, float]] = field(default_factory=list)

    @classmethod
    def begun(cls, factor: Factor, rows: FactorRows, settings: Settings, generator: torch.Generator) -> _Iteration:
        probes = TraceProbes.draw(factor, _early_probes(settings), generator)
        basis = LanczosBasis.empty(factor, most_steps(settings, factor.columns))
        v, _ = basis.orthogonal(random_vectors(factor, generator))
        return cls(factor, rows, settings, basis, probes, v)

    def multiply(self) -> Tensor:
        """Take v into the basis; returns A^T A v."""
        v = self.v
        row, scale = self.factor.multiply(v)
        self.rows.append(row, scale)
        self.probes.remove(v, row, scale)
        first = self.basis.count == 0
        w = verified_adjoint(self.factor, v, row, scale) if first else self.factor.adjoint(row) * scale[:, None]
        self.basis.append(v, w)
        self.scores.append((v * self.factor.root.score).sum(1))
        return w

    def turn(self, w: Tensor, generator: torch.Generator) -> None:
        """Choose the next vector: the part of w outside of the basis, or a random one after the first convergence."""
        fresh = random_vectors(self.factor, generator)
        v, share = self.basis.orthogonal(fresh if self.restarted_at == self.basis.count else w)
        replacement, _ = self.basis.orthogonal(fresh)
        self.v = torch.where((share > BREAKDOWN)[:, None], v, replacement)

    def verdict(self, row_eps: float) -> Verdict:
        """How far it is."""
        columns, batch = self.factor.columns, self.factor.image.shape[0]
        outside = self.probes.estimate().tolist() if self.probes.rows else [0.0] * batch
        complete = self.basis.count == columns
        return Verdict.of(self.basis.ritz(), outside, self.settings, row_eps, columns, complete)

    def settled(self, verdict: Verdict) -> bool:
        """True if it may end: the pairs were enough before a new direction was taken, and still are some steps after it."""
        if not verdict.enough:
            return False
        if self.restarted_at is None:
            self.restarted_at = self.basis.count
        return self.basis.count >= self.restarted_at + STEPS_AFTER_RESTART

    def state(self, verdict: Verdict, most: int) -> IterationState:
        """For who watches it."""
        worst, residual = verdict.largest()
        tolerance = self.settings.resolved.tolerance
        self.history.append((self.basis.count, residual))
        made, closing = self.factor.jacobian.products, self.settings.probes + CLOSING_PRODUCTS
        limit = made + PRODUCTS_A_STEP * (most - self.basis.count) + closing
        steps = 0 if verdict.enough else steps_left(self.history, tolerance)
        left = None if steps is None else PRODUCTS_A_STEP * (steps + STEPS_AFTER_RESTART) + self.settings.probes
        good, wanted = verdict.good[worst], verdict.wanted[worst]
        left = None if left is None else min(left, limit - made)
        return IterationState(made, limit, wanted, min(good, wanted), residual, tolerance, left)


def leading_pairs(
    factor: Factor,
    rows: FactorRows,
    settings: Settings,
    row_eps: float,
    generator: torch.Generator,
    watch: Watch = Watch(),  # noqa: B008 (frozen, without state)
) -> Subspace:
    """Iterate until the residuals of the kept pairs of every image are below the tolerance, the steps are used up, or `watch`
    asks to stop; then estimate what is outside of the basis from `settings.probes` random columns.

    Of an image that is not converged the best pairs are given, with their residuals as products with A measure them.
    """
    most = most_steps(settings, factor.columns)
    iteration = _Iteration.begun(factor, rows, settings, generator)
    basis = iteration.basis
    while True:
        w = iteration.multiply()
        asked = watch.stop(settings.probes + CLOSING_PRODUCTS)
        last = asked or basis.count == most
        if last or basis.count % CHECK_EVERY == 0:
            verdict = iteration.verdict(row_eps)
            watch.report(iteration.state(verdict, most))
            if iteration.settled(verdict) or last:
                break
        iteration.turn(w, generator)
    scores = torch.stack(iteration.scores, dim=1)
    if basis.count == factor.columns:
        nothing = torch.zeros_like(scores[:, 0])
        return Subspace("matrix_free", rows, scores, nothing, nothing, residuals=list(verdict.residuals))
    further = FactorRows(rows.like, shelve=rows.shelve, block_elements=rows.block_elements)
    remainder = sample_remainder(factor, basis, further, settings.probes, generator)
    stopped: Stopped | None = None if verdict.enough else "request" if asked else "steps"
    return Subspace(
        "matrix_free",
        rows,
        scores,
        remainder.trace,
        remainder.trace_bound,
        CONFIDENCE,
        verdict.reported,
        _residuals(factor, basis, verdict),
        remainder=remainder,
        converged=verdict.converged,
        stopped=stopped,
    )


def _residuals(factor: Factor, basis: LanczosBasis, verdict: Verdict) -> list[Tensor]:
    """Of the reported pairs of each image: the bounds of the iteration, which hold once it has converged, else measured ones."""
    if verdict.enough:
        return list(verdict.residuals)
    measured = measured_residuals(factor, basis, basis.ritz().leading(max(verdict.reported)))
    return [
        bound if converged else residual
        for bound, residual, converged in zip(verdict.residuals, measured, verdict.converged, strict=True)
    ]


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


def probe_products(settings: Settings) -> int:
    """Products with random columns."""
    return settings.probes + _early_probes(settings)


def _early_probes(settings: Settings) -> int:
    return EARLY_PROBES if settings.resolved.rank is None else 0


def most_steps(settings: Settings, columns: int) -> int:
    """Largest number of steps of the iteration."""
    rank = settings.resolved.rank
    return min(columns, STEPS_FOR_ENERGY if rank is None else STEPS_A_PAIR * rank + FURTHER_STEPS)
