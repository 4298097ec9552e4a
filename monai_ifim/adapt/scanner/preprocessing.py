"""The preprocessing as a differentiable function of the scan; steps without a true gradient have equivalents."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    EnsureChannelFirst,
    EnsureChannelFirstd,
    LoadImage,
    LoadImaged,
    MapTransform,
    SqueezeDim,
    SqueezeDimd,
)
from torch import Tensor

from monai_ifim.adapt.input_keys import input_keys
from monai_ifim.adapt.random_steps import refuse_random
from monai_ifim.adapt.scanner.equivalents import equivalent_of
from monai_ifim.adapt.scanner.step_checks import CURE, check_derivative, differ, sample_of
from monai_ifim.adapt.settings import check_statistics
from monai_ifim.core import IFIMError
from monai_ifim.io.errors import innermost
from monai_ifim.options import Statistics

READERS = (LoadImage, LoadImaged, EnsureChannelFirst, EnsureChannelFirstd)


@dataclass(frozen=True)
class Step:
    """One step of the preprocessing: MONAI's transform, and its equivalent if its gradient is wrong.

    key: the image's name for a transform of dictionaries, None for one of arrays.
    """

    transform: Any
    key: str | None
    equivalent: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)

    @property
    def parts(self) -> list[Any]:
        """The transform, or the transforms that are resampled together."""
        return list(self.transform.transforms) if type(self.transform) is Compose else [self.transform]

    @property
    def names(self) -> list[str]:
        """Class names of the parts."""
        return [type(part).__name__ for part in self.parts]

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
    """The preprocessing after reading, differentiable at every step. whole: the same as one pipeline, as MONAI runs it."""

    steps: tuple[Step, ...]
    whole: Step
    statistics: Statistics = "differentiate"

    def __call__(self, scan: MetaTensor) -> MetaTensor:
        """The network's input [channel, *spatial] for a scan [channel, *spatial]."""
        for step in self.steps:
            scan = step(scan)
        return scan

    def describe(self) -> dict[str, Any]:
        """Plain data for the sidecar: the steps, those computed by an equivalent, and how statistics are treated."""
        return {
            "steps": [name for step in self.steps for name in step.names],
            "equivalents": [name for step in self.steps if step.equivalent is not None for name in step.names],
            "statistics": self.statistics,
        }

    def check(self, scan: MetaTensor) -> None:
        """Check on the middle million voxels of a scan that every step has its full gradient, that equivalents equal MONAI's
        transforms, and that the steps in sequence equal the whole preprocessing.

        Raises IFIMError naming the step that does not.
        """
        with torch.inference_mode(False), torch.enable_grad():
            sample = image = sample_of(scan, self).clone()
            for step in self.steps:
                image = image.requires_grad_(True)
                after = _attempt(step, image)
                if step.equivalent is not None and differ(after, step.original(image.detach().clone())):
                    raise IFIMError(
                        f"the differentiable equivalent of {_name(step)} differs from this version of MONAI's here: {CURE}."
                    )
                if step.equivalent is None and self.statistics == "differentiate":
                    check_derivative(_name(step), step, image)
                image = after.detach()
            self._check_whole(sample.detach())

    def _check_whole(self, sample: MetaTensor) -> None:
        try:
            with torch.no_grad():
                wanted, again, found = (*(self.whole.original(sample.clone()) for _ in range(2)), self(sample.clone()))
        except Exception as error:
            raise IFIMError(f"the preprocessing fails when given the scan alone ({innermost(error)}): {CURE}.") from error
        if differ(again, wanted):
            raise IFIMError(
                "the preprocessing gives another image each time, so its output for a scan is not defined: take the chance out."
            )
        if differ(found, wanted):
            raise IFIMError(
                "the steps of the preprocessing, run one by one, give another image than the whole (does a step use an entry "
                f"that another step adds?): {CURE}."
            )


def reading_steps(preprocessing: Compose) -> list[Any]:
    """The transforms at the start of a Compose that read the image and change nothing."""
    found = []
    for transform in preprocessing.flatten().transforms:
        if not isinstance(transform, READERS):
            break
        found.append(transform)
    return found


def reading_of(preprocessing: Compose) -> Compose:
    """The reading transforms as a Compose that accepts data without the other keys, such as a label."""
    return Compose([_lenient(step) for step in reading_steps(preprocessing)])


def scan_preprocessing(
    preprocessing: Any, statistics: Statistics = "differentiate", image_key: str = "image"
) -> ScanPreprocessing:
    """The steps of a Compose (array or dictionary) after the reading ones, or of a single transform.

    Raises IFIMError for a random step, or for statistics that are neither "differentiate" nor "freeze".
    """
    check_statistics(statistics)
    whole = preprocessing.flatten() if isinstance(preprocessing, Compose) else Compose([preprocessing])
    key = image_key if any(hasattr(transform, "keys") for transform in whole.transforms) else None
    transforms = [_lenient(transform) for transform in whole.transforms[len(reading_steps(whole)) :]]
    ours = [transform for transform in transforms if image_key in getattr(transform, "keys", (image_key,))]  # not of a label
    for transform in ours:
        if isinstance(transform, READERS):
            raise IFIMError(f"{type(transform).__name__} reads after other steps: put it first, or {CURE}.")

    def joined(parts: Sequence[Any]) -> Compose:
        return Compose(parts, whole.map_items, whole.unpack_items, lazy=whole.lazy, overrides=whole.overrides)

    refuse_random(Compose(ours), "so the output for a scan is not defined: remove it, or set its prob to 0.")
    _check_keys(whole.transforms, key)
    steps = tuple(_steps(ours, key, statistics, joined))
    return ScanPreprocessing(steps, Step(joined(transforms), key), statistics)


def squeezed(pipeline: ScanPreprocessing) -> ScanPreprocessing:
    """The pipeline for a 2D network: it drops the third axis of a single slice first."""
    key = pipeline.whole.key
    drop = SqueezeDim(-1, update_meta=False) if key is None else SqueezeDimd(key, dim=-1, update_meta=False)
    whole = replace(pipeline.whole, transform=Compose([drop, pipeline.whole.transform]))
    return replace(pipeline, steps=(Step(drop, key), *pipeline.steps), whole=whole)


def _steps(
    transforms: Sequence[Any], key: str | None, statistics: Statistics, joined: Callable[[Sequence[Any]], Compose]
) -> Iterator[Step]:
    """One step per transform; transforms that MONAI resamples together (lazily) form one step."""
    lazy = joined(()).lazy
    run: list[Any] = []
    for transform in transforms:
        equivalent = equivalent_of(transform, statistics)
        together = equivalent is None and (lazy or bool(getattr(transform, "lazy", False)))
        if together and hasattr(transform, "lazy"):
            run.append(transform)
            continue
        if run:
            yield Step(joined(run), key)
        run = []
        yield Step(transform, key, equivalent)
    if run:
        yield Step(joined(run), key)


def _lenient(transform: Any) -> Any:
    """A dictionary transform that ignores missing keys: the scan comes without its label."""
    if not isinstance(transform, MapTransform):
        return transform
    transform = copy.copy(transform)
    transform.allow_missing_keys = True
    return transform


def _check_keys(transforms: Sequence[Any], key: str | None) -> None:
    """Raise IFIMError if the image is made of other entries too, which are no part of the scan."""
    if key is None:
        return
    keys = input_keys(transforms, key)
    for other in sorted(keys.needed - {key}):
        raise IFIMError(
            f"the network's input is made of '{other}' too ({keys.why.get(other, 'a step')} in the preprocessing), and not of "
            f"the scan alone: {CURE}."
        )


def _name(step: Step) -> str:
    return " with ".join(step.names)


def _attempt(step: Step, image: MetaTensor) -> MetaTensor:
    """The output for a leaf image; the transform gets a copy, because some write into their input."""
    try:
        after = step(image * 1)
    except Exception as error:
        raise IFIMError(
            f"{_name(step)} in the preprocessing fails on an image that requires gradients ({innermost(error)}): {CURE}."
        ) from error
    if not after.requires_grad:
        raise IFIMError(f"{_name(step)} in the preprocessing has no gradient: {CURE}.")
    return after
