"""What figures draw is what the records hold, and can be told apart without color."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from monai_ifim.evaluation.measuring.families import FAMILIES, Line
from monai_ifim.evaluation.records import ExperimentRecord, read_experiment
from monai_ifim.report.experiment.curves import columns_of_controls, curve_figure
from monai_ifim.report.experiment.drawings import Drawings
from monai_ifim.report.experiment.forest import control_figure, forest_figure
from monai_ifim.report.experiment.lines import VERDICTS
from monai_ifim.report.experiment.locality import locality_figure
from monai_ifim.report.experiment.removal import removal_figure
from monai_ifim.report.pages.style import page_style

Content = dict[str, Any]


@pytest.fixture(scope="module")
def results(experiment: Path) -> ExperimentRecord:
    return read_experiment(experiment / "results.json")


@pytest.fixture(autouse=True)
def house_style() -> Iterator[None]:
    with page_style():
        yield


def line_of(family: str) -> Line:
    line = FAMILIES[family].line
    assert line is not None
    return line


def curve_of(cell: Content, family: str, measure: str) -> Content:
    (found,) = [c for c in cell["curves"] if (c["family"], c["measure"]) == (family, measure)]
    return found


def lines(axes: Axes) -> dict[str, Any]:
    """Drawn lines by color, those with a marker."""
    return {line.get_color(): line for line in axes.lines if line.get_marker() not in ("None", "", None)}


def words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.findobj(Text) if text.get_text()]


def test_curves_are_those_of_the_file(results: ExperimentRecord, content: Content) -> None:
    figure = curve_figure(results.cells[0])
    panels = figure.axes[2:]  # the first two hold the legends
    measures = ("absolute_change", "divergence", "accuracy", "macro_auroc")
    assert len(panels) == 2 * len(measures)
    for panel, (measure, (_, controls)) in zip(panels, itertools.product(measures, columns_of_controls()), strict=True):
        drawn = lines(panel)
        present = {c["family"] for c in content["cells"][0]["curves"] if c["measure"] == measure}
        for family in {"noise_high", "noise_low", *controls} & present:
            expected = curve_of(content["cells"][0], family, measure)
            np.testing.assert_array_equal(drawn[line_of(family).color].get_xdata(), expected["relative_norm"])
            np.testing.assert_array_equal(drawn[line_of(family).color].get_ydata(), expected["mean"])
        assert len(drawn) == len(panel.collections) == len({"noise_high", "noise_low", *controls} & present)
        assert "61 images" in words(panel)


def test_norms_lie_on_a_logarithmic_axis_that_shows_zero(results: ExperimentRecord) -> None:
    panels = curve_figure(results.cells[0]).axes[2:]
    assert panels[0].get_xscale() == "symlog"
    assert 0.0 in panels[0].get_xticks()
    assert set(panels[0].get_xticks()) <= set(results.relative_norms)
    assert panels[2].get_xscale() == panels[2].get_yscale() == "log"


@pytest.mark.parametrize(
    "families",
    [
        *[("noise_high", "noise_low", *names) for _, names in columns_of_controls()],
        ("attenuate_high", "attenuate_low"),
        ("step_plus", "step_minus"),
    ],
)
def test_families_of_a_panel_differ_in_color_and_dashes_and_marker(families: tuple[str, ...]) -> None:
    for one, other in itertools.combinations([line_of(name) for name in families], 2):
        assert one.dashes != other.dashes
        assert one.marker != other.marker
        assert np.linalg.norm(np.subtract(to_rgb(one.color), to_rgb(other.color))) > 0.15


def test_verdicts_differ_in_shape() -> None:
    shapes = {(mark.marker, mark.filled) for mark in VERDICTS.values()}
    assert len(shapes) == len(VERDICTS)


def test_forest_plot_has_every_cell_at_its_difference(results: ExperimentRecord, content: Content) -> None:
    (axes,) = forest_figure(results).axes
    dots = [line for line in axes.lines if len(line.get_xdata()) == 1]
    expected = [c for cell in content["cells"] for c in cell["comparisons"] if c["second"] == "noise_low"]
    expected = [c for c in expected if c["measure"] == "absolute_change"]
    assert [line.get_xdata()[0] for line in dots] == [c["difference"] for c in expected]
    bars = [tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2 and line.get_ydata()[0] != 0]
    assert bars[:2] == [(c["low"], c["high"]) for c in expected[:2]]
    said = words(axes)
    assert {"holds, 61 images", "reverse, 61 images", "not shown, 1 image", "failed"} <= set(said)
    rows = [text.get_text() for text in axes.get_yticklabels()]
    assert rows == ["DenseNet121", "ViT", "DenseNet121", "ViT"]


def test_control_plot_has_a_row_per_control(results: ExperimentRecord, content: Content) -> None:
    figure = control_figure(results.cells[:2], "noise_high", "absolute_change")
    chosen = [c for c in content["cells"][1]["comparisons"] if (c["measure"], c["kind"]) == ("absolute_change", "area")]
    dots = [line.get_xdata()[0] for line in figure.axes[1].lines if len(line.get_xdata()) == 1]
    assert dots == [c["difference"] for c in chosen]
    assert len(figure.axes[0].get_yticklabels()) == len(chosen) == 7


def test_removal_plot_tells_how_many_images_are_left(results: ExperimentRecord) -> None:
    axes = removal_figure(results.cells[:2]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["61", "61", "61", "59", "52", "41", "3"]
    assert np.isnan(axes.lines[0].get_ydata()[-1])


def test_locality_plot_has_measured_predicted_and_the_radius(results: ExperimentRecord, content: Content) -> None:
    figure = locality_figure(results.cells[:2])
    axes = figure.axes[0]
    cell = content["cells"][0]
    measured = lines(axes)
    np.testing.assert_array_equal(
        measured[line_of("step_plus").color].get_ydata(), curve_of(cell, "step_plus", "divergence")["mean"]
    )
    predicted = [line for line in axes.lines if line.get_color() == "#000000"]
    np.testing.assert_array_equal(predicted[0].get_ydata(), curve_of(cell, "step_plus", "predicted_divergence")["mean"])
    radius = cell["images_scalars"]["relative_locality_radius"]["value"]
    assert radius in [line.get_xdata()[0] for line in axes.lines]


def test_locality_plot_without_predictions_promises_none(results: ExperimentRecord) -> None:
    (legend,) = locality_figure(results.cells[2:]).legends
    assert not [text for text in legend.get_texts() if "predicted" in text.get_text()]


def test_a_measure_without_values_gets_no_panel_and_a_word(results: ExperimentRecord, experiment: Path) -> None:
    assert len(curve_figure(results.cells[2]).axes) == 2 * 3
    assert "Not available: accuracy, macro AUROC." in Drawings(experiment).curves(results.cells[2]).caption
