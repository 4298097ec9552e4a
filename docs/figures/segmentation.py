"""The figure of docs/segmentation.md, from the planted lesion of the package and the files that `monai-ifim decompose` writes.

segmentation.png, the plane through the centre of the lesion: the scan, with outlines of the planted lesion and of the one that is
found; the direction that changes its volume; the sensitivity of the volumes, and of each voxel's label.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.evaluation.demonstration import PlantedLesion, planted_lesion
from monai_ifim.io.installation import resolve_bundle
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings

Array = npt.NDArray[Any]


def draw_figures(demo: Path, output: Path) -> None:
    """Write it; the demo is not drawn."""
    segmentation_figure().savefig(output / "segmentation.png", dpi=90, bbox_inches="tight")


def segmentation_figure() -> Figure:
    """Four panels of one plane, see the module."""
    bundle = load_bundle(resolve_bundle("lumpy_segmentation_3d"))
    with tempfile.TemporaryDirectory() as folder:
        truth = planted_lesion(folder)
        volumes = _maps(bundle, truth, CaseSettings("volumes"), Path(folder) / "volumes")
        voxelwise = _maps(bundle, truth, CaseSettings("voxelwise", rank=1, tolerance=0.05), Path(folder) / "voxelwise")
        found = _probability(bundle, truth)
    plane = int(np.argwhere(truth.mask.numpy())[:, 2].mean())
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    panels = figure.subplots(1, 4)
    _show(figure, panels[0], volumes["input"][..., plane], "gray", "scan")
    panels[0].contour(truth.mask[..., plane].T, levels=[0.5], colors="#56b4e9")
    panels[0].contour(found[..., plane].T, levels=[0.5], colors="#e69f00", linestyles="dashed")
    _show(figure, panels[1], volumes["eigenvector-01"][..., plane], "coolwarm", "u$_1$: what changes the volume")
    _show(figure, panels[2], volumes["sensitivity"][..., plane], "viridis", "sensitivity of the volumes")
    _show(figure, panels[3], voxelwise["sensitivity"][..., plane], "viridis", "sensitivity of each voxel's label")
    return figure


def _maps(bundle: Bundle, truth: PlantedLesion, settings: CaseSettings, output: Path) -> dict[str, Array]:
    """The maps of the case by the end of their files' names."""
    rows = run_cases(bundle, find_cases([truth.path]), RunSettings(output, settings), lambda done: None)
    case = output / rows[0].case
    prefix = f"{case.name}_ifim_"
    return {file.name.removeprefix(prefix).removesuffix(".nii.gz"): nib.load(file).get_fdata() for file in case.glob("*.nii.gz")}


def _probability(bundle: Bundle, truth: PlantedLesion) -> Array:
    """The lesion's probability [*shape]; the preprocessing of this volume keeps its grid."""
    with torch.no_grad():
        logits: Tensor = bundle.network(bundle.preprocess(truth.path).as_tensor()[None])
    return np.asarray(logits.softmax(1)[0, 1])


def _show(figure: Figure, axes: Axes, plane: Array, colours: str, title: str) -> None:
    """Signed maps are red and blue about zero."""
    reach = float(np.abs(plane).max())
    window = (-reach, reach) if colours == "coolwarm" else (None, None)
    shown = axes.imshow(plane.T, cmap=colours, vmin=window[0], vmax=window[1], interpolation="nearest", origin="lower")
    axes.set(xticks=[], yticks=[], title=title)
    figure.colorbar(shown, ax=axes, shrink=0.8)
