"""Time of decompositions, and of single products, over that of the passes as PyTorch makes them: what chosen kernels give.

python -m benchmarks.kernels [--rounds N] [--threads N] [--output FOLDER] [--quick]

With one thread the seconds are those of the CPU (user and system), which other programs on the machine disturb least; with more
they are by the clock, and nothing else should run. The results go to kernels-cpu.json and kernels-cpu.md in benchmarks/results.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from monai.networks.nets import DenseNet121, EfficientNetBN, SEResNet50, UNet
from torch import Tensor, nn

from benchmarks.baselines import bare_passes
from benchmarks.networks import SEED, Subject, frozen, residual18, subject, vision_transformer
from benchmarks.results import Bar, Comparison, Row, Section
from benchmarks.stamp import take_stamp
from benchmarks.tables import full_table
from benchmarks.timing import Setting
from monai_ifim import decompose
from monai_ifim.core.convolutions.choice import ChosenKernels
from monai_ifim.core.memory.lean_layers import lean_layers
from monai_ifim.core.operator.jacobian import Jacobian
from monai_ifim.core.operator.module_state import evaluation_mode

RESULTS = Path(__file__).parent / "results"
ROUNDS = 5
LABELS = 3


def kernels(setting: Setting) -> Iterator[Row]:
    """A row per network: exact over its passes; products with the Jacobian of a segmentation over autograd's."""
    for build, bar in _cases(setting):
        yield _against_passes(setting, build(), bar)
    yield from _products(setting)


def _cases(setting: Setting) -> Iterator[tuple[Callable[[], Subject], float]]:
    """Subjects with the ratio that was aimed at."""
    edge, flat, device = setting.size(64, 32), setting.size(224, 64), setting.device
    for classes, bar in ((2, 0.85), (6, 0.78)):
        solid = partial(DenseNet121, spatial_dims=3, in_channels=1, out_channels=classes)
        yield partial(subject, f"DenseNet121 3D {edge}^3", solid, (edge,) * 3, classes, device), bar
    for size in (32,) if setting.quick else (64, 96):
        yield partial(residual18, 3, 2, size, device), 0.75
    slim = partial(EfficientNetBN, "efficientnet-b0", spatial_dims=2, in_channels=1, num_classes=6, pretrained=False)
    yield partial(subject, f"EfficientNet-B0 2D {flat}^2", slim, (flat, flat), 6, device), 0.95
    squeezed = partial(SEResNet50, spatial_dims=2, in_channels=1, num_classes=6)
    yield partial(subject, f"SEResNet50 2D {flat}^2", squeezed, (flat, flat), 6, device), 0.95
    dense = partial(DenseNet121, spatial_dims=2, in_channels=1, out_channels=6)
    yield partial(subject, f"DenseNet121 2D {flat}^2", dense, (flat, flat), 6, device), 1.02
    yield partial(vision_transformer, 6, flat, device, hidden=setting.size(384, 64), layers=setting.size(6, 1)), 1.02


def _against_passes(setting: Setting, measured: Subject, bar: float) -> Row:
    setting.note(measured.title)
    bare = frozen(measured.network)
    run = partial(decompose, measured.network, measured.image, head="categorical", method="exact", energy=0.99)
    timings = setting.measure({"exact": run, "passes": lambda: bare_passes(bare, measured.image, measured.classes)})
    chosen = ", ".join(f"{count} {name}" for name, count in run().record["computation"]["convolutions"].items())
    details = f"{timings.describe()}; convolutions: {chosen or 'no choice'}"
    ratio = timings.ratio("exact", "passes")
    return Row("exact / bare passes", measured.title, ratio, Bar(bar, False), "", details, timings.seconds)


def _products(setting: Setting) -> Iterator[Row]:
    """One product with J^T and one with J, as the matrix-free method makes them, over those of plain autograd."""
    edge = setting.size(96, 32)
    build = partial(UNet, 3, 1, LABELS, channels=(16, 32, 64, 128), strides=(2, 2, 2), num_res_units=2)
    measured = subject(f"UNet 3D {edge}^3", build, (edge,) * 3, LABELS, setting.device)
    setting.note(f"products of {measured.title}")
    chosen = ChosenKernels()
    with evaluation_mode(measured.network):
        with lean_layers(measured.network, chosen):
            jacobian = Jacobian(measured.network, measured.image)
        plain = _Autograd(measured.network, measured.image)
        generator = torch.Generator().manual_seed(SEED)
        w = torch.randn(jacobian.output.shape, generator=generator, dtype=torch.float64).to(setting.device)
        u = torch.randn(measured.image.shape, generator=generator).to(setting.device)
        transposed = {"product": lambda: jacobian.transposed(w / w.norm()), "autograd": lambda: plain.transposed(w / w.norm())}
        moved = {"product": lambda: jacobian.product(u), "autograd": lambda: plain.product(u)}
        words = ", ".join(f"{count} {name}" for name, count in chosen.described().items())
        for what, candidates, bar in (("J^T w", transposed, Bar(0.75, False)), ("J u", moved, None)):
            timings = setting.measure(candidates)
            details = f"{timings.describe()}; convolutions: {words}"
            ratio = timings.ratio("product", "autograd")
            yield Row(f"{what} / autograd's", measured.title, ratio, bar, "", details, timings.seconds)


class _Autograd:
    """The same products as plain PyTorch makes them: a backward pass, and the derivative of one."""

    def __init__(self, network: nn.Module, image: Tensor) -> None:
        self._leaf = image.clone().requires_grad_(True)
        self._output = network(self._leaf)
        self._w = torch.zeros_like(self._output).requires_grad_(True)
        (self._gradient,) = torch.autograd.grad(self._output, self._leaf, self._w, create_graph=True)

    def transposed(self, w: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(self._output, self._leaf, w.to(self._output), retain_graph=True)
        return found

    def product(self, u: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(self._gradient, self._w, u, retain_graph=True)
        return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    setting = Setting(1 if arguments.quick else arguments.rounds, torch.device("cpu"), arguments.quick, clock)
    stamp, rows = take_stamp(), list[Row]()
    for row in kernels(setting):
        print(f"{row.what} | {row.case} | {row.value_text} | {row.bar_text} {row.holds_text} | {row.details}", flush=True)
        rows.append(row)
    name = "CPU seconds, one thread" if arguments.threads == 1 else f"seconds, {arguments.threads} threads"
    comparison = Comparison("cpu", {name: Section(stamp, tuple(rows))}, arguments.quick)
    stem = arguments.output / ("kernels-cpu-quick" if arguments.quick else "kernels-cpu")
    comparison.write(stem.with_suffix(".json"))
    stem.with_suffix(".md").write_text(full_table(comparison), encoding="utf-8")


if __name__ == "__main__":
    main()
