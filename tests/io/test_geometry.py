"""Affines of every form that readers give, as one of four by four."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from monai_ifim.io.errors import GeometryError
from monai_ifim.io.geometry import full_affine


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
