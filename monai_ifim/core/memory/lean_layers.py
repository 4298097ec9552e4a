"""Layers that save less for the backward pass when only the gradient of the image is needed; their outputs are unchanged.

A convolution, and a batch normalisation in eval mode, is affine: its backward pass needs the weights only, and PyTorch saves the
input too. A rectifier needs the sign of each element, and PyTorch saves the output; maximum pooling needs the places of the
maxima, and PyTorch saves the input too. The outputs come from PyTorch's own kernels, bit for bit. The modules have their own
`forward` again afterwards. The backward pass of a convolution is here another convolution, and the derivative of that the first
one again: differentiating the backward pass saves nothing and takes half the work of PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_ifim.core.convolutions.choice import ChosenKernels, choosable
from monai_ifim.core.convolutions.kernels import (
    ConvolutionForm,
    Kernel,
    gradient_at_image,
    transposed_convolution,
    turned,
)
from monai_ifim.core.convolutions.linear_maps import linear_map
from monai_ifim.core.convolutions.onednn import convolved
from monai_ifim.core.memory.replaced_forward import own_forward, replaceable

NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
PLAIN, TRANSPOSED = (nn.Conv2d, nn.Conv3d), (nn.ConvTranspose2d, nn.ConvTranspose3d)
POOLS: dict[type[nn.Module], Callable[..., Any]] = {
    nn.MaxPool2d: functional.max_pool2d_with_indices,
    nn.MaxPool3d: functional.max_pool3d_with_indices,
}


class _Affine(torch.autograd.Function):
    """Batch normalisation with running statistics."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: Any) -> Tensor:
        scale = torch.rsqrt(module.running_var + module.eps)
        if module.weight is not None:
            scale = scale * module.weight
        ctx.scale = scale.detach().reshape(1, -1, *[1] * (x.ndim - 2))
        statistics = (module.running_mean, module.running_var, module.weight, module.bias)
        return functional.batch_norm(x, *statistics, training=False, momentum=0.0, eps=module.eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.scale.to(gradient), None


class _Convolution(torch.autograd.Function):
    """A convolution or a transposed convolution; each is the adjoint of the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: Any, output_size: Any, kernels: ChosenKernels) -> Tensor:
        ctx.module, ctx.weight, ctx.shape = module, module.weight.detach(), x.shape
        choice = type(module) in PLAIN and choosable(x, module.weight)
        ctx.kernel = kernels.choose(x, ctx.weight, ConvolutionForm.of(module)) if choice else None
        return _own_forward(module, x, output_size)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        module, weight, here, there = ctx.module, ctx.weight, gradient.shape[2:], ctx.shape[2:]
        if type(module) in TRANSPOSED:
            forms = partial(_gathered, module, weight, there), partial(_spread, module, weight, here, None)
        else:
            forms = partial(_spread, module, weight, there, ctx.kernel), partial(_gathered, module, weight, here)
        return linear_map(gradient, *forms), None, None, None


def _gathered(module: Any, weight: Tensor, size: torch.Size, x: Tensor) -> Tensor:
    """The convolution of x with the module's kernels, without bias, cut to `size` voxels, as output padding is no part of it."""
    within: tuple[Any, ...] = (..., *map(slice, size))
    return convolved(x, weight.to(x), ConvolutionForm.of(module))[within]


def _spread(module: Any, weight: Tensor, size: torch.Size, kernel: Kernel | None, x: Tensor) -> Tensor:
    """The transposed convolution of x with the module's kernels, without bias, that gives `size` voxels.

    kernel: that was chosen for it; without a choice a plain convolution with turned kernels where there are no strides, which
    libraries compute up to several times as fast.
    """
    form = ConvolutionForm.of(module)
    if kernel is not None:
        return gradient_at_image(kernel, x, weight, tuple(size), form)
    around = tuple(r - p for r, p in zip(form.reach(module.kernel_size), form.padding, strict=True))
    spread = [n + a + r for n, a, r in zip(x.shape[2:], around, (-p for p in form.padding), strict=True)]
    plain = max(form.stride) == 1 and spread == list(size) and min(around) >= 0
    if plain and x.numel() >= weight.numel():  # else the kernels take longer to be turned
        return convolved(x, turned(weight, form.groups).to(x), ConvolutionForm(form.stride, around, form.dilation, form.groups))
    return transposed_convolution(x, weight.to(x), tuple(size), form)


class _Rectifier(torch.autograd.Function):
    """max(x, 0); saves one byte for each element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(x)
        result = x.relu_() if inplace else x.relu()
        ctx.save_for_backward(result <= 0)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (off,) = ctx.saved_tensors
        return torch.where(off, gradient.new_zeros(()), gradient), None


class _MaximumPool(torch.autograd.Function):
    """Maximum over windows, which may overlap; saves the places of the maxima."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pool: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        result, places = pool(x)
        ctx.save_for_backward(places)
        ctx.shape = x.shape
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        flat = gradient.new_zeros(ctx.shape).flatten(2)  # places count within an image's channel
        return flat.scatter_add_(2, places.flatten(2), gradient.flatten(2)).reshape(ctx.shape), None


@contextmanager
def lean_layers(network: Callable[..., Any], kernels: ChosenKernels | None = None) -> Iterator[None]:
    """Context in which the layers of a module that have a lean form save less for the backward pass.

    kernels: chooses the kernels of the backward passes of convolutions, and remembers them.
    """
    chosen = ChosenKernels() if kernels is None else kernels
    modules = network.modules() if isinstance(network, nn.Module) else ()
    with own_forward({module: form for module in modules if (form := _lean_form(module, chosen)) is not None}):
        yield


def _lean_form(module: nn.Module, kernels: ChosenKernels) -> Callable[..., Any] | None:
    if not replaceable(module):
        return None
    if type(module) is nn.ReLU:
        return partial(_rectified, module)
    if type(module) in NORMALISATIONS and module.running_mean is not None and not module.training:
        return partial(_normalised, module)
    if type(module) in (*PLAIN, *TRANSPOSED) and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return partial(_convolved, module, kernels)
    if type(module) in POOLS and not module.return_indices:
        return partial(_pooled, module)
    return None


def _has_graph(input: Tensor) -> bool:
    """True if something is saved for this input; not inside torch.func, which takes no function of this kind."""
    return torch.is_grad_enabled() and input.requires_grad and torch._C._functorch.maybe_current_level() is None


def _rectified(module: Any, input: Tensor) -> Tensor:
    if not (_has_graph(input)):
        return functional.relu(input, inplace=module.inplace)
    result: Tensor = _Rectifier.apply(input, module.inplace)  # type: ignore[no-untyped-call]
    return result


def _convolved(module: Any, kernels: ChosenKernels, input: Tensor, output_size: Any = None) -> Tensor:
    whole = input.ndim == len(module.kernel_size) + 2
    if not (_has_graph(input) and whole) or module.weight.requires_grad:
        return _own_forward(module, input, output_size)
    result: Tensor = _Convolution.apply(input, module, output_size, kernels)  # type: ignore[no-untyped-call]
    return result


def _own_forward(module: Any, input: Tensor, output_size: Any) -> Tensor:
    """The `forward` of a convolution's class; only transposed ones take an output size."""
    result: Tensor = type(module).forward(module, input, *(() if output_size is None else (output_size,)))
    return result


def _pooled(module: Any, input: Tensor) -> Tensor:
    settings = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
    pool = partial(_with_places, POOLS[type(module)], settings)
    if not (_has_graph(input)) or input.ndim != (4 if type(module) is nn.MaxPool2d else 5):
        return pool(input)[0]
    result: Tensor = _MaximumPool.apply(input, pool)  # type: ignore[no-untyped-call]
    return result


def _with_places(pool: Callable[..., Any], settings: tuple[Any, ...], input: Tensor) -> tuple[Tensor, Tensor]:
    result, places = pool(input, *settings)
    return result, places


def _normalised(module: Any, input: Tensor) -> Tensor:
    if not (_has_graph(input)):
        statistics = (module.running_mean, module.running_var, module.weight, module.bias)
        return functional.batch_norm(input, *statistics, training=False, momentum=0.0, eps=module.eps)
    result: Tensor = _Affine.apply(input, module)  # type: ignore[no-untyped-call]
    return result
