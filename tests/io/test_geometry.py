"""Affines of every form that readers give, as one of four by four."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from monai_ifim.io.errors import GeometryError
from monai_ifim.io.geometry import PLACE_TOLERANCE, check_writable, dicom_frames, full_affine, same_grid

Array = npt.NDArray[Any]


def test_plane_of_a_photograph_lies_in_space_with_a_step_of_one_across(oblique: npt.NDArray[Any]) -> None:
    flat = np.array([[0.0, 2.0, -5.0], [3.0, 0.0, 7.0], [0.0, 0.0, 1.0]])
    pixels = np.array([[4.0, 9.0], [0.0, 1.0]])
    expected = pixels @ flat[:2, :2].T + flat[:2, 2]
    found = full_affine(flat.tolist())
    np.testing.assert_array_equal((np.c_[pixels, [0, 0], [1, 1]] @ found.T)[:, :2], expected)
    np.testing.assert_array_equal(found[2], [0, 0, 1, 0])
    whole = full_affine(oblique)
    np.testing.assert_array_equal(whole, oblique)
    assert whole is not oblique


@pytest.mark.parametrize("shape", [(2, 2), (3, 4), (4,), (5, 5)])
def test_what_is_no_affine_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match=r"is neither 2D \(3 x 3\) nor 3D \(4 x 4\)"):
        full_affine(np.ones(shape))


@pytest.mark.parametrize(("moved", "same"), [(0.5, True), (2.0, False)])
@pytest.mark.parametrize("corner", ["first", "last"])
def test_grids_are_compared_at_the_corner_where_they_differ_most(
    moved: float, same: bool, corner: str, turned: Callable[..., Array]
) -> None:
    """The other corner coincides."""
    affine, shape = turned((0.7, 1.3, 4.1), (0.3, -0.2, 0.5), flip=False), (5, 7, 11)
    off = moved * PLACE_TOLERANCE * 0.7 * affine[:3, 0] / np.linalg.norm(affine[:3, 0])
    other = affine.copy()
    other[:3, 0] += (off if corner == "last" else -off) / (shape[0] - 1)
    other[:3, 3] += np.zeros(3) if corner == "last" else off
    assert same_grid(affine, other, shape) is same


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_dicom_frames_run_as_those_of_the_source_and_keep_every_voxel_at_its_place(
    order: tuple[int, int, int], flip: bool, turned: Callable[..., Array]
) -> None:
    affine = turned((0.7, 1.3, 4.1), (0.1, -0.05, 0.08), flip=flip)[:, [*order, 3]]
    values = np.arange(4.0 * 5 * 6).reshape(4, 5, 6)
    wanted = np.array([1.0, 0, 0, 0, 1, 0])
    frames, lps = dicom_frames(values, affine, wanted)
    assert lps[:3, 2] @ wanted[:3] > 0.9 * np.linalg.norm(lps[:3, 2])
    assert lps[:3, 1] @ wanted[3:] > 0.9 * np.linalg.norm(lps[:3, 1])
    assert np.cross(lps[:3, 2], lps[:3, 1]) @ lps[:3, 0] > 0
    for index in np.ndindex(frames.shape):
        voxel = np.argwhere(values == frames[index])[0]
        place = affine[:3, :3] @ voxel + affine[:3, 3]
        np.testing.assert_allclose(lps[:3, :3] @ index + lps[:3, 3], place * [-1, -1, 1], atol=1e-9)


def test_the_cure_of_a_sheared_grid_leads_to_one_that_is_written() -> None:
    from nibabel.processing import resample_to_output

    affine = np.array([[1.1, 0.0, 0.0, 3.0], [0.0, 2.3, 0.8, -12.0], [0.0, 0.0, 3.7, 7.0], [0.0, 0.0, 0.0, 1.0]])
    with pytest.raises(GeometryError, match="nibabel.processing.resample_to_output"):
        check_writable(affine)
    check_writable(resample_to_output(nib.Nifti1Image(np.ones((6, 5, 4), np.float32), affine)).affine)
