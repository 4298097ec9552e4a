"""Passes without PyTorch's compiler and without reentrant checkpoints: neither has all the derivatives that are needed.

A compiled function frees its buffers after one backward pass and has no second derivative; a checkpoint with use_reentrant=True
refuses `torch.autograd.grad`. Both have an equal form without these limits: the function itself, and use_reentrant=False.
The switches are PyTorch's and hold for the whole process: the first decomposition that begins turns them, the last that ends
turns them back.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
import torch.utils.checkpoint

from monai_ifim.core.process_switch import ProcessSwitch

COMPILED_CALL = "_compiled_call_impl"  # attribute in which `module.compile()` keeps the compiled call


@contextmanager
def eager_execution() -> Iterator[None]:
    """Context in which compiled functions and modules run as they were written, and checkpoints run without reentry."""
    with ExitStack() as stack:
        stack.enter_context(_CHECKPOINTS.held())
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and the import takes seconds
            stack.enter_context(_COMPILER.held())
        yield


def without_compiler(value: Any) -> Any:
    """What a module or function was before `torch.compile`; any other value itself."""
    if type(value).__name__ == "OptimizedModule" and hasattr(value, "_orig_mod"):
        return value._orig_mod
    return getattr(value, "__dict__", {}).get("_torchdynamo_orig_callable", value)


class _WithoutReentry:
    """Stands for PyTorch's `CheckpointFunction`, which runs its backward pass inside the backward pass."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        """The checkpoint of a function."""
        return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state)


@contextmanager
def _checkpoints_without_reentry() -> Iterator[None]:
    reentrant = torch.utils.checkpoint.CheckpointFunction
    torch.utils.checkpoint.CheckpointFunction = _WithoutReentry  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        torch.utils.checkpoint.CheckpointFunction = reentrant  # type: ignore[misc]


def _forced_eager() -> AbstractContextManager[object]:
    return torch.compiler.set_stance("force_eager")  # type: ignore[no-any-return]


_CHECKPOINTS = ProcessSwitch(_checkpoints_without_reentry)
_COMPILER = ProcessSwitch(_forced_eager)
