"""Subspaces of one image's space: leading and trailing eigenvectors, and another network's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from monai_ifim.core import Decomposition, IFIMError
from monai_ifim.core.spectrum import check_selection

__all__ = ["Subspaces", "project", "split_eigenvectors"]

NEARLY_ORTHONORMAL = 1e-2  # largest deviation of a Gram matrix from the identity: covers half precision, not a mistake


@dataclass(frozen=True, eq=False)
class Subspaces:
    """Orthonormal rows of three subspaces, orthonormalised to float64 rounding on construction; nested spans stay the same.

    leading: [k, channel, *spatial], u_1..u_k. trailing: [m, channel, *spatial], u_{k+1}..u_r. twin: [k2, channel, *spatial],
    the leading eigenspace of another network at the same image, or None. Raises IFIMError for rows that are not
    orthonormal or have different shapes.
    """

    leading: Tensor
    trailing: Tensor
    twin: Tensor | None = None

    def __post_init__(self) -> None:
        """Check the shapes and orthonormalise in float64 on the CPU."""
        shapes = {tuple(rows.shape[1:]) for rows in (self.leading, self.trailing, self.twin) if rows is not None}
        if len(shapes) != 1 or self.leading.ndim < 3:
            raise IFIMError(
                f"subspaces have rows of shapes {sorted(shapes)}: all must be [rows, channel, *spatial] of one image."
            )
        kept = self.leading.shape[0]
        own = _orthonormal(torch.cat([self.leading.detach(), self.trailing.detach()]))
        object.__setattr__(self, "leading", own[:kept])
        object.__setattr__(self, "trailing", own[kept:])
        if self.twin is not None:
            object.__setattr__(self, "twin", _orthonormal(self.twin.detach()))

    @property
    def shape(self) -> torch.Size:
        """[channel, *spatial]."""
        return self.leading.shape[1:]


def split_eigenvectors(
    decomposition: Decomposition, item: int, energy: float = 0.99, rank: int | None = None
) -> tuple[Tensor, Tensor]:
    """(leading [k, channel, *spatial], trailing [m, channel, *spatial]) of one image of a decomposition of energy 1.

    k is the smallest number of components that hold the share `energy` of the trace, or `rank` where given, as in `decompose`.
    Raises IFIMError for settings out of range and for a decomposition that lacks eigenvectors.
    """
    energy, rank = check_selection(energy, rank)
    available = int(decomposition.rank[item])
    if available < int((decomposition.spectrum[item] > 0).sum()):
        raise IFIMError(f"image {item} has eigenvectors that were not kept: call decompose with energy=1.0.")
    vectors = decomposition.eigenvectors[item, :available]
    held = decomposition.eigenvalues[item, :available].cumsum(0) / decomposition.trace[item]
    fewest = available if energy >= 1.0 else int((held < energy).sum()) + 1
    kept = min(available, fewest if rank is None else rank)
    return vectors[:kept], vectors[kept:]


def project(rows: Tensor, flat: Tensor) -> Tensor:
    """Orthogonal projection of [D] onto the span of orthonormal rows [k, D]."""
    return rows.T @ (rows @ flat)


def _orthonormal(rows: Tensor) -> Tensor:
    """Rows orthonormalised in float64; the span of the first j rows and the signs are kept. IFIMError if far from orthonormal."""
    flat = rows.cpu().to(torch.float64).flatten(1)
    deviation = flat @ flat.T - torch.eye(flat.shape[0], dtype=torch.float64)
    if flat.shape[0] > 0 and not float(deviation.abs().max()) <= NEARLY_ORTHONORMAL:
        raise IFIMError("the rows of a subspace are not orthonormal: pass eigenvectors of a decomposition, without its padding.")
    q, r = torch.linalg.qr(flat.T)
    return (q * r.diagonal().sign()).T.reshape(rows.shape)
