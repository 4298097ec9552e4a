"""The figure of a decomposition, against its tensors read by numpy."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from monai.data import MetaTensor
from torch import Tensor, nn

from core_cases import Case, NetworkFactory
from monai_ifim.core import GaussianHead, Head, ImageError, decompose
from monai_ifim.display import figure as figure_module
from monai_ifim.display.figure import draw
from monai_ifim.display.panels import ColorScale, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def axes_of(figure: Figure) -> dict[str, Axes]:
    return {axes.get_label(): axes for axes in figure.axes}


def drawn(figure: Figure, name: str) -> list[np.ndarray]:
    """The arrays handed to matplotlib for a map, plane by plane."""
    return [np.asarray(a.images[0].get_array()) for a in figure.axes if re.fullmatch(rf"{name}(, axis \d)?", a.get_label())]


def cuts(values: Tensor, point: Sequence[int]) -> list[np.ndarray]:
    """A map [H, W], or the planes of one [H, W, D] through a point, by numpy."""
    array = values.double().cpu().numpy()
    return [array] if array.ndim == 2 else [array[point[0]], array[:, point[1]], array[:, :, point[2]]]


def limits(figure: Figure, name: str) -> tuple[float, float]:
    return next(a.images[0].get_clim() for a in figure.axes if re.fullmatch(rf"{name}(, axis \d)?", a.get_label()))


def test_every_map_drawn_is_the_plane_of_its_tensor_through_the_most_sensitive_voxel(case: Case) -> None:
    d, channel = case.leading, case.shape[0] - 1
    figure = d.plot(index=1, channel=channel, components=2)
    sensitivity = d.sensitivity[1, channel].numpy()
    point = np.unravel_index(sensitivity.argmax(), sensitivity.shape)
    maps = {"image": d.image, "high": d.high, "low": d.low, "sensitivity": d.sensitivity}
    maps |= {f"eigenvector {i + 1}": d.eigenvectors[:, i] for i in range(min(2, int(d.rank[1])))}
    for name, values in maps.items():
        for found, truth in zip(drawn(figure, name), cuts(values[1, channel], point), strict=True):
            np.testing.assert_array_equal(found, truth)
    assert len([name for name in axes_of(figure) if name.endswith(", scale")]) == len(maps)


def test_colours_are_symmetric_for_signed_maps_and_shared_by_image_and_low(case: Case) -> None:
    d = case.leading
    figure = d.plot(components=1)
    for name, values in (("high", d.high[0, 0]), ("eigenvector 1", d.eigenvectors[0, 0, 0])):
        low, high = limits(figure, name)
        assert low == -high < 0
        assert high == pytest.approx(np.percentile(values.abs().double().numpy(), 99.9))
    ends = np.percentile(d.image[0, 0].double().numpy(), [0.5, 99.5])
    assert limits(figure, "image") == limits(figure, "low") == pytest.approx(tuple(ends))
    sensitivity = d.sensitivity[0, 0].double().numpy()
    top = np.percentile(sensitivity[sensitivity > 0.01 * sensitivity.max()], 99)
    assert limits(figure, "sensitivity") == (0.0, pytest.approx(top))


@pytest.mark.parametrize("shape", [(3, 11, 8), (1, 6, 5, 7)], ids=str)
def test_pixels_are_square_and_rows_run_down(cnn: NetworkFactory, shape: tuple[int, ...]) -> None:
    for axes in decompose(cnn(shape, 4), torch.randn(1, *shape)).plot().axes:
        if not axes.images or axes.get_label().endswith("scale"):
            continue
        rows, columns = axes.images[0].get_array().shape
        assert axes.get_aspect() == 1.0
        assert axes.get_xlim() == (-0.5, columns - 0.5)
        assert axes.get_ylim() == (rows - 0.5, -0.5)


def test_bars_are_the_spectrum_those_kept_in_another_colour(case: Case) -> None:
    d = case.leading
    axes = axes_of(d.plot(index=1))
    bars = axes["spectrum"].patches
    np.testing.assert_array_equal([bar.get_height() for bar in bars], d.spectrum[1].numpy())
    colors = [bar.get_facecolor() for bar in bars]
    kept = int(d.rank[1])
    assert len(set(colors[:kept])) == 1
    assert colors[0] not in colors[kept:]
    shares = np.cumsum(d.spectrum[1].numpy()) / float(d.trace[1])
    np.testing.assert_allclose(axes["share"].lines[0].get_ydata(), 100 * shares)
    wide = float(d.spectrum[1, 0] / d.spectrum[1, -1]) >= 100
    assert axes["spectrum"].get_yscale() == ("log" if wide else "linear")
    assert "nats per unit²" in axes["spectrum"].get_ylabel()


def test_spectrum_over_decades_is_logarithmic_and_a_long_one_is_cut() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(99, 60)).double().eval()
    network[1].weight.data *= torch.logspace(0, -3, 60, dtype=torch.float64)[:, None]
    axes = axes_of(decompose(network, torch.ones(1, 1, 9, 11, dtype=torch.float64), rank=2).plot())["spectrum"]
    assert axes.get_yscale() == "log"
    assert len(axes.patches) == 40
    assert axes.get_ylim()[0] < min(bar.get_height() for bar in axes.patches)
    assert axes.get_title(loc="left") == "sensitivity by component: 2 kept of 59 computed, first 40 of 59"


def test_answers_are_the_probabilities_of_the_classes(classifier_case: Case) -> None:
    axes = axes_of(classifier_case.leading.plot(index=1))["answers"]
    np.testing.assert_array_equal([bar.get_width() for bar in axes.patches], classifier_case.leading.probabilities[1].numpy())
    kind = "class" if classifier_case.reference_head == "categorical" else "label"
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"{kind} {c}" for c in range(classifier_case.outputs)]


def test_answers_of_a_regression_are_its_means(regression_case: Case) -> None:
    axes = axes_of(regression_case.leading.plot())["answers"]
    np.testing.assert_array_equal([bar.get_width() for bar in axes.patches], regression_case.leading.probabilities[0].numpy())
    assert axes.get_title(loc="left") == "predicted mean"


def test_of_many_classes_the_likeliest_are_drawn_in_their_order(linear: NetworkFactory, image: Tensor) -> None:
    d = decompose(linear((1, 7, 5), 30).double(), image, rank=1)
    axes = axes_of(d.plot())["answers"]
    likeliest = sorted(np.argsort(-d.probabilities[0].numpy())[:7])
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"class {c}" for c in likeliest]


def test_planes_go_through_the_point_that_is_asked_for(cnn: NetworkFactory) -> None:
    d = decompose(cnn((2, 6, 5, 7), 3), torch.randn(1, 2, 6, 5, 7), rank=1)
    figure = d.plot(channel=1, point=(4, 0, np.int64(6)))
    for name, values in (("sensitivity", d.sensitivity), ("image", d.image)):
        for found, truth in zip(drawn(figure, name), cuts(values[0, 1], (4, 0, 6)), strict=True):
            np.testing.assert_array_equal(found, truth)
    lines = [axes_of(figure)[f"image, axis {axis}"].lines for axis in range(3)]
    places = [(horizontal.get_ydata()[0], vertical.get_xdata()[0]) for horizontal, vertical in lines]
    assert places == [(0, 6), (4, 6), (4, 0)]
    assert [axes_of(figure)[f"image, axis {a}"].get_ylabel().splitlines()[0] for a in range(3)] == [
        "axis 0 = 4",
        "axis 1 = 0",
        "axis 2 = 6",
    ]
    peak = f"{float(d.sensitivity[0, 1, 4, 0, 6]):.3g}".partition("e")[0]
    assert f"planes at voxel (4, 0, 6):  sensitivity {peak}" in figure.texts[0].get_text()


def test_the_lines_of_the_crosshair_end_before_the_point(linear: NetworkFactory) -> None:
    d = decompose(linear((1, 41, 23), 2), torch.randn(1, 1, 41, 23), rank=1)
    axes = axes_of(d.plot(point=(30, 7)))["image"]
    drawn_at = [np.column_stack(line.get_data()) for line in axes.lines]  # (column, row)
    ends = np.concatenate([points[np.isfinite(points).all(1)] for points in drawn_at])
    away = np.abs(ends - (7, 30)).max(1)
    assert away.min() == pytest.approx(0.06 * 41)
    assert [np.isnan(points).any(1).tolist() for points in drawn_at] == 2 * [[False, False, True, False, False]]
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 22.5), (40.5, -0.5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"index": 3}, "index=3: give a whole number from 0 to 2"),
        ({"index": -1}, "index=-1"),
        ({"index": True}, "index=True"),
        ({"index": 0.0}, r"index=0\.0"),
        ({"channel": 1}, "channel=1: give a whole number from 0 to 0"),
        ({"components": -1}, "components=-1: give a whole number from 0 on"),
        ({"point": (1, 2, 3)}, r"point=\(1, 2, 3\): give 2 indices, one for each axis of an image \(7, 5\)"),
        ({"point": (1, 5)}, r"point\[1\]=5: give a whole number from 0 to 4"),
    ],
)
def test_what_is_not_there_is_refused(linear: NetworkFactory, image: Tensor, arguments: dict[str, Any], message: str) -> None:
    d = decompose(linear((1, 7, 5), 3).double(), image)
    with pytest.raises(ImageError, match=message):
        d.plot(**arguments)


def test_more_components_than_kept_are_those_kept(linear: NetworkFactory, image: Tensor) -> None:
    d = decompose(linear((1, 7, 5), 4).double(), image, rank=2)
    found = [
        [name for name in axes_of(d.plot(components=n)) if name in {f"eigenvector {i}" for i in range(9)}] for n in (0, 1, 99)
    ]
    assert found == [[], ["eigenvector 1"], ["eigenvector 1", "eigenvector 2"]]


@pytest.mark.parametrize("shape", [(1, 9, 12), (2, 4, 9, 5)], ids=str)
def test_an_answer_that_nothing_moves_is_drawn_as_such(linear: NetworkFactory, shape: tuple[int, ...]) -> None:
    network = linear(shape, 4)
    network[1].weight.data.zero_()
    d = decompose(network, torch.zeros(1, *shape))
    figure = d.plot()
    assert int(d.rank) == 0
    assert all(not plane.any() for plane in drawn(figure, "sensitivity") + drawn(figure, "high"))
    assert limits(figure, "sensitivity") == (0.0, 1.0)
    assert limits(figure, "high") == (-1.0, 1.0)
    assert axes_of(figure)["spectrum"].texts[0].get_text().startswith("F = 0")
    assert f"{tuple(size // 2 for size in shape[1:])}, the centre" in figure.texts[0].get_text()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_half_precision_and_accelerators_are_drawn(cnn: NetworkFactory, dtype: torch.dtype, device: str) -> None:
    image = torch.randn(1, 1, 11, 8, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    d = decompose(cnn((1, 11, 8), 3).to(device, dtype), image)
    np.testing.assert_array_equal(drawn(d.plot(), "image")[0], image[0, 0].double().cpu().numpy())
    np.testing.assert_array_equal(drawn(d.plot(), "high")[0], d.high[0, 0].double().cpu().numpy())
    assert d._repr_html_().count("<img ") == 1


def test_metatensors_are_drawn_as_what_they_hold(cnn: NetworkFactory) -> None:
    image = MetaTensor(torch.randn(1, 1, 6, 5, 7), affine=torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])))
    d = decompose(cnn((1, 6, 5, 7), 3), image)
    fields = {"image": image, "high": MetaTensor(d.high), "sensitivity": MetaTensor(d.sensitivity)}
    for one in (d, replace(d, **fields)):
        found = drawn(one.plot(point=(1, 2, 3), components=1), "image")
        for plane, truth in zip(found, cuts(image.as_tensor()[0, 0], (1, 2, 3)), strict=True):
            np.testing.assert_array_equal(plane, truth)


def test_a_head_of_ones_own_has_outputs(linear: NetworkFactory, image: Tensor) -> None:
    class Scaled(GaussianHead):
        name = "scaled"

    head: Head = Scaled(2.0)
    d = decompose(linear((1, 7, 5), 2).double(), image, head=head)
    assert [text.get_text() for text in axes_of(d.plot())["answers"].get_yticklabels()] == ["output 0", "output 1"]


def test_coarse_planes_keep_lone_peaks_and_average_images(linear: NetworkFactory) -> None:
    """530 x 301 at 256 pixels: three by three voxels a pixel, fewer at the far edges."""
    network = linear((1, 530, 301), 2)
    network[1].weight.data *= 1e-3
    place = 400 * 301 + 77
    network[1].weight.data[0, place] = -2.0
    d = decompose(network, torch.rand(1, 1, 530, 301))
    figure = draw(d, 0, 0, 1, None, 256)
    vector = drawn(figure, "eigenvector 1")[0]
    assert vector.shape == (177, 101)
    assert vector[133, 25] == float(d.eigenvectors[0, 0, 0, 400, 77])
    assert drawn(figure, "sensitivity")[0][133, 25] == float(d.sensitivity.max())
    image = d.image[0, 0].double().numpy()
    np.testing.assert_allclose(drawn(figure, "image")[0][4, 9], image[12:15, 27:30].mean())
    np.testing.assert_allclose(drawn(figure, "image")[0][-1, -1], image[528:, 300:].mean())
    horizontal, vertical = axes_of(figure)["image"].lines
    assert (horizontal.get_ydata()[0], vertical.get_xdata()[0]) == (400, 77)  # in voxels, as the axes are
    assert axes_of(figure)["image"].get_ylim() == (530.5, -0.5)
    assert "a pixel stands for 3 \N{MULTIPLICATION SIGN} 3 voxels" in figure.texts[0].get_text()
    assert drawn(d.plot(), "image")[0].shape == (530, 301)


def test_settings_of_the_caller_neither_change_the_figure_nor_are_changed(linear: NetworkFactory, image: Tensor) -> None:
    d = decompose(linear((1, 7, 5), 3).double(), image)
    plain = d.plot()._repr_png_()  # type: ignore[attr-defined]
    wishes = {"image.origin": "lower", "axes.grid": True, "font.size": 20, "text.usetex": True, "figure.facecolor": "none"}
    with matplotlib.rc_context(wishes):
        before = dict(matplotlib.rcParams)
        figure = d.plot()
        assert dict(matplotlib.rcParams) == before
    assert figure._repr_png_() == plain  # type: ignore[attr-defined]


def test_figure_can_be_stored_and_opened_again(linear: NetworkFactory, image: Tensor) -> None:
    figure = decompose(linear((1, 7, 5), 3).double(), image).plot()
    assert type(figure) is Figure
    assert pickle.loads(pickle.dumps(figure))._repr_png_() == figure._repr_png_()  # noqa: S301 # type: ignore[attr-defined]


@pytest.mark.slow
def test_matplotlib_is_loaded_by_drawing_alone_and_pyplot_never() -> None:
    probe = (
        "import sys, torch\n"
        "from monai_ifim.core import decompose\n"
        "d = decompose(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(35, 3)).eval(), torch.rand(1, 1, 7, 5))\n"
        "repr(d); print('matplotlib' in sys.modules)\n"
        "d._repr_html_(); d.plot()._repr_png_(); print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)\n"
    )
    told = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "True", "False"]


@pytest.mark.parametrize(
    ("lowest", "highest", "pointed"),
    [(-0.5, 0.9, "min"), (0.1, 1.5, "max"), (-0.5, 1.5, "both"), (0.0, 1.0, "neither"), (0.2, 0.8, "neither")],
)
def test_colour_bar_is_pointed_at_the_end_that_values_lie_beyond(lowest: float, highest: float, pointed: str) -> None:
    plane = torch.tensor([[lowest, 0.5], [0.5, highest]], dtype=torch.float64)
    panel = Panel("map", "a map", (plane,), ColorScale("gray", 0.0, 1.0, "unit"))
    axes, bar = Figure().subplots(2)
    image = figure_module._draw_plane(axes, plane, panel.scale, 1)
    figure_module._draw_scale(bar, image, panel)
    assert image.colorbar.extend == pointed


def test_names_of_classes_stand_in_the_heading_and_beside_the_bars(classifier_case: Case) -> None:
    d, names = classifier_case.leading, [f"name of {c} " + "x" * c for c in range(classifier_case.outputs)]
    figure = d.plot(index=1, class_names=names)
    shown = [text.get_text() for text in axes_of(figure)["answers"].get_yticklabels()]
    assert shown == [name if len(name) <= 13 else f"{name[:12]}…" for name in names]
    if classifier_case.reference_head == "categorical":
        best = int(d.probabilities[1].argmax())
        assert f"{names[best]}, p = " in figure.texts[0].get_text()
    with pytest.raises(ImageError, match=rf"class_names: {len(names) + 3} names for {len(names)} outputs?: give one for each"):
        d.plot(class_names=[*names, "and", "two", "more"])


def test_one_output_may_have_two_names_of_which_the_second_is_its_own() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(20, 1)).eval()
    figure = decompose(network, torch.randn(1, 1, 4, 5), head="bernoulli").plot(class_names=("healthy", "ill"))
    assert [text.get_text() for text in axes_of(figure)["answers"].get_yticklabels()] == ["ill"]
    assert "ill, p = " in figure.texts[0].get_text()


def test_planes_lie_as_in_the_patient_where_the_orientation_is_given(cnn: NetworkFactory) -> None:
    """Axes that run to the back, the right and the feet, by hand."""
    d = decompose(cnn((1, 6, 5, 7), 4), torch.randn(1, 1, 6, 5, 7))
    point = (4, 0, 5)
    figure = d.plot(point=point, orientation="PRI")
    coronal, sagittal, axial = drawn(figure, "image")
    image = d.image[0, 0].double().numpy()
    np.testing.assert_array_equal(coronal, image[4][::-1].T)  # the second axis runs to the right, which is at the left
    np.testing.assert_array_equal(sagittal, image[:, 0].T)
    np.testing.assert_array_equal(axial, image[:, ::-1, 5])
    labels = [a.get_ylabel() for a in figure.axes if a.get_label().startswith("image, axis")]
    assert labels == [
        "coronal\naxis 0 = 4\n← R  L →\n↑ S  I ↓",
        "sagittal\naxis 1 = 0\n← A  P →\n↑ S  I ↓",
        "axial\naxis 2 = 5\n← R  L →\n↑ A  P ↓",
    ]
    marked = {tuple(np.unique(line.get_ydata())) for line in axes_of(figure)["image, axis 0"].lines}
    assert (5,) in {tuple(int(v) for v in values if np.isfinite(v)) for values in marked}
    with pytest.raises(ImageError, match="orientation='RR'"):
        d.plot(orientation="RR")


def test_marks_of_a_turned_and_pooled_image_lie_on_its_voxel() -> None:
    """300 by 530 voxels, drawn two by two; the first axis runs to the right, the second to the front."""
    network = nn.Sequential(nn.AvgPool2d(10), nn.Flatten(), nn.Linear(30 * 53, 3)).eval()
    d = decompose(network, torch.randn(1, 1, 300, 530))
    figure = draw(d, 0, 0, 0, (17, 100), 265, orientation="RA")
    (plane,) = drawn(figure, "image")
    assert plane.shape == (265, 150)
    found = {float(np.nanmin(np.asarray(xy, dtype=float))) for line in axes_of(figure)["image"].lines for xy in line.get_data()}
    assert {529.0 - 100, 299.0 - 17} <= found
