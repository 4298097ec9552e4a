"""The result: eigenpairs of the input-dependent Fisher information and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from monai_ifim.core.errors import ImageError
from monai_ifim.core.heads import Head
from monai_ifim.core.locality import locality_radius
from monai_ifim.core.predictor import Predictor, evaluation_mode
from monai_ifim.core.projection import split


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Decomposition of a batch of images, each by its own iFIM (arXiv:2606.16362).

    eigenvalues: [B, r] float64, the kept ones, descending, zero-padded; nats per (unit of the image)^2.
    eigenvectors: [B, r, channel, *spatial], orthonormal, zero where the eigenvalue is padding.
    rank: [B] int64, components kept. trace: [B] float64, of all of F.
    spectrum: [B, n] float64, every nonzero eigenvalue computed, kept or not, zero-padded.
    high, low: [B, channel, *spatial], high + low = image.
    sensitivity: [B, channel, *spatial] float64, diag F over the whole spectrum computed.
    logits, probabilities: [B, C]. record: settings, method, products and versions as plain data.
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
    record: dict[str, Any]
    image: Tensor = field(repr=False)
    _predictor: Predictor = field(repr=False)
    _head: Head = field(repr=False)

    @property
    def energy(self) -> Tensor:
        """Share of the trace that the kept components hold, [B] float64; 1 where F = 0."""
        held = (self.eigenvalues.sum(1) / self.trace).clamp(max=1.0)
        return torch.where(self.trace > 0, held, 1.0)

    def project(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(high, low) of another image [B, channel, *spatial] in this one's subspace; raises ImageError for another shape."""
        if not isinstance(image, Tensor):
            raise ImageError(f"the image is {type(image).__name__}: pass a torch tensor [B, channel, *spatial].")
        return split(self.eigenvectors, image.detach().as_subclass(Tensor))

    def locality_radius(self) -> Tensor:
        """Largest step along each u_i up to which the divergence stays within 10 % of e^2 l / 2, [B, r] float64."""
        with evaluation_mode(self._predictor.network):
            return locality_radius(self._predictor, self._head, self.image, self.eigenvectors, self.eigenvalues)
