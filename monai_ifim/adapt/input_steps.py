"""The steps that make a network's input: a bundle's preprocessing without random steps and without entries not needed."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from monai.transforms import (
    Compose,
    ConcatItemsd,
    CopyItemsd,
    EnsureChannelFirst,
    EnsureChannelFirstd,
    EnsureType,
    EnsureTyped,
    LoadImage,
    LoadImaged,
    MapTransform,
    ToTensor,
    ToTensord,
)

from monai_ifim.adapt.input_keys import InputKeys, flat, input_keys, keys_of, lenient
from monai_ifim.adapt.random_steps import described, kept_random_parts, without_chance
from monai_ifim.io import InputError
from monai_ifim.io.dicom.reader import register_dicom_reader

IMAGE = "image"  # MONAI's name for the network's input
LOADERS = (LoadImage, LoadImaged)
NO_KEYS = InputKeys(frozenset(), frozenset(), {})
CHANNEL_FIRST = (EnsureChannelFirst, EnsureChannelFirstd)


@dataclass(frozen=True)
class InputSteps:
    """The preprocessing of one image after another.

    file_key: the entry under which the image's file is given; input_key: the one that the network takes; both None where the
    transforms are those of arrays. keys: what the input is made of. unread: keys that the preprocessing reads and the network
    does not need. left_out: random steps that are switched off, and constant: steps of a random kind that do the same for every
    draw, in words.
    """

    compose: Compose
    file_key: str | None = None
    input_key: str | None = None
    keys: InputKeys = NO_KEYS
    unread: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()

    @property
    def reading(self) -> int:
        """Number of transforms up to the one that reads the image's file, and those after it that only order its axes."""
        steps = self.compose.transforms
        count = 1 + next(i for i, step in enumerate(steps) if any(_reads(part, self.file_key) for part in flat([step])))
        while count < len(steps) and isinstance(steps[count], (*LOADERS, *CHANNEL_FIRST)):
            count += 1
        return count

    @property
    def channel_first(self) -> bool:
        """True if a step puts the channel axis first."""
        return _puts_channel_first(self.compose.transforms)

    @property
    def reads_channel_first(self) -> bool:
        """True if the reading steps do."""
        return _puts_channel_first(self.compose.transforms[: self.reading])

    @property
    def beside(self) -> dict[str, str]:
        """Keys of further files that the network's input is made of, with the step that takes each."""
        return {key: self.keys.why.get(key, "a step") for key in sorted(self.keys.needed - {self.file_key})}

    def __call__(self, data: Any, start: int = 0, end: int | None = None) -> dict[str, Any]:
        """Run steps on a data dictionary, or, of array transforms, on its only entry."""
        if self.file_key is not None:
            result: dict[str, Any] = self.compose(dict(data), start=start, end=end)
            return result
        return {IMAGE: self.compose(data[IMAGE], start=start, end=end)}

    def data(self, path: str, beside: Mapping[str, Any]) -> dict[str, Any]:
        """What the first step is given: the image's file, and of what lies beside it the entries that count."""
        entries = {key: beside[key] for key in beside if key in self.keys.wanted}
        return {self.file_key or IMAGE: path} | {
            key: str(value) if isinstance(value, PurePath) else value for key, value in entries.items()
        }

    def describe(self) -> list[str]:
        """What differs from the preprocessing as it stands in the config, and what has to be given, in words."""
        said = [f"left out, because random: {', '.join(self.left_out)}"] if self.left_out else []
        if self.constant:
            said.append(f"kept, because the same for every draw: {', '.join(self.constant)}")
        if self.unread:
            said.append(f"not read, because the network's input does not depend on it: {', '.join(self.unread)}")
        for key, why in self.beside.items():
            said.append(f"needs '{key}' beside the image ({why}): give it in a datalist")
        return said


def input_steps(preprocessing: Any, bundle: str) -> InputSteps:
    """The steps of a bundle's preprocessing; raises InputError for one that is no Compose, reads no image, or is random in a way
    that cannot be left out."""
    if not isinstance(preprocessing, Compose):
        raise InputError(f"bundle {bundle}: preprocessing is {type(preprocessing).__name__}, not a Compose: make it one.")
    whole = preprocessing.flatten()
    loaders = [step for step in flat(whole.transforms) if isinstance(step, LOADERS)]
    if not loaders:
        raise InputError(f"bundle {bundle}: its preprocessing has no LoadImaged or LoadImage, which reads the image: add it.")
    names = [key for step in loaders for key in keys_of(step)]
    if not names:
        return _settled(whole, bundle, InputSteps(whole))
    file_key = IMAGE if IMAGE in names else names[0]
    input_key = IMAGE if file_key == IMAGE or IMAGE in _made(whole.transforms) else file_key
    keys = input_keys(whole.transforms, input_key)
    unread = tuple(dict.fromkeys(name for name in names if name not in keys.needed and name != file_key))
    return _settled(whole, bundle, InputSteps(whole, file_key, input_key, keys, unread))


def _settled(whole: Compose, bundle: str, found: InputSteps) -> InputSteps:
    """The same with the transforms that are run: each is a copy where it differs from the bundle's own."""
    steps, left_out, constant = [], list[str](), list[str]()
    for step in whole.transforms:
        if isinstance(step, MapTransform) and keys_of(step) and set(keys_of(step)) <= set(found.unread):
            continue
        settled = lenient(_traced(step), frozenset(found.unread))
        constant += [described(part) for part in kept_random_parts(settled)]
        try:
            settled, names = without_chance(settled)
        except InputError as error:
            raise InputError(f"bundle {bundle}: {error}") from error
        left_out += names
        steps.append(settled)
    compose = Compose(
        steps, whole.map_items, whole.unpack_items, log_stats=whole.log_stats, lazy=whole.lazy, overrides=whole.overrides
    )
    register_dicom_reader(compose)
    return InputSteps(compose, found.file_key, found.input_key, found.keys, found.unread, tuple(left_out), tuple(constant))


def _traced(step: Any) -> Any:
    """ToTensor(d) becomes EnsureType(d): the same conversion, but it keeps the trace that the inverse needs. LoadImage gives the
    image without a second value, which no later step takes."""
    if isinstance(step, ToTensord):
        return EnsureTyped(step.keys, dtype=step.converter.dtype, device=step.converter.device)
    if isinstance(step, ToTensor):
        return EnsureType(dtype=step.dtype, device=step.device)
    if isinstance(step, LoadImage) and not step.image_only:
        step = copy.copy(step)
        step.image_only = True
    return step


def _made(transforms: Iterable[Any]) -> Iterator[str]:
    """Names of the entries that steps make of others."""
    for step in flat(transforms):
        if isinstance(step, ConcatItemsd):
            yield step.name
        elif isinstance(step, CopyItemsd):
            yield from step.names


def _reads(step: Any, key: str | None) -> bool:
    return isinstance(step, LOADERS) and (key is None or key in keys_of(step))


def _puts_channel_first(transforms: Iterable[Any]) -> bool:
    steps = list(flat(transforms))
    loaders = [getattr(step, "_loader", step) for step in steps if isinstance(step, LOADERS)]
    return any(isinstance(step, CHANNEL_FIRST) for step in steps) or any(each.ensure_channel_first for each in loaders)
