"""The warning that an iteration ended before its pairs were within the tolerance, with advice that holds for the head."""

from __future__ import annotations

from torch import Tensor

from monai_ifim.core.errors import ConvergenceWarning, warn_caller
from monai_ifim.core.heads.base import Head
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.base import Subspace
from monai_ifim.core.spectrum import Spectrum


def warn_unfinished(
    head: Head, settings: Settings, subspace: Subspace, kept: list[int], residuals: list[Tensor], spectra: list[Spectrum]
) -> None:
    """Warn (ConvergenceWarning) of the images that are not converged; residuals: of the `kept` pairs of each image."""
    selection = settings.resolved
    unfinished = [b for b, converged in enumerate(subspace.converged or []) if not converged]
    ratios = [residuals[b] / spectra[b].eigenvalues[: kept[b]] for b in unfinished]
    largest = max((float(ratio.max()) for ratio in ratios if ratio.numel()), default=float("inf"))
    accurate = min(int((ratio <= selection.tolerance).int().cumprod(0).sum()) for ratio in ratios)
    by_share = selection.rank is None
    asked = f"energy={selection.energy:g}" if by_share else f"rank={selection.rank}"
    after = "asked to stop" if subspace.stopped == "request" else "its steps are used up"
    which = "" if len(kept) == 1 else f", image(s) {unfinished} of the batch"
    fewer = "rank=, a number of components, instead of a share" if by_share else "a smaller rank="
    cures = [fewer] if by_share or selection.rank != 1 else []
    cures += ["a larger tolerance="] + (["more time"] if subspace.stopped == "request" else [])
    cures += [] if head.whole.columns_at_every_voxel else ["method='exact'"]
    warn_caller(
        f"matrix_free is not converged ({after} after {len(subspace.rows.rows)} steps{which}): {asked} and "
        f"tolerance={selection.tolerance:g} ask for more than the {accurate} leading component(s) that are within the "
        f"tolerance. The {min(kept[b] for b in unfinished)} reported are the best so far, with residuals up to {largest:.2g} of "
        f"their eigenvalues (residuals, converged). Give {', or '.join(cures)}.",
        ConvergenceWarning,
    )
