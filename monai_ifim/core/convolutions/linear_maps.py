"""Convolutions as linear maps with their adjoints: differentiated as often as needed, they save nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from monai_ifim.core.convolutions.kernels import ConvolutionForm, Kernel, gradient_at_image
from monai_ifim.core.convolutions.onednn import convolved

LinearOperation = Callable[[Tensor], Tensor]


def with_chosen_gradient(
    convolve: LinearOperation, image: Tensor, weight: Tensor, form: ConvolutionForm, kernel: Kernel
) -> Tensor:
    """`convolve(image)`, a convolution with frozen weights, whose backward pass takes the kernel."""
    adjoint = partial(gradient_at_image, kernel, weight=weight, size=tuple(image.shape[2:]), form=form)
    linear = partial(convolved, weight=weight, form=form)
    output: Tensor = _FrozenConvolution.apply(image, convolve, linear, adjoint)  # type: ignore[no-untyped-call]
    return output


def linear_map(x: Tensor, forwards: LinearOperation, adjoint: LinearOperation) -> Tensor:
    """`forwards(x)`, whose derivative is `adjoint`, and the derivative of that `forwards` again."""
    if not torch.is_grad_enabled():
        return forwards(x)
    result: Tensor = _LinearMap.apply(x, forwards, adjoint)  # type: ignore[no-untyped-call]
    return result


class _FrozenConvolution(torch.autograd.Function):
    """A convolution with its linear part and the adjoint of that."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, whole: LinearOperation, linear: LinearOperation, adjoint: LinearOperation) -> Tensor:
        ctx.linear, ctx.adjoint = linear, adjoint
        return whole(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return linear_map(gradient, ctx.adjoint, ctx.linear), None, None, None


class _LinearMap(torch.autograd.Function):
    """A linear map with its adjoint. The derivative of its backward pass is the map again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forwards: LinearOperation, adjoint: LinearOperation) -> Tensor:
        ctx.forwards, ctx.adjoint = forwards, adjoint
        return forwards(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return linear_map(gradient, ctx.adjoint, ctx.forwards), None, None
