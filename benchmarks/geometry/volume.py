"""A volume as one program reads it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Volume:
    """Values [i, j, k] or, of colours, [i, j, k, channel]; affine: voxel index -> RAS mm; name: what its program calls it."""

    values: Array = field(repr=False)
    affine: Array
    name: str = ""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Voxels along each axis in space."""
        return self.values.shape[:3]

    @property
    def corners(self) -> Array:
        """RAS mm [8, 3] of the centres of the corner voxels; along an axis of one voxel, of its two faces.

        So the thickness of a single slice counts as part of its place, and no direction of an axis does.
        """
        ends = [(0.0, size - 1.0) if size > 1 else (-0.5, 0.5) for size in self.sizes]
        return np.asarray(np.array(list(itertools.product(*ends))) @ self.affine[:3, :3].T + self.affine[:3, 3])


@dataclass(frozen=True)
class Refused:
    """A volume that a program does not read, and why.

    traceback: place of an exception that is no refusal, which is a mistake of the program.
    """

    message: str
    traceback: str | None = None


def volume_of(values: Array, affine: Array, name: str = "") -> Volume:
    """A volume with three axes in space; values may lack the last of them, or have further ones of one voxel."""
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    return Volume(values.reshape(*values.shape, *[1] * (3 - values.ndim)), np.asarray(affine, dtype=np.float64), name)
