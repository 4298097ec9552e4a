"""Where the patient lies: shifts, rotations and zoom about the image's centre.

Images are continued between the voxels by cubic splines and beyond the borders by reflection; the tangents are the derivatives of
that very interpolation, t = -v . grad x, with v the velocity of the content.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import ndimage
from scipy.linalg import expm
from torch import Tensor

from monai_ifim.coordinates.grid import Grid, Matrix, as_affine, float64_values
from monai_ifim.core.coordinates import Family, Place

DIRECTIONS = {"L": (-1.0, 0.0, 0.0), "P": (0.0, -1.0, 0.0), "S": (0.0, 0.0, 1.0)}  # in RAS
ORDER, BEYOND = 3, "mirror"
STILL = 1e-12  # share of the largest velocity below which an axis does not move


class Placement(Family):
    """Shifts of the content towards L, P and S in mm, rotations about these axes in degrees (right hand), zoom in %.

    Of an image of two axes: shifts along both, a rotation from the first to the second, zoom; in pixels where no affine is known.
    affine: [4, 4], voxel indices to RAS mm; by default that of the image's place. Raises IFIMError for a singular one.
    """

    kind: ClassVar[str] = "placement"

    def __init__(self, affine: Any = None, *, axes: int = 3, grid: Grid | None = None) -> None:
        self._affine = None if affine is None else as_affine(affine)
        self._axes, self._grid = axes, grid

    @property
    def names(self) -> tuple[str, ...]:
        """See `Family`."""
        if self._axes == 2:
            return ("shift along axis 0", "shift along axis 1", "rotation", "zoom")
        return (*(f"shift {to}" for to in DIRECTIONS), *(f"rotation about {to}" for to in DIRECTIONS), "zoom")

    @property
    def units(self) -> tuple[str, ...]:
        """See `Family`."""
        length = "mm" if self._grid is None else self._grid.unit
        return (length, length, "degree", "%") if self._axes == 2 else (*["mm"] * 3, *["degree"] * 3, "%")

    def bound(self, image: Tensor, place: Place) -> Placement:
        """See `Family`."""
        return Placement(self._affine, axes=image.ndim - 1, grid=Grid.of(self._affine, image, place))

    def tangents(self, image: Tensor, start: int, stop: int) -> Tensor:
        """See `Family`."""
        sizes, grid = tuple(image.shape[1:]), self._of(image)
        generators = self._generators(grid, sizes)[start:stop]
        inverse = np.linalg.inv(grid.affine)
        velocities = [inverse @ generator @ grid.affine for generator in generators]
        found = np.zeros((stop - start, *image.shape))
        for axis in range(len(sizes)):
            speeds = [_speed(velocity, axis, sizes) for velocity in velocities]
            if all(speed is None for speed in speeds):
                continue
            slopes = _slope(float64_values(image), axis + 1)
            for i, speed in enumerate(speeds):
                if speed is not None:
                    found[i] -= speed * slopes
        return torch.from_numpy(found)

    def moved(self, image: Tensor, theta: Sequence[float]) -> Tensor:
        """See `Family`; zoom first, then the rotation, then the shift."""
        sizes, grid = tuple(image.shape[1:]), self._of(image)
        generators = self._generators(grid, sizes)
        shifts = len(sizes)
        turned = expm(sum(angle * g for angle, g in zip(theta[shifts:-1], generators[shifts:-1], strict=True)))
        moved = np.eye(shifts + 1) + sum(step * g for step, g in zip(theta[:shifts], generators[:shifts], strict=True))
        change = moved @ turned @ (np.eye(shifts + 1) + theta[-1] * generators[-1])
        back = np.linalg.inv(grid.affine) @ np.linalg.inv(change) @ grid.affine
        values = [
            ndimage.affine_transform(channel, back[:-1, :-1], back[:-1, -1], order=ORDER, mode=BEYOND)
            for channel in float64_values(image)
        ]
        return torch.from_numpy(np.stack(values)).to(image)

    def describe(self) -> dict[str, Any]:
        """See `Family`."""
        return {"kind": self.kind} | ({} if self._affine is None else {"affine": self._affine.tolist()})

    def _of(self, image: Tensor) -> Grid:
        return self._grid or Grid.of(self._affine, image, Place())

    def _generators(self, grid: Grid, sizes: tuple[int, ...]) -> list[Matrix]:
        """Derivative at 0 of the map of positions that each coordinate makes, homogeneous, one unit each."""
        centre, axes = grid.centre(sizes), len(sizes)
        directions = [np.array(to) for to in DIRECTIONS.values()] if axes == 3 else list(np.eye(2))
        turns = [_cross(each) for each in directions] if axes == 3 else [np.array([[0.0, -1.0], [1.0, 0.0]])]
        shifts = [_homogeneous(np.zeros((axes, axes)), each) for each in directions]
        rotations = [_homogeneous(np.deg2rad(1.0) * turn, -np.deg2rad(1.0) * turn @ centre) for turn in turns]
        return [*shifts, *rotations, _homogeneous(np.eye(axes) / 100, -centre / 100)]


def _speed(velocity: Matrix, axis: int, sizes: tuple[int, ...]) -> Matrix | None:
    """Component along an axis of the velocity of each voxel, in voxels, broadcastable to the image; None where none moves."""
    row = velocity[axis]
    largest = max(np.abs(velocity[:-1, k]).max() * size for k, size in enumerate((*sizes, 1)))
    parts = [weight * np.arange(size) for weight, size in zip(row[:-1], sizes, strict=True)]
    if sizes[axis] == 1 or max(np.abs(part).max() for part in (*parts, row[-1:])) <= STILL * largest:
        return None
    speed: Matrix = row[-1:].reshape([1] * len(sizes))
    for i, part in enumerate(parts):
        speed = speed + part.reshape([-1 if k == i else 1 for k in range(len(sizes))])
    return speed


def _slope(values: Matrix, axis: int) -> Matrix:
    """Derivative of the cubic spline through the values along an axis, at the voxels, per voxel."""
    coefficients = ndimage.spline_filter1d(values, ORDER, axis, mode=BEYOND)
    slope: Matrix = ndimage.correlate1d(coefficients, [-0.5, 0.0, 0.5], axis, mode=BEYOND)
    return slope


def _cross(axis: Matrix) -> Matrix:
    """W with W r = axis x r."""
    x, y, z = axis
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def _homogeneous(linear: Matrix, offset: Matrix) -> Matrix:
    """[n + 1, n + 1] of a linear part and an offset, with a last row of zeros: it is added to the identity."""
    matrix = np.zeros((len(offset) + 1, len(offset) + 1))
    matrix[:-1, :-1], matrix[:-1, -1] = linear, offset
    return matrix
