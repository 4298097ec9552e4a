"""The colour tables: even steps of colour, and told apart by people with each kind of colour sight.

Colours are compared in CIELAB (CIE 15:2004). Colour blindness is simulated by the matrices of Machado, Oliveira and Fernandes
(2009, severity 1.0), which apply to linear RGB.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from monai_ifim.display.style import DIVERGING, GRAY, LABEL_COLORS, OTHER_LABELS, SEQUENTIAL

Array = npt.NDArray[Any]

XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
SIGHT = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
NOTICED = 2.3  # just noticeable distance in CIELAB


def lab(colors: Array, sight: str = "usual") -> Array:
    """CIELAB [..., 3] of sRGB colours [..., 3] from 0 to 1, as seen with this kind of colour sight."""
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(SIGHT[sight]).T, 0, 1)
    ratios = seen @ XYZ.T / XYZ.sum(1)
    f = np.where(ratios > (6 / 29) ** 3, np.cbrt(ratios), ratios / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def table(name: str) -> Array:
    return np.asarray(colormaps[name](np.arange(256))[:, :3])


def unevenness(colors: Array) -> float:
    """The largest step of colour over the smallest, of 17 equal steps of the value."""
    steps = np.linalg.norm(np.diff(lab(colors), axis=0), axis=1).reshape(17, 15).sum(1)
    return float(steps.max() / steps.min())


def test_cielab_is_that_of_the_standard() -> None:
    known = {"white": (100, 0, 0), "black": (0, 0, 0), "red": (53.24, 80.09, 67.20), "blue": (32.30, 79.19, -107.86)}
    for name, wanted in known.items():
        np.testing.assert_allclose(lab(np.array(to_rgb(name))), wanted, atol=0.02)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("name", [GRAY, SEQUENTIAL])
def test_tables_of_one_sign_grow_lighter_to_every_eye(name: str, sight: str) -> None:
    lightness = lab(table(name), sight)[:, 0]
    assert (np.diff(lightness) > 0).all()
    assert lightness[-1] - lightness[0] > 70


@pytest.mark.parametrize("sight", SIGHT)
def test_the_table_of_both_signs_grows_darker_on_either_side_of_zero_to_every_eye(sight: str) -> None:
    below, above = lab(table(DIVERGING), sight)[:128], lab(table(DIVERGING), sight)[:127:-1]
    for lightness in (below[:, 0], above[:, 0]):
        assert (np.diff(lightness[:120]) > 0).all()
        assert lightness[-1] - lightness[0] > 25
    signs = np.linalg.norm(below - above, axis=1)  # between equally large values of either sign
    assert signs[:110].min() > 4 * NOTICED
    assert signs[0] > 60


def test_equal_steps_of_the_value_are_about_equal_steps_of_colour() -> None:
    assert unevenness(table(DIVERGING)) < 1.1
    assert max(unevenness(table(SEQUENTIAL)), unevenness(table(GRAY))) < 2.2
    assert min(unevenness(table(name)) for name in ("jet", "RdBu_r", "seismic", "hot")) > 2.5  # the measure tells others


def test_both_signs_are_equally_light() -> None:
    lightness = lab(table(DIVERGING))[:, 0]
    np.testing.assert_allclose(lightness, lightness[::-1], atol=0.5)


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_of_labels_differ_to_every_eye(sight: str) -> None:
    colors = lab(np.array([to_rgb(color) for color in (*LABEL_COLORS, OTHER_LABELS)]), sight)
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1)
    assert distances[np.triu_indices(len(colors), 1)].min() > 6 * NOTICED
