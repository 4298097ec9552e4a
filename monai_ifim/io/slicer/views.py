"""The views of a scene: slice views that show the whole volume, and a camera for the 3D view."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monai_ifim.io.geometry import VIEWS, Affine, cut

# 3D Slicer's presets [right, up, normal] in RAS, written into the scene because their signs differ between its versions.
PRESETS: dict[str, Affine] = {
    "Axial": np.array([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).T,
    "Sagittal": np.array([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]]).T,
    "Coronal": np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]).T,
}
MARGIN = 1.05  # ratio of the field of view to the volume's extent
PIXELS = 64  # stored size of a view's longer side; 3D Slicer keeps the field of view of the shorter side when it resizes the view
LOOK_FROM = (-0.5, 0.8, 0.4)  # RAS: from the patient's front, left and above
VIEW_ANGLE = 30.0  # of the camera, in degrees

Point = tuple[float, float, float]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SliceView:
    """One slice view. orientation: a preset's name, or "" for a plane of its own; matrix: view (right, up, normal) -> RAS mm,
    its origin at the view's centre; field, pixels: mm and pixels along right and up; spacing: mm from slice to slice."""

    orientation: str
    matrix: Affine
    field: tuple[float, float]
    pixels: tuple[int, int]
    spacing: float


@dataclass(frozen=True)
class Camera:
    """Position, point looked at and upward direction, in RAS mm."""

    position: Point
    focus: Point
    up: Point


def is_flat(shape: tuple[int, ...]) -> bool:
    """True if the volume is a single slice along any axis."""
    return 1 in shape


def slice_view(affine: Affine, shape: tuple[int, ...], orientation: str, point: Point | None) -> SliceView:
    """The slice along a world plane (a preset's name) through `point` or the volume's centre, centred on the volume."""
    return _fitted(affine, shape, orientation, PRESETS[orientation], point)


def plane_view(affine: Affine, shape: tuple[int, ...]) -> SliceView:
    """The view of a single slice, from the side of the nearest anatomical plane."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    view = next(view for view in VIEWS if shape[cut(affine, view).normal] == 1)
    chosen = cut(affine, view)
    right = axes[:, chosen.columns] * (-1 if chosen.flips[1] else 1)
    up = axes[:, chosen.rows] * (1 if chosen.flips[0] else -1)
    preset = PRESETS[view.capitalize()]
    normal = axes[:, chosen.normal] * np.sign(axes[:, chosen.normal] @ preset[:, 2])
    rotation = np.column_stack([right, up, normal]) + 0.0
    exact = np.array_equal(rotation, preset)
    return _fitted(affine, shape, view.capitalize() if exact else "", rotation, None)


def camera_before(affine: Affine, shape: tuple[int, ...]) -> Camera:
    """A camera that shows the whole volume, obliquely, or a single slice from the front."""
    corners = _corners(affine, shape)
    centre = corners.mean(0)
    radius = float(np.linalg.norm(corners - centre, axis=1).max())
    look, up = np.array(LOOK_FROM) / np.linalg.norm(LOOK_FROM), np.array([0.0, 0.0, 1.0])
    if is_flat(shape):
        matrix = plane_view(affine, shape).matrix
        look, up = np.cross(matrix[:3, 0], matrix[:3, 1]), matrix[:3, 1]
    position = centre + look * radius / math.sin(math.radians(VIEW_ANGLE / 2))
    return Camera(_point(position), _point(centre), _point(up))


def _fitted(affine: Affine, shape: tuple[int, ...], orientation: str, rotation: Affine, point: Point | None) -> SliceView:
    corners = _corners(affine, shape)
    extent = np.ptp(corners @ rotation, axis=0)
    origin = corners.mean(0)
    if point is not None:
        origin = origin + rotation[:, 2] * ((np.asarray(point) - origin) @ rotation[:, 2])
    pixel = MARGIN * float(extent[:2].max()) / PIXELS
    across, upward = (max(1, math.ceil(MARGIN * float(side) / pixel - 1e-9)) for side in extent[:2])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, origin
    spacing = float(np.linalg.norm(affine[:3, :3], axis=0).min())
    return SliceView(orientation, matrix, (across * pixel, upward * pixel), (across, upward), spacing)


def _corners(affine: Affine, shape: tuple[int, ...]) -> Vector:
    """RAS mm [8, 3] of the volume's outer corners, half a voxel beyond the centres of its corner voxels."""
    ends = np.array(list(itertools.product(*[(-0.5, size - 0.5) for size in shape])))
    corners: Vector = ends @ affine[:3, :3].T + affine[:3, 3]
    return corners


def _point(values: Vector) -> Point:
    return float(values[0]), float(values[1]), float(values[2])
