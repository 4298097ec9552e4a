"""Functions that run in place of modules' `forward` in one thread, while other threads use the same modules as they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

Forms = Mapping[nn.Module, Callable[..., Any]]


class _Chosen(threading.local):
    def __init__(self) -> None:
        self.forms: Forms = {}


_chosen = _Chosen()
_lock = threading.Lock()


class ReplacedForward:
    """Stands for a module's `forward` as long as a thread replaces it; runs that thread's function, or `forward` in any other.

    users: number of contexts that have it in use.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.users = module, 0
        self.__wrapped__ = module.forward  # with its signature

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Output of the module."""
        return _chosen.forms.get(self.module, self.__wrapped__)(*args, **kwargs)


def replaceable(module: nn.Module) -> bool:
    """True if `own_forward` can replace a module's `forward`: it is Python code and that of the class."""
    if isinstance(module, torch.jit.ScriptModule):
        return False
    return isinstance(module.__dict__.get("forward"), ReplacedForward | None)


@contextmanager
def own_forward(forms: Forms) -> Iterator[None]:
    """Context in which each module runs the given function in place of its `forward`, in this thread."""
    with _lock:
        for module in forms:
            module.__dict__.setdefault("forward", ReplacedForward(module)).users += 1
    try:
        with chosen_forms({**_chosen.forms, **forms}):
            yield
    finally:
        with _lock:
            for module in forms:
                module.__dict__["forward"].users -= 1
                if not module.__dict__["forward"].users:
                    del module.__dict__["forward"]


def current_forms() -> Forms:
    """The functions that this thread has in place of `forward`."""
    return _chosen.forms


@contextmanager
def chosen_forms(forms: Forms) -> Iterator[None]:
    """Context in which this thread uses these functions: those of another thread, whose modules stay prepared."""
    previous, _chosen.forms = _chosen.forms, forms
    try:
        yield
    finally:
        _chosen.forms = previous


def current_form(module: nn.Module) -> Callable[..., Any]:
    """What this thread runs as the module's `forward`."""
    held: Any = module.forward
    return _chosen.forms.get(module, held.__wrapped__ if isinstance(held, ReplacedForward) else held)
