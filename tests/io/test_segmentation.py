"""Labels on other grids against SciPy's nearest neighbour, and what a segmentation states of its labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import map_coordinates

from monai_ifim.io.segmentation import (
    NO_LABEL,
    OUTSIDE,
    UNSEEN,
    ShownLabel,
    described,
    in_bytes,
    nearest_labels,
    segmentation,
    shown_labels,
)

Array = npt.NDArray[Any]
SHAPE, OTHER = (9, 7, 11), (13, 8, 10)


def by_scipy(labels: Array, of_labels: Array, affine: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """(nearest labels, distance beyond the outermost centres in voxels)."""
    places = np.linalg.inv(of_labels) @ affine
    index = np.moveaxis(np.moveaxis(np.indices(shape), 0, -1) @ places[:3, :3].T + places[:3, 3], -1, 0)
    ends = np.array(labels.shape)[:, None, None, None] - 1
    beyond = np.maximum(-index, index - ends).max(0)
    return map_coordinates(labels.astype(np.int64), index, order=0, mode="nearest"), beyond


def grids(oblique: Array, turned: Callable[..., Array]) -> dict[str, Array]:
    """Affines of other grids about the same centre."""
    swapped = oblique[:, [2, 0, 1, 3]] * np.array([1.0, -0.73, 1.21, 1.0])
    finer = oblique * np.array([0.91, 1.33, 1.17, 1.0])
    slightly = oblique.copy()
    slightly[:3, 0] += 4e-3 * oblique[:3, 1]
    found = {"swapped": swapped, "finer": finer, "turned": turned((1.3, 1.9, 2.7), (0.1, 0.4, -0.2)), "slightly turned": slightly}
    centre = oblique[:3] @ [*(np.array(SHAPE) - 1) / 2, 1.0]
    for affine in found.values():
        affine[:3, 3] = centre + 0.2 - affine[:3, :3] @ ((np.array(OTHER) - 1) / 2)
    return found


@pytest.mark.parametrize("name", ["swapped", "finer", "turned", "slightly turned"])
def test_every_voxel_has_the_label_of_the_nearest_one(oblique: Array, turned: Callable[..., Array], name: str) -> None:
    labels = np.random.default_rng(0).integers(0, 9, SHAPE)
    affine = grids(oblique, turned)[name]
    found = nearest_labels(labels, oblique, affine, OTHER)
    wanted, beyond = by_scipy(labels, oblique, affine, OTHER)
    seen = beyond <= 1
    assert 100 < seen.sum() < seen.size
    assert (found[seen] == wanted[seen]).mean() > 0.999
    assert (found[~seen] == OUTSIDE).all()


def test_the_same_grid_keeps_its_labels_and_a_slice_its_plane(oblique: Array) -> None:
    labels = np.random.default_rng(1).integers(0, 5, SHAPE)
    np.testing.assert_array_equal(nearest_labels(labels, oblique, oblique.copy(), SHAPE), labels)
    coarse = oblique.copy()
    coarse[:3, :2] *= 2
    plane = np.arange(12).reshape(4, 3)
    doubled = plane[np.ix_([0, 1, 1, 2, 2, 3, 3], [0, 1, 1, 2, 2])]  # half way the higher one
    np.testing.assert_array_equal(nearest_labels(plane, coarse, oblique, (7, 5)), doubled)


@pytest.mark.parametrize(
    ("names", "rule", "fill", "expected"),
    [
        (("Background", "tumour"), "largest", 0, ("Background", "tumour")),
        (("liver", "tumour"), "largest", 2, ("liver", "tumour", UNSEEN)),
        (("liver", "tumour"), "above half", 0, (NO_LABEL, "liver", "tumour")),
    ],
)
def test_what_the_network_did_not_see_is_no_label_of_its(
    names: tuple[str, ...], rule: str, fill: int, expected: tuple[str, ...]
) -> None:
    found = segmentation(np.array([[0, 1], [OUTSIDE, 1]]), names, rule)
    np.testing.assert_array_equal(found.values, [[0, 1], [fill, 1]])
    assert found.values.dtype == np.uint8
    assert found.names == expected
    assert found.outside == 1


def test_many_labels_are_stored_as_larger_numbers() -> None:
    names = tuple(f"region {i}" for i in range(300))
    found = segmentation(np.full((2, 3, 4), 299), names, "largest")
    assert found.values.dtype == np.int16
    assert found.voxels()[299] == 24


def test_the_legend_names_the_largest_labels_first_and_volumes_in_ml_alone(oblique: Array) -> None:
    values = np.zeros((5, 4, 3), dtype=int)
    values[0], values[1:4, :2] = 1, 2
    found = segmentation(values, ("background", "a", "b", "absent"), "largest")
    stated = described({"rule": "largest", "left_out": None}, found, oblique.tolist())
    volumes = {"unit": "ml", "labels": [{"name": "b", "expected": 1.5, "tolerance": 0.25}]}
    shown = shown_labels({"segmentation": stated, "volumes": volumes})
    assert [(label.name, label.voxels, label.expected, label.tolerance) for label in shown] == [
        ("b", 18, 1.5, 0.25),
        ("a", 12, None, None),
    ]
    assert shown[0].ml == pytest.approx(18 * 1.1 * 2.3 * 3.7 / 1000)
    in_voxels = shown_labels({"segmentation": stated, "volumes": volumes | {"unit": "voxels"}})
    assert [label.expected for label in in_voxels] == [None, None]


@pytest.mark.parametrize("number", [3, 255, 300])
def test_labels_beyond_a_byte_are_numbered_anew_and_only_the_smallest_share_a_number(number: int) -> None:
    """Each voxel keeps its label, by name, but for those of the smallest labels where there are more than a byte has numbers."""
    own = [7 * (place + 40) % 1009 + 300 for place in range(number)]
    labels = [ShownLabel(value, f"l{value}", 1000 - place) for place, value in enumerate(own)]
    values = np.random.default_rng(0).choice([0, *own], (9, 14, 25))
    drawn, legend = in_bytes(values, labels)
    assert (drawn.dtype, drawn.max() <= 255, set(drawn[values == 0].tolist())) == (np.uint8, True, {0})
    assert [label.name for label in legend] == [label.name for label in labels]
    for old, new in zip(labels, legend, strict=True):
        assert set(drawn[values == old.value].tolist()) <= {new.value}
    assert len({label.value for label in legend}) == min(number, 255)


def test_labels_that_fit_a_byte_are_left_as_they_are() -> None:
    labels = [ShownLabel(255, "a", 5), ShownLabel(3, "b", 2)]
    values = np.array([[0, 255], [3, 3]])
    drawn, legend = in_bytes(values, labels)
    assert drawn is values
    assert legend == tuple(labels)
