"""Steps along u_1 written to files and read back by the untouched bundle, in scanner space.

For each scan: decompose it in scanner space, move it by e along the leading eigenimage, write that as float32 NIfTI with the
geometry of the original, and read this file through the untouched bundle. Measured is KL(p || p') between the answers to the two
files, predicted e^2 l / 2. Steps go up to the locality radius, within which the two may differ by a tenth.

The divergence is summed from the float32 logits with 160 digits, so that nothing is lost however sure the answer is.
`rounding` is the difference to a float64 copy of the network with the same two inputs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from torch import Tensor

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


def _log_probabilities(logits: list[float]) -> list[Decimal]:
    exact = [Decimal(z) for z in logits]
    total = sum((z.exp() for z in exact), Decimal(0)).ln()
    return [z - total for z in exact]
