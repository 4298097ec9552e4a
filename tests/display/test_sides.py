"""Letters of the patient's sides, the same on page and viewer."""

from __future__ import annotations

import math

import nibabel as nib
import numpy as np
import pytest

from monai_ifim.display.sides import edge_letters, edge_words, letter_places, place_text, side_text
from monai_ifim.io.geometry import VIEWS, cut


@pytest.mark.parametrize(("axis", "ends"), list(enumerate(("LR", "PA", "IS"))))
def test_each_axis_has_its_letters(axis: int, ends: str) -> None:
    direction = np.zeros(3)
    for sign, letter in zip((-1, 1), ends, strict=True):
        direction[axis] = 3.5 * sign
        assert edge_letters(direction) == letter


@pytest.mark.parametrize(("degrees", "letters"), [(0, "R"), (22, "R"), (23, "RA"), (44, "RA"), (46, "AR"), (67, "AR"), (68, "A")])
def test_a_second_letter_names_a_slanted_direction(degrees: float, letters: str) -> None:
    turn = math.radians(degrees)
    assert edge_letters((math.cos(turn), math.sin(turn), 0.0)) == letters
    assert edge_letters((10 * math.cos(turn), 10 * math.sin(turn), 0.0)) == letters


@pytest.mark.parametrize("edge", range(4))
def test_a_letter_moves_along_its_edge_off_the_most_sensitive_spot(edge: int) -> None:
    middles = letter_places(None)
    assert middles == ((0.02, 0.5), (0.98, 0.5), (0.5, 0.02), (0.5, 0.98))
    across, down = middles[edge]
    found = letter_places((across, down + 0.05) if edge < 2 else (across - 0.05, down))
    assert [place == middle for place, middle in zip(found, middles, strict=True)] == [each != edge for each in range(4)]
    assert found[edge] == ((across, 0.25) if edge < 2 else (0.25, down))
    assert letter_places((0.5, 0.5)) == middles


def test_words_and_places() -> None:
    assert (edge_words("S"), edge_words("RA"), edge_words("")) == ("head", "right front", "")
    assert place_text((-1.04, 20.0, 0.0)).replace("\N{NO-BREAK SPACE}", " ") == "L 1.0 mm, A 20.0 mm, S 0.0 mm"
    assert side_text(-0.04, 1).startswith("A")  # reads 0.0, which lies on neither side
    assert side_text(-0.06, 1).startswith("P")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SLA"])
@pytest.mark.parametrize("degrees", [0, 10, 35])
def test_edges_of_a_cut_are_where_its_pixels_lie(view: str, codes: str, degrees: float) -> None:
    """The letter at an edge names the direction from the opposite edge to it, in the world."""
    turn = math.radians(degrees)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    shape = (5, 6, 7)
    orientation = nib.orientations.axcodes2ornt(codes)
    affine = tilt @ np.diag([1.0, 2.0, 3.0, 1.0]) @ nib.orientations.inv_ornt_aff(orientation, shape)
    chosen = cut(affine, view)
    world = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    places = np.einsum("ij,jxyz->ixyz", affine[:3, :3], world)
    x, y, z = (chosen.plane(part, 2) for part in places)
    rightward = [float(part[0, -1] - part[0, 0]) for part in (x, y, z)]
    downward = [float(part[-1, 0] - part[0, 0]) for part in (x, y, z)]
    left, right, top, bottom = chosen.edges
    assert (right, bottom) == (edge_letters(rightward), edge_letters(downward))
    assert (left, top) == (edge_letters([-v for v in rightward]), edge_letters([-v for v in downward]))
