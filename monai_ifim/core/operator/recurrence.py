"""Recurrent layers on a GPU with PyTorch's own kernels: cuDNN's have no backward pass in eval mode, and no second derivative.

`nn.LSTM`, `nn.GRU` and `nn.RNN` call cuDNN where it is enabled, and its backward pass is for train mode only. PyTorch's own
kernels have the same output to rounding, a backward pass in either mode, and one that can be differentiated. Whether cuDNN is
enabled is a switch of the whole process: it is off while one of these layers runs forward, and convolutions keep cuDNN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from monai_ifim.core.memory.replaced_forward import own_forward, replaceable
from monai_ifim.core.operator.module_state import modules_of
from monai_ifim.core.process_switch import ProcessSwitch

DEVICES = ("cuda",)  # whose recurrent layers are cuDNN's


@contextmanager
def differentiable_recurrence(network: Callable[..., Any], image: Tensor) -> Iterator[None]:
    """Context in which recurrent layers of a module, in this thread, run without cuDNN if the image is on a GPU.

    Left as they are: TorchScript, layers with a `forward` of their own instance, and calls of `torch.lstm` and the like; the
    error of their backward pass states the cure.
    """
    modules = modules_of(network) if isinstance(network, nn.Module) and image.device.type in DEVICES else []
    recurrent = [module for module in modules if isinstance(module, nn.RNNBase) and replaceable(module)]
    with own_forward({module: partial(_without_cudnn, module) for module in recurrent}):
        yield


def _without_cudnn(module: Any, *args: Any, **kwargs: Any) -> Any:
    with _CUDNN_OFF.held():
        return type(module).forward(module, *args, **kwargs)


@contextmanager
def _cudnn_off() -> Iterator[None]:
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


_CUDNN_OFF = ProcessSwitch(_cudnn_off)
