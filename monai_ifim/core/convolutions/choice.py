"""Which kernel computes the gradient of a convolution: a rule from its shape, so that two runs choose alike on one machine.

Measured on x86-64 with AVX2, one and two threads, over the layers of DenseNet121, ResNet-18, UNet, EfficientNet-B0, SEResNet50:

- For volumes that PyTorch does not give to oneDNN (see `onednn`), its own kernel takes 2 to 14 times as long as oneDNN's forward
  convolution with turned kernels.
- For kernels of one tap a matrix product takes 0.3 to 0.95 of autograd's time, where strides leave voxels out 0.14 to 0.8.
- For few input channels oneDNN wastes most of its work, and taps as output channels take 0.12 to 0.6 of autograd's time.
- Where groups have few channels, as with one filter a channel, oneDNN's forward kernel takes 0.14 to 0.9 of the time of its
  backward kernel.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from monai_ifim.core.convolutions.kernels import ConvolutionForm, Kernel, Size, work
from monai_ifim.core.convolutions.onednn import can_be_asked, has_onednn, in_onednn, is_left_out

PLAIN_TYPES = (Tensor, nn.Parameter)
LEAST_PRODUCT, LEAST_TAPS, LEAST_TURNED = 2**23, 2**22, 2**22  # multiplications from which a kernel pays for its calls
LEAST_PRODUCT_OF_VOLUMES, LEAST_TURNED_VOLUMES = 2**19, 2**20  # the same where PyTorch's own kernel for volumes is slow
FEW, FEWER = 8, 3  # input channels up to which taps are taken: beside PyTorch's own kernel, and beside oneDNN's
NARROW = 4  # input and output channels of a group up to which oneDNN's forward kernel is faster than its backward kernel
LEAST_PLACES = 32  # voxels of the output from which turning the kernels is a small part of the work


class ChosenKernels:
    """Chooses kernels of backward passes, and remembers what was chosen for which convolution."""

    def __init__(self) -> None:
        self._chosen: dict[Any, Kernel] = {}

    def choose(self, image: Tensor, weight: Tensor, form: ConvolutionForm) -> Kernel:
        """The kernel for frozen weights and an image for which `choosable` is True."""
        kernel = choose_kernel(image, weight, form)
        self._chosen[(weight.data_ptr(), image.shape[2:], form)] = kernel
        return kernel

    def described(self) -> dict[str, int]:
        """Number of convolutions by kernel, as plain data."""
        return dict(sorted(Counter(self._chosen.values()).items()))


def is_worthwhile(image: Tensor, weight: Tensor) -> bool:
    """False if the convolution has too little work for any choice; much faster than the choice itself."""
    most = image.numel() // max(1, image.shape[1]) * weight.numel()  # multiplications of a convolution without strides
    return most >= (min(LEAST_PRODUCT_OF_VOLUMES, LEAST_TURNED_VOLUMES) if image.ndim == 5 else min(LEAST_TAPS, LEAST_TURNED))


def choosable(image: Tensor, weight: Tensor) -> bool:
    """True if there is a choice: plain float32 tensors on the CPU, in their usual layout, outside of autocast and torch.func."""
    return (
        type(image) in PLAIN_TYPES
        and type(weight) in PLAIN_TYPES
        and image.dtype == weight.dtype == torch.float32
        and image.device.type == weight.device.type == "cpu"
        and image.ndim == weight.ndim
        and image.is_contiguous()
        and weight.is_contiguous()
        and not torch.is_autocast_enabled("cpu")
        and torch._C._functorch.maybe_current_level() is None
        and forward_ad._current_level < 0
        and can_be_asked()
    )


def choose_kernel(image: Tensor, weight: Tensor, form: ConvolutionForm) -> Kernel:
    """The kernel for the backward pass of one convolution; see the module."""
    size, kernel = tuple(image.shape[2:]), tuple(weight.shape[2:])
    multiplications = work(image.shape[0], weight, size, form)
    if form.groups == 1 and prod(kernel) == 1 and not any(form.padding):
        least = LEAST_PRODUCT_OF_VOLUMES if image.ndim == 5 else LEAST_PRODUCT
        return "matrix product" if multiplications >= least else "autograd"
    if form.groups == 1 and kernel[0] > 1 and multiplications >= LEAST_TAPS and _has_few_channels(image, weight, form):
        return "taps"
    least = LEAST_TURNED_VOLUMES if image.ndim == 5 else LEAST_TURNED
    return "turned" if multiplications >= least and _is_turned(image, weight, form) else "autograd"


def _has_few_channels(image: Tensor, weight: Tensor, form: ConvolutionForm) -> bool:
    """True if there are few input channels, and enough output channels that their taps are fewer."""
    outputs, inputs, first = weight.shape[:3]
    if inputs * first > outputs:
        return False
    if in_onednn(image, weight, form):
        return inputs <= FEWER
    return inputs <= FEW and is_left_out(image, weight, form)


def _is_turned(image: Tensor, weight: Tensor, form: ConvolutionForm) -> bool:
    """True if a plain convolution with turned kernels computes the gradient, and is faster."""
    kernel: Size = tuple(weight.shape[2:])
    inside = all(p <= r for p, r in zip(form.padding, form.reach(kernel), strict=True))
    if max(form.stride) > 1 or not inside or not has_onednn():
        return False
    outputs, inputs = weight.shape[0] // form.groups, weight.shape[1]
    if image.ndim > 3 and max(outputs, inputs) <= NARROW and (form.groups > 1 or inputs >= FEWER):
        return True
    places = prod(form.output_size(tuple(image.shape[2:]), kernel))
    return places >= LEAST_PLACES and is_left_out(image, weight, form)
