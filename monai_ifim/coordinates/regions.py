"""Regions of the image: one coordinate for each label of a map, and one for everywhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from monai_ifim.coordinates.acquisition import VALUE
from monai_ifim.coordinates.grid import as_affine
from monai_ifim.core.coordinates import Family, Place
from monai_ifim.core.errors import IFIMError

MOST_LABELS = 256
SAME_GRID = 1e-3  # voxels by which corners of two grids that are one may differ


class Regions(Family):
    """An offset of all values inside of each labelled region, and of all values outside of every region ("elsewhere").

    labels: [H, W] or [H, W, D], whole numbers from 0 on, 0 for no region. names: of labels by their numbers; others are called
    "label 3". affine: [4, 4], voxel indices to RAS mm: a map on another grid than the image's is carried there by the nearest
    voxel.
    Raises IFIMError for other values, for a map without labels, and for more than 256 of them.
    """

    kind: ClassVar[str] = "regions"

    def __init__(self, labels: Tensor, names: Mapping[int, str] | None = None, affine: Any = None) -> None:
        self._labels = _whole(labels)
        self._numbers = tuple(int(each) for each in torch.unique(self._labels) if each > 0)
        if not 0 < len(self._numbers) <= MOST_LABELS:
            raise IFIMError(
                f"the label map has {len(self._numbers)} labels above 0: give one with 1 to {MOST_LABELS}, 0 outside of regions."
            )
        self._given = {int(number): str(name) for number, name in (names or {}).items()}
        self._affine = None if affine is None else as_affine(affine)

    @property
    def names(self) -> tuple[str, ...]:
        """See `Family`."""
        return (*(self._given.get(number, f"label {number}") for number in self._numbers), "elsewhere")

    @property
    def units(self) -> tuple[str, ...]:
        """See `Family`."""
        return (VALUE,) * (len(self._numbers) + 1)

    @property
    def of_scan(self) -> bool:
        """See `Family`."""
        return True

    def bound(self, image: Tensor, place: Place) -> Family:
        """See `Family`; raises IFIMError for a map on another grid where one of the two affines is not known."""
        labels = self._on_grid(tuple(image.shape[1:]), place)
        if not bool((labels > 0).any()):
            raise IFIMError("the label map has no region inside of this image: give the map of this image.")
        return _BoundRegions(labels, self.names, (_unit(place),) * len(self.units), self._numbers, self.describe())

    def tangents(self, image: Tensor, start: int, stop: int) -> Tensor:
        """See `Family`."""
        return self.bound(image, Place()).tangents(image, start, stop)

    def moved(self, image: Tensor, theta: Sequence[float]) -> Tensor:
        """See `Family`."""
        return self.bound(image, Place()).moved(image, theta)

    def describe(self) -> dict[str, Any]:
        """Labels with their names, sizes and a hash of the map, as plain data."""
        digest = hashlib.sha256(self._labels.numpy().tobytes()).hexdigest()
        named = {str(number): name for number, name in zip(self._numbers, self.names, strict=False)}
        return {"kind": self.kind, "labels": named, "shape": list(self._labels.shape), "sha256": digest}

    def _on_grid(self, sizes: tuple[int, ...], place: Place) -> Tensor:
        own, wanted = (*self._labels.shape, 1)[:3], (*sizes, 1)[:3]
        target = None if place.affine is None else as_affine(place.affine)
        if self._affine is None or target is None:
            if own != wanted:
                raise IFIMError(
                    f"the label map has sizes {own} and the image {wanted}, and the affine of one of them is not known: give the "
                    "map on the image's grid, or both with their affines."
                )
            return self._labels.reshape(sizes)
        back = np.linalg.inv(self._affine) @ target
        if own == wanted and _is_identity(back, wanted):
            return self._labels.reshape(sizes)
        values = self._labels.reshape(own).numpy()
        carried = ndimage.affine_transform(values, back[:3, :3], back[:3, 3], wanted, order=0, mode="grid-constant", cval=0)
        return torch.from_numpy(carried).reshape(sizes)


class _BoundRegions(Family):
    """Regions on the grid of one image; labels [*spatial]."""

    kind: ClassVar[str] = "regions"

    def __init__(
        self, labels: Tensor, names: tuple[str, ...], units: tuple[str, ...], numbers: Sequence[int], description: dict[str, Any]
    ) -> None:
        self._labels, self._names, self._units = labels, names, units
        self._numbers, self._description = (*numbers, 0), description

    @property
    def names(self) -> tuple[str, ...]:
        """See `Family`."""
        return self._names

    @property
    def units(self) -> tuple[str, ...]:
        """See `Family`."""
        return self._units

    def tangents(self, image: Tensor, start: int, stop: int) -> Tensor:
        """See `Family`."""
        inside = torch.stack([self._labels == number for number in self._numbers[start:stop]])
        return inside[:, None].expand(-1, *image.shape).to(image)

    def moved(self, image: Tensor, theta: Sequence[float]) -> Tensor:
        """See `Family`."""
        change = torch.zeros(self._labels.shape, dtype=torch.float64)
        for number, amount in zip(self._numbers, theta, strict=True):
            change[self._labels == number] = amount
        return image + change.to(image)

    def describe(self) -> dict[str, Any]:
        """See `Family`."""
        return self._description


def _unit(place: Place) -> str:
    return "HU" if place.raw and place.modality == "CT" else VALUE


def _whole(labels: Tensor) -> Tensor:
    """The labels as int32 on the CPU; raises IFIMError for anything but whole numbers from 0 on, of two or three axes."""
    if not isinstance(labels, Tensor) or labels.ndim not in (2, 3):
        raise IFIMError("a label map is a tensor [H, W] or [H, W, D] of whole numbers, 0 outside of regions.")
    plain = labels.detach().as_subclass(Tensor).cpu()
    whole = plain.to(torch.int32)
    if not torch.equal(whole.to(torch.float64), plain.to(torch.float64)) or bool((whole < 0).any()):
        raise IFIMError(
            "the label map holds values that are no whole numbers from 0 on: give a map of labels, not of probabilities."
        )
    return whole.contiguous()


def _is_identity(back: Any, sizes: tuple[int, ...]) -> bool:
    """True if the matrix leaves every corner of an image of these sizes where it is."""
    corners = np.array(np.meshgrid(*([0, size - 1] for size in sizes), [1], indexing="ij")).reshape(4, -1)
    return float(np.abs((back - np.eye(4)) @ corners).max()) <= SAME_GRID
