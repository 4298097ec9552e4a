"""The preprocessing as a differentiable function of the scan: which steps let a gradient through, and what stands in for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, get_args

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
from torch import Tensor

from monai_ifim.adapt.equivalents import Statistics, equivalent_of
from monai_ifim.core import IFIMError
from monai_ifim.io.errors import innermost

READERS = (LoadImage, LoadImaged, EnsureChannelFirst, EnsureChannelFirstd)
CURE = "choose space='native' (--space native), which needs no derivative of the preprocessing"
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


def reading_steps(preprocessing: Compose) -> list[Any]:
    """The transforms at the head of a Compose that read, and change nothing."""
    found = []
    for transform in preprocessing.flatten().transforms:
        if not isinstance(transform, READERS):
            break
        found.append(transform)
    return found


def scan_preprocessing(
    preprocessing: Any, statistics: Statistics = "differentiate", image_key: str = "image"
) -> ScanPreprocessing:
    """The steps of a Compose (array or dictionary) behind those that read.

    Raises IFIMError for a random step, or for statistics that are neither "differentiate" nor "freeze".
    """
    if statistics not in get_args(Statistics):
        raise IFIMError(f"unknown statistics {statistics!r}: choose one of {', '.join(map(repr, get_args(Statistics)))}.")
    transforms = [preprocessing]
    if isinstance(preprocessing, Compose):
        transforms = list(preprocessing.flatten().transforms)[len(reading_steps(preprocessing)) :]
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


def squeezed(pipeline: ScanPreprocessing, image_key: str) -> ScanPreprocessing:
    """For a 2D network: the third axis of a single slice is dropped first."""
    drop = Step(SqueezeDimd(image_key, dim=-1, update_meta=False), image_key)
    return replace(pipeline, steps=(drop, *pipeline.steps))


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
            f"the differentiable equivalent of {step.name} differs from this version of MONAI's on this scan: {CURE}."
        )
