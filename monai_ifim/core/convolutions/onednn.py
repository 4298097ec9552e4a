"""Volumes that PyTorch computes with its own kernel though oneDNN's is faster.

It decides by the batch, the channels and the first two spatial axes of the image, whatever the third is (`use_mkldnn` in its
`Convolution.cpp`): where they make at most 20480, a convolution of volumes copies every neighbourhood and multiplies matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from monai_ifim.core.convolutions.kernels import ConvolutionForm

SMALL_PRODUCT = 32  # weights of an output channel up to which PyTorch's own kernel is the fastest
ASKED = ("_select_conv_backend", "_ConvBackend", "_has_mkldnn", "_get_mkldnn_enabled")
CONVOLUTIONS = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}  # by the axes of their weights


def can_be_asked() -> bool:
    """True if this version of PyTorch tells what computes a convolution: the names are its own, and may go."""
    return all(hasattr(torch._C, name) for name in ASKED)


def in_onednn(image: Tensor, weight: Tensor, form: ConvolutionForm) -> bool:
    """True if PyTorch computes this convolution with oneDNN."""
    shape = (form.stride, form.padding, form.dilation, False, (0,) * (image.ndim - 2), form.groups)
    chosen = torch._C._select_conv_backend(image, weight, None, *shape, None)
    return bool(chosen == torch._C._ConvBackend.Mkldnn)  # type: ignore[attr-defined]


def has_onednn() -> bool:
    """True if this build of PyTorch has oneDNN, and it is not switched off."""
    return can_be_asked() and bool(torch._C._has_mkldnn and torch._C._get_mkldnn_enabled())


def is_left_out(image: Tensor, weight: Tensor, form: ConvolutionForm) -> bool:
    """True for volumes that oneDNN would compute faster; image and weight are float32 on the CPU."""
    if image.ndim != 5 or not has_onednn():
        return False
    return weight[0].numel() > SMALL_PRODUCT and not in_onednn(image, weight, form)


def convolved(image: Tensor, weight: Tensor, form: ConvolutionForm) -> Tensor:
    """The convolution without bias, not differentiable where oneDNN computes it and PyTorch would not have."""
    plain = image.dtype == weight.dtype == torch.float32 and image.device.type == weight.device.type == "cpu"
    if plain and is_left_out(image, weight, form):
        by_onednn: Tensor = torch.ops.aten.mkldnn_convolution(
            image.contiguous(), weight, None, form.padding, form.stride, form.dilation, form.groups
        )
        return by_onednn
    return CONVOLUTIONS[weight.ndim](image, weight, None, form.stride, form.padding, form.dilation, form.groups)
