"""World coordinates: the only module that flips an axis or compares affines.

Affines are voxel index -> RAS+ millimetres, 4 x 4 float64 (NIfTI's and MONAI's convention). ITK and DICOM are LPS+.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from monai_ifim.display.sides import edge_letters
from monai_ifim.io.errors import GeometryError

Affine = npt.NDArray[np.float64]

LPS_TO_RAS: Affine = np.diag([-1.0, -1.0, 1.0, 1.0])
SHEAR_TOLERANCE = 1e-4  # largest cosine of the angle between two axes that counts as a right angle
PLACE_TOLERANCE = 1e-3  # largest distance, in voxels, between the corners of two grids that count as equal


def full_affine(affine: Any) -> Affine:
    """A 2D (3 x 3) or 3D (4 x 4) affine as 4 x 4 float64; a missing slice axis gets 1 mm along z."""
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape == (4, 4):
        return matrix.copy()
    if matrix.shape != (3, 3):
        raise GeometryError(f"an affine of shape {matrix.shape} is neither 2D (3 x 3) nor 3D (4 x 4): give one of these.")
    result: Affine = np.eye(4)
    result[:2, :2], result[:2, 3] = matrix[:2, :2], matrix[:2, 2]
    return result


def world_affine(affine: Any, meta: Mapping[str, Any]) -> Affine:
    """The affine in RAS+ of an image with MONAI metadata `meta`.

    A photograph format (PNG, JPEG) has no world coordinates. ITK and 3D Slicer use the identity in LPS+, MONAI the identity in
    RAS+. Here it is LPS+, so that 3D Slicer shows components and picture at the same place.
    """
    matrix = full_affine(affine)
    if is_photograph(meta) or str(meta.get("space", "RAS")).upper().startswith("LPS"):
        return LPS_TO_RAS @ matrix
    return matrix


def is_photograph(meta: Mapping[str, Any]) -> bool:
    """True if MONAI's PILReader made the metadata: the image has no world frame."""
    return {"mode", "width", "height"} <= set(meta)


def check_writable(affine: Affine) -> None:
    """Raise GeometryError unless the spacing is positive and finite and the axes are at right angles.

    NIfTI's qform, which 3D Slicer prefers, cannot represent a shear.
    """
    if not is_invertible(affine):
        raise GeometryError(
            f"the affine is singular or not finite: {affine.tolist()}: give the image a true one (nibabel: image.set_sform, "
            "image.set_qform)."
        )
    axes = affine[:3, :3]
    unit = axes / np.linalg.norm(axes, axis=0)
    cosine = float(np.abs(unit.T @ unit - np.eye(3)).max())
    if cosine > SHEAR_TOLERANCE:
        raise GeometryError(
            f"the grid is sheared (cosine {cosine:.4f} between two of its axes, as from a tilted gantry): resample it onto an "
            "orthogonal grid first (nibabel.processing.resample_to_output, or dcm2niix from the DICOM files)."
        )


def is_invertible(affine: Affine) -> bool:
    """True if the affine is finite and its axes are not zero and linearly independent."""
    axes = affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if not np.isfinite(affine).all() or (spacing <= 0).any():
        return False
    return bool(abs(np.linalg.det(axes)) >= 1e-12 * np.prod(spacing))


def same_grid(first: Affine, second: Affine, shape: tuple[int, ...], tolerance: float = PLACE_TOLERANCE) -> bool:
    """True if two affines map the corners of a grid of this shape to within `tolerance` voxels of each other."""
    smallest = float(np.linalg.norm(first[:3, :3], axis=0).min())
    return corner_distance(first, second, shape) <= tolerance * smallest


def corner_distance(first: Affine, second: Affine, shape: tuple[int, ...]) -> float:
    """The largest distance, in mm, between the places of one corner of a grid of this shape by two affines."""
    corners = np.array([[i, j, k, 1.0] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    corners[:, :3] *= np.array((*shape, 1, 1, 1)[:3]) - 1
    return float(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max())


def with_steps(affine: Affine, steps: npt.ArrayLike, first: npt.ArrayLike) -> Affine:
    """The grid along the same axes with other voxel sizes [3] and another place of the first voxel [3], mm."""
    result = affine.copy()
    result[:3, :3] *= np.asarray(steps, dtype=np.float64) / np.linalg.norm(affine[:3, :3], axis=0)
    result[:3, 3] = np.asarray(first, dtype=np.float64)
    return result


VIEWS = ("axial", "coronal", "sagittal")
# RAS axes of normal, rows and columns. Rows and columns begin at the positive end: anterior or superior at the top, the patient's
# right (sagittal: the front) at the left, as in radiology.
_VIEW_AXES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}


@dataclass(frozen=True)
class Cut:
    """The array axes of a picture of a volume. flips: whether rows and columns are reversed; spacing: mm between rows and between
    columns; edges: letters at left, right, top and bottom."""

    normal: int
    rows: int
    columns: int
    flips: tuple[bool, bool]
    spacing: tuple[float, float]
    edges: tuple[str, str, str, str]

    def plane(self, values: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """The picture [rows, columns] at an index along the normal; values: [*spatial], 3D."""
        picture = np.take(values, index, axis=self.normal)
        if self.rows > self.columns:
            picture = picture.T
        return picture[:: -1 if self.flips[0] else 1, :: -1 if self.flips[1] else 1]


def cut(affine: Affine, view: str) -> Cut:
    """The cut along the array's axes that is nearest to an anatomical view ("axial", "coronal", "sagittal")."""
    orientation = nib.orientations.io_orientation(affine)
    array_axis = {int(world): axis for axis, (world, _) in enumerate(orientation)}
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    normal, rows, columns = (array_axis[axis] for axis in _VIEW_AXES[view])
    upward = tuple(bool(orientation[axis, 1] > 0) for axis in (rows, columns))
    down, right = (affine[:3, axis] * (-1 if flipped else 1) for axis, flipped in zip((rows, columns), upward, strict=True))
    edges = (edge_letters(-right), edge_letters(right), edge_letters(-down), edge_letters(down))
    return Cut(normal, rows, columns, (upward[0], upward[1]), (float(sizes[rows]), float(sizes[columns])), edges)


def dicom_frames(
    values: npt.NDArray[Any], affine: Affine, orientation: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[Any], Affine]:
    """A volume [i, j, k] as DICOM frames: values [slice, row, column] and the LPS mm of those indices.

    affine: of [i, j, k], RAS mm, its axes at right angles. orientation: direction cosines of rows and columns (LPS), as a rule
    those of the source; the frames' own are chosen nearest to them. Axes are permuted and reversed, never resampled. Slices are
    ordered along rows x columns, so that the frames are right-handed (PS3.3, C.7.6.2.1.1).
    """
    lps = LPS_TO_RAS @ affine
    wanted = np.stack([np.cross(orientation[:3], orientation[3:]), orientation[3:], orientation[:3]])
    cosines = wanted @ (lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0))
    order = max(itertools.permutations(range(3)), key=lambda axes: sum(abs(cosines[i, axis]) for i, axis in enumerate(axes)))
    frames, matrix = values.transpose(order), lps[:, [*order, 3]]
    for axis in (1, 2, 0):
        forward = np.cross(matrix[:3, 2], matrix[:3, 1]) if axis == 0 else wanted[axis]
        if matrix[:3, axis] @ forward < 0:
            frames = np.flip(frames, axis)
            matrix[:3, 3] += (frames.shape[axis] - 1) * matrix[:3, axis]
            matrix[:3, axis] *= -1
    return frames, matrix
