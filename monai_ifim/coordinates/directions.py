"""The user's own directions: images with names and units."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from monai_ifim.core.coordinates import Family, Place
from monai_ifim.core.errors import IFIMError


class Directions(Family):
    """x + sum of theta_i times image i: each image is what one unit adds.

    images: [m, channel, *spatial], on the grid of the image that is decomposed. names, units: of each. Raises IFIMError where
    their numbers differ, for NaN, and for images of another shape.
    """

    kind: ClassVar[str] = "directions"

    def __init__(self, images: Tensor, names: Sequence[str], units: Sequence[str]) -> None:
        if not isinstance(images, Tensor) or not len(images) == len(names) == len(units) > 0:
            raise IFIMError("directions are images [m, channel, *spatial] with m names and m units: give as many of each.")
        self.images = images.detach().as_subclass(Tensor)
        if not bool(torch.isfinite(self.images).all()):
            raise IFIMError("the images of directions hold NaN or infinite values: mask them first (torch.nan_to_num).")
        self._names, self._units = tuple(map(str, names)), tuple(map(str, units))

    @property
    def names(self) -> tuple[str, ...]:
        """See `Family`."""
        return self._names

    @property
    def units(self) -> tuple[str, ...]:
        """See `Family`."""
        return self._units

    def bound(self, image: Tensor, place: Place) -> Directions:
        """See `Family`."""
        if self.images.shape[1:] != image.shape:
            raise IFIMError(
                f"the directions are images {tuple(self.images.shape[1:])} and the image is {tuple(image.shape)}: give them on "
                "its grid, [m, channel, *spatial]."
            )
        return self

    def tangents(self, image: Tensor, start: int, stop: int) -> Tensor:
        """See `Family`."""
        return self.images[start:stop]

    def moved(self, image: Tensor, theta: Sequence[float]) -> Tensor:
        """See `Family`."""
        steps = torch.tensor(theta, dtype=torch.float64)
        change = torch.einsum("m,m...->...", steps, self.images.cpu().to(torch.float64))
        return (image.cpu().to(torch.float64) + change).to(image)

    def describe(self) -> dict[str, Any]:
        """Names, units and a hash of the images, as plain data."""
        packed = self.images.cpu().to(torch.float64).contiguous().numpy().tobytes()
        digest = hashlib.sha256(packed).hexdigest()
        return {"kind": self.kind, "names": list(self._names), "units": list(self._units), "sha256": digest}
