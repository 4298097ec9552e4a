"""The world frame: the only file in which an axis is flipped or an affine is judged.

Affines are voxel index -> RAS+ millimetres, 4 x 4 float64 (NIfTI's and MONAI's convention). ITK and DICOM are LPS+.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_ifim.io.errors import GeometryError

Affine = npt.NDArray[np.float64]

LPS_TO_RAS: Affine = np.diag([-1.0, -1.0, 1.0, 1.0])
SHEAR_TOLERANCE = 1e-4  # largest cosine between two axes that still counts as a right angle
PLACE_TOLERANCE = 1e-3  # how far two affines may disagree and still be one grid, in voxels at its corners


def full_affine(affine: Any) -> Affine:
    """A 2D (3 x 3) or 3D (4 x 4) affine as 4 x 4 float64; a missing slice axis gets 1 mm along z."""
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape == (4, 4):
        return matrix.copy()
    if matrix.shape != (3, 3):
        raise GeometryError(f"an affine of shape {matrix.shape} is neither 2D (3 x 3) nor 3D (4 x 4).")
    result: Affine = np.eye(4)
    result[:2, :2], result[:2, 3] = matrix[:2, :2], matrix[:2, 2]
    return result


def world_affine(affine: Any, meta: Mapping[str, Any]) -> Affine:
    """The affine in RAS+ of an image with MONAI metadata `meta`.

    A photograph format (PNG, JPEG) has no world frame. ITK and 3D Slicer place it at identity in LPS+, MONAI at identity
    in RAS+; theirs is taken, so that components lie on the picture when both are opened in Slicer.
    """
    matrix = full_affine(affine)
    is_photograph = {"mode", "width", "height"} <= set(meta)
    if is_photograph or str(meta.get("space", "RAS")).upper().startswith("LPS"):
        return LPS_TO_RAS @ matrix
    return matrix


def check_writable(affine: Affine) -> None:
    """Raise GeometryError unless spacing is positive and finite and the axes are at right angles.

    NIfTI's qform (and 3D Slicer, which prefers it) cannot hold a shear.
    """
    axes = affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if not np.isfinite(affine).all() or (spacing <= 0).any() or abs(np.linalg.det(axes)) < 1e-12 * np.prod(spacing):
        raise GeometryError(f"the affine is singular or not finite: {affine.tolist()}; mend the image's header first.")
    unit = axes / spacing
    cosine = float(np.abs(unit.T @ unit - np.eye(3)).max())
    if cosine > SHEAR_TOLERANCE:
        raise GeometryError(
            f"the grid is sheared (cosine {cosine:.4f} between two of its axes, as from a tilted gantry): resample it "
            "onto an orthogonal grid first."
        )


def same_grid(first: Affine, second: Affine, shape: tuple[int, ...]) -> bool:
    """Whether two affines place the corners of a grid of this shape within PLACE_TOLERANCE voxels of each other."""
    corners = np.array([[i, j, k, 1.0] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    corners[:, :3] *= np.array((*shape, 1, 1, 1)[:3]) - 1
    distance = np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1)
    smallest = float(np.linalg.norm(first[:3, :3], axis=0).min())
    return bool(distance.max() <= PLACE_TOLERANCE * smallest)
