"""What in a network may make its derivatives disagree with differences of its output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

MOST = 4  # names of a kind
OUR_OWN = ("CheckpointFunction", "BackwardHookFunction")  # PyTorch's own Python functions: checkpoints, and those behind hooks


def likely_causes(network: Callable[..., Any], forward: Callable[[Tensor], Tensor], image: Tensor) -> str:
    """A sentence that names layers with backward hooks and functions with a backward pass of their own, or the usual causes.

    forward: images [1, channel, *spatial] -> output, with a graph.
    """
    hooked = [f"{name or 'the network'} ({type(module).__name__})" for name, module in _modules(network) if _has_hooks(module)]
    written = _written_functions(forward, image)
    found = []
    if hooked:
        found.append(f"backward hooks on {', '.join(hooked[:MOST])}: remove them")
    if written:
        found.append(f"functions with a backward pass of their own: {', '.join(written[:MOST])}")
    usual = "gradients cut by .data, .detach() or torch.no_grad in forward(), or replaced (straight-through, reversed)"
    return f"Found in it: {'; '.join(found)}. Else look for {usual}." if found else f"Look for {usual}."


def _modules(network: Callable[..., Any]) -> list[tuple[str, nn.Module]]:
    return list(network.named_modules()) if isinstance(network, nn.Module) else []


def _has_hooks(module: nn.Module) -> bool:
    return bool(module.__dict__.get("_backward_hooks") or module.__dict__.get("_backward_pre_hooks"))


def _written_functions(forward: Callable[[Tensor], Tensor], image: Tensor) -> list[str]:
    """Names of the functions written in Python that the graph of an output holds."""
    try:
        with torch.enable_grad():
            output = forward(image.clone().requires_grad_(True))
    except (RuntimeError, TypeError, ValueError):
        return []
    names: dict[str, None] = {}
    written: Any = torch.autograd.function.BackwardCFunction
    waiting: list[Any] = [output.grad_fn]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, written):
            names.setdefault(node.name().removesuffix("Backward"))
        waiting.extend(following for following, _ in node.next_functions)
    return [name for name in names if name not in OUR_OWN]
