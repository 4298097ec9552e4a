"""What modules hold besides code and weights, remembered so that it can be given back: buffers, attributes, hooks, submodules.

Snapshots are part of every decomposition and have to cost little: modules that are unchanged, as nearly all are, are found so in
loops of the interpreter over flat lists.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from operator import is_, itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from monai_ifim.core.memory.replaced_forward import ReplacedForward
from monai_ifim.core.operator.shortcuts import WholeShortcut
from monai_ifim.core.operator.tensor_values import TensorValues, copyable

CONTAINERS = (dict, list, set, deque)
STAND_INS = (ReplacedForward, WholeShortcut)  # what decompositions themselves put into modules, and take out again
NUMBERS = (bool, int, float, complex, str, torch.Size)
_STANDARD = frozenset(nn.Module().__dict__)  # attributes of every module
_HOOKS = tuple(sorted(name for name in _STANDARD if name.endswith("_hooks") and "state_dict" not in name))
_PLAIN = {kind for kind in vars(nn).values() if isinstance(kind, type) and kind.__module__.startswith("torch.nn.modules.")}
_sizes: dict[type, int] = {}  # attributes of a PyTorch layer, none of which is a tensor or a container
_hooks_of = itemgetter(*_HOOKS)
_MISSING = object()


@dataclass(frozen=True)
class Change:
    """Something of a module that is not what it was, and the function that gives it back."""

    module: nn.Module
    name: str
    undo: Callable[[], object]


class ModuleSnapshot:
    """State of modules: attributes, hooks, entries of lists, sets and dictionaries, one level deep, and values of tensors.

    Parameters and very large tensors are not copied, so that `written` alone knows of them.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        python = [module for module in modules if not isinstance(module, torch.jit.ScriptModule)]
        self._modules, self._held = python, [module.__dict__ for module in python]
        self._attributes = list(map(dict.copy, self._held))
        self._parameters = _Registry("_parameters", self._held)
        self._registries = (self._parameters, _Registry("_buffers", self._held), _Registry("_modules", self._held))
        self._containers: list[tuple[nn.Module, str, Any, Any]] = []  # with copies of their entries
        self._copied: list[tuple[nn.Module, str]] = []
        self._watched: list[tuple[nn.Module, str, Tensor, int]] = []
        self._versions = [_version(parameter) for parameter in self._parameters.entries]
        tensors: list[Tensor] = []
        for number, name, tensor in self._registries[1].items():
            if tensor is not None:
                self._add(python[number], name, tensor, tensors)
        for module, hooked in zip(python, map(any, map(_hooks_of, self._held)), strict=True):
            if hooked:
                self._containers += [(module, name, hooks, dict(hooks)) for name in _HOOKS if (hooks := module.__dict__[name])]
            if type(module) not in _PLAIN or len(module.__dict__) > _sizes.get(type(module), 0):
                self._look_at_own(module, tensors)
        self._scripts = [(module, _script_attributes(module)) for module in modules if isinstance(module, torch.jit.ScriptModule)]
        for module, attributes in self._scripts:
            parameters = set(module._parameters.keys())  # plain tensors in a script that was loaded
            for name, value in attributes.items():
                if isinstance(value, Tensor):
                    self._add(module, name, value, tensors, name in parameters)
        self._values = TensorValues(tensors)

    def written(self) -> list[tuple[nn.Module, str]]:
        """Parameters and large tensors that were written to."""
        found = [(module, name) for module, name, tensor, version in self._watched if tensor._version != version]
        if self._versions != [_version(parameter) for parameter in self._parameters.entries]:
            for (number, name, parameter), version in zip(self._parameters.items(), self._versions, strict=True):
                if _version(parameter) != version:
                    found.append((self._modules[number], name))
        return found

    def changes(self) -> list[Change]:
        """What is not what it was, besides what `written` names."""
        found: list[Change] = []
        if not _equal(self._held, self._attributes):
            for module, then in zip(self._modules, self._attributes, strict=True):
                found += _changed_attributes(module, then)
        for registry in self._registries:
            found += registry.changes(self._modules)
        for module, name, container, entries in self._containers:
            if not _same_entries(container, entries):
                found.append(Change(module, name, partial(_refill, container, entries)))
        found += self._new_hooks()
        for module, attributes in self._scripts:
            found += _changed_script(module, attributes)
        return found + [Change(*self._copied[i], partial(self._values.give_back, i)) for i in self._values.changed()]

    def _new_hooks(self) -> Iterator[Change]:
        hooked = [i for i, some in enumerate(map(any, map(_hooks_of, self._held))) if some]
        known = {id(container) for _, _, container, _ in self._containers} if hooked else set()
        for i in hooked:
            for name, hooks in zip(_HOOKS, _hooks_of(self._held[i]), strict=True):
                if hooks and id(hooks) not in known:
                    yield Change(self._modules[i], name, hooks.clear)

    def _look_at_own(self, module: nn.Module, tensors: list[Tensor]) -> None:
        """Attributes that not every module has."""
        held, before = module.__dict__, (len(tensors), len(self._containers), len(self._watched))
        for name in held.keys() - _STANDARD:
            value = held[name]
            if isinstance(value, Tensor):
                self._add(module, name, value, tensors)
            elif isinstance(value, CONTAINERS):
                entries = dict(value) if isinstance(value, dict) else list(value)
                self._containers.append((module, name, value, entries))
                for key, entry in entries.items() if isinstance(entries, dict) else enumerate(entries):
                    if isinstance(entry, Tensor):
                        self._add(module, f"{name}[{key!r}]", entry, tensors)
        if type(module) in _PLAIN and before == (len(tensors), len(self._containers), len(self._watched)):
            _sizes[type(module)] = min(len(held), _sizes.get(type(module), len(held)))

    def _add(self, module: nn.Module, name: str, tensor: Tensor, tensors: list[Tensor], weight: bool = False) -> None:
        if nn.parameter.is_lazy(tensor) or tensor.is_inference():  # it can be written to in inference mode only
            return
        if copyable(tensor) and not weight:
            self._copied.append((module, name))
            tensors.append(tensor)
        else:
            self._watched.append((module, name, tensor, tensor._version))


class _Registry:
    """One of the dictionaries that every module has, of all modules; entries: one after another."""

    def __init__(self, name: str, held: Sequence[dict[str, Any]]) -> None:
        self._held: list[dict[str, Any]] = list(map(itemgetter(name), held))
        self._sizes, self._names, self.entries = self._now()

    def _now(self) -> tuple[list[int], list[str], list[Any]]:
        names = list(chain.from_iterable(self._held))
        return list(map(len, self._held)), names, list(chain.from_iterable(map(dict.values, self._held)))

    def items(self) -> Iterator[tuple[int, str, Any]]:
        """Number of the module, name and entry."""
        numbers = chain.from_iterable(map(repeat, range(len(self._sizes)), self._sizes))
        return zip(numbers, self._names, self.entries, strict=True)

    def changes(self, modules: Sequence[nn.Module]) -> Iterator[Change]:
        """Entries that were replaced, added or removed."""
        sizes, names, entries = self._now()
        if sizes == self._sizes and names == self._names and all(map(is_, entries, self.entries)):
            return
        before: list[dict[str, Any]] = [{} for _ in self._held]
        for number, name, entry in self.items():
            before[number][name] = entry
        for module, now, then in zip(modules, self._held, before, strict=True):
            for key in {**then, **now}:
                if now.get(key, _MISSING) is not then.get(key, _MISSING):
                    yield Change(module, key, partial(_refill, now, then))


def _version(parameter: Any) -> int:
    """How often a parameter was written to; 0 where PyTorch does not count."""
    if parameter is None or (type(parameter) is not nn.Parameter and nn.parameter.is_lazy(parameter)) or parameter.is_inference():
        return 0
    return int(parameter._version)


def _equal(held: list[dict[str, Any]], then: list[dict[str, Any]]) -> bool:
    """True if all attributes are the same or equal; identical ones are not compared further."""
    try:
        return held == then
    except Exception:  # of an attribute's own comparison
        return False


def _changed_attributes(module: nn.Module, then: dict[str, Any]) -> Iterator[Change]:
    held = module.__dict__
    for name, value in then.items():
        now = held.get(name, _MISSING)
        same = now is value or (type(now) in NUMBERS and type(now) is type(value) and now == value)
        if not same and not isinstance(value, STAND_INS) and not isinstance(now, STAND_INS):
            yield Change(module, name, partial(held.__setitem__, name, value))
    for name in held.keys() - then.keys():
        if not isinstance(held[name], STAND_INS):
            yield Change(module, name, partial(held.pop, name, None))


def _script_attributes(module: Any) -> dict[str, Any]:
    """Attributes, parameters and buffers of a TorchScript module; lists among them are copies."""
    if not hasattr(module, "_c"):
        return {}
    kind: Any = torch._C.ConcreteModuleType.from_jit_type(module._c._type())
    names = [name for name in kind.get_attributes() if name not in ("training", "_is_full_backward_hook")]
    return {name: module._c.getattr(name) for name in names}


def _changed_script(module: Any, attributes: dict[str, Any]) -> Iterator[Change]:
    for name, value in attributes.items():
        if not _alike(module._c.getattr(name), value):
            yield Change(module, name, partial(module._c.setattr, name, value))


def _same_entries(container: Any, before: Any) -> bool:
    if len(container) != len(before):
        return False
    if isinstance(container, dict):
        return all(map(is_, container.values(), before.values())) and container.keys() == before.keys()
    return container.issuperset(before) if isinstance(container, set) else all(map(is_, container, before))


def _refill(container: Any, entries: Any) -> None:
    container.clear()
    if isinstance(container, (list, deque)):
        container.extend(entries)
    else:
        container.update(entries)


def _alike(now: Any, then: Any) -> bool:
    """True if two attributes of a script are the same; containers come as new copies each time."""
    if isinstance(now, Tensor) or isinstance(then, Tensor):
        return now is then
    if isinstance(now, (list, tuple)) and isinstance(then, (list, tuple)):
        return len(now) == len(then) and all(map(_alike, now, then))
    if isinstance(now, dict) and isinstance(then, dict):
        return now.keys() == then.keys() and all(_alike(now[key], then[key]) for key in now)
    return bool(now == then) if isinstance(now, (int, float, str)) else True
