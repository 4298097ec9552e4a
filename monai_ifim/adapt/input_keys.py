"""The entries of a data dictionary that the network's input is made of, read off the transforms of a preprocessing."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType, MethodType
from typing import Any

from monai.transforms import Compose, ConcatItemsd, CopyItemsd, DeleteItemsd, LoadImaged, MapTransform, SelectItemsd
from monai.transforms.post.dictionary import Ensembled

LIBRARIES = ("monai.", "torch", "numpy", "builtins", "functools", "abc")
WHOLE_DICTIONARY = ("items", "values")  # methods of a dictionary that give every entry


@dataclass(frozen=True)
class InputKeys:
    """What an image made under one key is made of.

    needed: keys whose files are read for it. wanted: these, and keys without files that steps name. why: key -> class name of
    the step that takes it.
    """

    needed: frozenset[str]
    wanted: frozenset[str]
    why: dict[str, str]


def input_keys(transforms: Sequence[Any], target: str) -> InputKeys:
    """The keys that the entry `target` depends on after all transforms.

    MONAI's transforms of dictionaries treat each key alone, but for those known to join keys; of other people's classes and
    functions everything is taken to count that they name.
    """
    steps = list(flat(transforms))
    known = {key for step in steps for key in keys_of(step)}
    loaded = {key for step in steps if isinstance(step, LoadImaged) for key in keys_of(step)}
    needed, why = {target}, dict[str, str]()
    for step in reversed(steps):
        before = _sources(step, needed, known)
        why.update({key: type(step).__name__ for key in before - needed})
        needed = before
    return InputKeys(frozenset(needed & loaded), frozenset(needed), why)


def flat(transforms: Iterable[Any]) -> Iterator[Any]:
    """The transforms in a list, those in a Compose or a choice among several instead of it."""
    for step in transforms:
        if isinstance(step, Compose):
            yield from flat(step.transforms)
        else:
            yield step


def keys_of(step: Any) -> tuple[str, ...]:
    """Keys of a transform of dictionaries; empty for any other."""
    keys = getattr(step, "keys", ())
    return tuple(str(key) for key in keys) if isinstance(keys, (tuple, list)) else ()


def lenient(step: Any, unread: frozenset[str]) -> Any:
    """A copy of a step that passes over keys that are not read; the step itself if it names none of them."""
    if isinstance(step, Compose):
        parts = tuple(lenient(part, unread) for part in step.transforms)
        return with_parts(step, parts) if any(new is not old for new, old in zip(parts, step.transforms, strict=True)) else step
    if not isinstance(step, MapTransform) or not unread & set(keys_of(step)):
        return step
    step = copy.copy(step)
    step.allow_missing_keys = True
    return step


def with_parts(step: Compose, parts: Sequence[Any]) -> Compose:
    """A Compose, or one of its subclasses, with other transforms in it."""
    step = copy.copy(step)
    step.transforms = tuple(parts)
    return step


def _sources(step: Any, needed: set[str], known: set[str]) -> set[str]:
    """The keys needed before a step so that those `needed` after it are right."""
    if isinstance(step, (LoadImaged, DeleteItemsd, SelectItemsd)):
        return needed
    keys = set(keys_of(step))
    if isinstance(step, ConcatItemsd):
        return (needed - {step.name}) | keys if step.name in needed else needed
    if isinstance(step, CopyItemsd):
        made = dict(zip(step.names, keys_of(step) * step.times, strict=True))
        return {made.get(key, key) for key in needed}
    if not isinstance(step, MapTransform):
        return needed | _mentioned(step, known)
    named = _texts(vars(step))
    if not needed & (keys | named):
        return needed
    if not type(step).__module__.startswith("monai."):
        return needed | keys | _mentioned(step, known)
    joins = isinstance(step, Ensembled) or needed & (named - keys)  # the latter: it makes an entry of another name
    return needed | (named & known) | (keys if joins else set())


def _texts(attributes: Mapping[str, Any]) -> set[str]:
    """Texts among the attributes of a step but its keys, alone or in a list: names of entries are among them."""
    found = set()
    for name, value in attributes.items():
        values = value if isinstance(value, (tuple, list)) else (value,)
        found |= {each for each in values if isinstance(each, str) and name != "keys"}
    return found


def _mentioned(step: Any, known: set[str]) -> set[str]:
    """Names that the code of a function or a class, or its attributes, hold; all known keys if it goes through every entry."""
    classes = [cls for cls in type(step).__mro__ if not cls.__module__.startswith(LIBRARIES)]
    texts, names, seen = set[str](), set[str](), set[int]()
    waiting = [step, vars(step) if hasattr(step, "__dict__") else {}, *(dict(vars(cls)) for cls in classes)]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        texts |= _texts({"value": value})
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (tuple, list)):
            waiting.extend(value)
        elif isinstance(value, functools.partial):
            waiting += [value.func, value.args, value.keywords]
        elif isinstance(value, (FunctionType, MethodType)) and not str(value.__module__).startswith(LIBRARIES):
            waiting += _parts_of(value, texts, names)
    mentioned = {text for text in texts if text.isidentifier()}
    return known | mentioned if names & set(WHOLE_DICTIONARY) else mentioned


def _parts_of(function: Any, texts: set[str], names: set[str]) -> list[Any]:
    """What a function holds besides its code: defaults, the values of its closure, and the functions that it names."""
    function = getattr(function, "__func__", function)
    own = set[str]()
    _collect(function.__code__, texts, own)
    names |= own
    cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
    named = [function.__globals__.get(name) for name in own]
    return [function.__defaults__, function.__kwdefaults__, cells, [each for each in named if isinstance(each, FunctionType)]]


def _collect(code: Any, texts: set[str], names: set[str]) -> None:
    """Texts and names in a code object and in those nested in it."""
    if not isinstance(code, CodeType):
        return
    names.update(code.co_names)
    for constant in code.co_consts:
        texts |= _texts({"constant": constant})
        _collect(constant, texts, names)


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a variable that has no value yet
        return False
