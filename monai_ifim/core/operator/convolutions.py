"""Convolutions of a network with the chosen kernels for their backward passes; outputs are PyTorch's own, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from monai_ifim.core.convolutions.choice import ChosenKernels, choosable, is_worthwhile
from monai_ifim.core.convolutions.kernels import ConvolutionForm
from monai_ifim.core.convolutions.linear_maps import with_chosen_gradient
from monai_ifim.core.memory.replaced_forward import own_forward, replaceable
from monai_ifim.core.operator.module_state import modules_of

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SMALLEST = 2**14  # elements of a batch of images below which no kernel pays for its calls


@contextmanager
def chosen_convolutions(network: Callable[..., Any], image: Tensor, kernels: ChosenKernels) -> Iterator[None]:
    """Context in which each frozen convolution of a module, in this thread, gets the chosen kernel for its backward pass.

    image: the images that are passed through. Left as they are: subclasses of PyTorch's layers, parametrised layers among them,
    convolutions that are called as functions, inside of TorchScript, transposed, with differentiated weights, with padding given
    by name or of other values than zeros, and those without a choice.
    """
    modules = modules_of(network) if isinstance(network, nn.Module) and image.numel() >= SMALLEST else []
    with own_forward(
        {module: partial(_convolved, module, ConvolutionForm.of(module), kernels) for module in modules if _is_plain(module)}
    ):
        yield


def _is_plain(module: nn.Module) -> bool:
    if type(module) not in LAYERS or not replaceable(module):
        return False
    return module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _convolved(module: Any, form: ConvolutionForm, kernels: ChosenKernels, input: Tensor) -> Tensor:
    convolve: Callable[[Tensor], Tensor] = partial(type(module).forward, module)
    if not (torch.is_grad_enabled() and input.requires_grad and is_worthwhile(input, module.weight)):
        return convolve(input)
    if not (_is_frozen(module) and choosable(input, module.weight)):
        return convolve(input)
    kernel = kernels.choose(input, module.weight, form)
    return convolve(input) if kernel == "autograd" else with_chosen_gradient(convolve, input, module.weight, form, kernel)


def _is_frozen(module: Any) -> bool:
    return not module.weight.requires_grad and (module.bias is None or not module.bias.requires_grad)
