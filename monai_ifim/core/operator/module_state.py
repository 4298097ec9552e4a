"""State of a network's modules during a decomposition, and its return to the caller afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from monai_ifim.core.errors import TrainingModeWarning, warn_caller
from monai_ifim.core.operator.eager_execution import eager_execution


@contextmanager
def evaluation_mode(network: Callable[..., Any]) -> Iterator[None]:
    """Context with every submodule in eval mode, no gradients of parameters, and autograd on.

    Modes and parameters are restored afterwards. Without gradients of weights a convolution saves no input.
    """
    modules = [m for m in network.modules() if hasattr(m, "training")] if isinstance(network, nn.Module) else []
    training = [module for module in modules if module.training]
    if any(module is network or isinstance(module, (_NormBase, _DropoutNd)) for module in training):
        warn_caller(
            "the network was in train mode: it is evaluated in eval mode, and its mode restored. Call network.eval() first.",
            TrainingModeWarning,
        )
    parameters = list(network.parameters()) if isinstance(network, nn.Module) else []
    trained = [p for p in parameters if p.requires_grad and not nn.parameter.is_lazy(p) and p.is_leaf and not p.is_inference()]
    with torch.inference_mode(False), torch.enable_grad(), eager_execution():
        try:
            for parameter in trained:
                parameter.requires_grad_(False)
            if training and isinstance(network, nn.Module):
                with suppress(NotImplementedError):  # modules of torch.export have the mode of their export only
                    network.eval()
            yield
        finally:
            for module in training:
                module.training = True
            for parameter in trained:
                parameter.requires_grad_(True)
