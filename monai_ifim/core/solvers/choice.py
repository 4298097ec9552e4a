"""Choice of the method for `method="auto"`, with the reason."""

from __future__ import annotations

from monai_ifim.core.errors import IFIMError
from monai_ifim.core.heads.base import Head
from monai_ifim.core.heads.square_root import SquareRoot
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.adaptive import forecast
from monai_ifim.core.solvers.lanczos import RESIDUAL_PRODUCTS, most_steps, probe_products
from monai_ifim.options import Method

FEW = 8  # columns up to which the exact method is always used
SAVING = 0.5  # another method has to need less than this share of the products of the exact one
PRODUCTS_A_STEP = 3.0  # cost of a Lanczos step in vector-Jacobian products: one of these and one Jacobian-vector product
STEPS_A_PAIR, FIRST_STEPS = 3, 12  # usual number of Lanczos steps for k pairs: 3 k + 12


def expected_products(settings: Settings, root: SquareRoot, method: Method) -> tuple[tuple[int, int], tuple[int, int]]:
    """(fewest, most) Jacobian products of a decomposition with this square root, its verification aside, and how many of them are
    Jacobian-vector products.

    The fewest of the adaptive and the matrix-free method are those of a usual spectrum.
    """
    columns = root.columns
    if method == "exact":
        return (columns, columns), (0, 0)
    if method == "adaptive":
        return (sum(forecast(root.scales, settings)), columns + 1), (0, 0)
    most = most_steps(settings, columns)
    usual, probes = min(most, STEPS_A_PAIR * (settings.resolved.rank or 1) + FIRST_STEPS), probe_products(settings)
    return (2 * usual + probes, 2 * most + probes + RESIDUAL_PRODUCTS), (usual, most)


def choose_method(settings: Settings, head: Head, root: SquareRoot) -> tuple[Method, str]:
    """(method, reason in words); raises IFIMError where the requested method does not work with this head."""
    if head.whole.columns_at_every_voxel:
        if settings.method in ("exact", "adaptive"):
            raise IFIMError(
                f"method={settings.method!r} computes all {root.columns} columns of the factor, some for each voxel: use "
                "method='matrix_free', with rank= for the number of components."
            )
        return "matrix_free", f"an output at every voxel: {root.columns} columns, too many to compute all"
    if settings.method != "auto":
        return settings.method, "asked for"
    if root.values is not None:
        return "exact", f"the gradient of each volume is stated: all {root.columns} column(s)"
    if root.columns <= FEW:
        return "exact", f"{root.columns} column(s) are few enough to compute all"
    columns, probes = forecast(root.scales, settings)
    rank = settings.resolved.rank
    steps = float("inf") if rank is None else STEPS_A_PAIR * rank + FIRST_STEPS
    if columns + probes <= min(SAVING * root.columns, PRODUCTS_A_STEP * steps):
        return "adaptive", f"by their weights, {columns} of {root.columns} columns and {probes} probe(s) reach the tolerance"
    if PRODUCTS_A_STEP * steps <= SAVING * root.columns:
        return "matrix_free", f"{rank} pair(s) of {root.columns} columns of similar weight are asked for"
    return "exact", f"{root.columns} columns of similar weight: a share of their trace needs most of them"
