"""Layers that save less for the backward pass when only the gradient of the image is needed; their outputs are unchanged.

A convolution, and a batch normalisation in eval mode, is affine: its backward pass needs the weights only, and PyTorch saves the
input too. A rectifier needs the sign of each element, and PyTorch saves the output; maximum pooling needs the places of the
maxima, and PyTorch saves the input too. The outputs come from PyTorch's own kernels, bit for bit. The modules have their own
`forward` again afterwards. The backward pass of a convolution is here another convolution, so differentiating it once more
takes half the work of PyTorch's double backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_ifim.core.memory.replaced_forward import own_forward, replaceable

NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
ADJOINTS: dict[type[nn.Module], tuple[Callable[..., Tensor], bool]] = {  # adjoint, and True for a convolution not transposed
    nn.Conv2d: (functional.conv_transpose2d, True),
    nn.Conv3d: (functional.conv_transpose3d, True),
    nn.ConvTranspose2d: (functional.conv2d, False),
    nn.ConvTranspose3d: (functional.conv3d, False),
}
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
    def forward(ctx: Any, x: Tensor, module: Any, output_size: Any) -> Tensor:
        ctx.module, ctx.weight, ctx.shape = module, module.weight.detach(), x.shape
        return _own_forward(module, x, output_size)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        module, spatial = ctx.module, gradient.ndim - 2
        adjoint, forwards = ADJOINTS[type(module)]
        weight = ctx.weight.to(gradient)
        if not forwards:
            return adjoint(gradient, weight, None, module.stride, module.padding, module.dilation, module.groups), None, None
        reach = [
            (gradient.shape[2 + i] - 1) * module.stride[i]
            - 2 * module.padding[i]
            + module.dilation[i] * (module.kernel_size[i] - 1)
            + 1
            for i in range(spatial)
        ]
        missing = [ctx.shape[2 + i] - reach[i] for i in range(spatial)]  # elements beyond the last full stride
        settings = (module.stride, module.padding, missing, module.groups, module.dilation)
        return adjoint(gradient, weight, None, *settings), None, None


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
def lean_layers(network: Callable[..., Any]) -> Iterator[None]:
    """Context in which the layers of a module that have a lean form save less for the backward pass."""
    modules = network.modules() if isinstance(network, nn.Module) else ()
    with own_forward({module: form for module in modules if (form := _lean_form(module)) is not None}):
        yield


def _lean_form(module: nn.Module) -> Callable[..., Any] | None:
    if not replaceable(module):
        return None
    if type(module) is nn.ReLU:
        return partial(_rectified, module)
    if type(module) in NORMALISATIONS and module.running_mean is not None and not module.training:
        return partial(_normalised, module)
    if type(module) in ADJOINTS and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return partial(_convolved, module)
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


def _convolved(module: Any, input: Tensor, output_size: Any = None) -> Tensor:
    whole = input.ndim == len(module.kernel_size) + 2
    if not (_has_graph(input) and whole) or module.weight.requires_grad:
        return _own_forward(module, input, output_size)
    result: Tensor = _Convolution.apply(input, module, output_size)  # type: ignore[no-untyped-call]
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
