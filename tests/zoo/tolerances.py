"""What the zoo allows: relative deviations in float64, of a row of outputs and of a map of them."""

from __future__ import annotations

from zoo.entry import Entry

ROW = {
    "eigenvalues": 1e-9,
    "overlap": 1e-8,
    "quotients": 3e-5,  # rounding of the quotients, in the steepest networks
}
MAP = {
    "eigenvalues": 1e-6,  # rounding of the quotients in ARPACK's products
    "overlap": 1e-4,  # the same, over the gap to the third eigenvalue
    "quotients": 1e-5,  # of residuals within 1e-6
}


def tolerances(entry: Entry) -> dict[str, float]:
    """For each deviation of `Deviation`, what it has to stay below."""
    return MAP if entry.voxelwise else ROW
