"""The tasks of `benchmarks.segmentation`: the network and its scan, and the clocks around the parts of the program."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.memory import Peak
from benchmarks.stamp import ROOT
from monai_ifim import decompose
from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.native import carry_to_native
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.core.decompose import decompose_with
from monai_ifim.core.heads.volumes import VolumesHead
from monai_ifim.core.locality import radii
from monai_ifim.core.operator.predictor import Predictor
from monai_ifim.core.part_verification import verify_part
from monai_ifim.io import write_case
from monai_ifim.report.cohort.page import write_cohort
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.reading import read_image
from monai_ifim.run.settings import RunSettings

CONFIGS = ROOT / "tests" / "zoo_bundles" / "meshnet_gw" / "configs"
WEIGHTS, SCAN = Path("networks") / "meshnet_gw" / "model.pt", Path("nifti") / "spm152.nii.gz"
FULL = 256  # voxels along each axis that the network was trained with
BUDGET = 5 * 2**30
STEP = 1e-8  # of a difference quotient in float64, over the length of the image: longer ones cross kinks of the network


@dataclass
class Found:
    """seconds: of each part of the program, by "clock" and "cpu", one for each time it ran. numbers: by what they state.

    peak: most bytes resident in the process while it was measured.
    """

    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    peak: int = 0

    def cpu(self, name: str) -> float:
        """CPU seconds of a part; of forward passes, which are repeated for comparison, the median."""
        spent = self.seconds.get(name, {"cpu": [0.0]})["cpu"]
        return statistics.median(spent) if name == "forward" else sum(spent)

    def text(self, name: str) -> str:
        """The seconds of a part in words."""
        spent = self.seconds.get(name, {"cpu": [], "clock": []})
        made = statistics.median if name == "forward" else sum
        return f"{self.cpu(name):.3g} s of CPU, {made(spent['clock'] or [0.0]):.3g} s by the clock"

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its seconds added to `name`; of one case, parts run one after the other."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            clock, cpu = time.perf_counter(), time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = self.seconds.setdefault(name, {"clock": [], "cpu": []})
                spent["clock"].append(time.perf_counter() - clock)
                spent["cpu"].append(time.process_time() - cpu)

        return timed

    def counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its calls counted under `name`."""

        def counting(*args: Any, **kwargs: Any) -> Any:
            self.numbers[name] = self.numbers.get(name, 0) + 1
            return function(*args, **kwargs)

        return counting


@dataclass(frozen=True)
class Subject:
    """The bundle, the scan's file, an output folder, and the number of voxels along each axis of what the network sees."""

    bundle: Bundle
    scan: Path
    folder: Path
    size: int

    def image(self) -> Tensor:
        """What the network sees, [1, 1, *spatial]."""
        image: Tensor = self.bundle.preprocess(self.scan).as_subclass(Tensor)[None]
        return image

    def forward(self, image: Tensor) -> Tensor:
        """One forward pass that keeps nothing."""
        with torch.no_grad():
            output: Tensor = self.bundle.network(image)
        return output


def subject_of(folder: Path, size: int) -> Subject:
    """The network in a bundle made in `folder`; the environment variable IFIM_TEST_DATA names its weights' folder."""
    torch.set_num_threads(1)
    data = Path(os.environ["IFIM_TEST_DATA"])
    root = folder / "meshnet_gw"
    shutil.copytree(CONFIGS, root / "configs")
    config = root / "configs" / "inference.json"
    content = json.loads(config.read_text(encoding="utf-8")) | {"size": size}
    config.write_text(json.dumps(content), encoding="utf-8")
    (root / "models").mkdir()
    shutil.copyfile(data / WEIGHTS, root / "models" / "model.pt")
    return Subject(load_bundle(root), data / SCAN, folder / "out", size)


@contextmanager
def watched(found: Found) -> Iterator[None]:
    """Context in which the parts of a run are timed where they are called, and its passes counted."""
    timed: dict[str, tuple[str, Callable[..., Any]]] = {
        "monai_ifim.run.pipeline.read_image": ("reading", read_image),
        "monai_ifim.run.pipeline.decompose_with": ("engine", decompose_with),
        "monai_ifim.core.batches.radii": ("locality", radii),
        "monai_ifim.core.batches.verify_part": ("verification", verify_part),
        "monai_ifim.adapt.saving.carry_to_native": ("carrying back", carry_to_native),
        "monai_ifim.adapt.saving.write_case": ("writing", write_case),
    }
    with ExitStack() as stack:
        for place, (name, function) in timed.items():
            stack.enter_context(mock.patch(place, found.wrap(name, function)))
        stack.enter_context(mock.patch.object(Predictor, "__call__", found.counted("forward passes", Predictor.__call__)))
        stack.enter_context(mock.patch.object(torch.autograd, "grad", found.counted("backward passes", torch.autograd.grad)))
        peak = stack.enter_context(Peak(torch.device("cpu")))
        yield
    found.peak = peak.start + peak.above


def volumes(subject: Subject) -> Found:
    """A whole run of one case, the label volumes its answer."""
    found = Found()
    image = subject.image()
    forward = found.wrap("forward", subject.forward)
    forward(image)
    settings = RunSettings(subject.folder, CaseSettings("volumes", locality=True))

    def whole() -> None:
        rows = run_cases(subject.bundle, find_cases([subject.scan]), settings, lambda row: None)
        if rows[0].status != "done":
            raise RuntimeError(f"the case failed: {rows[0]}")
        found.wrap("page", write_cohort)(subject.folder)

    with watched(found):
        found.wrap("whole", whole)()
    forward(image)
    return found


def budget(subject: Subject) -> Found:
    """The label volumes within the memory budget."""
    return _engine(subject, CaseSettings("volumes", locality=True, memory_budget=BUDGET))


def pair(subject: Subject) -> Found:
    """The leading component of the answer at every voxel, which is not verified."""
    settings = CaseSettings("voxelwise", rank=1, tolerance=0.05, verify="never")
    return _engine(subject, settings, "products of the leading pair")


def _engine(subject: Subject, settings: CaseSettings, products: str = "products") -> Found:
    found = Found()
    image = subject.image()
    forward = found.wrap("forward", subject.forward)
    forward(image)
    with watched(found):
        d = found.wrap("engine", decompose_with)(settings, subject.bundle.network, image)
    found.numbers[products] = d.record["jacobian_products"]
    found.numbers["components"] = int(d.rank[0])
    forward(image)
    return found


def differences(subject: Subject) -> Found:
    """d^T F d of the label volumes, in float32, against difference quotients of the volumes in float64, along components and
    random directions."""
    image, head = subject.image(), VolumesHead("5 %", 0.001)
    d = decompose(subject.bundle.network, image, head=head, energy=1.0, verify="never")
    network, wide = subject.bundle.network.double(), image.double()
    sigma = head.deviations(head.probabilities(network(wide).detach()))
    generator = torch.Generator().manual_seed(0)
    directions = [*d.eigenvectors[0], *torch.randn(3, *image.shape[1:], generator=generator)]
    errors = []
    for direction in directions:
        unit = direction.double() / direction.double().norm()
        step = STEP * float(wide.norm())
        with torch.no_grad():
            ends = [head.probabilities(network(wide + sign * step * unit)) for sign in (1, -1)]
        quotient = ((ends[0] - ends[1]) / (2 * step) / sigma).square().sum()
        shares = (d.eigenvectors[0].double() * unit).flatten(1).sum(1)
        errors.append(float((d.eigenvalues[0] * shares.square()).sum() / quotient - 1))
    subject.bundle.network.float()
    return Found(numbers={"largest relative error against difference quotients": max(map(abs, errors))})


TASKS: dict[str, Callable[[Subject], Found]] = {"volumes": volumes, "budget": budget, "pair": pair, "differences": differences}
