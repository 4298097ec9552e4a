"""Result of a solver: A V for an orthonormal V, and a bound on the trace outside span(V)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.settings import Settings
from monai_ifim.core.spectrum import Spectrum, count_kept, solve_spectrum


@dataclass(frozen=True)
class Subspace:
    """A V for an orthonormal V [r, m] of each image. The Rayleigh-Ritz pairs of A V are eigenpairs of F where V spans R^r.

    rows: the m columns of A V, as rows. score: [B, m] float64, V^T times the score of the head's root.
    trace_outside: [B] float64, estimate of the trace of F outside span(V); trace_outside_bound: its upper bound, which holds
    with the probability `confidence`. Both are zero where V spans R^r.
    pairs: number of leading eigenpairs of each image that are accurate enough to report, None for all. residuals: for each
    image, bounds of |F u - l u| of those pairs.
    """

    method: str
    rows: FactorRows
    score: Tensor
    trace_outside: Tensor
    trace_outside_bound: Tensor
    confidence: float = 1.0
    pairs: list[int] | None = None
    residuals: list[Tensor] | None = None

    def spectra(self, row_eps: float) -> list[Spectrum]:
        """Spectrum of each image; its trace includes the estimate of the trace outside span(V)."""
        solved = [
            solve_spectrum(gram, scales, row_eps, float(outside))
            for gram, scales, outside in zip(self.rows.gram(), self.rows.scales, self.trace_outside, strict=True)
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
    kept = count_kept(spectrum, settings.energy, settings.rank)
    if kept == 0 or (settings.rank is not None and kept < settings.rank):
        return False
    if settings.rank is None and float(spectrum.eigenvalues[:kept].sum()) < settings.energy * spectrum.trace:
        return False
    return trace_outside_bound <= settings.tolerance * float(spectrum.eigenvalues[kept - 1])
