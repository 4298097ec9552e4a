"""The result: eigenpairs of the input-dependent Fisher information and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from monai_ifim.core.errors import ImageError
from monai_ifim.core.heads.base import Head
from monai_ifim.core.locality import locality_radius
from monai_ifim.core.operator.metric import Metric
from monai_ifim.core.operator.predictor import Predictor, evaluation_mode
from monai_ifim.core.operator.rows import all_finite
from monai_ifim.core.projection import split

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Decomposition:
    """Decomposition of a batch of images, each by its own iFIM (arXiv:2606.16362).

    eigenvalues: [B, r] float64, the kept ones, descending, zero-padded; nats per (unit of the image)^2, or of the metric.
    eigenvectors: [B, r, channel, *spatial], orthonormal, zero where the eigenvalue is padding.
    rank: [B] int64, components kept. trace: [B] float64, of all of F.
    spectrum: [B, n] float64, every nonzero eigenvalue computed, kept or not, zero-padded.
    high, low: [B, channel, *spatial], high + low = image.
    sensitivity: [B, channel, *spatial] float64, diag F over the whole spectrum computed.
    logits, probabilities: [B, C], or maps of a segmentation. error_bound: [B] float64, share of the trace outside of what was
    computed, an upper bound with the confidence that `record` states. residuals: [B, r] float64, bounds of |F u - l u|, zero
    for the exact method. record: settings, method, products and versions as plain data. metric: M of F' = M F M, or None.
    """

    eigenvalues: Tensor
    eigenvectors: Tensor
    rank: Tensor
    trace: Tensor
    spectrum: Tensor
    high: Tensor
    low: Tensor
    sensitivity: Tensor
    logits: Tensor
    probabilities: Tensor
    error_bound: Tensor
    residuals: Tensor
    record: dict[str, Any]
    image: Tensor
    metric: Metric | None
    _predictor: Predictor
    _head: Head

    @property
    def energy(self) -> Tensor:
        """Share of the trace that the kept components hold, [B] float64; 1 where F = 0."""
        held = (self.eigenvalues.sum(1) / self.trace).clamp(max=1.0)
        return torch.where(self.trace > 0, held, 1.0)

    def project(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(high, low) of another image [B, channel, *spatial] in this one's subspace.

        Raises ImageError for another shape, and for NaN or infinite values, one of which would spoil all of the split.
        """
        if not isinstance(image, Tensor):
            raise ImageError(f"the image is {type(image).__name__}: pass a torch tensor [B, channel, *spatial].")
        if not all_finite(image.detach()):
            raise ImageError("the image holds NaN or infinite values: mask or clip them first (torch.nan_to_num).")
        return split(self.eigenvectors, image.detach().as_subclass(Tensor))

    @property
    def eigenimages(self) -> Tensor:
        """M u_i: the change of the image that one unit along u_i makes, [B, r, channel, *spatial]; u_i without a metric."""
        if self.metric is None or self.eigenvectors.shape[1] == 0:
            return self.eigenvectors
        return torch.stack([self.metric.apply(vectors) for vectors in self.eigenvectors.unbind(1)], dim=1)

    def locality_radius(self) -> Tensor:
        """Largest step along each eigenimage up to which the divergence stays within 10 % of e^2 l / 2, [B, r] float64."""
        with evaluation_mode(self._predictor.network):
            return locality_radius(self._predictor, self._head, self.image, self.eigenimages, self.eigenvalues)

    def plot(self, index: int = 0, channel: int = 0, components: int = 3, point: Sequence[int] | None = None) -> Figure:
        """Spectrum, answer, image, high, low, sensitivity and the leading eigenvectors of one image of the batch.

        index, channel: which image, which channel. components: eigenvectors drawn, as far as kept. point: indices of the
        voxel that the three planes of a volume go through, by default the most sensitive one. Arrays are drawn as they lie
        in memory, all voxels as squares, between percentiles of what is drawn; a pointed colour bar says that values lie
        beyond its ends. Images of more than 1024 voxels on a side are drawn smaller, which the heading says. The figure's
        axes carry labels ("spectrum", "sensitivity", "high, axis 0", ...).
        Raises ImageError for an index, channel or point out of range.
        """
        figure: Figure = _display().draw(self, index, channel, components, point)
        return figure

    def __repr__(self) -> str:
        return str(_display().repr_text(self))

    def _repr_html_(self) -> str:
        """What notebooks show: a table of the first images and the picture of the first."""
        return str(_display().notebook_html(self))


def _display() -> Any:
    """The module that shows decompositions, imported when one is shown: the only import from core upwards."""
    from monai_ifim.display import html

    return html


def joined(parts: Sequence[Decomposition], predictor: Predictor, image: Tensor, metric: Metric | None) -> Decomposition:
    """The decompositions of consecutive parts of a batch as one of the whole; image [B, channel, *spatial]."""
    count = max(part.eigenvalues.shape[1] for part in parts)
    longest = max(part.spectrum.shape[1] for part in parts)
    widths = {"eigenvalues": count, "eigenvectors": count, "residuals": count, "spectrum": longest}
    fields: dict[str, Any] = {
        name: torch.cat([_widened(getattr(part, name), widths.get(name)) for part in parts]) if len(parts) > 1 else
        getattr(parts[0], name)
        for name in TENSORS
    }  # fmt: skip
    record = parts[0].record | {
        "error_bound": max(part.record["error_bound"] for part in parts),
        "jacobian_products": max(part.record["jacobian_products"] for part in parts),
    }
    return replace(parts[0], **fields, record=record, image=image, metric=metric, _predictor=predictor)


TENSORS = (
    "eigenvalues", "eigenvectors", "rank", "trace", "spectrum", "high", "low", "sensitivity", "logits", "probabilities",
    "error_bound", "residuals",
)  # fmt: skip


def _widened(values: Tensor, width: int | None) -> Tensor:
    """Zero-padded to `width` along the second axis."""
    if width is None or values.shape[1] == width:
        return values
    missing = values.new_zeros(values.shape[0], width - values.shape[1], *values.shape[2:])
    return torch.cat([values, missing], dim=1)
