"""Two readings of one volume compared: distance between the corners, and largest difference of values at one place."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from benchmarks.geometry.volume import Array, Volume
from monai_ifim.io.geometry import is_invertible

SAME_PLACE = 1e-3  # mm
SAME_VALUES = 1e-5  # of the range of the values: rounding of float32 and of the slopes in NIfTI headers
SAME_GRID = 0.25  # voxels within which two grids have voxels at the same places, so that values can be compared


@dataclass(frozen=True)
class Comparison:
    """place: largest distance in mm from a corner of the one to the nearest corner of the other, whatever the order of axes.

    values: largest difference at the same place, relative to the range of the other's values; where the grids have no voxels at
    the same places, of voxels in the same order, up to the directions of the axes. None for other sizes or channels.
    """

    place: float
    values: float | None
    sizes: bool

    @property
    def same(self) -> bool:
        """Whether sizes, place and values agree."""
        return self.sizes and self.same_place and self.same_values

    @property
    def same_place(self) -> bool:
        """Whether the corners agree."""
        return self.place <= SAME_PLACE

    @property
    def same_values(self) -> bool:
        """Whether the values agree."""
        return self.values is not None and self.values <= SAME_VALUES


def compare(ours: Volume, theirs: Volume) -> Comparison:
    """Compare two readings of one volume."""
    place = corner_distance(ours, theirs)
    onto = _same_axes(ours, theirs)
    values = _in_any_direction(ours, theirs) if onto is None else _difference(onto, theirs.values)
    return Comparison(place, values, sorted(ours.sizes) == sorted(theirs.sizes))


def corner_distance(ours: Volume, theirs: Volume) -> float:
    """Largest distance in mm from any corner of the one to the nearest corner of the other."""
    distances = np.linalg.norm(ours.corners[:, None] - theirs.corners[None], axis=2)
    return float(max(distances.min(axis=0).max(), distances.min(axis=1).max()))


def _same_axes(ours: Volume, theirs: Volume) -> Array | None:
    """Our values in the order of their voxels; None unless each of our voxels lies at the place of one of theirs."""
    if not is_invertible(theirs.affine):
        return None
    steps = np.linalg.inv(theirs.affine) @ ours.affine
    order = _order(steps[:3, :3])
    sizes = np.array(theirs.sizes)
    if order is None or [ours.sizes[axis] for axis in order] != list(sizes):
        return None
    turned = [np.sign(steps[axis, order[axis]]) < 0 and sizes[axis] > 1 for axis in range(3)]
    exact = np.zeros((3, 3))
    for axis in range(3):
        exact[axis, order[axis]] = -1 if turned[axis] else 1
    first = np.where(turned, sizes - 1, 0)
    indices = np.array([[0, 0, 0], np.array(ours.sizes) - 1])
    found = indices @ steps[:3, :3].T + steps[:3, 3]
    several = sizes > 1
    if np.abs(found - (indices @ exact.T + first))[:, several].max(initial=0) > SAME_GRID:
        return None
    values = np.transpose(ours.values, (*order, *range(3, ours.values.ndim)))
    return np.flip(values, tuple(axis for axis in range(3) if turned[axis]))


def _in_any_direction(ours: Volume, theirs: Volume) -> float | None:
    """The smallest difference of voxels in the same order, with any axes reversed."""
    if ours.values.shape != theirs.values.shape:
        return None
    axes = [axis for axis in range(3) if ours.sizes[axis] > 1]
    reversed_axes = itertools.chain.from_iterable(itertools.combinations(axes, count) for count in range(len(axes) + 1))
    found = [_difference(np.flip(ours.values, each), theirs.values) for each in reversed_axes]
    return min(each for each in found if each is not None)


def _order(steps: Array) -> list[int] | None:
    """Of each of their axes, which of ours runs along it; None for axes that are no permutation of each other."""
    order = [int(np.abs(steps[axis]).argmax()) for axis in range(3)]
    return order if sorted(order) == [0, 1, 2] else None


def _difference(ours: Array, theirs: Array) -> float | None:
    """Largest difference relative to the range of the second; NaN agrees with NaN. None for unlike channels."""
    if ours.shape != theirs.shape:
        return None
    one, other = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    differences = np.abs(one - other)
    differences[(np.isnan(one) & np.isnan(other)) | (one == other)] = 0.0
    largest = float(differences.max(initial=0.0))
    spread = float(np.ptp(other[np.isfinite(other)])) if np.isfinite(other).any() else 0.0
    return largest if spread == 0 else largest / spread
