"""Methods that people use, on one question: which small change of the image moves the answer most?

Each gives a direction d. A step of length e along it costs e^2 d^T F d / 2 nats, and the most that any direction of that length
costs is e^2 l_1 / 2, so that d^T F d / (|d|^2 l_1) is the share of what is possible. Both come from float64 on the CPU:
d^T F d from one forward-mode product, without any code of the package. A map of importance is taken as a direction as it is.
"""

from __future__ import annotations

import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.approximate import SectionSkipped, mednist
from benchmarks.attribution import BATCHES, grad_cam, integrated_gradients, occlusion, saliency, smooth_grad
from benchmarks.baselines import jacrev_parts
from benchmarks.eigendistortion import SquareRootOfProbability, Synthesis
from benchmarks.memory import Measurement, Peak
from benchmarks.networks import Subject, densenet121, frozen
from benchmarks.power_iteration import by_differences, by_double_backward
from benchmarks.results import Bar, Row
from benchmarks.timing import Setting, wait
from monai_ifim import decompose

CLASSES = 6
SIZE = 128  # pixels along an axis
SMALL = 64  # pixels along an axis of the image that loads the libraries before a peak is measured
SUITED_STEP, MANY = 1e-2, 100  # of the power iteration by differences, where one chooses
STEPS, SAMPLES = 50, 25  # of integrated gradients, of SmoothGrad
IMAGES_APART = 6  # of those that the section adaptive-mednist takes
SLOW = ("KL gradients, 100 steps", "plenoptic, randomized SVD", "IntegratedGradients", "SmoothGrad", "Occlusion")  # one round

Build = Callable[[Subject, int], Callable[[], Any]]


def _autograd(subject: Subject, target: int) -> Callable[[], Tensor]:
    network, image = frozen(subject.network), subject.image

    def gradient() -> Tensor:
        leaf = image.clone().requires_grad_(True)
        return torch.autograd.grad(network(leaf).log_softmax(1)[0, target], leaf)[0]

    return gradient


def _plenoptic(subject: Subject, target: int) -> Callable[[], Tensor]:
    synthesis = Synthesis(subject, "randomized_svd", {"k": 1})

    def leading() -> Tensor:
        synthesis()
        if synthesis.failure:
            raise RuntimeError(synthesis.failure)
        return synthesis.eigendistortions.reshape(-1, *subject.image.shape[1:])[:1]

    return leading


def _kept(subject: Subject, function: Callable[[nn.Module, Tensor], Any]) -> Callable[[], Any]:
    network = frozen(subject.network)
    return lambda: function(network, subject.image)


BUILDS: Mapping[str, Build] = {
    "exact": lambda one, target: lambda: decompose(one.network, one.image, head="categorical", rank=1).eigenvectors[:, 0],
    "torch.func.jacrev": lambda one, target: _kept(one, lambda network, x: jacrev_parts(network, x).eigenvectors[:1]),
    "plenoptic, randomized SVD": _plenoptic,
    "KL gradients, double backward": lambda one, target: _kept(one, lambda n, x: by_double_backward(n, x).direction),
    "KL gradients, 100 steps": lambda one, target: _kept(one, lambda n, x: by_differences(n, x, SUITED_STEP, MANY).direction),
    "KL gradients, one step (VAT)": lambda one, target: _kept(one, lambda n, x: by_differences(n, x).direction),
    "gradient of log p": _autograd,
    "Saliency": saliency,
    "SmoothGrad": lambda one, target: smooth_grad(one, target, SAMPLES),
    "IntegratedGradients": lambda one, target: partial(integrated_gradients(one, target), STEPS, BATCHES["cpu"][1]),
    "GradCAM": grad_cam,
    "Occlusion": lambda one, target: occlusion(one, target, BATCHES["cpu"][1]),
}


def rivals(setting: Setting) -> list[Row]:
    """Share of the most that a direction can cost, and seconds of each method over those of exact."""
    one = densenet121(CLASSES, setting.size(SIZE, SMALL), setting.device)
    setting.note(one.title)
    calls = methods(one)
    slow = {name: 1 for name in calls if name in SLOW}
    timings = setting.measure(calls, limits={} if setting.quick else slow, warm_up=not setting.quick)
    truth = Truth(one)
    rows = []
    for name, call in calls.items():
        bar = Bar(0.999, True) if name == "exact" else None
        rows.append(Row(f"share, {name}", one.title, truth.share(call()), bar))
        seconds = {key: timings.seconds[key] for key in dict.fromkeys(("exact", name))}
        details = f"{timings.median(name):.3g} s"
        rows.append(Row(f"seconds / exact's, {name}", one.title, timings.ratio(name, "exact"), None, "", details, seconds))
    return [*rows, *_trained(setting)]


def rivals_memory(setting: Setting) -> list[Row]:
    """Peak memory of each method over that of exact, each in a process of its own."""
    title = f"DenseNet121 2D {setting.size(SIZE, SMALL)}^2, C = {CLASSES}"
    peaks = _peaks(setting)
    return [_peak_row(name, title, peaks) for name in peaks]


def methods(subject: Subject) -> dict[str, Callable[[], Any]]:
    """What gives each method's direction [1, channel, *spatial], about the predicted class."""
    with torch.no_grad():
        target = int(subject.network(subject.image).argmax())
    return {name: build(subject, target) for name, build in BUILDS.items()}


class Truth:
    """F of one image in float64 on the CPU, and its largest eigenvalue; without the package, from the whole Jacobian."""

    def __init__(self, subject: Subject) -> None:
        network = frozen(copy.deepcopy(subject.network).cpu().double())
        self.image = subject.image.cpu().double()
        self.function = lambda x: SquareRootOfProbability(network)(x)[0]  # its Jacobian's square is F
        jacobian = torch.func.jacrev(self.function)(self.image).flatten(1)
        self.largest = float(torch.linalg.matrix_norm(jacobian, ord=2)) ** 2

    def share(self, direction: Any) -> float:
        """d^T F d / (|d|^2 l_1) of a direction of the image's shape."""
        d = torch.as_tensor(direction).detach().cpu().double().reshape(self.image.shape)
        if not float(d.norm()) > 0:
            return 0.0
        moved: Tensor = torch.func.jvp(self.function, (self.image,), (d / d.norm(),))[1]
        return float(moved.square().sum()) / self.largest


def _trained(setting: Setting) -> list[Row]:
    """Shares of each method for a trained network on test images; nothing without these."""
    try:
        network, images = mednist(setting)
    except SectionSkipped as reason:
        setting.note(f"no trained network: {reason}")
        return []
    chosen = images[::IMAGES_APART]
    setting.note(f"MedNIST bundle, {len(chosen)} test images")
    shares: dict[str, list[float]] = {name: [] for name in BUILDS}
    for image in chosen:
        subject = Subject("MedNIST bundle", network, image, CLASSES)
        truth = Truth(subject)
        for name, call in methods(subject).items():
            shares[name].append(truth.share(call()))
    case = f"MedNIST bundle, {len(chosen)} test images, C = {CLASSES}"
    return [
        Row(f"share, {name}", case, statistics.median(found), details=f"median; from {min(found):.2g} to {max(found):.2g}")
        for name, found in shares.items()
    ]


def _peaks(setting: Setting) -> dict[str, Measurement | str]:
    """Peak memory of each method in a process of its own, or why there is none."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "captum.attr", "monai.visualize", "plenoptic"])
    words = (setting.size(SIZE, SMALL), str(setting.device), torch.get_num_threads())
    found: dict[str, Measurement | str] = {}
    for name in BUILDS:
        setting.note(f"peak of {name}")
        with ProcessPoolExecutor(1, mp_context=context) as alone:
            try:
                found[name] = alone.submit(peak_of, name, *words).result()
            except Exception as error:  # the method's own, or the end of a process that was killed
                found[name] = f"{type(error).__name__}: {error}"
    return found


def peak_of(name: str, size: int, device: str, threads: int) -> Measurement:
    """Peak memory of one method in this process, whose libraries a small image loads before."""
    torch.set_num_threads(threads)
    methods(densenet121(CLASSES, SMALL, torch.device(device)))[name]()
    call = methods(densenet121(CLASSES, size, torch.device(device)))[name]
    with Peak(torch.device(device)) as peak:
        start = time.perf_counter()
        found = call()
        wait(torch.device(device))
        seconds = time.perf_counter() - start
    del found
    return Measurement(peak.above, seconds, peak.start)


def _peak_row(name: str, case: str, peaks: Mapping[str, Measurement | str]) -> Row:
    found, reference = peaks.get(name, "not measured"), peaks["exact"]
    what = f"peak / exact's, {name}"
    if isinstance(found, str) or isinstance(reference, str):
        return Row(what, case, None, details=str(found if isinstance(found, str) else reference))
    return Row(what, case, found.peak / reference.peak, details=f"{found.peak / 2**20:.0f} MiB")
