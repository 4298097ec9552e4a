"""Correct gradients of batch and instance normalisation for batches of one, which PyTorch gets wrong on CPUs in one case.

Let an image [1, C, H, W] have its channels last in memory, as after `tokens.transpose(1, 2).reshape(1, C, H, W)`, and an unusual
stride of its first axis, which has one element. PyTorch's backward kernel then assumes that image and gradient have the same
layout when they do not, and silently mixes channels up (seen in 2.13, in float32 and float64). A transformer behind a
convolutional stem makes such gradients. Here both get one layout: by hooks on the graph or, where TorchScript hides its graph
from hooks, by a dispatch mode during the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import torch
from torch import Tensor

from monai_ifim.core.dispatch import Dispatch

NODE = "NativeBatchNormBackward0"  # of batch norm on a CPU, which instance norm calls
COMPILED = "DifferentiableGraphBackward"  # a part of the graph compiled by TorchScript
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}

Gradients = tuple[Tensor | None, ...]


def correct_gradients(output: Tensor) -> Callable[[], AbstractContextManager[object]]:
    """Make every normalisation in the graph of `output` get image and gradient in one layout.

    Returns the context that backward passes have to run in.
    """
    compiled = False
    seen: set[Any] = set()
    waiting: list[Any] = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == NODE:
            node.register_prehook(_layout(_unusual_strides(node)))
        compiled = compiled or node.name().endswith(COMPILED)
        waiting.extend(following for following, _ in node.next_functions)
    return _InOneLayout if compiled else nullcontext


class _InOneLayout(Dispatch):  # type: ignore[no-untyped-call]
    """Context in which the backward passes of normalisations get contiguous copies of tensors that they would misread."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation."""
        if func is torch.ops.aten.native_batch_norm_backward.default and any(is_misread(tensor) for tensor in args[:2]):
            args = (args[0].contiguous(), args[1].contiguous(), *args[2:])
        return func(*args, **(kwargs or {}))


def is_misread(tensor: Tensor) -> bool:
    """True if a tensor has the layout that PyTorch's kernel misreads."""
    if tensor.ndim not in CHANNELS_LAST or tensor.shape[0] != 1 or tensor.is_contiguous():
        return False
    usual = tensor.stride(0) == prod(tensor.shape[1:])
    return not usual and tensor.is_contiguous(memory_format=CHANNELS_LAST[tensor.ndim])


def _unusual_strides(node: Any) -> tuple[int, ...] | None:
    """Strides of a normalisation's image if they are misread, else None; instance normalisation makes its image contiguous."""
    image = None if node._saved_training else node._saved_input
    return None if image is None or not is_misread(image) else image.stride()


def _layout(strides: tuple[int, ...] | None) -> Callable[[Gradients], Gradients | None]:
    """Hook that gives the gradient the image's unusual strides, or makes it contiguous where its own are misread."""

    def hook(gradients: Gradients) -> Gradients | None:
        gradient, *others = gradients
        if gradient is None or (strides is None and not is_misread(gradient)):
            return None
        if strides is None:
            return gradient.contiguous(), *others
        fresh = torch.empty_strided(gradient.shape, strides, dtype=gradient.dtype, device=gradient.device)
        return fresh.copy_(gradient), *others

    return hook
