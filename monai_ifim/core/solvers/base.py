"""Result of a solver: A V for an orthonormal V, and a bound on the trace outside span(V)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.remainder import Remainder
from monai_ifim.core.spectrum import Spectrum, count_kept, solve_spectrum

Stopped = Literal["steps", "request"]  # why an iteration ended before it had converged


@dataclass(frozen=True)
class Subspace:
    """A V for an orthonormal V [r, m] of each image. The Rayleigh-Ritz pairs of A V are eigenpairs of F where V spans R^r.

    rows: the m columns of A V, as rows. score: [B, m] float64, V^T times the score of the head's root.
    trace_outside: [B] float64, estimate of the trace of F outside span(V); trace_outside_bound: its upper bound, which holds
    with the probability `confidence`; trace_error: the standard error of the estimate, at most. All are zero where V spans R^r.
    pairs: number of leading eigenpairs of each image that are reported, None for all. residuals: for each
    image, bounds of |F u - l u| of those pairs. probes: random columns that the estimate is the mean of. remainder: F outside
    span(V), estimated, where the method does so. converged: for each image, if what the selection asks for is within the
    tolerance, None for all; stopped: why it is not.
    """

    method: str
    rows: FactorRows
    score: Tensor
    trace_outside: Tensor
    trace_outside_bound: Tensor
    confidence: float = 1.0
    pairs: list[int] | None = None
    residuals: list[Tensor] | None = None
    probes: int = 0
    remainder: Remainder | None = None
    converged: list[bool] | None = None
    stopped: Stopped | None = None

    @property
    def trace_error(self) -> Tensor:
        """Standard error of `trace_outside`, [B] float64; where it was not estimated, an upper bound of it.

        Of n columns with normal weights it is sqrt(2 trace R^2 / n), R being the remainder, and trace R^2 <= (trace R)^2.
        """
        if self.remainder is not None:
            return self.remainder.trace_error
        return self.trace_outside * (math.sqrt(2 / self.probes) if self.probes else 0.0)

    def spectra(self, row_eps: float) -> list[Spectrum]:
        """Spectrum of each image; its trace includes the estimate of the trace outside span(V)."""
        estimates = self.trace_outside.tolist()
        solved = [
            solve_spectrum(gram, scales, row_eps, outside, overwrite_gram=True)
            for gram, scales, outside in zip(self.rows.gram().cpu(), self.rows.scales.cpu(), estimates, strict=True)
        ]
        if self.pairs is None:
            return solved
        return [spectrum.leading(count) for spectrum, count in zip(solved, self.pairs, strict=True)]


def enough(spectrum: Spectrum, trace_outside_bound: float, settings: Settings) -> bool:
    """True if the selection can be made and its eigenvalues are within the tolerance.

    The part of F outside span(V) changes each eigenvalue by at most its trace (Weyl's inequality).
    """
    if spectrum.trace == 0.0:
        return True
    energy, rank, tolerance = settings.resolved
    kept = count_kept(spectrum, energy, rank)
    if kept == 0 or (rank is not None and kept < rank):
        return False
    if rank is None and float(spectrum.eigenvalues[:kept].sum()) < energy * spectrum.trace:
        return False
    return trace_outside_bound <= tolerance * float(spectrum.eigenvalues[kept - 1])
