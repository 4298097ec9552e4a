"""Example images are drawn as planes in the world: sides, proportions and colours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.text import Text

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.measuring.examples import example_planes
from monai_ifim.evaluation.records import Example, read_experiment
from monai_ifim.report.experiment.drawings import Drawings
from monai_ifim.report.experiment.examples import TITLES, StoredExample, example_figure, read_examples
from monai_ifim.report.pages.style import page_style

Content = dict[str, Any]
Maps = dict[str, torch.Tensor]
SHAPE = (5, 9, 7)
# axes to the front, to the left and down, tilted; 1.2, 0.8 and 3 mm apart
TILTED = np.array([[0.1, -0.79, 0.3, 4.0], [1.19, 0.08, 0.2, -7.0], [0.0, 0.1, -2.97, 50.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.fixture(autouse=True)
def house_style() -> Iterator[None]:
    with page_style():
        yield


def maps_of(shape: tuple[int, ...] = SHAPE, **changes: Any) -> Maps:
    generator = torch.Generator().manual_seed(4)
    maps = {name: torch.randn(1, *shape, generator=generator) for name in TITLES}
    maps["sensitivity"] = maps["sensitivity"] ** 2
    maps.update({name: torch.as_tensor(values)[None] for name, values in changes.items()})
    return maps


def stored(maps: Maps, affine: Any = None) -> StoredExample:
    return StoredExample(Example("a", "x", "y", 0.25), example_planes(maps, affine))


def rows_of(*examples: StoredExample) -> list[list[Axes]]:
    """Tiles by row."""
    axes = example_figure(examples).axes
    return [axes[start : start + len(TITLES)] for start in range(0, len(axes), len(TITLES))]


def words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.findobj(Text) if text.get_text()]


def displayed_ratio(axes: Axes) -> float:
    """Height over width of what is drawn, in inches."""
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    box = axes.get_window_extent()
    return float(box.height / box.width)


@pytest.mark.parametrize(("view", "normal", "down", "across"), [(0, 2, 1, 0), (1, 1, 2, 0), (2, 0, 2, 1)])
def test_volumes_lie_as_in_nibabels_canonical_orientation(view: int, normal: int, down: int, across: int) -> None:
    """Axial, coronal, sagittal: the canonical (RAS) volume cut there, head or front at the top, right or front at the left."""
    image = np.arange(np.prod(SHAPE), dtype=np.float64).reshape(SHAPE)
    most = (3, 6, 2)
    sensitivity = np.zeros(SHAPE)
    sensitivity[most] = 1.0
    tile = rows_of(stored(maps_of(image=image, sensitivity=sensitivity), TILTED))[view][0]

    canonical = nib.as_closest_canonical(nib.Nifti1Image(image, TILTED))
    marked = nib.as_closest_canonical(nib.Nifti1Image(sensitivity, TILTED)).get_fdata()
    index = np.unravel_index(marked.argmax(), marked.shape)
    plane = np.take(canonical.get_fdata(), index[normal], axis=normal)  # the remaining axes in the order of RAS
    expected = plane.T[::-1, ::-1]
    drawn = np.asarray(tile.images[0].get_array(), dtype=np.float64)
    assert drawn.shape == expected.shape
    assert np.corrcoef(drawn.ravel(), expected.ravel())[0, 1] > 0.999
    spacing = np.linalg.norm(canonical.affine[:3, :3], axis=0)
    sizes = np.array(canonical.shape) * spacing
    assert displayed_ratio(tile) == pytest.approx(sizes[down] / sizes[across], rel=0.02)
    ends = ("RL", "AP", "SI")
    assert [text.get_text() for text in tile.texts] == [*ends[across], *ends[down]]
    assert f"{('axial', 'coronal', 'sagittal')[view]}, " in tile.get_ylabel()


def test_letters_do_not_cover_the_most_sensitive_spot() -> None:
    sensitivity = np.zeros((21, 17, 1))
    sensitivity[10, 15] = 1.0
    affine = np.diag([-1.0, -1.0, 3.0, 1.0])  # axial, rows to the back: the spot lies at the middle of the lower edge
    ((tile, *_),) = rows_of(stored(maps_of((21, 17, 1), sensitivity=sensitivity), affine))
    places = {text.get_text(): text.get_position() for text in tile.texts}
    assert places == {"R": (0.02, 0.5), "L": (0.98, 0.5), "A": (0.5, 0.98), "P": (0.25, pytest.approx(0.02))}


def test_a_photograph_is_shown_as_it_is_without_sides() -> None:
    """MONAI's first spatial axis of a picture runs from left to right."""
    image = np.arange(35.0).reshape(5, 7)
    ((tile, *_),) = rows_of(stored(maps_of((5, 7), image=image)))
    drawn = np.asarray(tile.images[0].get_array(), dtype=np.float64)
    assert drawn.shape == (7, 5)
    assert np.corrcoef(drawn.ravel(), image.T.ravel())[0, 1] > 0.999
    assert tile.images[0].origin == "upper"
    assert displayed_ratio(tile) == pytest.approx(7 / 5, rel=0.02)
    assert not any(text.get_text() for text in tile.texts)


def test_signed_maps_are_symmetric_about_zero_and_positive_ones_start_there() -> None:
    planes = example_planes(maps_of(), TILTED)
    windows = {found.kind: found.window for found in planes.maps}
    for name in ("high", "eigenvector", "integrated_gradients", "gradcam"):
        assert windows[name][0] == -windows[name][1] < 0
    assert windows["sensitivity"][0] == 0 < windows["sensitivity"][1]
    (row, *_) = rows_of(stored(maps_of(), TILTED))
    assert [axes.images[0].get_cmap().name for axes in row] == [
        "gray",
        "coolwarm",
        "gray",
        "coolwarm",
        "viridis",
        "coolwarm",
        "coolwarm",
    ]


def test_image_and_low_share_a_grey_window_that_leaves_out_half_a_percent_of_the_values() -> None:
    maps = maps_of((40, 50), image=np.linspace(0, 1, 2000).reshape(40, 50), low=np.linspace(0, 3, 2000).reshape(40, 50))
    windows = {found.kind: found.window for found in example_planes(maps, None).maps}
    values = np.concatenate([maps["image"].numpy().ravel(), maps["low"].numpy().ravel()])
    assert windows["image"] == windows["low"] == pytest.approx(tuple(np.percentile(values, [0.5, 99.5])))


def test_every_map_has_its_scale_printed_with_the_unit() -> None:
    signed = np.full(SHAPE, 0.125) * (-1.0) ** np.arange(7)
    *_, last = rows_of(stored(maps_of(high=signed), TILTED))
    (bar,) = last[1].child_axes
    assert [text.get_text() for text in bar.get_xticklabels()] == ["\N{MINUS SIGN}0.125", "0", "0.125"]
    assert "nats per squared unit" in words(last[4].child_axes[0])


def test_a_map_that_was_not_made_is_marked() -> None:
    maps = maps_of()
    del maps["gradcam"]
    for row in rows_of(stored(maps, TILTED)):
        assert not row[6].images
        assert "n/a" in words(row[6])


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_maps_are_drawn(value: float) -> None:
    flat = np.full(SHAPE, value)
    rows = rows_of(stored(maps_of(**dict.fromkeys(("image", "high", "low", "gradcam"), flat)), TILTED))
    assert all(axes.images for row in rows for axes in row)


def test_planes_go_through_the_channel_and_voxel_of_largest_sensitivity() -> None:
    maps = {name: torch.zeros(2, *SHAPE) for name in TITLES}
    maps["sensitivity"][1, 2, 8, 3] = 4.0
    maps["image"][1, 2, 8, 3] = 9.0
    for found in example_planes(maps, TILTED).maps[0].planes:
        assert found.values.max() > found.values.min()
    expected = TILTED @ [2, 8, 3, 1]
    np.testing.assert_allclose(example_planes(maps, TILTED).point, expected[:3])


def one_cell(folder: Path, cell: Content, experiment_content: Any) -> Any:
    (folder / "results.json").write_text(json.dumps(experiment_content([cell], [])))
    return read_experiment(folder / "results.json").cells[0]


@pytest.mark.slow
def test_large_figures_are_split_until_each_is_small(
    tmp_path: Path, cell_content: Callable[..., Content], experiment_content: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = cell_content("one", "One", "Net", ["a", "b"], [160, 160], 12, 2.0, 5)
    noisy = [stored(maps_of((160, 160))) for _ in range(4)]
    monkeypatch.setattr("monai_ifim.report.experiment.drawings.read_examples", lambda *_: noisy)
    pictures = Drawings(tmp_path).examples(one_cell(tmp_path, content, experiment_content))
    assert 2 <= len(pictures) <= 4
    assert all(len(picture.content) < 150_000 for picture in pictures)
    assert len({picture.file for picture in pictures}) == len(pictures)


def test_damaged_and_foreign_examples_are_refused_by_name(
    tmp_path: Path, cell_content: Callable[..., Content], experiment_content: Any, example_writer: Callable[..., None]
) -> None:
    content = cell_content("one", "One", "Net", ["a", "b"], [9, 8], 12, 2.0, 5)
    example_writer(tmp_path, content, 3)
    images = tmp_path / "cells" / "one" / "Net" / "images"
    cell = one_cell(tmp_path, content, experiment_content)
    assert [one.example.image for one in read_examples(tmp_path, cell)] == ["image_0000", "image_0001", "image_0002"]
    (images / "image_0002.npz").unlink()
    assert len(read_examples(tmp_path, cell)) == 2
    (images / "image_0001.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(IFIMError, match=r"image_0001\.npz: not a readable record of planes .*[Rr]un this cell again"):
        read_examples(tmp_path, cell)
    content["examples"][0]["image"] = "../../secret"
    with pytest.raises(IFIMError, match="is not a file name; run this cell again"):
        read_examples(tmp_path, one_cell(tmp_path, content, experiment_content))


def test_matplotlibs_settings_are_left_alone(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    rows_of(stored(maps_of(), TILTED))
    assert dict(matplotlib.rcParams) == before
