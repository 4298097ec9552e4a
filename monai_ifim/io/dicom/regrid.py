"""Resampling of irregular slices (tilted gantry, uneven gaps) onto an orthogonal, evenly spaced grid.

Each slice is shifted within its plane to the position of its header; then planes at even heights are interpolated between
neighbouring slices. Both steps are linear. Voxels that no slice covers get the smallest value of the volume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import shift

from monai_ifim.io.dicom.grid import slice_grid
from monai_ifim.io.dicom.volume import SAME_PLACE, Array, DicomVolume
from monai_ifim.io.errors import InputError
from monai_ifim.io.geometry import LPS_TO_RAS, Affine

WHOLE = 1e-6  # voxels within which a shift is one of whole voxels

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EvenGrid:
    """The new grid. heights: of the slices above the first, mm; offsets: of each slice within the plane, in voxels along columns
    and rows; step: mm between the `count` new planes; affine: voxel -> RAS mm."""

    heights: Array
    offsets: Array
    step: float
    count: int
    affine: Affine

    def voxels(self, columns: int, rows: int) -> int:
        """Number of voxels for slices of this size, as `resampled` gives them."""
        extra = np.ceil(self.offsets.max(axis=0)) - np.floor(self.offsets.min(axis=0))
        return int((columns + extra[0]) * (rows + extra[1]) * self.count)


def even_grid(name: str, volume: DicomVolume) -> EvenGrid:
    """The grid for a volume, its slices sorted by place; raises InputError if they have no places, no size, or one place."""
    placed = slice_grid(volume)
    if placed is None or volume.spacing is None or len(placed.order) < 2:
        raise InputError(f"{name}: its slices state no places or no pixel spacing, so there is no grid to resample it onto.")
    columns, rows, normal = placed.directions.T
    gaps = np.diff(placed.heights)
    if float(gaps.min()) < SAME_PLACE:
        raise InputError(f"{name}: two slices lie at the same place: leave one of them out.")
    offsets = placed.sideways @ np.column_stack([columns / volume.spacing[0], rows / volume.spacing[1]])
    whole = np.rint(offsets)
    offsets = np.where(np.abs(offsets - whole) < WHOLE, whole, offsets)  # no further column of voxels for what is rounding
    step = float(gaps.min())
    if step < 0.5 * float(np.median(gaps)):  # slices may nearly coincide where two parts of a series meet
        step = float(np.median(gaps))
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = columns * volume.spacing[0], rows * volume.spacing[1]
    lps[:3, 2] = normal * step
    lps[:3, 3] = placed.origin + lps[:3, :2] @ np.floor(offsets.min(axis=0))
    return EvenGrid(placed.heights, offsets, step, int(np.floor(placed.heights[-1] / step + 1e-6)) + 1, LPS_TO_RAS @ lps)


def resampled(grid: EvenGrid, slices: Values) -> Values:
    """Values [columns, rows, planes] on the grid; slices: [slices, rows, columns] in the order of their places."""
    first = np.floor(grid.offsets.min(axis=0)).astype(int)
    extra = np.ceil(grid.offsets.max(axis=0)).astype(int) - first
    smallest = float(slices.min())
    moved = [_moved(plane, offset - first, extra) for plane, offset in zip(slices, grid.offsets, strict=True)]
    planes = []
    for height in grid.step * np.arange(grid.count):
        below = int(np.clip(np.searchsorted(grid.heights, height, side="right") - 1, 0, len(moved) - 2))
        share = float((height - grid.heights[below]) / (grid.heights[below + 1] - grid.heights[below]))
        mixed = (1 - share) * moved[below] + share * moved[below + 1] if share > 1e-6 else moved[below]
        planes.append(np.where(np.isnan(mixed), smallest, mixed))
    values: Values = np.stack(planes).astype(np.float32).transpose(2, 1, 0)
    return values


def _moved(plane: Values, offset: Array, extra: npt.NDArray[np.int_]) -> Values:
    """A slice [rows, columns] shifted by `offset` voxels along columns and rows; NaN outside of it."""
    wide = np.pad(plane, ((0, extra[1]), (0, extra[0])), mode="edge")
    moved: Values = shift(wide, (offset[1], offset[0]), order=1, mode="nearest") if np.any(np.abs(offset) > 1e-6) else wide
    for axis, (size, start) in enumerate(zip(plane.shape, (offset[1], offset[0]), strict=True)):
        places = np.arange(moved.shape[axis]) - start
        outside = (places < -1e-6) | (places > size - 1 + 1e-6)
        moved[(outside, slice(None)) if axis == 0 else (slice(None), outside)] = np.nan
    return moved
