"""Pictures of a report: figures with file names, captions and alternative texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from monai_ifim.display import numbers
from monai_ifim.display.fonts import undrawn_sentence
from monai_ifim.evaluation.measuring.end_points import drawn_measures
from monai_ifim.evaluation.records import CellRecord, Claim, ExperimentRecord
from monai_ifim.report.experiment.alternatives import (
    answer_text,
    controls_text,
    curves_text,
    forest_text,
    locality_text,
    removal_text,
)
from monai_ifim.report.experiment.curves import curve_figure, measures_with_values
from monai_ifim.report.experiment.examples import COLOR_MAPS, StoredExample, example_figure, read_examples
from monai_ifim.report.experiment.forest import control_figure, forest_figure
from monai_ifim.report.experiment.locality import locality_figure
from monai_ifim.report.experiment.removal import removal_figure
from monai_ifim.report.experiment.wording import in_line
from monai_ifim.report.pages.blocks import Picture
from monai_ifim.report.pages.style import LARGEST_BYTES, page_style, small_png

__all__ = ["Drawings"]


class Drawings:
    """Draws the figures of one report under unique file names."""

    def __init__(self, folder: Path) -> None:
        """folder: of the experiment, which holds the planes of examples."""
        self.folder = folder
        self._taken: set[str] = set()

    def forest(self, results: ExperimentRecord) -> Picture:
        """Forest plot of all cells."""
        return self._picture(
            lambda: forest_figure(results),
            ("forest",),
            alt=f"Forest plot of {len(results.cells)} cells with a result and {len(results.failed)} that failed: area "
            f"difference and 95 % interval of each, with its verdict. {forest_text(results)} The table above holds the same "
            "numbers.",
            caption="Noise in the leading eigenspace against noise in the complement, every cell. Right of the line at 0 "
            "the leading eigenspace moves the answer more. Full dot: holds; empty dot: not shown; triangle: reverse.",
            drawn=[results.title(task) for task in results.task_names()],
        )

    def curves(self, cell: CellRecord) -> Picture:
        """Answer and correctness over the norm."""
        drawn = measures_with_values(cell)
        shown = ", ".join(in_line(name) for name in drawn)
        lacking = ", ".join(in_line(name) for name in drawn_measures() if name not in drawn)
        return self._picture(
            lambda: curve_figure(cell),
            (cell.task, cell.architecture, "curves"),
            alt=f"{cell.task_title}, {cell.architecture}: curves over the relative norm of the perturbation ({shown}), for noise "
            f"in the leading eigenspace, its complement and the controls. {curves_text(cell)}",
            caption=f"{cell.task_title}, {cell.architecture}, {numbers.counted(cell.images, 'image')}: mean over images and 95 % "
            "bootstrap band. The controls are noise in other subspaces and noise in highly ranked pixels. "
            "The divergence has a logarithmic axis, "
            f"so zeros, and the norm 0, are not drawn there.{f' Not available: {lacking}.' if lacking else ''}",
        )

    def controls(self, cells: Sequence[CellRecord], claim: Claim) -> Picture:
        """Differences from every control."""
        return self._picture(
            lambda: control_figure(cells, claim.first, claim.measure),
            (cells[0].task, "controls"),
            alt=f"{cells[0].task_title}: forest plot of the difference between the leading eigenspace and every control, a panel "
            f"per architecture. {controls_text(cells, claim)} The next table holds the same numbers.",
            caption="Leading eigenspace against every control, probability change. Right of the line at 0 the leading "
            "eigenspace moves the answer more.",
        )

    def removal(self, cells: Sequence[CellRecord]) -> Picture:
        """Removal of components."""
        return self._picture(
            lambda: removal_figure(cells),
            (cells[0].task, "removal"),
            alt=f"{cells[0].task_title}: probability change over the norm taken away from x_high and, equally much, from x_low, "
            f"a panel per architecture. {removal_text(cells)}",
            caption="x_high taken away step by step, against an equally large part of x_low: mean over images and 95 % band. "
            "An image counts up to the norm of its own x_high, so the number of images falls from left to right; it stands "
            "above each panel.",
        )

    def locality(self, cells: Sequence[CellRecord]) -> Picture:
        """Measured against predicted divergence."""
        return self._picture(
            lambda: locality_figure(cells),
            (cells[0].task, "locality"),
            alt=f"{cells[0].task_title}: measured and predicted divergence of steps along the most sensitive direction over "
            f"their length, a panel per architecture, with the mean locality radius. {locality_text(cells)}",
            caption="Steps along the most sensitive direction u₁, mean over images and 95 % band: divergence as measured, and "
            "as the quadratic picture predicts it. Both axes are logarithmic; the grey line is the mean locality radius, "
            "over |x|.",
        )

    def examples(self, cell: CellRecord) -> list[Picture]:
        """Example images, in as many pictures as it takes to keep each small; empty if none were stored."""
        stored = read_examples(self.folder, cell)
        if not stored:
            return []
        number = len(stored)
        for size in dict.fromkeys((number, (number + 1) // 2, 1)):
            parts = [stored[start : start + size] for start in range(0, number, size)]
            drawn = [_draw(partial(example_figure, part), _names(part), COLOR_MAPS) for part in parts]
            if all(len(content) < LARGEST_BYTES for content, _ in drawn):
                break
        return [self._examples(cell, part, *one) for part, one in zip(parts, drawn, strict=True)]

    def _examples(self, cell: CellRecord, part: Sequence[StoredExample], content: bytes, size: tuple[int, int]) -> Picture:
        answers = "; ".join(answer_text(one.example) for one in part)
        undrawn = undrawn_sentence(_names(part))
        planes = (
            " Planes go through the most sensitive voxel, all of one image in one scale." if len(cell.spatial_shape) == 3 else ""
        )
        edges = " Letters: the patient's sides." if any(any(p.edges) for one in part for p in one.planes.maps[0].planes) else ""
        return Picture(
            self._file((cell.task, cell.architecture, "examples")),
            content,
            size,
            alt=f"{cell.task_title}, {cell.architecture}: {numbers.counted(len(part), 'image')}, each with x_high, x_low, the "
            f"leading eigenvector, sensitivity, integrated gradients and GradCAM. {answers}.",
            caption=f"{cell.task_title}, {cell.architecture}: examples.{planes}{edges} x and x_low share one grey window. Maps "
            "of one sign run from 0 up; maps of both signs are red above 0, blue below, pale grey at 0. The scale of every map "
            "is printed below it, in the map's own unit; it leaves out the outermost 0.5 % of the values."
            + (f" {undrawn}" if undrawn else ""),
        )

    def _picture(
        self, draw: Callable[[], Figure], names: Sequence[str], alt: str, caption: str, drawn: Sequence[str] = ()
    ) -> Picture:
        """drawn: names from outside that stand in the figure."""
        undrawn = undrawn_sentence(drawn)
        return Picture(self._file(names), *_draw(draw, drawn), alt.strip(), f"{caption} {undrawn}" if undrawn else caption)

    def _file(self, names: Sequence[str]) -> str:
        """Letters, digits, dots, hyphens and underscores of the names, with a number if that name is taken."""
        stem = "-".join(re.sub(r"[^A-Za-z0-9._-]+", "_", name) for name in names)
        name, number = stem, 2
        while name.lower() in self._taken:
            name, number = f"{stem}-{number}", number + 1
        self._taken.add(name.lower())
        return f"figures/{name}.png"


def _names(part: Sequence[StoredExample]) -> list[str]:
    """Names from outside that stand beside examples."""
    return [name for one in part for name in (one.example.image, one.example.label, one.example.predicted)]


def _draw(draw: Callable[[], Figure], names: Sequence[str], maps: Sequence[str] = ()) -> tuple[bytes, tuple[int, int]]:
    with page_style(names):
        return small_png(draw(), maps)
