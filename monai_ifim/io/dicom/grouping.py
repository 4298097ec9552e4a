"""Which slices of a series can lie in one volume: those of one orientation and of one pixel spacing, each within a tolerance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from monai_ifim.io.dicom.linkage import Labels, linked, linked_values
from monai_ifim.io.dicom.planes import Plane
from monai_ifim.io.dicom.volume import SAME_PLACE, Array

SAME_ORIENTATION = 1e-3  # rad; real volumes of a series differ by more: stacks by a degree, scouts by a quarter turn
SAME_SPACING = 1e-3  # relative
NEAR_SHARE, NEAR = 0.1, 0.1  # of the gap, mm: how far repetitions of one slice may lie apart, the smaller of the two
FURTHEST_CORNER = 0.1  # mm by which a corner of a slice may miss the grid of its volume, as the slice itself may
TINY = 1e-12


def alike(planes: Sequence[Plane]) -> list[list[Plane]]:
    """The slices in groups of one orientation and pixel spacing, each in the order given.

    Two slices are in one group if steps of at most SAME_ORIENTATION and SAME_SPACING lead from one to the other.
    """
    groups = _split(planes, linked(_frames([plane.orientation for plane in planes]), np.sqrt(2) * SAME_ORIENTATION))
    parts = [part for group in groups for part in _split(group, [plane.spacing is None for plane in group])]
    return [part for each in parts for part in _by_spacing(each)]


def normal_of(planes: Sequence[Plane]) -> Array:
    """The unit vector along which the slices of a group are stacked: at right angles to their mean orientation."""
    mean = np.mean([plane.orientation for plane in planes], axis=0)
    return _unit(np.cross(mean[:3], mean[3:])[None])[0]


def heights_of(planes: Sequence[Plane]) -> Array:
    """Positions of the slices of a group along their normal, in mm."""
    heights: Array = np.array([plane.position for plane in planes]) @ normal_of(planes)
    return heights


def places_of(heights: Array) -> Labels:
    """The place of each slice by its height in mm, counted from 0 upwards.

    Repetitions of a slice lie at one place even if their positions are not quite the same: they are nearer to each other than
    NEAR_SHARE of the gap between places and than NEAR.
    """
    gaps = np.diff(np.sort(heights))
    largest = float(gaps.max(initial=0.0))
    gap = float(np.median(gaps[gaps > largest / 4])) if largest > 0 else 0.0
    reach = max(SAME_PLACE, min(NEAR, NEAR_SHARE * gap))
    labels = linked_values(heights, reach)
    starts = np.searchsorted(np.sort(labels), np.arange(labels.max() + 1))
    ends = np.append(starts[1:], len(labels)) - 1
    ordered = np.sort(heights)
    return labels if float((ordered[ends] - ordered[starts]).max()) <= reach else linked_values(heights, SAME_PLACE)


def turned(planes: Sequence[Plane]) -> str:
    """Why slices of a group, in the order of their places, do not lie on the grid of the first; empty if they do.

    They may be turned and scaled by less than the tolerances, and a corner of a large slice still be off by much.
    """
    rows, columns = int(planes[0].header.Rows), int(planes[0].header.Columns)
    extents = np.array([plane.spacing or (1.0, 1.0) for plane in planes]) * (columns - 1, rows - 1)
    edges = np.array([plane.orientation for plane in planes]).reshape(-1, 2, 3) * extents[:, :, None]
    away = edges - edges[0]
    furthest = float(np.linalg.norm(np.concatenate([away, away.sum(axis=1, keepdims=True)], axis=1), axis=2).max())
    if furthest <= FURTHEST_CORNER:
        return ""
    return (
        f"its slices are turned against each other, or of different Pixel Spacing: corners lie {furthest:.2f} mm off the grid of "
        f"the first slice, more than {FURTHEST_CORNER:g} mm. Put slices of one orientation and spacing into a folder of their own"
    )


def _by_spacing(planes: Sequence[Plane]) -> list[list[Plane]]:
    if planes[0].spacing is None:
        return [list(planes)]
    spacings = np.array([plane.spacing for plane in planes], dtype=np.float64)
    return _split(planes, linked(np.log(np.maximum(spacings, TINY)), float(np.log1p(SAME_SPACING)), norm=np.inf))


def _frames(orientations: Sequence[Array]) -> Array:
    """Directions of rows, columns and normal [n, 9]: of one that is turned by a rad they are 2 sqrt(2) sin(a / 2) away."""
    rows, columns = (_unit(part) for part in np.split(np.array(orientations), 2, axis=1))
    return np.concatenate([rows, columns, np.cross(rows, columns)], axis=1)


def _unit(vectors: Array) -> Array:
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), TINY)
    units: Array = vectors / lengths
    return units


def _split(planes: Sequence[Plane], labels: Sequence[object] | Labels) -> list[list[Plane]]:
    parts: dict[object, list[Plane]] = defaultdict(list)
    for plane, label in zip(planes, labels, strict=True):
        parts[label].append(plane)
    return list(parts.values())
