"""Scanner space: the scan itself is decomposed, on its own grid and in its own unit, by the network after its preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    EnsureChannelFirst,
    EnsureChannelFirstd,
    LoadImage,
    LoadImaged,
    Randomizable,
    SqueezeDimd,
)
from torch import Tensor, nn

from monai_ifim.adapt.equivalents import Statistics, equivalent_of
from monai_ifim.adapt.options import DecomposeOptions
from monai_ifim.core import Decomposition, IFIMError
from monai_ifim.core.metric import GaussianLowPass
from monai_ifim.core.predictor import evaluation_mode
from monai_ifim.io import InputError
from monai_ifim.io.errors import innermost
from monai_ifim.io.geometry import full_affine

Resolution = float | Literal["network"] | None

READERS = (LoadImage, LoadImaged, EnsureChannelFirst, EnsureChannelFirstd)
CURE = "choose space='native' (--space native), which needs no derivative of the preprocessing"
FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))  # full width at half maximum of a Gaussian of unit standard deviation
EQUALITY = 1e-4  # of the range of a step's output, by which an equivalent may differ from MONAI's own


@dataclass(frozen=True)
class Step:
    """One step of the preprocessing: MONAI's transform, and what stands in for it where its gradient is not to be trusted."""

    transform: Any
    key: str | None
    equivalent: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The transform's class."""
        return type(self.transform).__name__

    def original(self, image: MetaTensor) -> MetaTensor:
        """MONAI's own output."""
        result = self.transform(image) if self.key is None else self.transform({self.key: image})[self.key]
        return result if isinstance(result, MetaTensor) else MetaTensor(result)

    def __call__(self, image: MetaTensor) -> MetaTensor:
        """The output [channel, *spatial], in the autograd graph of `image`."""
        if self.equivalent is None:
            return self.original(image)
        result = MetaTensor(self.equivalent(image.as_subclass(Tensor)))
        result.copy_meta_from(image, copy_attr=False)
        return result


@dataclass(frozen=True)
class ScanPreprocessing:
    """What lies between a freshly read scan and the network, differentiable at every step."""

    steps: tuple[Step, ...]
    statistics: Statistics = "differentiate"

    def __call__(self, scan: MetaTensor) -> MetaTensor:
        """The network's input [channel, *spatial] for a scan [channel, *spatial]."""
        for step in self.steps:
            scan = step(scan)
        return scan

    def describe(self) -> dict[str, Any]:
        """For the sidecar: the steps, which of them an equivalent computes, and what becomes of statistics."""
        return {
            "steps": [step.name for step in self.steps],
            "equivalents": [step.name for step in self.steps if step.equivalent is not None],
            "statistics": self.statistics,
        }

    def check(self, scan: MetaTensor) -> None:
        """Probe with a scan that every step lets the gradient through and that equivalents equal what they stand for.

        Raises IFIMError naming the step that does not.
        """
        image = _differentiable(scan)
        for step in self.steps:
            try:
                after = step(image)
            except Exception as error:
                raise IFIMError(
                    f"{step.name} in the preprocessing fails on an image that is differentiated ({innermost(error)}): {CURE}."
                ) from error
            if not after.requires_grad:
                raise IFIMError(f"{step.name} in the preprocessing lets no gradient through: {CURE}.")
            if step.equivalent is not None:
                _check_equal(step, image.detach(), after.detach())
            image = _differentiable(after)


def scan_preprocessing(preprocessing: Any, statistics: Statistics = "differentiate", image_key: str = "image") -> ScanPreprocessing:
    """The steps of a Compose (array or dictionary) behind those that read.

    Raises IFIMError for a random step, or for statistics that are neither "differentiate" nor "freeze".
    """
    if statistics not in get_args(Statistics):
        raise IFIMError(f"unknown statistics {statistics!r}: choose one of {', '.join(map(repr, get_args(Statistics)))}.")
    transforms = list(preprocessing.flatten().transforms) if isinstance(preprocessing, Compose) else [preprocessing]
    while transforms and isinstance(transforms[0], READERS):
        transforms.pop(0)
    steps = []
    for transform in transforms:
        if isinstance(transform, READERS):
            raise IFIMError(f"{type(transform).__name__} comes after other steps: put reading first, or {CURE}.")
        if isinstance(transform, Randomizable):
            raise IFIMError(f"{type(transform).__name__} is random, so that no scan has one answer: take it out, or {CURE}.")
        keys = getattr(transform, "keys", None)
        if keys is not None and image_key not in keys:
            continue  # of a label, say
        steps.append(Step(transform, None if keys is None else image_key, equivalent_of(transform, statistics)))
    return ScanPreprocessing(tuple(steps), statistics)


class ScannerNetwork(nn.Module):
    """The network after the preprocessing, a function of scans [B, channel, *spatial] that all have `scan`'s geometry."""

    def __init__(self, network: Callable[..., Any], preprocessing: ScanPreprocessing, scan: MetaTensor) -> None:
        super().__init__()
        self.network, self.preprocessing = network, preprocessing
        self.affine, self.meta = scan.affine.clone(), {name: value for name, value in scan.meta.items() if name != "affine"}

    def forward(self, scans: Tensor, *args: Any, **kwargs: Any) -> Any:
        """What the network answers."""
        inputs = [self.preprocessing(self._placed(scan)).as_subclass(Tensor) for scan in scans.unbind(0)]
        return self.network(torch.stack(inputs), *args, **kwargs)

    def _placed(self, scan: Tensor) -> MetaTensor:
        return MetaTensor(scan, affine=self.affine, meta=dict(self.meta))


def decompose_scan(
    network: Callable[..., Any],
    preprocessing: Compose | ScanPreprocessing | Callable[..., Any],
    scan: Tensor,
    *,
    statistics: Statistics = "differentiate",
    resolution: Resolution = None,
    image_key: str = "image",
    **options: Any,
) -> Decomposition:
    """Decompose a scan by the iFIM of network after preprocessing: high + low = the scan, on its own grid, in its own unit.

    Args:
        network: as `monai_ifim.decompose`, of what the preprocessing gives.
        preprocessing: a bundle's Compose, array or dictionary; LoadImage and EnsureChannelFirst at its head are left out.
        scan: as these two give it, [channel, *spatial], a MetaTensor with its affine where spatial transforms follow.
        statistics: "differentiate" takes means, percentiles and the like for what they are, functions of the scan; "freeze" for
            constants at their value for this scan.
        resolution: decompose changes as coarse as this alone: full width at half maximum, in mm, of a Gaussian low-pass as input
            metric; "network": the network's voxel size along each axis of the scan. None: no metric.
        image_key: the scan's name in a dictionary `preprocessing`.
        options: head, energy, rank, method, tolerance, memory_budget, metric, precision, seed, output_key, as `decompose`.

    Returns:
        A `Decomposition` of the batch of one scan [1, channel, *spatial]; `record["preprocessing"]` says what was done.

    Raises:
        IFIMError: a step is random or lets no gradient through, or the settings do not fit.
    """
    read = scan if isinstance(scan, MetaTensor) else MetaTensor(scan)
    if not read.is_floating_point():
        read = read.float()
    pipeline = preprocessing if isinstance(preprocessing, ScanPreprocessing) else None
    if pipeline is None:
        pipeline = scan_preprocessing(preprocessing, statistics, image_key)
        pipeline.check(read)
    return decompose_read_scan(network, pipeline, read, resolution, DecomposeOptions(**options))


def decompose_read_scan(
    network: Callable[..., Any], pipeline: ScanPreprocessing, scan: MetaTensor, resolution: Resolution, options: DecomposeOptions
) -> Decomposition:
    """`decompose_scan` for a pipeline that has been checked."""
    widths: Sequence[float] | None = None
    if resolution is not None:
        if options.metric is not None:
            raise IFIMError("resolution and metric (noise) are two input metrics: give one of them.")
        widths = _widths(pipeline, scan, resolution)
        options = replace(options, metric=GaussianLowPass(_in_voxels(widths, scan)))
    wrapped = ScannerNetwork(network, pipeline, scan)
    found = options.decompose(wrapped, scan.as_subclass(Tensor)[None])
    described = pipeline.describe() | {"resolution_mm": None if widths is None else list(widths)}
    return replace(found, record=found.record | {"preprocessing": described})


def _widths(pipeline: ScanPreprocessing, scan: MetaTensor, resolution: float | str) -> tuple[float, ...]:
    """Full width at half maximum in mm along each axis of the scan; 0 where the network sees finer than the scan."""
    spacing = _spacing(scan)
    if resolution != "network":
        width = float(resolution)
        if not np.isfinite(width) or width < 0:
            raise IFIMError(f"resolution={resolution!r}: give millimetres, from 0 on, or 'network'.")
        return tuple(width for _ in spacing)
    with torch.no_grad():
        seen = pipeline(scan)
    theirs = full_affine(_plain(seen.affine))[:3, :3]
    directions = full_affine(_plain(scan.affine))[:3, : len(spacing)] / spacing
    steps = 1.0 / np.linalg.norm(np.linalg.pinv(theirs) @ directions, axis=0)
    return tuple(float(step) if step > 1.001 * own else 0.0 for step, own in zip(steps, spacing, strict=True))


def _in_voxels(widths: Sequence[float], scan: MetaTensor) -> list[float]:
    """Standard deviations in voxels of the scan."""
    return [float(width / FWHM / own) for width, own in zip(widths, _spacing(scan), strict=True)]


def _spacing(scan: MetaTensor) -> Any:
    return np.linalg.norm(full_affine(_plain(scan.affine))[:3, : scan.ndim - 1], axis=0)


def _plain(affine: Any) -> Any:
    return affine.cpu().numpy() if isinstance(affine, Tensor) else affine


def _differentiable(image: MetaTensor) -> MetaTensor:
    """The image as a node of a graph that is no leaf: some transforms write into what they are given."""
    with torch.enable_grad():
        result: MetaTensor = image.detach().requires_grad_(True) * 1
    return result


def _check_equal(step: Step, before: MetaTensor, after: MetaTensor) -> None:
    theirs = step.original(before.clone()).as_subclass(Tensor).to(torch.float64)
    ours = after.as_subclass(Tensor).to(torch.float64)
    span = float(theirs.max() - theirs.min())
    if ours.shape != theirs.shape or float((ours - theirs).abs().max()) > EQUALITY * max(span, 1e-30):
        raise IFIMError(
            f"the differentiable equivalent of {step.name} differs from this version of MONAI's on this scan: {CURE}, and report it."
        )


def squeezed(pipeline: ScanPreprocessing, image_key: str) -> ScanPreprocessing:
    """For a 2D network: the third axis of a single slice is dropped first."""
    drop = Step(SqueezeDimd(image_key, dim=-1, update_meta=False), image_key)
    return replace(pipeline, steps=(drop, *pipeline.steps))


def check_scan(scan: Any) -> MetaTensor:
    """The scan as floating-point MetaTensor; raises InputError for what is none."""
    if not isinstance(scan, MetaTensor):
        raise InputError("the scan carries no metadata (affine): read it with MONAI's LoadImage, track_meta on.")
    return scan if scan.is_floating_point() else scan.float()


__all__ = [
    "Resolution", "ScanPreprocessing", "ScannerNetwork", "Statistics", "check_scan", "decompose_read_scan", "decompose_scan",
    "evaluation_mode", "scan_preprocessing", "squeezed",
]  # fmt: skip
