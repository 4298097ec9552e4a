"""Activation checkpointing of a network's own blocks: what is inside them is computed again instead of kept.

The modules are not changed: for the time of the passes their `forward` runs under `torch.utils.checkpoint`.
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
from torch.utils.checkpoint import checkpoint

from monai_ifim.core.memory.lean_layers import own_forward, replaceable
from monai_ifim.core.memory.live_memory import LiveMemory

WORTHWHILE = 2.0  # a block is checkpointed where it saves this many times what it is given


@dataclass
class ActivationSurvey:
    """What a forward pass would keep for the backward one: `saved` bytes, by module in `inside`; `given`: bytes that each
    module is called with; working: bytes alive at once in a pass that keeps nothing; output: of the pass, its graph useless."""

    output: Tensor
    saved: int = 0
    working: int = 0
    inside: dict[nn.Module, int] = field(default_factory=dict)
    given: dict[nn.Module, int] = field(default_factory=dict)


def survey_activations(forward: Callable[[], Tensor], network: Callable[..., Any], own: set[int]) -> ActivationSurvey:
    """Run `forward` once, counting what it would save and keeping none of it. own: storages that do not count."""
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

    def enter(module: nn.Module, args: Any) -> None:
        survey.given[module] = survey.given.get(module, 0) + sum(a.nbytes for a in args if isinstance(a, Tensor))
        open_modules.append(module)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        open_modules.pop()

    modules = network.modules() if isinstance(network, nn.Module) else ()
    with ExitStack() as stack:
        for module in modules:
            if not isinstance(module, torch.jit.ScriptModule):
                stack.callback(module.register_forward_pre_hook(enter).remove)
                stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, _refuse))
        live = stack.enter_context(LiveMemory())
        survey.output = forward().detach()
    survey.working = live.peak
    return survey


def choose_blocks(network: Callable[..., Any], survey: ActivationSurvey, largest: int) -> list[nn.Module]:
    """The largest modules, none inside another, that keep no more than `largest` bytes and much more than they are given."""
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
def checkpointed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, the blocks keep what they are called with and nothing else."""
    with own_forward({block: partial(_recomputing, block.forward) for block in blocks}):
        yield


def _recomputing(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def _refuse(_: Any) -> Tensor:
    raise RuntimeError("a survey of activations keeps nothing to differentiate with")
