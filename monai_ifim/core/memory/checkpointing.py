"""Activation checkpointing of a network's modules: their activations are recomputed instead of saved.

The modules are not changed; during the passes their `forward` runs in a `RecomputedCall`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from monai_ifim.core.errors import NetworkError
from monai_ifim.core.memory.live_memory import LiveMemory
from monai_ifim.core.memory.recomputation import RecomputedCall
from monai_ifim.core.memory.replaced_forward import current_form, own_forward, replaceable

WORTHWHILE = 2.0  # a module is checkpointed if it saves at least this many times the bytes of its inputs


@dataclass
class ActivationSurvey:
    """Memory of a forward pass. saved: bytes saved for the backward pass; inside: the same by module; given: bytes of each
    module's inputs; working: peak bytes of a pass that saves nothing; output: of the pass, detached."""

    output: Tensor
    saved: int = 0
    working: int = 0
    inside: dict[nn.Module, int] = field(default_factory=dict)
    given: dict[nn.Module, int] = field(default_factory=dict)


def survey_activations(forward: Callable[[], Tensor], network: Callable[..., Any], own: set[int]) -> ActivationSurvey:
    """Run `forward` once and count what it saves, keeping none of it. own: storages that are not counted."""
    survey, open_modules = ActivationSurvey(torch.empty(0)), list[nn.Module]()
    seen: dict[int, weakref.ref[Any]] = {}

    def pack(tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        known = seen.get(storage._cdata)
        if storage.data_ptr() not in own and (known is None or known() is None):
            seen[storage._cdata] = weakref.ref(storage)
            survey.saved += tensor.nbytes
            for module in open_modules:
                survey.inside[module] = survey.inside.get(module, 0) + tensor.nbytes
        return 0

    def measured(module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        survey.given[module] = survey.given.get(module, 0) + _bytes_of(args, kwargs)
        open_modules.append(module)
        try:
            return forward(*args, **kwargs)
        finally:
            open_modules.pop()

    modules = network.modules() if isinstance(network, nn.Module) else ()
    with ExitStack() as stack:
        stack.enter_context(own_forward({m: partial(measured, m, current_form(m)) for m in modules if replaceable(m)}))
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, _refuse))
        live = stack.enter_context(LiveMemory())
        survey.output = forward().detach()
    survey.working = live.peak
    return survey


def choose_blocks(network: Callable[..., Any], survey: ActivationSurvey, largest: int) -> list[nn.Module]:
    """The largest modules, none inside another, that save at most `largest` bytes and at least WORTHWHILE times their inputs."""
    chosen: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        for child in module.children():
            inside = survey.inside.get(child, 0)
            if replaceable(child) and 0 < inside <= largest and inside >= WORTHWHILE * survey.given.get(child, 0):
                if child not in chosen:
                    chosen.append(child)
            elif not isinstance(child, torch.jit.ScriptModule):
                visit(child)

    if isinstance(network, nn.Module):
        visit(network)
    return chosen


@contextmanager
def checkpointed(blocks: Sequence[nn.Module], network: Callable[..., Any]) -> Iterator[None]:
    """Context in which the blocks, modules of `network`, save copies of their inputs only."""
    with own_forward({block: partial(_recomputing, current_form(block), partial(_path, network, block)) for block in blocks}):
        yield


def _recomputing(forward: Callable[..., Any], path: Callable[[], str], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return RecomputedCall(forward, path).run(args, kwargs)


def _path(network: Callable[..., Any], block: nn.Module) -> str:
    named = network.named_modules() if isinstance(network, nn.Module) else ()
    return next((name for name, module in named if module is block), type(block).__name__)


def _bytes_of(args: Any, kwargs: Any) -> int:
    """Bytes of the tensors among a module's arguments, each counted once."""
    tensors = {id(leaf): leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
    return sum(tensor.nbytes for tensor in tensors.values())


def _refuse(_: Any) -> Tensor:
    raise NetworkError(
        "the network differentiates in its own forward pass, which no memory_budget can be kept for: leave memory_budget out, "
        "and decompose fewer images at a time."
    )
