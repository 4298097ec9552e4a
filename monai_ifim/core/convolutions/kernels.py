"""Gradient of a convolution with respect to its image, computed in several ways that agree to rounding.

Let y = conv(x, w). All functions here take the gradient at y [B, O, *out], the weights w [O, I / groups, *kernel], the size of x
along its spatial axes and the form of the convolution, and return the gradient at x [B, I, *size].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

Kernel = Literal["autograd", "matrix product", "taps", "turned"]
Size = tuple[int, ...]
TRANSPOSED: dict[int, Callable[..., Tensor]] = {  # by the axes of their weights
    3: functional.conv_transpose1d,
    4: functional.conv_transpose2d,
    5: functional.conv_transpose3d,
}


@dataclass(frozen=True)
class ConvolutionForm:
    """Stride, padding and dilation along each spatial axis, and the number of groups of channels."""

    stride: Size
    padding: Size
    dilation: Size
    groups: int = 1

    @classmethod
    def of(cls, layer: Any) -> ConvolutionForm:
        """That of a layer of PyTorch's, whose padding is a number along each axis."""
        return cls(layer.stride, layer.padding, layer.dilation, layer.groups)

    def reach(self, kernel: Size) -> Size:
        """Distance between the first and the last tap of a kernel along each axis, in voxels of the image."""
        return tuple(d * (k - 1) for d, k in zip(self.dilation, kernel, strict=True))

    def output_size(self, size: Size, kernel: Size) -> Size:
        """Voxels of the output along each axis."""
        axes = zip(size, self.padding, self.reach(kernel), self.stride, strict=True)
        return tuple((n + 2 * p - r - 1) // s + 1 for n, p, r, s in axes)


def gradient_at_image(kernel: Kernel, gradient: Tensor, weight: Tensor, size: Size, form: ConvolutionForm) -> Tensor:
    """The gradient at the image, computed as `kernel` says; `choice` knows which suit which convolutions."""
    return _KERNELS[kernel](gradient, weight, size, form)


def _autograd(gradient: Tensor, weight: Tensor, size: Size, form: ConvolutionForm) -> Tensor:
    """As autograd computes it, without the image, of which only the shape counts."""
    image = gradient.new_empty(()).expand(gradient.shape[0], weight.shape[1] * form.groups, *size)
    shape = (form.stride, form.padding, form.dilation, False, [0] * len(size), form.groups)
    found: Tensor = torch.ops.aten.convolution_backward(gradient, image, weight, None, *shape, [True, False, False])[0]
    return found


def _matrix_product(gradient: Tensor, weight: Tensor, size: Size, form: ConvolutionForm) -> Tensor:
    """For kernels of one tap, without padding and groups: the transposed weights times the gradient."""
    columns = torch.matmul(weight.flatten(1).t(), gradient.flatten(2))
    product = columns.reshape(*columns.shape[:2], *gradient.shape[2:])
    if max(form.stride) == 1:
        return product
    whole = product.new_zeros(*product.shape[:2], *size)
    reached: tuple[Any, ...] = (..., *(slice(None, None, step) for step in form.stride))
    whole[reached] = product
    return whole


def _taps(gradient: Tensor, weight: Tensor, size: Size, form: ConvolutionForm) -> Tensor:
    """For few input channels, without groups: the taps along the first axis are output channels of one transposed convolution
    along the other axes, and each is then added at its place.

    Libraries compute several channels at once, and with one input channel of, say, eight they waste seven eighths of their work.
    """
    outputs, inputs, first, *kernel = weight.shape
    channels = weight.movedim(2, 1).reshape(outputs, first * inputs, 1, *kernel)
    plane = ConvolutionForm((1, *form.stride[1:]), (0, *form.padding[1:]), (1, *form.dilation[1:]))
    spread = transposed_convolution(gradient, channels, (gradient.shape[2], *size[1:]), plane)
    spread = spread.reshape(gradient.shape[0], first, inputs, *spread.shape[2:])
    found = gradient.new_zeros(gradient.shape[0], inputs, *size)
    step = form.stride[0]
    for tap in range(first):
        place = tap * form.dilation[0] - form.padding[0]  # of the first row of the gradient, in the image
        start = max(0, -(place // step))
        stop = min(gradient.shape[2], (size[0] - 1 - place) // step + 1)
        if start < stop:
            found[:, :, place + start * step : place + (stop - 1) * step + 1 : step] += spread[:, tap, :, start:stop]
    return found


def transposed_convolution(gradient: Tensor, weight: Tensor, size: Size, form: ConvolutionForm) -> Tensor:
    """As PyTorch's transposed convolution, whose output has `size` voxels."""
    axes = zip(gradient.shape[2:], form.stride, form.padding, form.reach(tuple(weight.shape[2:])), strict=True)
    missing = [n - ((m - 1) * s - 2 * p + r + 1) for n, (m, s, p, r) in zip(size, axes, strict=True)]
    return TRANSPOSED[weight.ndim](gradient, weight, None, form.stride, form.padding, missing, form.groups, form.dilation)


def _turned(gradient: Tensor, weight: Tensor, size: Size, form: ConvolutionForm) -> Tensor:
    """Without strides, and with less padding than the kernel reaches: oneDNN's plain convolution with the turned kernels."""
    around = [r - p for r, p in zip(form.reach(tuple(weight.shape[2:])), form.padding, strict=True)]
    shape = (around, form.stride, form.dilation, form.groups)
    found: Tensor = torch.ops.aten.mkldnn_convolution(gradient.contiguous(), turned(weight, form.groups), None, *shape)
    return found


def turned(weight: Tensor, groups: int) -> Tensor:
    """The kernels whose plain convolution is the transposed one with these: reversed, input and output channels swapped."""
    outputs, inputs, *kernel = weight.shape
    grouped = weight.reshape(groups, outputs // groups, inputs, *kernel).transpose(1, 2)
    return grouped.reshape(groups * inputs, outputs // groups, *kernel).flip(tuple(range(2, weight.ndim)))


def work(batch: int, weight: Tensor, size: Size, form: ConvolutionForm) -> int:
    """Multiplications of a convolution of `batch` images of this size."""
    return batch * weight.numel() * prod(form.output_size(size, tuple(weight.shape[2:])))


_KERNELS: dict[Kernel, Callable[[Tensor, Tensor, Size, ConvolutionForm], Tensor]] = {
    "autograd": _autograd,
    "matrix product": _matrix_product,
    "taps": _taps,
    "turned": _turned,
}
