"""A large scan in scanner space: seconds against one forward and one backward pass as MONAI makes them, and peak memory.

python -m benchmarks.scanner {passes,scanner} {densenet121,lumpy} [--resolution] [--budget SIZE]   # one peak, as JSON

The scan has 256 x 384 x 384 voxels of smooth structure and noise in whole numbers. The networks have two classes, so that one
backward pass is all that a decomposition cannot do without: a 3D DenseNet121 with random weights behind Orientation, Spacing,
percentile scaling, padding and Resize to 96^3; and the 3D bundle that comes with the package. The passes are MONAI's own
transforms and the network, applied to a scan that wants a gradient, the network's weights frozen.

Seconds are medians of rounds in which both take turns, in one process. Peaks are of fresh processes, above what was resident
with libraries, network and scan.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.networks.nets import DenseNet121
from monai.transforms import (
    Compose,
    Orientationd,
    Resized,
    ScaleIntensityRangePercentilesd,
    Spacingd,
    SpatialPadd,
)
from scipy.ndimage import gaussian_filter, zoom
from torch import Tensor, nn

from benchmarks.memory import Measurement, MeasurementFailed, Peak
from benchmarks.results import Bar, Row
from benchmarks.timing import Setting, Timings
from monai_ifim import Decomposition, decompose_scan
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.scanner.preprocessing import reading_steps
from monai_ifim.io.installation import resolve_bundle

SHAPE = (256, 384, 384)
SPACING = (0.9, 0.7, 0.8)
SEEN = 96  # voxels along each axis of DenseNet121's input
BUDGET = "4GiB"
LIMIT = 4 * 2**30
GIBIBYTE = 2**30
SLOWEST = 2.0  # times the passes
SMALL = (24, 36, 36)


@dataclass(frozen=True)
class Subject:
    """A network, what lies between it and a freshly read scan, and such a scan [1, *spatial]."""

    title: str
    network: nn.Module
    preprocessing: Compose
    scan: MetaTensor

    def passes(self) -> Tensor:
        """One forward pass through MONAI's transforms and the network, and one backward pass to the scan."""
        leaf = self.scan.as_subclass(Tensor).clone().requires_grad_(True)
        image = MetaTensor(leaf * 1, affine=self.scan.affine)
        logits = self.network(self.preprocessing({"image": image})["image"].as_subclass(Tensor)[None])
        gradient: Tensor = torch.autograd.grad(logits[0, 0], leaf)[0]
        return gradient

    def decomposed(self, resolution: bool = False, budget: str | None = None) -> Decomposition:
        """Its decomposition in scanner space, at the network's resolution or without a metric."""
        options: dict[str, Any] = {"resolution": "network"} if resolution else {}
        return decompose_scan(self.network, self.preprocessing, self.scan, head="categorical", memory_budget=budget, **options)


def make_scan(shape: tuple[int, ...] = SHAPE) -> MetaTensor:
    """A scan in whole numbers, its axes not in the order that Orientation asks for."""
    generator = np.random.default_rng(0)
    coarse = gaussian_filter(generator.standard_normal([-(-size // 8) for size in shape]), 2)
    smooth = zoom(coarse, 8, order=1)[tuple(slice(size) for size in shape)]
    values = 400 * smooth / smooth.std() + 20 * generator.standard_normal(shape)
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    return MetaTensor(torch.from_numpy(np.rint(values).astype(np.float32))[None], affine=torch.from_numpy(affine))


def densenet121(shape: tuple[int, ...] = SHAPE) -> Subject:
    """A DenseNet121 with random weights behind the usual steps."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = DenseNet121(spatial_dims=3, in_channels=1, out_channels=2)
    steps = [
        Orientationd("image", axcodes="RAS", labels=None),
        Spacingd("image", pixdim=(1.0, 1.0, 1.0)),
        ScaleIntensityRangePercentilesd("image", lower=1, upper=99, b_min=0.0, b_max=1.0, clip=True),
        SpatialPadd("image", spatial_size=(240, 280, 320)),
        Resized("image", spatial_size=(SEEN, SEEN, SEEN)),
    ]
    title = f"DenseNet121 3D {SEEN}^3 behind Orientation, Spacing, percentiles, SpatialPad, Resize"
    return Subject(title, network.eval().requires_grad_(False), Compose(steps), make_scan(shape))


def lumpy(shape: tuple[int, ...] = SHAPE) -> Subject:
    """The 3D bundle that comes with the package."""
    bundle = load_bundle(resolve_bundle("lumpy_lesion_detection_3d"))
    steps = bundle.preprocessing.flatten().transforms[len(reading_steps(bundle.preprocessing)) :]
    title = "lumpy_lesion_detection_3d: Orientation, Resize to 32^3, NormalizeIntensity"
    return Subject(title, bundle.network.requires_grad_(False), Compose(steps), make_scan(shape))


SUBJECTS: dict[str, Callable[[tuple[int, ...]], Subject]] = {"densenet121": densenet121, "lumpy": lumpy}


def scanner_seconds(setting: Setting) -> list[Row]:
    """Scanner space against the passes, with and without a resolution."""
    shape = SMALL if setting.quick else SHAPE
    rows = []
    for build in SUBJECTS.values():
        subject = build(shape)
        setting.note(subject.title)
        candidates: dict[str, Callable[[], object]] = {
            "passes": subject.passes,
            "scanner space": subject.decomposed,
            "at a resolution": partial(subject.decomposed, resolution=True),
        }
        timings = setting.measure(candidates)
        for name in ("scanner space", "at a resolution"):
            rows.append(_against_passes(timings, name, subject, shape))
    return rows


def scanner_memory(setting: Setting) -> list[Row]:
    """Peak memory that the passes and scanner space add to a process, with and without a budget."""
    shape = SMALL if setting.quick else SHAPE
    rows = []
    for name in SUBJECTS:
        for resolution, budget in ((False, None), (True, None), (True, BUDGET)):
            rows.append(_peak_row(setting, name, shape, resolution, budget))
        setting.note(f"{name}, passes")
        found = measured_alone(name, shape, "passes")
        rows.append(Row("peak of the passes", _case(name, shape), found.peak / GIBIBYTE, None, "GiB", f"{found.seconds:.3g} s"))
    return rows


def measured_alone(
    name: str, shape: tuple[int, ...], what: str, resolution: bool = False, budget: str | None = None
) -> Measurement:
    """Peak and seconds of one run in a process of its own; raises MeasurementFailed with its last words."""
    words = [what, name, "--shape", *map(str, shape), *(["--resolution"] if resolution else [])]
    words += [] if budget is None else ["--budget", budget]
    done = subprocess.run([sys.executable, "-m", "benchmarks.scanner", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise MeasurementFailed((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return Measurement(**json.loads(done.stdout.strip().splitlines()[-1]))


def measured_here(name: str, shape: tuple[int, ...], run: Callable[[Subject], object]) -> Measurement:
    """Peak and seconds in this process, all libraries having been used once on a small scan."""
    run(SUBJECTS[name](SMALL))
    subject = SUBJECTS[name](shape)
    with Peak(torch.device("cpu")) as peak:
        start = time.perf_counter()
        found = run(subject)
        elapsed = time.perf_counter() - start
    del found
    return Measurement(peak.above, elapsed, peak.start)


def main() -> None:
    """Measure one run in this process and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["passes", "scanner"])
    parser.add_argument("name", choices=SUBJECTS)
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE)
    parser.add_argument("--resolution", action="store_true")
    parser.add_argument("--budget")
    arguments = parser.parse_args()
    runs: dict[str, Callable[[Subject], object]] = {
        "passes": Subject.passes,
        "scanner": lambda subject: subject.decomposed(arguments.resolution, arguments.budget),
    }
    print(json.dumps(asdict(measured_here(arguments.name, tuple(arguments.shape), runs[arguments.what]))))


def _against_passes(timings: Timings, name: str, subject: Subject, shape: tuple[int, ...]) -> Row:
    case = f"{subject.title}; scan {_by(shape)}"
    ratio, only = timings.ratio(name, "passes"), {key: timings.seconds[key] for key in (name, "passes")}
    bar = Bar(SLOWEST, False)
    return Row(f"{name} / passes", case, ratio, bar, "", Timings(only).describe(), only)


def _peak_row(setting: Setting, name: str, shape: tuple[int, ...], resolution: bool, budget: str | None) -> Row:
    words = [*(["at a resolution"] if resolution else []), *([] if budget is None else [f"budget {budget}"])]
    what = ", ".join(["peak in scanner space", *words])
    setting.note(f"{name}, {what}")
    bar = None if budget is None else Bar(LIMIT / GIBIBYTE, False)
    try:
        found = measured_alone(name, shape, "scanner", resolution, budget)
    except MeasurementFailed as failure:
        return Row(what, _case(name, shape), None, bar, "GiB", str(failure))
    details = f"{found.seconds:.3g} s; {found.before / GIBIBYTE:.2f} GiB before, scan and libraries"
    return Row(what, _case(name, shape), found.peak / GIBIBYTE, bar, "GiB", details)


def _case(name: str, shape: tuple[int, ...]) -> str:
    return f"{name}; scan {_by(shape)}"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


if __name__ == "__main__":
    main()
