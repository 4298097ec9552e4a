"""A copy of a network whose floating tensors have another dtype; the network itself is left alone.

A copy, and not other tensors in the place of its weights during a forward pass (`torch.func.functional_call`), because a network
that checkpoints itself runs parts of its forward pass again in the backward pass.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from types import CellType, FunctionType, MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from monai_ifim.core.memory.replaced_forward import ReplacedForward
from monai_ifim.core.operator.eager_execution import COMPILED_CALL, without_compiler
from monai_ifim.core.operator.script_conversion import converted_script

Network = Callable[..., Any]
WITHOUT_PARTS = frozenset({type(None), bool, int, float, str, bytes, torch.Size, torch.dtype, torch.device, type})


def converted(network: Network, dtype: torch.dtype | None) -> Network:
    """A copy of `network` with its floating tensors in `dtype` (None: as they are), usable by autograd.

    Besides parameters and buffers, tensors in attributes, containers, dataclasses, partial functions, bound methods and closures
    are found; other objects are shared. Registered tensors are converted, others where that widens them or where registered
    ones have their dtype. Tensors that are shared stay shared; those made in inference mode become usable. The network itself
    if nothing in it changes. Raises NetworkError for a TorchScript that cannot be copied.
    """
    reached = _Reached(network)
    change = _Change(dtype, reached)
    leaves = [value for value in reached.values if change.concerns(value)]
    return _Copier(change, reached.leading_to(leaves)).copy(network) if leaves else network


class _Reached:
    """Everything that is reached from a network: values, and what holds each of them."""

    def __init__(self, root: Any) -> None:
        self.values: list[Any] = []
        self.registered: set[int] = set()
        self._holders: dict[int, list[int]] = {}
        waiting, seen = [root], {id(root)}
        while waiting:
            value = waiting.pop()
            self.values.append(value)  # keeps it alive, so that its id stays its own
            if isinstance(value, nn.Module) and not isinstance(value, torch.jit.ScriptModule):
                self.registered |= {id(each) for kind in ("_parameters", "_buffers") for each in vars(value)[kind].values()}
            for part in parts_of(value, top=value is root):
                if type(part) in WITHOUT_PARTS or (type(part) in (dict, OrderedDict) and not part):
                    continue
                self._holders.setdefault(id(part), []).append(id(value))
                if id(part) not in seen:
                    seen.add(id(part))
                    waiting.append(part)

    def leading_to(self, leaves: Iterable[Any]) -> set[int]:
        """Identities of the leaves and of everything through which they are reached."""
        waiting = [id(leaf) for leaf in leaves]
        found = set(waiting)
        while waiting:
            for holder in self._holders.get(waiting.pop(), ()):
                if holder not in found:
                    found.add(holder)
                    waiting.append(holder)
        return found


class _Change:
    """What happens to the leaves of a network, tensors and TorchScript modules."""

    def __init__(self, dtype: torch.dtype | None, reached: _Reached) -> None:
        self.dtype, self._registered = dtype, reached.registered
        self._replaced: set[torch.dtype] = set()  # dtypes of registered tensors that are converted
        tensors = [value for value in reached.values if id(value) in reached.registered and isinstance(value, Tensor)]
        self._replaced = {tensor.dtype for tensor in tensors if self._target(tensor) not in (None, tensor.dtype)}

    def concerns(self, value: Any) -> bool:
        """True for a leaf that changes."""
        if isinstance(value, torch.jit.ScriptModule):
            return True
        return isinstance(value, Tensor) and (value.is_inference() or self._target(value) not in (None, value.dtype))

    def of(self, value: Any) -> Any:
        """The leaf, changed."""
        if isinstance(value, torch.jit.ScriptModule):
            return converted_script(value, self.dtype)
        target = self._target(value) or value.dtype
        fresh = value.detach().to(target) if target != value.dtype else value.detach().clone()
        return nn.Parameter(fresh, requires_grad=False) if isinstance(value, nn.Parameter) else fresh

    def _target(self, tensor: Tensor) -> torch.dtype | None:
        """Dtype that a tensor gets, None if it keeps its own."""
        if self.dtype is None or not (tensor.is_floating_point() or tensor.is_complex()):
            return None
        target = self.dtype.to_complex() if tensor.is_complex() else self.dtype
        widens = torch.promote_types(tensor.dtype, target) == target
        return target if widens or id(tensor) in self._registered or tensor.dtype in self._replaced else None


class _Copier:
    """Copies what leads to a leaf that changes, each object once, and shares all else."""

    def __init__(self, change: _Change, touched: set[int]) -> None:
        self._change, self._touched = change, touched
        self._copies: dict[int, Any] = {}

    def copy(self, value: Any) -> Any:
        """The copy of a value, or the value itself."""
        if id(value) not in self._touched:
            return value
        if id(value) not in self._copies:
            bare = without_compiler(value)
            self._copies[id(value)] = self._new(value) if bare is value else self.copy(bare)
        return self._copies[id(value)]

    def _new(self, value: Any) -> Any:
        if self._change.concerns(value):
            return self._change.of(value)
        if isinstance(value, tuple):
            parts = [self.copy(each) for each in value]
            return value._make(parts) if hasattr(value, "_make") else type(value)(parts)
        if isinstance(value, (set, frozenset)):
            return type(value)(self.copy(each) for each in value)
        if isinstance(value, MethodType):
            return MethodType(value.__func__, self.copy(value.__self__))
        if isinstance(value, partial):
            keywords = {name: self.copy(each) for name, each in value.keywords.items()}
            return partial(self.copy(value.func), *[self.copy(each) for each in value.args], **keywords)
        if isinstance(value, FunctionType):
            return self._function(value)
        return self._container(value)

    def _container(self, value: Any) -> Any:
        """The copy of an object that may hold itself: it is known before its parts are copied."""
        if isinstance(value, CellType):
            cell = self._copies[id(value)] = CellType()
            cell.cell_contents = self.copy(value.cell_contents)
            return cell
        if isinstance(value, (dict, list, deque)):
            fresh = self._copies[id(value)] = copy.copy(value)
            for place in list(value) if isinstance(value, dict) else range(len(value)):
                fresh[place] = self.copy(value[place])
            return fresh
        fresh = self._copies[id(value)] = _shell(value)
        for name, part in dict(_attributes(value)).items():  # other threads may replace a forward meanwhile
            if not isinstance(part, ReplacedForward):
                _set(fresh, name, self.copy(part))
        if isinstance(fresh, nn.RNNBase):
            fresh.flatten_parameters()
        return fresh

    def _function(self, function: FunctionType) -> FunctionType:
        """The function with copied values in closure and defaults; its globals are shared."""
        closure = tuple(self.copy(cell) for cell in function.__closure__ or ())
        fresh = FunctionType(function.__code__, function.__globals__, function.__name__, None, closure or None)
        fresh.__defaults__, fresh.__kwdefaults__ = self.copy(function.__defaults__), self.copy(function.__kwdefaults__)
        fresh.__dict__.update(function.__dict__)
        fresh.__qualname__, fresh.__module__ = function.__qualname__, function.__module__
        return fresh


def parts_of(value: Any, top: bool) -> Iterator[Any]:
    """What a value holds, where that is looked for; top: the network itself, whose attributes count whatever it is."""
    if isinstance(value, torch.jit.ScriptModule):
        return
    if isinstance(value, dict):
        yield from list(value.values())  # a copy: other threads may add hooks meanwhile
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        yield from value
    elif isinstance(value, MethodType):
        yield value.__self__
    elif isinstance(value, partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, FunctionType):
        yield from (*(value.__closure__ or ()), value.__defaults__, value.__kwdefaults__)
    elif isinstance(value, CellType):
        with suppress(ValueError):  # an empty cell
            yield value.cell_contents
    elif isinstance(value, (nn.Module, SimpleNamespace)) or top or _is_record(value):
        yield from _attributes(value).values()


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _attributes(value: Any) -> dict[str, Any]:
    """Attributes of an object, also of a dataclass with slots, but those by which a module runs something else than its code."""
    if _is_record(value) and not hasattr(value, "__dict__"):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value) if hasattr(value, each.name)}
    attributes = dict(getattr(value, "__dict__", {}))  # a copy: other threads may replace a `forward` meanwhile
    attributes.pop(COMPILED_CALL, None)
    if isinstance(attributes.get("forward"), ReplacedForward):
        del attributes["forward"]
    return attributes


def _shell(value: Any) -> Any:
    """A new object of the value's class; not by copy.copy, which asks modules and dataclasses for a state of their own."""
    return SimpleNamespace() if isinstance(value, SimpleNamespace) else object.__new__(type(value))


def _set(value: Any, name: str, part: Any) -> None:
    """Set an attribute as it is, past `__setattr__` and properties."""
    if hasattr(value, "__dict__"):
        value.__dict__[name] = part
    else:
        object.__setattr__(value, name, part)
