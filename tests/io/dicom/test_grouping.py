"""Which slices of a series can lie in one volume: the tolerances from both sides, whatever the order of the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from scipy.spatial.transform import Rotation

from monai_ifim.io.dicom.grouping import FURTHEST_CORNER, SAME_ORIENTATION, SAME_SPACING, alike, places_of, turned
from monai_ifim.io.dicom.linkage import linked, linked_values
from monai_ifim.io.dicom.planes import Plane, planes_of
from monai_ifim.io.dicom.volume import SAME_PLACE

Array = npt.NDArray[Any]
OBLIQUE = Rotation.from_rotvec([0.3, -0.5, 0.8]).as_matrix()


def slices(orientations: Sequence[Array], spacings: Sequence[tuple[float, float]] | None = None) -> list[Plane]:
    """Slices with these directions of columns, rows and normal (in columns), and spacings between rows and columns."""
    found = []
    for number, axes in enumerate(orientations):
        header = Dataset()
        header.ImagePositionPatient = [0.0, 0.0, 2.0 * number]
        header.ImageOrientationPatient = [f"{value:.12f}"[:16] for value in (*axes[:, 0], *axes[:, 1])]
        header.PixelSpacing = [0.8, 1.3] if spacings is None else list(spacings[number])
        found += planes_of(Path(f"IM{number}"), header)
    return found


def sizes(planes: Sequence[Plane]) -> list[int]:
    return sorted(len(part) for part in alike(planes))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("angle", "parts"), [(1e-6, [10]), (0.95 * SAME_ORIENTATION, [10]), (1.05 * SAME_ORIENTATION, [5, 5])])
def test_slices_turned_by_less_than_the_tolerance_are_of_one_volume(axis: int, angle: float, parts: list[int]) -> None:
    turned = Rotation.from_rotvec(angle * np.eye(3)[axis]).as_matrix() @ OBLIQUE
    assert sizes(slices([OBLIQUE, turned] * 5)) == parts


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(("share", "parts"), [(1e-7, [10]), (0.95 * SAME_SPACING, [10]), (1.05 * SAME_SPACING, [5, 5])])
def test_spacings_that_differ_by_less_than_the_tolerance_are_of_one_volume(place: int, share: float, parts: list[int]) -> None:
    other = [0.78125, 0.78125]
    other[place] *= 1 + share
    assert sizes(slices([OBLIQUE] * 10, [(0.78125, 0.78125), (other[0], other[1])] * 5)) == parts


@pytest.mark.parametrize("degrees", [0.1, 1.0, 15.0, 90.0])
def test_stacks_and_scouts_of_a_series_are_further_apart_than_the_tolerance(degrees: float) -> None:
    """Radial stacks of a degree, scouts of a quarter turn, and a tenth of the smallest of these."""
    stacks = [Rotation.from_euler("z", degrees * k, degrees=True).as_matrix() @ OBLIQUE for k in range(3)]
    assert sizes(slices(stacks * 4)) == [4, 4, 4]


@pytest.mark.parametrize("cause", ["turned", "scaled"])
@pytest.mark.parametrize(("share", "refused"), [(0.9, False), (1.1, True)])
def test_corners_of_slices_in_one_volume_may_miss_its_grid_by_a_tenth_of_a_millimetre(
    cause: str, share: float, refused: bool
) -> None:
    size, spacing = 301, 1.0
    off = share * FURTHEST_CORNER / np.hypot(300, 300)  # the corner across moves the furthest
    axes = Rotation.from_rotvec(off * OBLIQUE[:, 2]).as_matrix() @ OBLIQUE if cause == "turned" else OBLIQUE
    other = spacing if cause == "turned" else spacing * (1 + off)
    planes = slices([OBLIQUE, OBLIQUE, axes], [(spacing, spacing), (spacing, spacing), (other, other)])
    for plane in planes:
        plane.header.Rows = plane.header.Columns = size
    (found,) = alike(planes)
    said = turned(found)
    assert bool(said) == refused
    if refused:
        assert "corners lie 0.11 mm off the grid of the first slice" in said
        assert not turned(found[:2]), "the cure"


def test_slice_without_a_spacing_is_not_of_the_volume_of_those_with_one() -> None:
    planes = slices([OBLIQUE] * 4)
    without = Plane(planes[0].path, planes[0].header, None, planes[0].position, planes[0].orientation, None)
    assert sizes([*planes, without]) == [1, 4]


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_groups_depend_on_the_points_and_not_on_their_order(values: list[float], chance: Any) -> None:
    """Against the definition: steps of at most the reach lead from one to the other."""
    points = np.array(values)[:, None]
    labels = linked(points, 0.1)
    near = np.abs(points - points.T) <= 0.1
    for _ in range(len(values)):
        near = near | (near @ near)
    np.testing.assert_array_equal(labels[:, None] == labels, near)
    order = list(range(len(values)))
    chance.shuffle(order)
    np.testing.assert_array_equal(linked(points[order], 0.1)[:, None] == linked(points[order], 0.1), near[np.ix_(order, order)])
    counted = linked_values(points[:, 0], 0.1)
    np.testing.assert_array_equal(counted[:, None] == counted, near)
    assert set(counted) == set(range(counted.max() + 1))
    assert (np.diff(counted[np.argsort(points[:, 0])]) >= 0).all()


def test_repetitions_lie_at_one_place_within_a_tenth_of_the_gap() -> None:
    rng = np.random.default_rng(4)
    heights = 2.5 * np.tile(np.arange(8), 5)
    np.testing.assert_array_equal(places_of(heights + rng.uniform(-0.02, 0.02, 40)), np.tile(np.arange(8), 5))
    fine = 0.02 * np.arange(50)  # a microscope's stack: no two at one place
    np.testing.assert_array_equal(places_of(fine), np.arange(50))
    both = np.concatenate([fine, fine + 30])  # two of them: a stack is no place
    np.testing.assert_array_equal(places_of(both), np.arange(100))
    np.testing.assert_array_equal(places_of(np.array([0.0, 0.5 * SAME_PLACE, 4.0, 4.0])), [0, 0, 1, 1])
    np.testing.assert_array_equal(places_of(np.zeros(3)), [0, 0, 0])
    np.testing.assert_array_equal(places_of(np.array([0.0, 4.0, 8.2, 8.0])), [0, 1, 3, 2])
