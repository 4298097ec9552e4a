"""A made-up experiment, two tasks with two architectures: one cell holds, one is reversed, one lacks much, one failed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from monai_ifim.evaluation.measuring.examples import example_planes
from monai_ifim.io.planes import write_planes

Array = npt.NDArray[Any]
Content = dict[str, Any]

NORMS = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
NOISE = ("noise_high", "noise_low", "noise_random", "noise_trailing", "noise_twin")
PIXELS = ("pixels_integrated_gradients", "pixels_saliency", "pixels_gradcam", "pixels_occlusion")
MEASURES = ("absolute_change", "divergence", "flipped", "negative_log_likelihood", "correct")
SCALARS = {
    "probability": 0.91,
    "rank": 2.4,
    "trace": 3.1e-4,
    "energy_kept": 0.994,
    "eigenvalue": 2.6e-4,
    "locality_radius": 6.2,
    "relative_locality_radius": 0.041,
    "norm": 151.0,
    "high_norm_share": 0.034,
    "twin_trace_share": 0.0071,
    "chance_trace_share": 0.0006,
    "agreement_noise": 0.87,
    "agreement_seed": 0.12,
    "corner_share_high": 0.021,
    "corner_share_sensitivity": 0.018,
    "corner_share_area": 0.0625,
    "border_share_high": 0.09,
    "border_share_sensitivity": 0.11,
    "border_share_area": 0.234,
    "fine_share_high": 0.31,
    "fine_share_image": 0.052,
    "fine_share_area": 0.804,
    "seconds": 1.7,
    "a_new_quantity": 42.5,
}
STRENGTH = {
    "noise_high": 1.0,
    "noise_low": 0.25,
    "noise_random": 0.3,
    "noise_trailing": 0.6,
    "noise_twin": 0.35,
    "pixels_integrated_gradients": 0.75,
    "pixels_saliency": 0.8,
    "pixels_gradcam": 0.45,
    "pixels_occlusion": 0.55,
    "step_plus": 0.8,
    "step_minus": 1.4,
}


def make_cell(
    task: str, title: str, architecture: str, classes: list[str], shape: list[int], images: int, effect: float, seed: int
) -> Content:
    """A cell whose leading eigenspace is `effect` times as influential as its controls are; 1 is no effect at all."""
    generator = np.random.default_rng(seed)
    families = [name for name in (*NOISE, *PIXELS) if len(classes) > 2 or name != "noise_trailing"]
    strengths = {**STRENGTH, "noise_high": STRENGTH["noise_low"] * effect}
    return {
        "task": task,
        "task_title": title,
        "architecture": architecture,
        "classes": classes,
        "images": images,
        "spatial_shape": shape,
        "selection": {"energy": 0.99},
        "classifier": {
            "accuracy": 0.9 + generator.uniform(0, 0.08),
            "macro_auroc": 0.97 + generator.uniform(0, 0.02),
            "test_images": 400,
            "training_seed": 3,
            "training_images": 4000,
            "epochs": 12,
            "parameters": 1234567,
            "weights_sha256": f"{seed:064x}"[::-1],
            "seconds": 4321.5,
        },
        "curves": _curves(families, strengths, images, generator),
        "comparisons": _comparisons(families, strengths, images, generator),
        "macro_auroc_area": {
            "value": 0.02 * (effect - 1),
            "low": 0.02 * (effect - 1) - 0.011,
            "high": 0.02 * effect,
            "images": images,
        },
        "divergence_ratio": {
            "inside": {"value": 1.013, "low": 0.994, "high": 1.037, "rows": 431, "images": images},
            "outside": {"value": 0.41, "low": 0.327, "high": 0.55, "rows": 209, "images": images - 3},
        },
        "images_scalars": {
            name: {"value": value * generator.uniform(0.9, 1.1), "low": 0.85 * value, "high": 1.15 * value, "images": images}
            for name, value in SCALARS.items()
        },
        "by_class": {
            label: {
                name: {"value": value * generator.uniform(0.8, 1.2), "images": images // len(classes)}
                for name, value in SCALARS.items()
            }
            for label in classes
        },
    }


def _band(family: str, measure: str, images: list[int | None], mean: Array, width: Array) -> Content:
    return {
        "family": family,
        "measure": measure,
        "relative_norm": list(NORMS),
        "images": images,
        "mean": mean.tolist(),
        "low": (mean - width).tolist(),
        "high": (mean + width).tolist(),
    }


def _curves(families: list[str], strengths: dict[str, float], images: int, generator: np.random.Generator) -> list[Content]:
    norms = np.array(NORMS)
    found = []
    for family in [*families, "step_plus", "step_minus", "attenuate_high", "attenuate_low"]:
        strength = strengths.get(family, 0.9 if family.endswith("high") else 0.2)
        change = 0.75 * (1 - np.exp(-9 * strength * norms)) * generator.uniform(0.95, 1.05)
        shape = {
            "absolute_change": (change, 0.09 * change),
            "divergence": (260 * strength**2 * norms**2 / (1 + 30 * norms), 40 * strength**2 * norms**2 / (1 + 30 * norms)),
            "predicted_divergence": (260 * strength**2 * norms**2, 12 * strength**2 * norms**2),
            "accuracy": (0.94 - 0.6 * change, 0.05 + 0.02 * change),
            "macro_auroc": (0.985 - 0.35 * change**2, 0.012 + 0.03 * change),
        }
        if family.startswith("attenuate"):
            left: list[int | None] = [images, images, images, images - 2, images - 9, images - 20, 3, None]
            for measure in ("absolute_change", "divergence"):
                curve = _band(family, measure, left, *shape[measure])
                curve["mean"][-1] = curve["low"][-1] = curve["high"][-1] = None
                found.append(curve)
        else:
            found += [_band(family, measure, [images] * len(NORMS), mean, width) for measure, (mean, width) in shape.items()]
    return found


def make_comparison(
    first: str, second: str, measure: str, kind: str, means: tuple[float, float], width: float, images: int
) -> Content:
    """A comparison whose interval has this half width; its verdict follows from the interval."""
    difference = means[1] - means[0] if measure == "correct" else means[0] - means[1]
    low, high = difference - width, difference + 1.1 * width
    clear = low > 0 or high < 0
    return {
        "first": first,
        "second": second,
        "measure": measure,
        "kind": kind,
        "images": images,
        "first_mean": means[0],
        "second_mean": means[1],
        "difference": difference,
        "low": low,
        "high": high,
        "interval": "bca",
        "p_value": 3.1e-7 if clear else 0.213,
        "p_holm": 6.2e-7 if clear else 0.426,
        "rank_biserial": float(np.tanh(0.7 * difference / width)),
        "cohens_dz": 0.4 * difference / width,
        "holds": low > 0,
        "reverse": high < 0,
    }


def _comparisons(families: list[str], strengths: dict[str, float], images: int, generator: np.random.Generator) -> list[Content]:
    scale = {"absolute_change": 0.31, "divergence": 0.24, "flipped": 0.22, "negative_log_likelihood": 0.4, "correct": -0.2}
    found = []
    for measure in MEASURES:
        for family in families[1:]:
            base = 0.9 if measure == "correct" else 0.0
            means = base + scale[measure] * strengths["noise_high"], base + scale[measure] * strengths[family]
            width = abs(scale[measure]) * generator.uniform(0.06, 0.2)
            found.append(make_comparison("noise_high", family, measure, "area", means, width, images))
        removal = (0.9, 0.95) if measure == "correct" else (0.6 * abs(scale[measure]), 0.2 * abs(scale[measure]))
        found.append(make_comparison("remove_high", "remove_low", measure, "removal", removal, 0.1 * abs(scale[measure]), images))
    return found


def _tally(marks: list[Content]) -> Content:
    return {
        "cells": len(marks),
        "holds": sum(c["holds"] for c in marks),
        "favourable": sum(c["difference"] is not None and c["difference"] > 0 for c in marks),
        "reverse": sum(c["reverse"] for c in marks),
    }


def make_content(cells: list[Content], failed: list[Content]) -> Content:
    """results.json of these cells."""

    def asked(chosen: list[Content], measure: str) -> list[Content]:
        wanted = ("noise_high", "noise_low", measure, "area")
        return [c for cell in chosen for c in cell["comparisons"] if (c["first"], c["second"], c["measure"], c["kind"]) == wanted]

    tasks = dict.fromkeys(cell["task"] for cell in cells)
    by_task = {task: _tally(asked([cell for cell in cells if cell["task"] == task], "absolute_change")) for task in tasks}
    return {
        "schema_version": 2,
        "name": "Does <noise> in the leading eigenspace & elsewhere differ?",
        "seed": 20260,
        "command": "monai-ifim evaluate experiment.yaml --output results",
        "settings": {
            "relative_norms": list(NORMS),
            "draws": 4,
            "pixel_share": 0.05,
            "training": {"epochs": 12, "label_smoothing": None},
        },
        "environment": {"monai_ifim": "0.1.0", "torch": "2.13.0", "monai": "1.6.1", "python": "3.11.7", "threads": 1},
        "seconds": 7384.2,
        "relative_norms": list(NORMS),
        "cells": cells,
        "claim": {
            "first": "noise_high",
            "second": "noise_low",
            "measure": "absolute_change",
            "total": _tally(asked(cells, "absolute_change")),
            "by_task": by_task,
            "by_measure": {measure: _tally(asked(cells, measure)) for measure in MEASURES},
        },
        "failed": failed,
        "tasks": [{"name": "all_failed", "title": "Of which every cell failed", "parameters": {"shape": [9, 8]}}],
        "models": [{"architecture": "ViT", "epochs": 12}],
    }


def _without_much(cell: Content) -> Content:
    """A cell as bundles give it: no training record, no label, one image, no attributions but saliency."""
    gone = {"noise_twin", "pixels_integrated_gradients", "pixels_gradcam", "pixels_occlusion", "attenuate_high", "attenuate_low"}
    cell["classifier"] = {**dict.fromkeys(cell["classifier"]), "bundle": "spleen_ct", "bundle_version": "0.3.1"}
    cell["curves"] = [
        c for c in cell["curves"] if c["family"] not in gone and c["measure"] not in ("macro_auroc", "predicted_divergence")
    ]
    for curve in cell["curves"]:
        if curve["measure"] == "accuracy":
            curve.update(dict.fromkeys(("images", "mean", "low", "high"), [None] * len(NORMS)))
    cell["comparisons"] = [
        c
        for c in cell["comparisons"]
        if not gone & {c["first"], c["second"]} and c["measure"] not in ("correct", "negative_log_likelihood")
    ]
    for comparison in cell["comparisons"]:
        comparison.update(
            low=None, high=None, interval="none", p_value=1.0, p_holm=1.0, cohens_dz=None, images=1, holds=False, reverse=False
        )
    cell["missing_families"] = {"pixels_gradcam": "no layer has the image's <axes>"}
    cell["skipped_images"] = {"image_0007": "it is zero everywhere & has no norm"}
    cell["macro_auroc_area"] = None
    cell["divergence_ratio"]["outside"] = {"value": None, "low": None, "high": None, "rows": 0, "images": 0}
    for name in ("agreement_seed", "twin_trace_share", "a_new_quantity"):
        del cell["images_scalars"][name]
    cell["images_scalars"]["agreement_noise"].update(value=None, low=None, high=None, images=0)
    return cell


MAPS = ("image", "high", "low", "eigenvector", "sensitivity", "integrated_gradients", "gradcam")
OBLIQUE = np.array([[0.0, -1.5, 0.2, 40.0], [0.9, 0.1, 0.0, -30.0], [0.1, 0.0, -4.0, 12.0], [0.0, 0.0, 0.0, 1.0]])


def make_maps(shape: tuple[int, ...], seed: int) -> dict[str, torch.Tensor]:
    """Maps [1, *shape] of smooth blobs in place of an image's."""
    grid = np.stack(np.mgrid[tuple(slice(size) for size in shape)]) / max(shape)
    generator = np.random.default_rng(seed)
    maps = {}
    for name in MAPS:
        centre, phase = generator.uniform(0.2, 0.6, (len(shape), *[1] * len(shape))), generator.uniform()
        blob = np.exp(-((grid - centre) ** 2).sum(0) / 0.02)
        maps[name] = blob * np.cos(25 * (grid[-1] - phase)) + 0.05 * generator.standard_normal(blob.shape)
    maps["image"] = np.abs(maps["image"]) * 900 + 30 * grid[0]
    maps["low"] = maps["image"] - 40 * maps["high"]
    maps["sensitivity"] = 1e-5 * maps["sensitivity"] ** 2
    maps["gradcam"] = np.maximum(maps["gradcam"], 0)
    return {name: torch.from_numpy(values)[None] for name, values in maps.items()}


def write_examples(folder: Path, cell: Content, images: int, affine: Array | None = None, gradcam: bool = True) -> None:
    """Planes of made-up example images of a cell, and their entries in the cell."""
    cell["examples"] = []
    for i in range(images):
        maps = make_maps(tuple(cell["spatial_shape"]), i)
        if not gradcam:
            del maps["gradcam"]
        name = f"image_{i:04d}"
        path = folder / "cells" / cell["task"] / cell["architecture"] / "images" / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_planes(path, example_planes(maps, affine))
        label = ("no lesion", "lesion $5 < $6")[i % 2]
        cell["examples"].append({"image": name, "label": label, "predicted": "no lesion", "probability": 0.62 + 0.09 * i})


TITLES = {"lumpy_2d": "Lesion <2 cm> & noise, 2D", "organs_3d": "Organs in CT, 3D"}


@pytest.fixture(scope="session")
def content() -> Content:
    """results.json of the made-up experiment."""
    two, three = ["no lesion", "lesion"], ["liver & bile", "spleen", "<kidney>"]
    cells = [
        make_cell("lumpy_2d", TITLES["lumpy_2d"], "DenseNet121", two, [48, 36], 61, 4.0, seed=1),
        make_cell("lumpy_2d", TITLES["lumpy_2d"], "ViT", two, [48, 36], 61, 0.4, seed=2),
        _without_much(make_cell("organs_3d", TITLES["organs_3d"], "DenseNet121", three, [24, 20, 16], 40, 1.1, seed=3)),
    ]
    reason = "memory ran out at layer <4> & the run stopped | see run.log"
    return make_content(cells, [{"task": "organs_3d", "architecture": "ViT", "reason": reason}])


@pytest.fixture(scope="session")
def cell_content() -> Callable[..., Content]:
    """A cell of results.json from task, title, architecture, classes, spatial shape, images, effect and seed."""
    return make_cell


@pytest.fixture(scope="session")
def experiment_content() -> Callable[[list[Content], list[Content]], Content]:
    """results.json of cells and failures."""
    return make_content


@pytest.fixture(scope="session")
def example_writer() -> Callable[..., None]:
    """Writes examples below a folder: of a cell, number of images, affine, and whether they have GradCAM."""
    return write_examples


@pytest.fixture(scope="session")
def write_experiment() -> Callable[[Path, Content], Path]:
    """A folder with these results and the examples of two cells, one of them without GradCAM."""

    def write(folder: Path, content: Content) -> Path:
        write_examples(folder, content["cells"][1], 4, gradcam=False)
        write_examples(folder, content["cells"][2], 2, OBLIQUE)
        (folder / "results.json").write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
        return folder

    return write


@pytest.fixture(scope="session")
def experiment(
    tmp_path_factory: pytest.TempPathFactory, content: Content, write_experiment: Callable[[Path, Content], Path]
) -> Path:
    """Folder of the made-up experiment with its report."""
    from monai_ifim.report.experiment.page import write_report

    folder = write_experiment(tmp_path_factory.mktemp("experiment"), content)
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def page(experiment: Path, parse_html: Any) -> Any:
    """The made-up experiment's report.html."""
    return parse_html((experiment / "report.html").read_text(encoding="utf-8"))
