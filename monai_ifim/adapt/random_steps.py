"""Random steps of a preprocessing: recognised by what they do, switched off where that leaves only the augmentation out."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Identity, Randomizable, RandomizableTransform
from monai.transforms.traits import RandomizableTrait
from torch import Tensor

from monai_ifim.adapt.input_keys import keys_of, with_parts
from monai_ifim.core import IFIMError
from monai_ifim.io import InputError

CHANCE = (Randomizable, RandomizableTrait)
DRAWS = 16  # of a step: a choice of two that always falls alike is missed once in 30 000 times
AXES = (3, 2)  # of the images on which steps are tried, one after the other
PROBE = (17, 23, 19)  # their voxels
LONG_PROBE = (1021, 7, 11)  # a crop larger than the other has no choice there
SHAPE_KEEPING = ("monai.transforms.intensity", "monai.transforms.smooth_field")


class RandomStepWarning(UserWarning):
    """The preprocessing, or the image, has random steps; the message says which, and what became of them."""


def random_parts(step: Any) -> list[Any]:
    """The transforms whose output depends on chance: a step, those in a Compose, those that a step holds as attributes.

    Not random: prob=0, and what gives the same for every draw, such as RandFlip with prob=1 and one axis.
    """
    if type(step) is Compose:  # which MONAI counts among the random ones, whatever is in it
        return [part for each in step.transforms for part in random_parts(each)]
    if isinstance(step, CHANCE):
        return [] if _is_constant(step) else [step]
    return [part for part in _held(step) if not _is_constant(part)]


def kept_random_parts(step: Any) -> list[Any]:
    """Transforms of a random kind in a step that do the same for every draw, but those that are switched off."""
    if type(step) is Compose:
        return [part for each in step.transforms for part in kept_random_parts(each)]
    return [step] if isinstance(step, CHANCE) and getattr(step, "prob", 1) != 0 and _is_constant(step) else []


def without_chance(step: Any) -> tuple[Any, list[str]]:
    """A step as it is when no augmentation is drawn, and descriptions of what was switched off in it.

    Raises InputError for a random step that decides more than that: size, number or choice of images, or a class that ignores
    prob=0.
    """
    if type(step) is Compose:
        settled = [without_chance(part) for part in step.transforms]
        off = [name for _, names in settled for name in names]
        return (with_parts(step, [part for part, _ in settled]), off) if off else (step, [])
    found = random_parts(step)
    if not found:
        return step, []
    quiet = _switched_off(step)
    if quiet is None or not _is_constant(quiet) or not _keeps_shape(step, quiet):
        name = described(found[0])
        raise InputError(
            f"{name} in the preprocessing is random and decides what the network sees (size, number or choice of images), so it "
            "cannot be left out: replace it by a deterministic transform, such as CenterSpatialCropd for a random crop, or "
            "remove it."
        )
    return Identity() if _does_nothing(quiet) else quiet, [described(step)]


def refuse_random(preprocessing: Any, cure: str) -> None:
    """Raise IFIMError, naming each step, if a preprocessing is random."""
    found = [described(part) for part in random_parts(preprocessing)]
    if found:
        raise IFIMError(f"{', '.join(found)} in the preprocessing {'is' if len(found) == 1 else 'are'} random, {cure}")


def drawn_steps(image: Tensor) -> list[str]:
    """Class names of the random transforms that the trace of an image, or of a batch of them, says were applied."""
    waiting: list[Any] = list(image.applied_operations) if isinstance(image, MetaTensor) else []
    found: dict[str, None] = {}
    while waiting:
        entry = waiting.pop(0)
        if isinstance(entry, list):
            waiting = entry + waiting
        elif isinstance(entry, dict) and str(entry.get("class", "")).startswith("Rand") and entry.get("do_transforms"):
            found[str(entry["class"])] = None
    return list(found)


def described(step: Any) -> str:
    """A step for a message: its class, and its chance where it states one."""
    prob = getattr(step, "prob", None)
    return type(step).__name__ + (f" (prob {prob:g})" if isinstance(prob, int | float) else "")


def _switched_off(step: Any) -> Any:
    """A copy of a random step that draws no augmentation; None if there is no way to say so."""
    if isinstance(step, Compose):  # OneOf, SomeOf, RandomOrder: whichever they choose does nothing
        parts = [part if not random_parts(part) else _switched_off(part) for part in step.transforms]
        return None if any(part is None for part in parts) else with_parts(step, parts)
    if not isinstance(step, RandomizableTransform):
        return None
    step = copy.copy(step)
    step.prob = 0.0
    return step


def _is_constant(step: Any) -> bool:
    """True if a step's output for a small image is the same for every draw; False also where it cannot be tried."""
    prob = getattr(step, "prob", None)
    if isinstance(step, RandomizableTransform) and isinstance(prob, int | float) and 0 < prob < 1:
        return False
    if type(step).__module__.startswith("monai.transforms.croppad"):
        cropper = getattr(step, "cropper", step)
        return not getattr(cropper, "random_center", True) and not getattr(cropper, "random_size", True)
    outputs, axes = next(((found, axes) for axes in AXES if (found := _outputs(step, axes)) is not None), (None, 0))
    if outputs is None or not _all_equal(outputs):
        return False
    return _all_equal(_outputs(step, axes, LONG_PROBE) or [])


def _keeps_shape(step: Any, quiet: Any) -> bool:
    """True if the step, always drawn, gives images of the same shapes as without it, axes swapped or not."""
    drawn = copy.copy(step)
    if isinstance(drawn, RandomizableTransform):
        drawn.prob = 1.0
    for axes in AXES:
        outputs, still = _outputs(drawn, axes), _outputs(quiet, axes)
        if outputs is not None and still is not None:
            return all(_shape(output) == _shape(still[0]) for output in outputs)
    return type(step).__module__.startswith(SHAPE_KEEPING)  # some take images of one stated size only


def _outputs(step: Any, axes: int, sizes: Sequence[int] = PROBE, dtype: torch.dtype = torch.float32) -> list[Any] | None:
    """Outputs for a small image of so many axes and several draws; None if the step fails on it."""
    try:
        step = copy.deepcopy(step)  # whose draws are then left as they are
        with _own_chance():
            return [_drawn(step, sizes[:axes], dtype, seed) for seed in range(DRAWS)]
    except Exception:  # a crop larger than the image, a label that is not there, another number of axes
        return None


def _does_nothing(step: Any) -> bool:
    """True if a step returns images as they are, of whatever number type."""
    for dtype in (torch.float32, torch.float64, torch.uint8):
        given = _outputs(Identity(), AXES[0], dtype=dtype)
        found = _outputs(step, AXES[0], dtype=dtype)
        if found is None or given is None:
            return False
        images = found[0].values() if isinstance(found[0], dict) else found[:1]
        if not all(_equal(image, given[0]) and getattr(image, "dtype", None) == dtype for image in images):
            return False
    return True


def _drawn(step: Any, sizes: Sequence[int], dtype: torch.dtype, seed: int) -> Any:
    keys = _all_keys(step)
    values = torch.arange(float(np.prod(sizes))).sin().mul(100).abs().to(dtype).reshape(1, *sizes)
    data: Any = {key: MetaTensor(values.clone()) for key in keys} if keys else MetaTensor(values.clone())
    if isinstance(step, Randomizable):
        step.set_random_state(seed=seed)
    return step(data)


def _all_keys(step: Any) -> list[str]:
    parts = step.transforms if isinstance(step, Compose) else ()
    return [*keys_of(step), *(key for part in parts for key in _all_keys(part))]


def _held(step: Any) -> list[Any]:
    """Random transforms among the attributes of a deterministic one, at any depth."""
    found, seen, waiting = [], set[int](), [getattr(step, "__dict__", {})]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, CHANCE) and type(value) is not Compose:
            found.append(value)
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
        elif type(value).__module__.startswith("monai.transforms"):
            waiting.append(vars(value))
    return found


@contextmanager
def _own_chance() -> Iterator[None]:
    """Give the global random states of Python, numpy and PyTorch back afterwards."""
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 # old transforms draw from it
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002


def _all_equal(outputs: Sequence[Any]) -> bool:
    return all(_equal(output, outputs[0]) for output in outputs)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, (Tensor, np.ndarray)):
        return isinstance(other, (Tensor, np.ndarray)) and np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return isinstance(other, Sequence) and len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other)


def _shape(output: Any) -> Any:
    """The shapes of the images in an output, the sizes of each in order, and how the output holds them."""
    if isinstance(output, dict):
        return {key: _shape(value) for key, value in output.items()}
    if isinstance(output, (list, tuple)):
        return [_shape(value) for value in output]
    return (output.shape[0], *sorted(output.shape[1:])) if isinstance(output, (Tensor, np.ndarray)) else None
