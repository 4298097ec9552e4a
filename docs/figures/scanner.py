"""The figures of docs/scanner_space.md, from data that come with the package and its libraries.

scanner-spaces.png: pydicom's CT slice through the 2D bundle, in network, native and scanner space, from the files that
`monai-ifim decompose` writes. scanner-comb.png: a generated volume of thin voxels through the 3D bundle, its leading
eigenimage without a resolution and at the network's.
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
from monai.data import MetaTensor

from monai_ifim import decompose_scan
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.evaluation.demonstration import demo_slice
from monai_ifim.evaluation.lumpy.images import LumpyDataset, LumpyParameters
from monai_ifim.io import read_sidecar
from monai_ifim.io.installation import resolve_bundle
from monai_ifim.io.maps import MapContent
from monai_ifim.options import Space, Statistics
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings

ROWS: tuple[tuple[str, Space, Statistics], ...] = (
    ("network\nwhat the network saw", "network", "differentiate"),
    ("native\nthe same, carried over", "native", "differentiate"),
    ("scanner, statistics frozen\nthe scan, HU", "scanner", "freeze"),
    ("scanner\nthe scan, HU", "scanner", "differentiate"),
)
COLUMNS = {"input": "decomposed", "high": "high", "low": "low", "eigenvector 1": "u$_1$"}
WINDOWS = {"input": "low"}  # both in one
SHAPE = (96, 88, 80)  # voxels of 0.7 mm, of which the network sees 32^3

Array = npt.NDArray[Any]


def draw_figures(demo: Path, output: Path) -> None:
    """Write both; the demo is not drawn."""
    spaces_figure().savefig(output / "scanner-spaces.png", dpi=90, bbox_inches="tight")
    comb_figure().savefig(output / "scanner-comb.png", dpi=90, bbox_inches="tight")


def spaces_figure() -> Figure:
    """Rows network, native, scanner twice; columns the image, high, low and the leading eigenvector."""
    figure = Figure(figsize=(11, 9.6), layout="constrained")
    axes = figure.subplots(len(ROWS), len(COLUMNS), squeeze=False)
    bundle = load_bundle(resolve_bundle("mednist_classification"))
    with tempfile.TemporaryDirectory() as folder:
        for row, (title, space, statistics) in enumerate(ROWS):
            output = Path(folder) / str(row)
            settings = RunSettings(output, CaseSettings("categorical", space=space, statistics=statistics))
            run_cases(bundle, find_cases([demo_slice()]), settings, lambda done: None)
            case = output / "CT_small"
            sidecar = read_sidecar(case / "CT_small_ifim.json")
            files = {MapContent.of(entry).label: entry for entry in sidecar["files"]}
            for column, content in enumerate(COLUMNS):
                values = nib.load(case / files[content]["file"]).get_fdata()[..., 0]
                _show(figure, axes[row, column], np.flipud(values.T), files[WINDOWS.get(content, content)]["window"])
            axes[row, 0].set_ylabel(f"{title}\n{values.shape[0]} x {values.shape[1]}", fontsize=10)
    for column, title in enumerate(COLUMNS.values()):
        axes[0, column].set_title(title)
    return figure


def comb_figure() -> Figure:
    """A volume's middle plane, and the leading eigenimage there without and with a resolution; below, profiles."""
    bundle = load_bundle(resolve_bundle("lumpy_lesion_detection_3d"))
    lumpy = LumpyParameters(shape=SHAPE, lump_width=15.0, lesion_width=6.0, margin=15)
    values = LumpyDataset(lumpy, length=2, seed=3).volume(1).image.reshape(1, *SHAPE).float()
    scan = MetaTensor(values, affine=torch.diag(torch.tensor([0.7, 0.7, 0.7, 1.0], dtype=torch.float64)))
    images = {"scan": values[0].numpy()}
    for name, resolution in (("u$_1$, no resolution", None), ("M u$_1$, the network's resolution", "network")):
        found = decompose_scan(bundle.network, bundle.preprocessing, scan, rank=1, resolution=resolution)  # type: ignore[arg-type]
        images[name] = found.eigenimages[0, 0, 0].numpy()
    return _comb(images)


def _comb(images: dict[str, Array]) -> Figure:
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    above, below = figure.subplots(2, 3, height_ratios=(2.4, 1))
    smooth = list(images.values())[-1]
    peak = np.unravel_index(np.abs(smooth).argmax(), smooth.shape)
    for axes, line, (name, image) in zip(above, below, images.items(), strict=True):
        plane = image[:, :, peak[2]]
        low, high = np.percentile(plane, [0.5, 99.5])
        reach = float(np.abs(plane).max())
        _show(figure, axes, plane.T, (low, high) if name == "scan" else (-reach, reach))
        axes.axhline(peak[1], color="black", linewidth=0.6, linestyle=":")
        axes.set_title(name)
        line.plot(np.arange(image.shape[0]) * 0.7, image[:, peak[1], peak[2]], linewidth=1.0, marker=".", markersize=3)
        line.set_xlabel("mm along the dotted line")
    return figure


def _show(figure: Figure, axes: Axes, plane: Array, window: Any) -> None:
    """Grey for images, red and blue for what is signed about zero."""
    low, high = window
    colours = "coolwarm" if low == -high else "gray"
    shown = axes.imshow(plane, cmap=colours, vmin=low, vmax=high, interpolation="nearest", origin="lower")
    axes.set(xticks=[], yticks=[])
    figure.colorbar(shown, ax=axes, shrink=0.8)
