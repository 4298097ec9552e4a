"""Verification of the images of a part of a batch: directions and expectations from its products, then the comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor

from monai_ifim.core.assembly import combination_weights
from monai_ifim.core.batch_part import BatchPart
from monai_ifim.core.decomposition import Decomposition
from monai_ifim.core.heads.base import Head
from monai_ifim.core.memory.offload import return_freed_memory
from monai_ifim.core.memory.plan import MemoryPlan
from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.moved_image import MovedImage
from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.solvers.base import Subspace
from monai_ifim.core.verification.directions import Directions, change_by_product, combined, random_direction
from monai_ifim.core.verification.trial import Expectation

PAIRED = 2**20  # values of an image up to which two share a pass; of larger ones two take as long, and twice the memory


def directions_by_products(
    part: BatchPart, factor: Factor, subspace: Subspace, row_eps: float
) -> dict[int, tuple[Tensor, Tensor]]:
    """(direction [D], A^T d) of each image to verify whose rows do not span the columns of A, by one product J u for all."""
    due = part.verification.due(part.first, part.image.shape[0])
    if subspace.method != "matrix_free" or not due:
        return {}
    spectra = [spectrum.leading(1) for spectrum in subspace.spectra(row_eps)]
    kept = [spectrum.eigenvalues.numel() for spectrum in spectra]
    weights = combination_weights(spectra, kept, subspace.rows.scales, subspace.score)
    leading = subspace.rows.combine(weights.to(subspace.rows.scales.device))
    directions = {}
    for item in due:
        value = float(spectra[item].eigenvalues[0]) if kept[item] else 0.0
        random = random_direction(part.image[item], part.verification.seed)
        directions[item] = combined(random, leading[item, 0] if kept[item] else None, value, spectra[item].trace)
    changes = change_by_product(factor, directions)
    return {item: (direction, changes[item]) for item, direction in directions.items()}


def expectations_of(
    part: BatchPart, plan: MemoryPlan, d: Decomposition, rows: FactorRows, directions: dict[int, tuple[Tensor, Tensor]]
) -> dict[int, list[Callable[[], Expectation]]]:
    """What is expected along the directions of each image to verify; within a memory budget along one, so that rows are freed."""
    expectations: dict[int, list[Callable[[], Expectation]]] = {}
    for item in part.verification.due(part.first, part.image.shape[0]):
        one = slice(item, item + 1)
        metric = part.settings.input_metric
        about = Directions(part.image[one], d.sensitivity[one], None if metric is None else metric.part(one))
        seed = part.verification.seed
        if item in directions:
            expectations[item] = [partial(_same, about.expectation(*directions[item]))]
            continue
        leading = d.eigenvectors[item, 0].flatten() if int(d.rank[item]) else None
        value = float(d.eigenvalues[item, 0]) if leading is not None else 0.0
        first = combined(random_direction(part.image[item], seed), leading, value, float(d.trace[item]))
        expectations[item] = about.by_rows(rows, item, first, seed, more=not plan.frugal)
        if plan.frugal:
            expectations[item] = [partial(_same, expectations[item][0]())]
    return expectations


@contextmanager
def _trimmed(part: BatchPart) -> Iterator[None]:
    """Context of a pass within a memory budget: freed memory is returned before and after it."""
    return_freed_memory()
    with part.passes():
        yield
    return_freed_memory()


def _same(expectation: Expectation) -> Expectation:
    return expectation


def verify_part(
    part: BatchPart,
    plan: MemoryPlan,
    head: Head,
    output: Tensor,
    row_eps: float,
    expectations: dict[int, list[Callable[[], Expectation]]],
) -> None:
    """Verify these images; raises NetworkError if the network gives one of them different answers."""
    for item, expected in expectations.items():
        one = slice(item, item + 1)
        together = 1 if plan.frugal or part.image[item].numel() > PAIRED else 2
        context = partial(_trimmed, part) if plan.frugal else part.passes
        moved = MovedImage(part.predictor, item, part.image[one], output[one], head.part(one), together, context)
        part.verification.verify(part.first + item, moved, expected, row_eps)
