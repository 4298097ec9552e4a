"""Closes the loop of scanner space: a file that is changed along u_1 changes the answer as its eigenvalue says.

IFIM_TEST_DATA=FOLDER python -m benchmarks.file_loop [--output FOLDER]
python -m benchmarks.file_loop --bundle NAME --scans FILE ... [--output FOLDER]

For each scan: decompose it in scanner space, move it by e along the leading eigenimage, write that as float32 NIfTI with the
geometry of the original (a photograph or slice has its own header then: values and axes are the same, the affine is the
reader's), and read this file through the untouched bundle, with MONAI's own transforms and the network in float32. Measured
is KL(p || p') between the answers to the two files, predicted e^2 l / 2. Steps go up to the locality radius, within which the
two may differ by a tenth.

The divergence is summed from the float32 logits with 160 digits, so that nothing is lost however sure the answer is. What
float32 passes lose is measured: `rounding` is by how much the divergence differs when the same two inputs go through a float64
copy of the network. Without --scans the ten and more real scans and the generated ones of the recorded table are taken; results
go to file-loop.json and file-loop.md in benchmarks/results.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from torch import Tensor

from benchmarks.timing import count, environment_stamp
from monai_ifim import Decomposition, decompose_scan
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.evaluation.demonstration import demo_slice, demo_volume
from monai_ifim.evaluation.lumpy.images import LumpyDataset, LumpyParameters
from monai_ifim.io import OpenedSource, Source
from monai_ifim.io.geometry import full_affine
from monai_ifim.io.installation import resolve_bundle

VOLUMES, SLICES = "lumpy_lesion_detection_3d", "mednist_classification"
CLASSES = ("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT")
FRACTIONS = (1 / 16, 1 / 4, 1 / 2, 1.0)  # of the locality radius
NO_RADIUS = 0.05  # typical logit change of the one step that is tried where the radius is 0
DEVIATION = 0.10  # that defines the radius
DIGITS = 160
RESULTS = Path(__file__).parent / "results"

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Subject:
    """A scan and the bundle that it is for. file: readable by MONAI."""

    name: str
    file: Path
    bundle: str
    generated: bool = False


@dataclass(frozen=True)
class Moved:
    """One written and read file.

    resolution: of the input metric, None without one. eigenvalue: nats per unit^2. radius, step: in the unit of the scan (of
    the metric where there is one). predicted, measured: nats. rounding: share of `measured` that float32 passes change.
    stored: norm of what rounding to the file's float32 changed, over that of the step. copied: largest logit change of a
    copy of the scan in which nothing was moved. ties: how many voxels hold the smallest and the largest value.
    """

    scan: str
    bundle: str
    generated: bool
    resolution: str | None
    probability: float
    eigenvalue: float
    radius: float
    step: float
    predicted: float
    measured: float
    rounding: float
    stored: float
    copied: float
    ties: tuple[int, int]

    @property
    def ratio(self) -> float:
        """Measured over predicted."""
        return self.measured / self.predicted

    @property
    def verdict(self) -> str:
        """In words, with the usual reason where it is not yes: statistics have no derivative where voxels share a value."""
        shared = f"{self.ties[0]} voxels hold the minimum, {self.ties[1]} the maximum"
        return {True: "yes", False: f"NO: {shared}", None: f"no radius: {shared}"}[self.agrees]

    @property
    def agrees(self) -> bool | None:
        """Whether the two agree within what defines the radius and what float32 resolves; None where there is no radius."""
        return abs(self.ratio - 1) <= DEVIATION + self.rounding if self.radius > 0 else None


class Loop:
    """A bundle, and files read through it."""

    def __init__(self, name: str) -> None:
        self.name, self.bundle = name, load_bundle(resolve_bundle(name))
        self.wide = copy.deepcopy(self.bundle.network).double()

    def run(self, subject: Subject, folder: Path) -> Iterator[Moved]:
        """Without a metric and at the network's resolution, where that is coarser than the scan's."""
        scan = self.bundle.read(subject.file)[self.bundle.image_key]
        for resolution in (None, "network"):
            options: dict[str, Any] = {"rank": 1, "locality": True} | ({} if resolution is None else {"resolution": resolution})
            found = decompose_scan(self.bundle.network, self.bundle.preprocessing, scan, head="categorical", **options)
            if resolution is not None and not any(found.record["preprocessing"]["resolution_mm"]):
                return
            yield from self._steps(subject, scan, found, resolution, folder)

    def _steps(
        self, subject: Subject, scan: MetaTensor, found: Decomposition, resolution: str | None, folder: Path
    ) -> Iterator[Moved]:
        if found.locality_radius is None:
            raise ValueError("steps go up to the locality radius: decompose with locality=True.")
        eigenvalue, radius = float(found.eigenvalues[0, 0]), float(found.locality_radius[0, 0])
        values, direction = (image[0].double().numpy() for image in (found.image, found.eigenimages[:, 0]))
        target = folder / "moved.nii.gz"
        before = self._answers(subject.file)
        write_like(subject.file, scan, values, target)
        copied = float((self._answers(target)[0] - before[0]).abs().max())
        p = found.probabilities[0].double()
        first = NO_RADIUS * float(((p * (1 - p)).sum() / eigenvalue).sqrt())
        for step in [fraction * radius for fraction in FRACTIONS] if radius > 0 else [first]:
            moved = values + step * direction
            write_like(subject.file, scan, moved, target)
            after = self._answers(target)
            measured, wide = (divergence(*pair) for pair in zip(before, after, strict=True))
            stored = np.linalg.norm(moved.astype(np.float32) - moved) / np.linalg.norm(step * direction)
            yield Moved(
                subject.name,
                self.name,
                subject.generated,
                resolution,
                float(p.max()),
                eigenvalue,
                radius,
                step,
                0.5 * step**2 * eigenvalue,
                measured,
                abs(measured - wide) / wide,
                float(stored),
                copied,
                (int((values == values.min()).sum()), int((values == values.max()).sum())),
            )

    def _answers(self, file: Path) -> tuple[Tensor, Tensor]:
        """Logits of the bundle for a file, and of the float64 copy of its network for the same input."""
        image = self.bundle.preprocess(file).as_subclass(Tensor)[None]
        with torch.no_grad():
            return self.bundle.network(image)[0], self.wide(image.double())[0]


def write_like(original: Path, scan: MetaTensor, values: Array, target: Path) -> None:
    """Values [channel, *spatial] as a float32 NIfTI file, with the original's own header where that is NIfTI too."""
    stored = values[0].astype(np.float32)
    if original.name.endswith((".nii", ".nii.gz")):
        header = nib.load(original).header.copy()
        header.set_data_dtype(np.float32)
        nib.save(nib.Nifti1Image(stored, None, header), target)
        return
    nib.save(nib.Nifti1Image(stored, full_affine(scan.affine.numpy())), target)


def divergence(logits: Tensor, moved: Tensor) -> float:
    """KL(softmax(logits) || softmax(moved)) by its definition, in decimal arithmetic."""
    with localcontext(prec=DIGITS):
        before, after = (_log_probabilities(z.tolist()) for z in (logits, moved))
        return float(sum((p.exp() * (p - q) for p, q in zip(before, after, strict=True)), Decimal(0)))


def recorded_subjects(data: Path, folder: Path) -> list[Subject]:
    """The real scans of the recorded table, and generated ones, made or taken apart in `folder`."""
    volumes = [Subject(name, data / "nifti" / f"{name}.nii.gz", VOLUMES) for name in ("spm152", "MR_Gd", "spmMotor")]
    for frame in (0, 5):
        source = Source(data / "nifti" / "pcasl.nii.gz", frame=frame)
        volumes.append(Subject(f"pcasl, frame {frame}", OpenedSource(source).readable_path(folder), VOLUMES))
    volumes.append(Subject("ct_plain", data / "dicom" / "ct_plain", VOLUMES))
    pictures = [min((data / "mednist" / "test" / name).iterdir()) for name in CLASSES]
    slices = [Subject(f"{path.parent.name} {path.stem}", path, SLICES) for path in pictures]
    return [*volumes, *slices, Subject("CT_small", demo_slice(), SLICES), *generated_subjects(folder)]


def generated_subjects(folder: Path) -> Iterator[Subject]:
    """Lumpy volumes: the demonstration's, one without a lesion, and one on a larger, uneven and turned grid."""
    yield Subject("lumpy with a lesion", demo_volume(folder), VOLUMES, generated=True)
    plain = LumpyDataset(LumpyParameters(), length=1, seed=7).volume(0).image
    large = LumpyDataset(LumpyParameters(shape=(61, 47, 52), mean_lumps=200.0), length=2, seed=7).volume(1).image
    turned = np.array([[0.0, -1.6, 0.1, 40.0], [1.1, 0.0, 0.0, -30.0], [0.0, 0.1, 2.3, 12.0], [0.0, 0.0, 0.0, 1.0]])
    for name, image, affine in (("lumpy without", plain, np.eye(4)), ("lumpy, turned grid", large, turned)):
        path = folder / f"{name.replace(', ', '-').replace(' ', '-')}.nii.gz"
        nib.save(nib.Nifti1Image(np.asarray(image, np.float32).reshape(image.shape[-3:]), affine), path)
        yield Subject(name, path, VOLUMES, generated=True)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=Path, nargs="+")
    parser.add_argument("--bundle", default=VOLUMES)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not arguments.scans and "IFIM_TEST_DATA" not in os.environ:
        parser.error("name --scans, or the folder of real scans in IFIM_TEST_DATA.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.scans:
            subjects = [Subject(path.name, path, arguments.bundle) for path in arguments.scans]
        else:
            subjects = recorded_subjects(Path(os.environ["IFIM_TEST_DATA"]), folder)
        rows = list(_measured(subjects, folder))
    stamp = f"{environment_stamp()}; {datetime.datetime.now(datetime.UTC).date().isoformat()}"
    content = {"environment": stamp, "rows": [asdict(row) | {"ratio": row.ratio, "agrees": row.agrees} for row in rows]}
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "file-loop.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (arguments.output / "file-loop.md").write_text(table(rows, stamp), encoding="utf-8")
    print(summary(rows))


def table(rows: list[Moved], stamp: str) -> str:
    """All rows as Markdown, with a summary above."""
    lines = ["# A changed file changes the answer as predicted", "", summary(rows), ""]
    lines += [
        "| scan | resolution | p | l | radius | e | predicted | measured | ratio | rounding | agrees |",
        "|" + " --- |" * 11,
    ]
    for row in rows:
        numbers = (row.eigenvalue, row.radius, row.step, row.predicted, row.measured)
        cells = [row.scan, row.resolution or "none", _certainty(row.probability), *(f"{value:.4g}" for value in numbers)]
        lines.append("| " + " | ".join([*cells, f"{row.ratio:.4f}", f"{row.rounding:.1e}", row.verdict]) + " |")
    lines += [
        "",
        "e and radius: L2 norm in the scan's unit, at a resolution of the change before the low-pass filter; l in nats per its "
        "square; predicted = e^2 l / 2 and measured in nats; rounding: share of the measured value that float32 passes change.",
        "",
        stamp,
    ]
    return "\n".join(lines) + "\n"


def summary(rows: list[Moved]) -> str:
    """How many agree, and what is furthest off."""
    inside = [row for row in rows if row.agrees is not None]
    scans = {(row.scan, row.generated) for row in rows}
    real = sum(not generated for _, generated in scans)
    agreeing = [row for row in inside if row.agrees]
    middle = [row for row in inside if row.step <= 0.26 * row.radius]
    flat = sorted({row.scan for row in rows if row.agrees is None})
    parts = [f"{count(real, 'real scan')} and {len(scans) - real} generated: {len(agreeing)} of {len(inside)} files agree."]
    if inside:
        parts.append(f"Furthest off up to the radius: {_worst(inside):.1%}; up to a quarter of it: {_worst(middle):.1%}.")
        parts.append(f"Of a measured value, float32 passes change at most {max(row.rounding for row in inside):.2%}.")
        copied = max(row.copied for row in rows)
        same = "the very same logits" if copied == 0 else f"logits within {copied:.1g}"
        parts.append(f"Copies in which nothing is moved get {same}.")
    if flat:
        parts.append(f"No radius, so that nothing is promised: {', '.join(flat)}.")
    return " ".join(parts)


def _measured(subjects: Iterable[Subject], folder: Path) -> Iterator[Moved]:
    """Rows as they come, printed."""
    loops: dict[str, Loop] = {}
    titles = ("l", "radius", "e", "predicted", "measured")
    print(f"{'scan':22s} {'':8s}", *(f"{title:>10s}" for title in titles), f"{'ratio':>8s}")
    for subject in subjects:
        if subject.bundle not in loops:
            loops[subject.bundle] = Loop(subject.bundle)
        for row in loops[subject.bundle].run(subject, folder):
            numbers = [f"{value:10.3g}" for value in (row.eigenvalue, row.radius, row.step, row.predicted, row.measured)]
            print(f"{row.scan:22s} {row.resolution or '':8s}", *numbers, f"{row.ratio:8.4f}", flush=True)
            yield row


def _worst(rows: Iterable[Moved]) -> float:
    return max((abs(row.ratio - 1) for row in rows), default=0.0)


def _log_probabilities(logits: list[float]) -> list[Decimal]:
    exact = [Decimal(z) for z in logits]
    total = sum((z.exp() for z in exact), Decimal(0)).ln()
    return [z - total for z in exact]


def _certainty(probability: float) -> str:
    return f"{probability:.4f}" if probability < 0.9999 else f"1 - {1 - probability:.1g}"


if __name__ == "__main__":
    main()
