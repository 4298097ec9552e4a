"""Input metrics: the unit, or the family, of the changes of the image that are decomposed.

A metric is a self-adjoint linear map M on images. With x = M xi the Fisher information of xi is F' = M F M; its eigenvalues
are in nats per (unit of xi)^2 and M w_i, for an eigenvector w_i of F', is the change of the image that one unit makes.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from monai_ifim.core.errors import IFIMError
from monai_ifim.core.operator.gaussian_filter import gaussian_filtered


class Metric(ABC):
    """A self-adjoint linear map of images [N, channel, *spatial]; see the module.

    unit: what one unit of xi is, for records ("unit of the image" where there is no metric). symmetric: self-adjoint by
    construction, so that it need not be probed.
    """

    unit: ClassVar[str]
    symmetric: ClassVar[bool] = False

    @abstractmethod
    def apply(self, images: Tensor) -> Tensor:
        """M x for each of `images` x [B, channel, *spatial], one for each image of the batch."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The settings as plain data, for records."""

    def bound(self, images: Tensor) -> Metric:
        """The metric for this batch [B, channel, *spatial]; raises IFIMError where it does not fit."""
        return self

    def part(self, items: slice) -> Metric:
        """The metric, bound to a batch, for some of its images."""
        return self


class NoiseLevel(Metric):
    """M = diag(sigma): changes are counted in standard deviations of the noise.

    sigma: a number, or a map [channel, *spatial] or [B, channel, *spatial], in the image's unit, >= 0. Raises IFIMError
    for negative, infinite or vanishing noise.
    """

    unit: ClassVar[str] = "standard deviation of the noise"
    symmetric: ClassVar[bool] = True

    def __init__(self, sigma: float | Tensor) -> None:
        self.sigma = torch.as_tensor(sigma).detach().as_subclass(Tensor)
        finite = self.sigma.numel() > 0 and bool(torch.isfinite(self.sigma).all())
        if not finite or bool((self.sigma < 0).any()) or not bool((self.sigma > 0).any()):
            raise IFIMError("a noise level must be finite, nowhere negative and somewhere above 0, in the image's unit.")
        self._number = float(self.sigma) if self.sigma.ndim == 0 else None  # read once: a device would be waited for

    def apply(self, images: Tensor) -> Tensor:
        """See `Metric`."""
        return images * (self.sigma.to(images) if self._number is None else self._number)

    def bound(self, images: Tensor) -> Metric:
        """See `Metric`; raises IFIMError where the map is not of the images' shape."""
        if self.sigma.ndim == 0:
            return self
        if self.sigma.shape not in (images.shape, images.shape[1:]):
            raise IFIMError(f"the noise map has shape {tuple(self.sigma.shape)}; the images are {tuple(images.shape)}.")
        return NoiseLevel(self.sigma.to(images).expand(images.shape))

    def describe(self) -> dict[str, Any]:
        """See `Metric`."""
        name = {"kind": "noise level"}
        if self.sigma.ndim == 0:
            return name | {"sigma": float(self.sigma)}
        digest = hashlib.sha256(self.sigma.cpu().to(torch.float64).contiguous().numpy().tobytes()).hexdigest()
        return name | {"sigma": "map", "sha256": digest, "smallest": float(self.sigma.min()), "largest": float(self.sigma.max())}

    def part(self, items: slice) -> Metric:
        """See `Metric`."""
        return self if self.sigma.ndim == 0 else NoiseLevel(self.sigma[items])


class GaussianLowPass(Metric):
    """M = a Gaussian filter along each spatial axis, edges continued by reflection: changes that a blurred scan could show.

    sigma: standard deviation in voxels, one number or one an axis, 0 to leave an axis alone. The filter is exactly self-adjoint,
    and keeps constants and the Gaussian itself to 1e-7; see `gaussian_filter`. Raises IFIMError for a negative or infinite sigma.
    """

    unit: ClassVar[str] = "unit of the image before the low-pass filter"
    symmetric: ClassVar[bool] = True

    def __init__(self, sigma: float | Sequence[float]) -> None:
        widths = [float(s) for s in sigma] if isinstance(sigma, Sequence) else [float(sigma)]
        if not widths or not all(math.isfinite(s) and s >= 0 for s in widths):
            raise IFIMError(f"sigma={sigma!r} of a low-pass filter: give voxels, one number or one for each axis, from 0 on.")
        self.sigma = tuple(widths)

    def apply(self, images: Tensor) -> Tensor:
        """See `Metric`; raises IFIMError where there are more widths than axes."""
        axes = images.ndim - 2
        if len(self.sigma) not in (1, axes):
            raise IFIMError(f"a low-pass filter of {len(self.sigma)} widths for images with {axes} spatial axes.")
        return gaussian_filtered(images, self.sigma * axes if len(self.sigma) == 1 else self.sigma)

    def describe(self) -> dict[str, Any]:
        """See `Metric`."""
        return {"kind": "Gaussian low-pass", "sigma_voxels": list(self.sigma)}


def as_metric(metric: Metric | float | Tensor | None) -> Metric | None:
    """The metric; a number or tensor is a noise level. Raises IFIMError for anything else."""
    if metric is None or isinstance(metric, Metric):
        return metric
    if isinstance(metric, (int, float, Tensor)) and not isinstance(metric, bool):
        return NoiseLevel(metric)
    raise IFIMError(f"metric={metric!r}: give a noise level (a number or a tensor), GaussianLowPass(sigma), or None.")


def metric_from(description: Mapping[str, Any]) -> Metric:
    """The metric that `Metric.describe` described; raises IFIMError for a noise map or a custom class."""
    kind = description.get("kind")
    try:
        if kind == "Gaussian low-pass":
            return GaussianLowPass(description["sigma_voxels"])
        if kind == "noise level" and description["sigma"] != "map":
            return NoiseLevel(description["sigma"])
    except KeyError as error:
        raise IFIMError(f"the description of the metric {kind!r} lacks {error}.") from error
    if kind == "noise level":
        raise IFIMError("the metric is a noise map, and its description holds only a hash: give the map again.")
    raise IFIMError(f"the metric {kind!r} is a custom class, which a description cannot restore: pass it as metric= in Python.")


def check_self_adjoint(metric: Metric, images: Tensor, generator: torch.Generator) -> None:
    """Raise IFIMError if <M a, b> differs from <a, M b> for random images: M F M would not be what is computed."""
    if metric.symmetric:
        return
    shape = (images.shape[0], *images.shape[1:])
    first, second = (torch.randn(shape, generator=generator, dtype=torch.float32).to(images) for _ in range(2))
    mapped = metric.apply(first)
    if mapped.shape != first.shape:
        raise IFIMError(f"the metric turns images {tuple(shape)} into {tuple(mapped.shape)}: it must keep their shape.")
    left, right = (mapped * second).sum(), (first * metric.apply(second)).sum()
    scale = mapped.norm() * second.norm()
    if float((left - right).abs()) > 100 * torch.finfo(images.dtype).eps ** 0.75 * float(scale):
        raise IFIMError("the metric is not self-adjoint (<M a, b> differs from <a, M b>): symmetrise it, (M + M^T) / 2.")
