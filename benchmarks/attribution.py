"""Times of the usual attribution methods (Captum, MONAI) as multiples of the exact method's."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.baselines import exact
from benchmarks.networks import Subject, densenet121, frozen
from benchmarks.results import Bar, Row
from benchmarks.timing import Setting, Timings

WINDOW = 16  # edge and stride of an occluded square
LAYER = "class_layers.relu"  # the last feature map of MONAI's DenseNet, as in MONAI's example of Grad-CAM
BATCHES = {"cpu": (1, 5, 10), "cuda": (1, 10, 50)}  # images in one pass, tried to find the fastest


def attributions(setting: Setting) -> list[Row]:
    """Time of each attribution over that of exact. All but Grad-CAM get a frozen copy of the network, their fastest case."""
    subject = densenet121(6, setting.size(224, 64), setting.device)
    setting.note(subject.title)
    with torch.no_grad():
        target = int(subject.network(subject.image).argmax())
    steps, samples = setting.size(50, 4), setting.size(25, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = _fastest_batch(setting, subject, target)
        gradients = f"IntegratedGradients ({steps} steps)"
        smooth = f"SmoothGrad ({samples} samples)"
        candidates: dict[str, Callable[[], object]] = {
            "exact": lambda: exact(subject),
            "Saliency": saliency(subject, target),
            gradients: partial(integrated_gradients(subject, target), steps, batch),
            "Occlusion": occlusion(subject, target, batch),
            smooth: smooth_grad(subject, target, samples),
            "GradCAM": grad_cam(subject, target),
            "OcclusionSensitivity": _occlusion_sensitivity(subject, batch),
        }
        timings = setting.measure(candidates)
    settings = {
        "Saliency": "Captum",
        gradients: f"Captum, internal_batch_size {batch}, the fastest of {BATCHES[setting.device.type]}",
        "Occlusion": f"Captum, window and stride {WINDOW}, {batch} images a pass",
        smooth: "MONAI",
        "GradCAM": f"MONAI, {LAYER}",
        "OcclusionSensitivity": f"MONAI, mask {WINDOW}, no overlap, {batch} images a pass",
    }
    bars = {gradients: Bar(10.0, True), smooth: Bar(5.0, True)}
    rows = []
    for name, words in settings.items():
        seconds = {key: timings.seconds[key] for key in ("exact", name)}
        details = f"{words}; {Timings(seconds).describe()}"
        rows.append(Row(f"{name} / exact", subject.title, timings.ratio(name, "exact"), bars.get(name), "", details, seconds))
    return rows


def _fastest_batch(setting: Setting, subject: Subject, target: int) -> int:
    """Number of images in one pass with which integrated gradients are fastest, from as many steps as the largest."""
    sizes = BATCHES[setting.device.type]
    attribute = integrated_gradients(subject, target)
    timings = setting.measure({str(size): partial(attribute, max(sizes), size) for size in sizes}, rounds=1)
    return min(sizes, key=lambda size: timings.median(str(size)))


def saliency(subject: Subject, target: int) -> Callable[[], object]:
    """Captum's, the absolute gradient."""
    from captum.attr import Saliency  # type: ignore[import-untyped, unused-ignore]

    method = Saliency(frozen(subject.network))
    return lambda: method.attribute(subject.image.clone().requires_grad_(True), target=target)


def integrated_gradients(subject: Subject, target: int) -> Callable[[int, int], object]:
    """(steps, images in one pass) -> attribution, from the zero image."""
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(frozen(subject.network))

    def attribute(steps: int, batch: int) -> object:
        image = subject.image.clone().requires_grad_(True)
        return method.attribute(image, baselines=0.0, target=target, n_steps=steps, internal_batch_size=batch)

    return attribute


def occlusion(subject: Subject, target: int, batch: int) -> Callable[[], object]:
    """Captum's, with squares of zeros."""
    from captum.attr import Occlusion

    method = Occlusion(frozen(subject.network))
    window = (1, WINDOW, WINDOW)

    def attribute() -> object:
        with torch.no_grad():
            return method.attribute(subject.image, window, window, baselines=0.0, target=target, perturbations_per_eval=batch)

    return attribute


def smooth_grad(subject: Subject, target: int, samples: int) -> Callable[[], object]:
    """MONAI's, with its own noise level."""
    from monai.visualize import SmoothGrad

    method = SmoothGrad(frozen(subject.network), n_samples=samples, verbose=False)
    return lambda: method(subject.image.clone(), index=target)


def grad_cam(subject: Subject, target: int) -> Callable[[], object]:
    """Grad-CAM on a network whose parameters require gradients, which its backward pass needs. It changes the copy it gets."""
    from monai.visualize import GradCAM

    method = GradCAM(copy.deepcopy(subject.network), target_layers=LAYER)
    return lambda: method(subject.image.clone(), class_idx=target)


def _occlusion_sensitivity(subject: Subject, batch: int) -> Callable[[], object]:
    from monai.visualize import OcclusionSensitivity

    method = OcclusionSensitivity(frozen(subject.network), mask_size=WINDOW, n_batch=batch, overlap=0.0, verbose=False)

    def attribute() -> object:
        with torch.no_grad():
            return method(subject.image)

    return attribute
