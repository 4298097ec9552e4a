"""The Fisher information of a batch pulled back to named coordinates, F_theta = (A^T T)^T (A^T T), from what a solver has made.

The exact and the adaptive method have the columns of A: m inner products each, and no pass of the network. Where the columns are
not there, because the iteration is matrix-free or a metric stands between them and the image, it takes m products J t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_ifim.core.batch_part import BatchPart
from monai_ifim.core.coordinates import CHUNK, BoundFamilies, Coordinates, GradientOf
from monai_ifim.core.heads.base import Head
from monai_ifim.core.heads.square_root import SquareRoot
from monai_ifim.core.heads.volumes import VolumesOfLabels
from monai_ifim.core.memory.row_storage import Row
from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.rows import FactorRows, float64_device
from monai_ifim.core.solvers.base import Subspace

UNDETERMINED = 1e-2  # share of an answer's gradient that the columns at hand leave open, from which on it is not stated
WIDE = 2**14  # entries of S^T J t from which on they are stored in the dtype of the output


@dataclass(frozen=True)
class Pulled:
    """The coordinates with how they were computed: "columns" or "products", and the number of products J t."""

    coordinates: Coordinates
    way: str
    products: int

    def record(self) -> dict[str, object]:
        """As plain data."""
        return self.coordinates.describe() | {"way": self.way, "jacobian_products": self.products}


def pull_back(part: BatchPart, head: Head, factor: Factor, subspace: Subspace, shelve: Callable[[Tensor], Row]) -> Pulled | None:
    """F_theta of these images, while the graph of the pass is there; None where no coordinates are asked for.

    The tangents are changes of the image itself, with or without a metric. shelve: stores a row of products.
    """
    families = part.settings.families
    if not families:
        return None
    bound = BoundFamilies.of(families, part.image, part.facts.places)
    elements = CHUNK if part.settings.budget is None else 1
    columns = _columns(factor, subspace)
    if columns is None and factor.jacobian.differentiable:
        return Pulled(_by_products(head, factor, bound, elements, shelve), "products", len(bound.names))
    return Pulled(_by_columns(head, factor, subspace, columns or FactorRows(part.image), bound, elements), "columns", 0)


def gradient_kind(head: Head) -> GradientOf:
    """What `Coordinates.gradient` is of for this head."""
    if isinstance(head.whole, VolumesOfLabels):
        return "volume"
    kinds: dict[str, GradientOf] = {"mean": "mean", "mean_probability": "mean probability"}
    return kinds.get(head.whole.values, "log-probability")


def tangent_norms(tangents: Tensor) -> Tensor:
    """Lengths of tangents [B, n, channel, *spatial], [B, n] float64."""
    flat = tangents.flatten(2).to(float64_device(tangents))
    norms: Tensor = torch.linalg.vector_norm(flat, dim=2, dtype=torch.float64)
    return norms


def _columns(factor: Factor, subspace: Subspace) -> FactorRows | None:
    """The rows that are columns of J^T S; None where there are none of them."""
    if subspace.method == "matrix_free" or (factor.jacobian.output.ndim > 2 and factor.root.values is None):
        return None
    if factor.metric is None or not subspace.rows.rows:
        return subspace.rows
    held = factor.before_metric
    return held if held is not None and len(held.rows) == len(subspace.rows.rows) else None


def _by_columns(
    head: Head, factor: Factor, subspace: Subspace, columns: FactorRows, bound: BoundFamilies, elements: int
) -> Coordinates:
    products, norms = [], []
    for _, tangents in bound.tangents(elements):
        flat = tangents.flatten(2)
        products.append(columns.products(flat))
        norms.append(tangent_norms(tangents))
    pulled, lengths = torch.cat(products, dim=1), torch.cat(norms, dim=1)  # A^T t of each, [B, m, r]
    outside = subspace.trace_outside_bound.to(lengths.device)[:, None]
    return Coordinates(
        bound.names,
        bound.units,
        gradient_kind(head),
        pulled @ pulled.transpose(1, 2),
        _gradient_by_columns(head, factor, pulled, left_out=bool((outside > 0).any())).transpose(1, 2),
        lengths,
        lengths.square() * outside,
    )


def _gradient_by_columns(head: Head, factor: Factor, pulled: Tensor, left_out: bool) -> Tensor:
    """Change of each answer along each tangent, [B, m, C], from A^T t [B, m, r] of the first r columns."""
    root, output, count = factor.root, factor.jacobian.output, pulled.shape[2]
    if root.values is not None:
        coefficients = root.values.coefficients.to(pulled)
        return pulled @ coefficients[..., :count].transpose(1, 2)
    identity = torch.eye(output.shape[1], dtype=torch.float64, device=pulled.device)
    answers = head.answer_changes(output, identity.expand(output.shape[0], -1, -1)).to(pulled)  # [B, C, answers]
    scales = root.scales[:, :count].to(pulled)
    rows = _built(root, count).to(pulled) * (scales > 0)[..., None]
    inner = pulled / torch.where(scales > 0, scales, 1.0)[:, None]
    found = torch.zeros(*pulled.shape[:2], answers.shape[2], dtype=torch.float64, device=pulled.device)
    for b in range(output.shape[0] if count else 0):
        weights = torch.linalg.lstsq(rows[b].T.cpu(), answers[b].cpu(), driver="gelsd").solution.to(pulled)
        found[b] = inner[b] @ weights
        if left_out:
            open_ = (rows[b].T @ weights - answers[b]).norm(dim=0) > UNDETERMINED * answers[b].norm(dim=0)
            found[b, :, open_] = torch.nan
    return found


def _built(root: SquareRoot, count: int) -> Tensor:
    """The first unit cotangents, [B, count, C]."""
    parts = [root.build(start, stop) for start, stop in root.chunks(0, count)]
    return torch.cat(parts, dim=1) if parts else root.scales.new_zeros(root.scales.shape[0], 0, 1)


def _by_products(head: Head, factor: Factor, bound: BoundFamilies, elements: int, shelve: Callable[[Tensor], Row]) -> Coordinates:
    moved, norms = OutputMoves(head, factor.root, factor.jacobian.output, shelve), []
    for _, tangents in bound.tangents(elements):
        norms.append(tangent_norms(tangents))
        for tangent in tangents.unbind(1):
            largest = tangent.flatten(1).abs().amax(1)
            unit = torch.where(largest > 0, largest, 1.0)
            change = factor.jacobian.product(tangent / unit.reshape(-1, *[1] * (tangent.ndim - 1)))
            moved.append(change, unit.to(change))
    lengths = torch.cat(norms, dim=1)
    fisher, gradient = moved.fisher().to(lengths), moved.gradient().to(lengths)
    return Coordinates(bound.names, bound.units, gradient_kind(head), fisher, gradient, lengths, torch.zeros_like(lengths))


class OutputMoves:
    """What the output changes by along each coordinate, J t_i, and F_theta of these.

    output: [B, *output]. shelve: stores S^T J t, which has an entry for each column of S.
    """

    def __init__(self, head: Head, root: SquareRoot, output: Tensor, shelve: Callable[[Tensor], Row]) -> None:
        self._head, self._root, self._output = head, root, output
        dtype = torch.float64 if root.columns <= WIDE else torch.promote_types(output.dtype, torch.float32)
        self._rows = FactorRows(root.scales.to(dtype), shelve=shelve)
        self._answers: list[Tensor] = []

    def append(self, change: Tensor, scale: Tensor) -> None:
        """Add the change [B, *output] float64 of the output along the next coordinate, times scale [B]."""
        root = self._root
        products = root.adjoint_product(change)
        length = torch.linalg.vector_norm(products, dim=1)
        unit = products / torch.where(length > 0, length, 1.0)[:, None]
        self._rows.append(unit.to(self._rows.like), length * scale)
        if root.values is not None:
            answers = (root.values.coefficients.to(products) @ products[..., None])[..., 0]
        else:
            answers = self._head.answer_changes(self._output, change[:, None])[:, 0]
        self._answers.append(answers * scale[:, None])

    def fisher(self) -> Tensor:
        """F_theta [B, m, m] float64."""
        scales = self._rows.scales
        return self._rows.gram() * scales[:, :, None] * scales[:, None]

    def gradient(self) -> Tensor:
        """Change of each answer along each coordinate, [B, C, m] float64."""
        return torch.stack(self._answers, dim=2)
