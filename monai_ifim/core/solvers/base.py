"""What a method returns: the factor's product with an orthonormal basis V of its columns' coordinates, and what V leaves out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.settings import Settings
from monai_ifim.core.spectrum import Spectrum, count_kept, solve_spectrum


@dataclass(frozen=True)
class Subspace:
    """Rows of A V, from which eigenpairs follow by Rayleigh and Ritz: exactly those of F where V is everything.

    rows: m of them; score: [B, m] float64, V^T times the root's score. tail: trace outside of V as estimated, tail_bound:
    what it stays below with the confidence stated, both [B] float64, zero where V is everything. pairs: how many leading
    eigenpairs of each image are good enough to report, None for all. residuals: bounds of |F u - l u| of those.
    """

    method: str
    rows: FactorRows
    score: Tensor
    tail: Tensor
    tail_bound: Tensor
    confidence: float = 1.0
    pairs: list[int] | None = None
    residuals: list[Tensor] | None = None

    def spectra(self, row_eps: float) -> list[Spectrum]:
        """Of each image, the trace with the estimate of what is outside."""
        solved = [
            solve_spectrum(gram, scales, row_eps, float(tail))
            for gram, scales, tail in zip(self.rows.gram(), self.rows.scales, self.tail, strict=True)
        ]
        if self.pairs is None:
            return solved
        return [spectrum.leading(count) for spectrum, count in zip(solved, self.pairs, strict=True)]


def enough(spectrum: Spectrum, tail_bound: float, settings: Settings) -> bool:
    """Whether the kept eigenvalues are known to the tolerance: adding what is outside moves each by at most its trace (Weyl)."""
    if spectrum.trace == 0.0:
        return True
    kept = count_kept(spectrum, settings.energy, settings.rank)
    if kept == 0 or (settings.rank is not None and kept < settings.rank):
        return False
    if settings.rank is None and float(spectrum.eigenvalues[:kept].sum()) < settings.energy * spectrum.trace:
        return False
    return tail_bound <= settings.tolerance * float(spectrum.eigenvalues[kept - 1])
