"""The modules behind a callable: a function, partial or bound method that calls them, or an object that holds them."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from inspect import getattr_static
from types import FunctionType, MethodType
from typing import Any

from torch import nn

from monai_ifim.core.operator.conversion import parts_of

MOST = 10_000  # values that are looked at


def module_of(network: Callable[..., Any]) -> nn.Module | None:
    """The network as a module: itself, the one module that a callable calls, a list of several, or None without any.

    Closures, defaults, globals that the code names, bound objects, containers and attributes are looked through.
    """
    if isinstance(network, nn.Module):
        return network
    found: list[nn.Module] = []
    waiting, seen = [network], dict[int, Any]()  # values stay alive, so that an id stays that of its value
    while waiting and len(seen) < MOST:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, nn.Module):
            found.append(value)
        else:
            waiting.extend(_parts(value, top=value is network))
    return nn.ModuleList(found) if len(found) > 1 else next(iter(found), None)


def _parts(value: Any, top: bool) -> Iterator[Any]:
    yield from parts_of(value, top)
    if isinstance(value, FunctionType):
        named = (value.__globals__.get(name) for name in value.__code__.co_names if not hasattr(builtins, name))
        yield from (each for each in named if isinstance(each, (nn.Module, FunctionType)))
    elif isinstance(value, MethodType):
        yield value.__func__
        if not isinstance(value.__self__, nn.Module):
            yield from getattr(value.__self__, "__dict__", {}).values()
    elif top:
        yield getattr_static(type(value), "__call__", None)
