"""Display windows: the ends that a map is shown between."""

from __future__ import annotations

import numpy as np
import pytest

from monai_ifim.display.windows import SOFT_TISSUE, display_window


def test_signed_maps_have_a_window_symmetric_about_zero() -> None:
    values = np.linspace(-3, 1, 4001).reshape(-1, 1)
    for kind in ("high", "eigenvector"):
        low, high = display_window(kind, values)
        assert low == -high
        assert high == pytest.approx(2.997, abs=2e-3)  # of |x|, one in a thousand is above


def test_a_part_of_nothing_but_rounding_is_shown_as_nothing() -> None:
    image = np.linspace(-800, 1200, 4000)
    rounding = image - image.astype(np.float32)
    assert 0 < np.abs(rounding).max() < 1e-3
    low, high = display_window("high", rounding, largest_of_image=1200.0)
    assert low == -high
    assert np.abs(rounding).max() < 0.05 * high  # grey, within a twentieth
    part = image / 1000
    assert display_window("high", part, largest_of_image=1200.0) == display_window("high", part)
    assert display_window("eigenvector 1", rounding, largest_of_image=1200.0) == display_window("eigenvector 1", rounding)


def test_one_sensitive_spot_in_a_faint_image_sets_the_scale() -> None:
    values = np.full((37, 41, 5), 1e-6)
    values[3:5, 7:9, 2] = [[1.0, 0.9], [0.8, 0.7]]
    low, high = display_window("sensitivity", values)
    assert low == 0.0
    assert 0.9 < high <= 1.0


def test_a_spot_that_the_sample_of_a_large_volume_misses_is_not_lost() -> None:
    values = np.zeros(2**23 + 1)
    values[1] = 5.0
    assert display_window("sensitivity", values) == (0.0, 5.0)
    assert display_window("high", values) == (-5.0, 5.0)


def test_images_lose_half_a_percent_at_either_end() -> None:
    assert display_window("input", np.arange(1001.0)) == pytest.approx((5, 995))
    assert display_window("low", np.full((3, 4), 7.0)) == (6.5, 7.5)
    sparse = np.zeros(5000)
    sparse[[4, 900]] = 3.0
    assert display_window("source", sparse) == (0.0, 3.0)


def test_hounsfield_units_are_shown_as_soft_tissue_unless_there_is_none() -> None:
    head = np.concatenate([np.full(500, -1000), np.full(500, 35), np.full(50, 900)])
    assert display_window("source", head, hounsfield=True) == SOFT_TISSUE
    assert display_window("input", head, hounsfield=True) == SOFT_TISSUE
    assert display_window("source", head) != SOFT_TISSUE
    assert display_window("source", np.linspace(-1000, -800, 50), hounsfield=True) != SOFT_TISSUE
    assert display_window("high", head, hounsfield=True) == (-1000, 1000)


def test_maps_of_zeros_are_shown_at_their_zero() -> None:
    zeros = np.zeros((3, 5, 4))
    assert display_window("sensitivity", zeros) == (0.0, 1.0)
    assert display_window("high", zeros) == (-1.0, 1.0)
    assert display_window("eigenvector", zeros) == (-1.0, 1.0)
