"""State of a network's modules during a decomposition, and its return to the caller afterwards.

Several threads may use one network, or networks that share layers, at the same time: the first user of a layer saves and changes
its state, the last one gives it back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from monai_ifim.core.errors import NetworkError, TrainingModeWarning, warn_caller
from monai_ifim.core.operator.eager_execution import eager_execution
from monai_ifim.core.operator.held_modules import module_of
from monai_ifim.core.operator.module_snapshot import ModuleSnapshot

_lock = threading.RLock()  # held while states are saved and given back, never during a pass
_groups: dict[int, _Group] = {}  # the group of each module in use, by the module's id
_users: dict[int, int] = {}  # groups that a parameter without gradients is in, by its id


class _Group:
    """Modules whose state was saved together; they are given back together, when none of their users is left."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self.modules, self.users = modules, 0
        self.training = [module for module in modules if _in_train_mode(module)]
        self.snapshot: ModuleSnapshot | None = None
        self.frozen: list[nn.Parameter] = []

    def save(self) -> None:
        """Remember the state, and switch gradients of parameters off."""
        self.snapshot = ModuleSnapshot(self.modules)
        parameters = dict.fromkeys(p for module in self.modules for p in module._parameters.values() if p is not None)
        self.frozen = [p for p in parameters if id(p) in _users or (p.requires_grad and _freezable(p))]
        for parameter in self.frozen:
            _users[id(parameter)] = _users.get(id(parameter), 0) + 1
            parameter.requires_grad_(False)

    def give_back(self) -> list[tuple[nn.Module, str]]:
        """Restore everything; returns what could not be restored."""
        remaining: list[tuple[nn.Module, str]] = []
        found = self.snapshot.changes() if self.snapshot is not None else []
        if found and self.snapshot is not None:
            for change in found:
                with suppress(Exception):  # of the module's own code; the change is then among those that remain
                    change.undo()
            remaining = [(change.module, change.name) for change in self.snapshot.changes()]
        for parameter in self.frozen:
            _users[id(parameter)] -= 1
            if _users[id(parameter)] == 0:
                del _users[id(parameter)]
                parameter.requires_grad_(True)
        return remaining + [(module, "training") for module in _give_modes_back(self.modules, self.training)]


class ModuleState:
    """The state of a network's modules, or of those behind a callable, while they are used.

    not_restored: names of what could not be given back when the context ended; empty while other threads use the modules.
    """

    def __init__(self, network: Callable[..., Any]) -> None:
        self.not_restored: tuple[str, ...] = ()
        self._network, self._given = module_of(network), network
        self._groups: list[_Group] = []

    def changes(self) -> tuple[str, ...]:
        """Names of buffers, attributes and parameters that passes have changed so far, each with the path of its module."""
        with _lock:
            snapshots = [group.snapshot for group in self._groups if group.snapshot is not None]
            found = [(change.module, change.name) for snapshot in snapshots for change in snapshot.changes()]
            return self._named(found + [entry for snapshot in snapshots for entry in snapshot.written()])

    def enter(self) -> bool:
        """Save and change the state; True if the network, or a layer that behaves differently then, was in train mode."""
        network = self._network
        if network is None:
            return False
        with _lock:
            modules = modules_of(network)
            known = [group for module in modules if (group := _groups.get(id(module))) is not None] if _groups else []
            fresh = _Group([module for module in modules if id(module) not in _groups])
            self._groups = [fresh, *dict.fromkeys(known)]
            for group in self._groups:
                group.users += 1
            for module in fresh.modules:
                _groups[id(module)] = fresh
            training = [module for group in self._groups for module in group.training]
            if any(map(_in_train_mode, modules)):
                with suppress(NotImplementedError):  # modules of torch.export have the mode of their export only
                    network.eval()
            fresh.save()
        own = {id(module) for module in modules} if training else ()
        return any(m is self._given or (id(m) in own and isinstance(m, (_NormBase, _DropoutNd))) for m in training)

    def leave(self) -> tuple[str, ...]:
        """Give the state back, unless others use it; returns the names of parameters that were written to."""
        with _lock:
            snapshots = [group.snapshot for group in self._groups if group.snapshot is not None]
            written = self._named([entry for snapshot in snapshots for entry in snapshot.written()])
            remaining: list[tuple[nn.Module, str]] = []
            for group in self._groups:
                group.users -= 1
                if group.users == 0:
                    for module in group.modules:
                        del _groups[id(module)]
                    remaining += group.give_back()
            self.not_restored = self._named(remaining)
        return written

    def _named(self, found: Sequence[tuple[nn.Module, str]]) -> tuple[str, ...]:
        if not found or self._network is None:
            return ()
        paths = {id(module): f"{path}." if path else "" for path, module in self._network.named_modules()}
        return tuple(dict.fromkeys(f"{paths[id(module)]}{name}" for module, name in found if id(module) in paths))


@contextmanager
def evaluation_mode(network: Callable[..., Any]) -> Iterator[ModuleState]:
    """Context with every submodule in eval mode, no gradients of parameters, and autograd on.

    Modes, gradients of parameters, buffers, attributes and hooks are given back afterwards. Without gradients of weights a
    convolution saves no input. Raises NetworkError at its end if passes wrote into a parameter, which is not copied.
    """
    state = ModuleState(network)
    written: tuple[str, ...] = ()
    with torch.inference_mode(False), torch.enable_grad(), eager_execution():
        try:
            if state.enter():
                warn_caller(
                    "the network was in train mode: it is evaluated in eval mode, and its mode restored. Call network.eval() "
                    "first.",
                    TrainingModeWarning,
                )
            yield state
        finally:
            written = state.leave()
    if written:
        raise NetworkError(
            f"the passes wrote into {written[0]!r}, so the network is no longer the one that was given: load its weights again, "
            "and let forward() compute with a changed copy of them (weight = self.weight * mask) instead."
        )


def modules_of(network: nn.Module) -> list[nn.Module]:
    """All modules, each once, as `network.modules()` gives them in a multiple of the time."""
    found, waiting = {network: None}, [network]
    while waiting:
        for child in waiting.pop()._modules.values():
            if child is not None and child not in found:
                found[child] = None
                waiting.append(child)
    return list(found)


def _in_train_mode(module: nn.Module) -> bool:
    """The module's mode; frozen scripts have none."""
    return bool(getattr(module, "training", False))


def _freezable(parameter: nn.Parameter) -> bool:
    lazy = type(parameter) is not nn.Parameter and nn.parameter.is_lazy(parameter)
    return not lazy and parameter.is_leaf and not parameter.is_inference()


def _give_modes_back(modules: Sequence[nn.Module], training: Sequence[nn.Module]) -> list[nn.Module]:
    """Restore train modes; returns the modules that do not keep theirs."""
    for module in training:  # what an eval() of its own did is undone by its train()
        if not module.training and type(module).train is not nn.Module.train and not isinstance(module, torch.jit.ScriptModule):
            with suppress(NotImplementedError):
                module.train(True)
    wanted = {id(module) for module in training}
    other = [module for module in modules if _in_train_mode(module) != (id(module) in wanted)]
    for module in other:
        module.training = id(module) in wanted
    return [module for module in other if _in_train_mode(module) != (id(module) in wanted)]
