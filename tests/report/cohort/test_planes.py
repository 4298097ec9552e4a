"""Pictures of cases: the right colours, the right shape in millimetres, a true scale bar, the quality that there is room for."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

from monai_ifim.display.windows import bar_shape
from monai_ifim.io.layers import Layer
from monai_ifim.io.planes import CasePlanes, Plane, PlaneMap, cut_planes, read_planes, write_planes
from monai_ifim.report.cohort.colors import color_stops
from monai_ifim.report.cohort.planes import PictureGrid, draw_picture_grid

SHAPE, INDEX = (21, 34, 13), (5, 20, 9)
SPACING = (0.9, 0.9, 4.0)
MATPLOTLIB = {"grey": "gray", "diverging": "coolwarm", "sequential": "viridis", "muted": "Greys_r"}


def pixels(source: str) -> Any:
    head, _, text = source.partition(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def one_plane(values: Any, spacing: tuple[float, float] = (1.0, 1.0), content: str = "source") -> CasePlanes:
    plane = Plane("axial", np.asarray(values, np.uint8), spacing, ("R", "L", "A", "P"), 7.04)
    return CasePlanes((-1.0, 2.0, -0.01), (PlaneMap(content, (0.0, 1.0), "unit", (plane,)),))


def only(grid: PictureGrid) -> Any:
    ((picture,),) = [column.pictures for column in grid.columns]
    return picture


@pytest.mark.parametrize(
    ("content", "colors"),
    [
        ("source", "gray"),
        ("input", "gray"),
        ("low", "gray"),
        ("high", "coolwarm"),
        ("sensitivity", "viridis"),
    ],
)
def test_every_value_has_its_colour_of_matplotlib(content: str, colors: str) -> None:
    values = np.arange(256).reshape(8, 32)
    found = pixels(only(draw_picture_grid(one_plane(values, content=content))).source)
    table = matplotlib.colormaps[colors](values, bytes=True)[..., :3]
    np.testing.assert_array_equal(found, values[..., None].repeat(3, -1) if colors == "gray" else table)


@pytest.mark.parametrize("content", ["high", "sensitivity", "source"])
def test_maps_of_a_saturated_answer_are_grey(content: str) -> None:
    values = np.arange(256).reshape(8, 32)
    grid = draw_picture_grid(replace(one_plane(values, content=content), saturated=True))
    found = pixels(only(grid).source)
    assert (found == found[..., :1]).all()
    assert [column.colors for column in grid.columns] == ["grey" if content == "source" else "muted"]


@pytest.mark.parametrize("colors", MATPLOTLIB)
def test_a_bar_has_the_colours_of_its_pictures(colors: str) -> None:
    stops = [tuple(bytes.fromhex(stop.strip("# "))) for stop in color_stops(colors).split(",")]
    table = matplotlib.colormaps[MATPLOTLIB[colors]]
    for place, stop in zip(np.linspace(0, 1, len(stops)), stops, strict=True):
        np.testing.assert_allclose(stop, 255 * np.array(table(place)[:3]), atol=4)
    middle = np.array(stops[len(stops) // 2])
    if colors == "diverging":
        assert middle.min() > 210  # zero is pale grey
        assert stops[0][2] > stops[0][0]
        assert stops[-1][0] > stops[-1][2]
    else:  # lightness only grows
        light = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in stops]
        assert np.all(np.diff(light) > 0)


def test_the_sensitive_voxel_is_the_bright_pixel_of_every_plane(case_planes: Callable[..., CasePlanes]) -> None:
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = (-10.0, -20.0, -30.0)
    planes = case_planes(affine, SHAPE, INDEX)
    bright = {
        "axial": (SHAPE[1] - 1 - INDEX[1], SHAPE[0] - 1 - INDEX[0]),
        "coronal": (SHAPE[2] - 1 - INDEX[2], SHAPE[0] - 1 - INDEX[0]),
        "sagittal": (SHAPE[2] - 1 - INDEX[2], SHAPE[1] - 1 - INDEX[1]),
    }  # all axes run towards right, front and head: radiologists see each the other way round
    sensitivity = draw_picture_grid(planes).columns[-1]
    assert [picture.view for picture in sensitivity.pictures] == list(bright)
    yellow = np.array(matplotlib.colormaps["viridis"](255, bytes=True)[:3])
    for picture in sensitivity.pictures:
        places = np.argwhere((pixels(picture.source) == yellow).all(axis=-1))
        assert places.tolist() == [list(bright[picture.view])]
    assert sensitivity.pictures[0].place == "S\u00a06.0\u00a0mm"  # -30 + 9 * 4
    assert draw_picture_grid(planes).point == "L\u00a05.5\u00a0mm, P\u00a02.0\u00a0mm, S\u00a06.0\u00a0mm"


def test_shapes_are_those_in_millimetres_and_all_planes_of_a_case_have_one_scale(case_planes: Callable[..., CasePlanes]) -> None:
    grid = draw_picture_grid(case_planes(np.diag([*SPACING, 1.0]), SHAPE, INDEX))
    size = dict(zip("xyz", np.array(SHAPE) * SPACING, strict=True))  # 18.9, 30.6, 52 mm
    extents = {"axial": (size["x"], size["y"]), "coronal": (size["x"], size["z"]), "sagittal": (size["y"], size["z"])}
    assert len(grid.columns) == 4
    for column in grid.columns:
        scales = []
        for picture in column.pictures:
            across, down = extents[picture.view]
            assert picture.ratio == pytest.approx(across / down, rel=1e-3)
            scales.append(picture.percent / across)
            assert picture.bar is not None
            length = float(re.fullmatch(r"([\d.]+)\u00a0mm", picture.bar.text)[1])  # type: ignore[index]
            assert picture.bar.percent == pytest.approx(100 * length / across, rel=1e-3)
        np.testing.assert_allclose(scales, scales[0], rtol=1e-3)
        assert max(picture.percent for picture in column.pictures) <= 100


@pytest.mark.parametrize(
    ("width", "length"), [(250.0, "100"), (12.5, "5"), (5.0, "2"), (4.9, "1"), (0.3, "0.1"), (2500.0, "1000"), (1.3e-4, "5e-5")]
)
def test_a_scale_bar_is_the_longest_round_length_within_two_fifths(width: float, length: str) -> None:
    picture = only(draw_picture_grid(one_plane(np.zeros((4, 10)), (width / 10, width / 10))))
    assert picture.bar.text.replace("\N{MINUS SIGN}", "-") == f"{length}\u00a0mm"
    assert picture.bar.percent == pytest.approx(100 * float(length) / width, rel=1e-3)
    assert picture.bar.percent <= 40.01


@pytest.mark.parametrize(("shape", "percent"), [((10, 40), 100.0), ((50, 40), 100.0), ((100, 40), 50.0)])
def test_a_tall_picture_is_at_most_a_quarter_taller_than_its_column_is_wide(shape: tuple[int, int], percent: float) -> None:
    assert only(draw_picture_grid(one_plane(np.zeros(shape)))).percent == percent


def test_a_photograph_has_neither_letters_nor_scale() -> None:
    photograph = cut_planes([Layer("source", np.arange(35.0).reshape(7, 5), (0, 34), "")], np.eye(4), (2, 1), photograph=True)
    grid = draw_picture_grid(photograph)
    picture = only(grid)
    assert (picture.bar, picture.place, picture.edges, grid.point) == (None, "", ("", "", "", ""), "")
    assert picture.alt == "Image, from 0 to 34.0, 7 \N{MULTIPLICATION SIGN} 5 pixels"
    assert grid.columns[0].title == "Image"


def test_letters_of_a_flat_picture_stay_off_it() -> None:
    assert only(draw_picture_grid(one_plane(np.zeros((3, 60))))).edges == ("R", "L", "", "")
    assert only(draw_picture_grid(one_plane(np.zeros((40, 60))))).edges == ("R", "L", "A", "P")


def test_what_a_picture_shows_is_said_in_words() -> None:
    picture = only(draw_picture_grid(one_plane(np.zeros((4, 4)), content="high")))
    said = "patient's right at the left, left at the right, front at the top, back at the bottom"
    assert picture.alt == f"Sensitive part (high), from 0 to 1.00 unit, axial plane at S\u00a07.0\u00a0mm; {said}"


def test_a_bar_is_labelled_with_its_window_and_unit() -> None:
    planes = one_plane(np.zeros((2, 2)), content="sensitivity")
    planes = replace(planes, maps=(replace(planes.maps[0], window=(0.0, 3.2e-5), unit="nats per (x)^2"),))
    column = draw_picture_grid(planes).columns[0]
    assert (column.title, column.marks, column.unit) == (
        "Sensitivity",
        ("0", "1.60e\N{MINUS SIGN}5", "3.20e\N{MINUS SIGN}5"),
        "nats per (x)²",
    )
    signed = replace(planes, maps=(replace(planes.maps[0], kind="high", window=(-0.5, 0.5)),))
    assert draw_picture_grid(signed).columns[0].marks == ("\N{MINUS SIGN}0.500", "0", "0.500")


@pytest.mark.parametrize(("lowest", "highest"), [(0, 1), (0, 2), (-1, 1), (-1, 2)])
def test_a_bar_is_pointed_where_values_lie_beyond_it(lowest: float, highest: float, tmp_path: Path) -> None:
    below, above = lowest < 0, highest > 1
    values = np.full((5, 4, 1), 0.5)
    values[1, 2], values[3, 1] = lowest, highest
    planes = cut_planes([Layer("low", values, (0.0, 1.0), "", 10.0)], np.eye(4), (2, 1, 0))
    write_planes(tmp_path / "planes.npz", planes)
    for each in (planes, read_planes(tmp_path / "planes.npz")):
        assert each.maps[0].beyond == (below, above)
        assert draw_picture_grid(each).columns[0].shape == bar_shape(below, above)


@pytest.mark.parametrize(
    ("row", "column", "corner", "moved"),
    [
        (10, 10, "left", None),
        (19, 2, "right", None),
        (19, 18, "left", None),
        (10, 1, "left", 0),
        (1, 10, "left", 2),
        (19, 10, "right", 3),
    ],
)
def test_bar_and_letters_leave_the_most_sensitive_spot_free(row: int, column: int, corner: str, moved: int | None) -> None:
    values = np.zeros((21, 21))
    values[row, column] = 1.0
    picture = only(draw_picture_grid(one_plane(values, content="sensitivity")))
    assert picture.bar_at == corner
    middles = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.02), (0.5, 0.98))
    assert [i for i in range(4) if picture.places[i] != middles[i]] == ([] if moved is None else [moved])


def test_a_map_is_named() -> None:
    assert draw_picture_grid(one_plane(np.zeros((2, 2)), content="low")).columns[0].title == "Insensitive part (low)"


def test_quality_falls_until_the_pictures_fit(large_planes: Callable[[int], CasePlanes]) -> None:
    planes = large_planes(3)
    exact = draw_picture_grid(planes)
    weights = [exact.weight]
    for _ in range(3):
        smaller = draw_picture_grid(planes, weights[-1] - 1)
        assert smaller.weight < weights[-1]
        weights.append(smaller.weight)
    assert draw_picture_grid(planes, 10).weight == weights[-1]  # no worse than that
    assert draw_picture_grid(planes, weights[0]) == exact
    source = planes.maps[0].planes[0].values.astype(float)
    seen = pixels(draw_picture_grid(planes, 10).columns[0].pictures[0].source)[..., 0].astype(float)
    assert np.abs(seen - source).mean() < 12  # of 255, in noise with a deviation of 12


def test_pictures_are_the_same_bytes_every_time(large_planes: Callable[[int], CasePlanes]) -> None:
    assert draw_picture_grid(large_planes(1), 200_000) == draw_picture_grid(large_planes(1), 200_000)
