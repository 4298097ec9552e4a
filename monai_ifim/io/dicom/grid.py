"""`SliceGrid`: the even grid at right angles on which the slices of a DICOM volume are placed, and how far they are from it.

PS3.3, C.7.6.2.1.1 places each slice by itself. A volume's voxels lie on one grid: from the first slice, evenly along the normal
of the slices, up to the height of the last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monai_ifim.io.dicom.volume import Array, DicomVolume
from monai_ifim.io.reading import ASSUMED, POSITIONS, THICKNESS

ASSUMED_STEP = 1.0  # mm along the normal of a single slice that states no thickness


@dataclass(frozen=True, eq=False)
class SliceGrid:
    """The grid of a volume with a place in space, LPS mm.

    order: of the volume's slices along their normal; origin: of the first slice's first voxel [3]; directions: of columns, rows
    and slices, unit vectors at right angles [3, 3], one a column; step: mm between slices, and for a single slice its thickness,
    or else 1 mm. heights: of the sorted slices above the first, mm; sideways: their shifts across the normal, mm [slices, 3].
    """

    order: npt.NDArray[np.intp]
    origin: Array
    directions: Array
    step: float
    heights: Array
    sideways: Array

    @property
    def normal(self) -> Array:
        """Unit vector from slice to slice."""
        return np.asarray(self.directions[:, 2])

    @property
    def orientation(self) -> Array:
        """Directions of columns and rows [6], as in Image Orientation (Patient)."""
        return np.concatenate([self.directions[:, 0], self.directions[:, 1]])

    @property
    def uneven(self) -> Array:
        """How far each sorted slice is above its place on the grid, mm."""
        return np.asarray(self.heights - self.step * np.arange(len(self.heights)))

    @property
    def distances(self) -> Array:
        """Distance of each sorted slice from its place on the grid, mm."""
        return np.asarray(np.hypot(self.uneven, np.linalg.norm(self.sideways, axis=1)))


def slice_grid(volume: DicomVolume) -> SliceGrid | None:
    """The grid of a volume; None if its slices state no place in space."""
    if volume.positions is None or volume.orientation is None:
        return None
    directions = right_angled(volume.orientation)
    normal = directions[:, 2]
    along = volume.positions @ normal
    order = np.argsort(along, kind="stable")
    origin = volume.positions[order[0]]
    away = volume.positions[order] - origin
    heights = away @ normal
    step = float(heights[-1]) / (len(heights) - 1) if len(heights) > 1 else volume.thickness or ASSUMED_STEP
    return SliceGrid(order, origin, directions, step, heights, away - np.outer(heights, normal))


def origin_of_step(volume: DicomVolume) -> str | None:
    """Where the step of a volume's grid comes from, in the words of `Reading.slice_step`; None without a place in space."""
    if volume.positions is None or volume.orientation is None:
        return None
    if len(volume.positions) > 1:
        return POSITIONS
    return ASSUMED if volume.thickness is None else THICKNESS


def right_angled(orientation: Array) -> Array:
    """Directions of columns, rows and normal [3, 3], one a column: unit vectors at right angles.

    orientation: direction cosines of rows and columns [6], which are rounded. Both are turned by half of what is missing to the
    right angle.
    """
    across, down = (each / np.linalg.norm(each) for each in orientation.reshape(2, 3))
    both, apart = across + down, across - down
    both, apart = both / np.linalg.norm(both), apart / np.linalg.norm(apart)
    across, down = (both + apart) / np.sqrt(2), (both - apart) / np.sqrt(2)
    return np.column_stack([across, down, np.cross(across, down)])
