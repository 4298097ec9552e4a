"""Gradients of batch and instance normalisation for batches of one, which PyTorch gets wrong on CPUs in one case.

Where an image [1, C, H, W] lies in memory with its channels last, as behind `tokens.transpose(1, 2).reshape(1, C, H, W)`, and the
stride of its first axis, which means nothing, is not the usual one, PyTorch's backward kernel takes image and gradient for
equally laid out when they are not, and mixes channels up without a word (seen in 2.13, in float32 and float64). A transformer
behind a convolutional stem makes such gradients. They are brought into one layout here, by hooks on the graph, or, where
TorchScript hides its own graph from that, by looking at every operation of the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import torch
from torch import Tensor

from monai_ifim.core.dispatch import Dispatch

NODE = "NativeBatchNormBackward0"  # batch norm's and, inside it, instance norm's on a CPU
COMPILED = "DifferentiableGraphBackward"  # a part of the graph that TorchScript has made its own
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}

Gradients = tuple[Tensor | None, ...]


def correct_gradients(output: Tensor) -> Callable[[], AbstractContextManager[object]]:
    """Let every normalisation in the graph of `output` see image and gradient in one layout; backward passes have to run inside
    the context that is returned."""
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
    """Inside, normalisations' backward passes get image and gradient contiguous where one of them is misread."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation."""
        if func is torch.ops.aten.native_batch_norm_backward.default and any(is_misread(tensor) for tensor in args[:2]):
            args = (args[0].contiguous(), args[1].contiguous(), *args[2:])
        return func(*args, **(kwargs or {}))


def is_misread(tensor: Tensor) -> bool:
    """Whether a tensor has the layout that is taken for another."""
    if tensor.ndim not in CHANNELS_LAST or tensor.shape[0] != 1 or tensor.is_contiguous():
        return False
    usual = tensor.stride(0) == prod(tensor.shape[1:])
    return not usual and tensor.is_contiguous(memory_format=CHANNELS_LAST[tensor.ndim])


def _unusual_strides(node: Any) -> tuple[int, ...] | None:
    """The strides of a normalisation's image where they are misread; instance normalisation has its image made contiguous."""
    image = None if node._saved_training else node._saved_input
    return None if image is None or not is_misread(image) else image.stride()


def _layout(strides: tuple[int, ...] | None) -> Callable[[Gradients], Gradients | None]:
    """A hook that hands the gradient on in the image's unusual strides, or contiguous where its own are misread."""

    def hook(gradients: Gradients) -> Gradients | None:
        gradient, *others = gradients
        if gradient is None or (strides is None and not is_misread(gradient)):
            return None
        if strides is None:
            return gradient.contiguous(), *others
        fresh = torch.empty_strided(gradient.shape, strides, dtype=gradient.dtype, device=gradient.device)
        return fresh.copy_(gradient), *others

    return hook
