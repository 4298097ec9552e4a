"""Which figure is drawn by what, and from which files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs" / "figures"
RESULTS = ROOT / "docs" / "results" / "demo.json"
CLASSIFIER = "bundles/mednist_classification/models/model.pt"
DETECTOR = "bundles/lumpy_lesion_detection_3d/models/model.pt"
SEGMENTER = "bundles/lumpy_segmentation_3d/models/model.pt"
DEMO = "docs/results/demo.json"

Draw = Callable[[Path, Path], None]  # folder of a run of the demo, folder for the figures


class MissingProgramError(RuntimeError):
    """A program that draws some of the figures is not installed here."""


@dataclass(frozen=True)
class Group:
    """Figures that one module of this folder draws.

    Args:
        files: names of the figures.
        inputs: paths from the top of the repository of what is drawn, besides the module itself: results and weights.
        needs: other programs, for people.
    """

    files: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    needs: str = ""


GROUPS: dict[str, Group] = {
    "rooms": Group(("rooms.svg",)),
    "hero": Group(("hero.png",), (DEMO, CLASSIFIER)),
    "plots": Group(("plot-2d.png", "plot-3d.png"), (CLASSIFIER, DETECTOR)),
    "scanner": Group(("scanner-comb.png", "scanner-spaces.png"), (CLASSIFIER, DETECTOR)),
    "rivals": Group(("rivals.png",), ("benchmarks/results/rivals-cpu.json",)),
    "segmentation": Group(("segmentation.png",), (SEGMENTER,)),
    "notebook": Group(("notebook-view.png",), (DETECTOR,), needs="ipyniivue (the extra notebook), Chromium and its driver"),
    "training": Group(
        ("training-lightning.png", "training-mlflow.png", "training-tensorboard.png"), needs="Chromium and its driver"
    ),
    "pages": Group(("index-dark.png", "index-light.png"), (DEMO,), needs="Chromium and its driver"),
    "kinds": Group(
        ("page-cropped.png", "page-ct.png", "page-gallery.png", "page-mr.png", "page-phone.png", "page-photograph.png"),
        (CLASSIFIER, DETECTOR, "docs/figures/specimens.py"),
        needs="Chromium and its driver",
    ),
    "scenes": Group(("scene-slice.png", "scene.png"), (DEMO,), needs="IFIM_SLICER_PYTHON (CONTRIBUTING.md)"),
    "viewer": Group(("viewer-slice.png", "viewer.png"), (DEMO,), needs="IFIM_SLICER_PYTHON, Chromium and its driver"),
}


def module_of(group: str) -> Path:
    """The file that draws the figures of a group."""
    return FIGURES / f"{group}.py"


def draw_of(group: str) -> Draw:
    """The function that draws them."""
    draw: Draw = import_module(f"docs.figures.{group}").draw_figures
    return draw


def inputs_of(group: str) -> tuple[str, ...]:
    """Paths from the top of the repository of all that decides how the figures of a group look, as far as a file tells."""
    return (module_of(group).relative_to(ROOT).as_posix(), *GROUPS[group].inputs)
