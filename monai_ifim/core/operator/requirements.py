"""What image and network must meet to be decomposed: checks that raise with the cure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from monai_ifim.core.errors import ImageError, NetworkError
from monai_ifim.core.operator.output_selection import shape_of
from monai_ifim.core.operator.predictor import Predictor, describe
from monai_ifim.core.operator.refusals import said_by
from monai_ifim.core.operator.rows import all_finite

TRAINING_FLAGS = {"dropout": 2, "feature_dropout": 2, "alpha_dropout": 2, "batch_norm": 5}  # index of the flag in the inputs


def check_image(network: Callable[..., Any], image: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The image as a plain detached tensor; raises ImageError, naming the cure, if it cannot be decomposed.

    dtype: of the passes, if one was requested; the image is converted to it.
    """
    if not isinstance(image, Tensor):
        raise ImageError(f"the image is {describe(image)}: pass a torch tensor [B, channel, *spatial].")
    if image.layout != torch.strided or image.is_nested:
        raise ImageError(f"the image is {shape_of(image)}: pass a dense tensor, image.to_dense().")
    image = image.detach().as_subclass(Tensor)
    if not image.is_floating_point():
        raise ImageError(f"the image is {image.dtype}: convert it, image.float(), and scale it as the network was trained.")
    if image.ndim not in (4, 5):
        raise ImageError(
            f"the image has shape {tuple(image.shape)}; [B, channel, H, W] or [B, channel, H, W, D] is needed: "
            "add a missing batch or channel axis with image[None]."
        )
    if image.numel() == 0:
        raise ImageError(f"the image has shape {tuple(image.shape)}, without any element: pass an image with at least one.")
    _check_placement(network, image, any_dtype=dtype is not None)
    image = image if dtype is None else image.to(dtype)
    if not all_finite(image):
        raise ImageError("the image holds NaN or infinite values: mask or clip them first (torch.nan_to_num).")
    return image


def check_independence(predictor: Predictor, image: Tensor, output: Tensor, alone: Tensor | None = None) -> None:
    """Raise NetworkError if the output for one image of a batch depends on the others, or is random.

    image: [B, channel, *spatial]; output: [B, C], the predictor's for the whole batch. alone: that of the first image by itself,
    by default from one more pass.
    """
    network = predictor.network
    if isinstance(network, nn.Module):
        modules = list(network.modules())
        unsettled = next((m for m in modules if isinstance(m, _BatchNorm) and m.running_mean is None), None)
        if unsettled is not None:
            name = next(name for name, module in network.named_modules() if module is unsettled)
            raise NetworkError(
                f"layer '{name}' ({type(unsettled).__name__}) has no running statistics, so every output depends on the "
                "rest of the batch: use track_running_stats=True, or instance or group normalisation."
            )
        if any(isinstance(module, torch.jit.ScriptModule) for module in modules):
            _check_scripts(network)
    if image.shape[0] == 1:
        return
    alone = _answer_alone(predictor, image) if alone is None else alone
    together = output.detach()[:1]
    tolerance = 10 * torch.finfo(together.dtype).eps ** 0.5
    if float((alone - together).abs().max()) > tolerance * max(1.0, float(together.abs().max())):
        raise NetworkError(
            "the network's output for the first image changes when it is alone in the batch: it depends on the rest of the "
            "batch, or is random (dropout left on). Use layers that treat every image by itself, or one image a batch."
        )


def _answer_alone(predictor: Predictor, image: Tensor) -> Tensor:
    """The output for the first image of a batch by itself; raises NetworkError for a network of a fixed batch size."""
    try:
        with torch.no_grad():
            return predictor(image[:1].clone(), slice(0, 1))
    except (NetworkError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of the network's own code
        raise NetworkError(
            f"the network answers this batch of {image.shape[0]} images, but not its first one alone ({said_by(error)}): its "
            "batch size is fixed, so that no image can be told to be treated by itself. Export or write it for any batch size, "
            "for instance with x.shape[0] or -1 in reshapes."
        ) from error


def _check_scripts(network: nn.Module) -> None:
    """Raise NetworkError for TorchScript traced in train mode: the mode is part of its graph, which eval() does not change."""
    if not isinstance(network, torch.jit.ScriptModule):
        for child in network.children():
            _check_scripts(child)
        return
    graph: Any = getattr(network, "inlined_graph", None)
    if graph is None:  # a script without a forward
        return
    for kind, place in TRAINING_FLAGS.items():
        for node in graph.findAllNodes(f"aten::{kind}", recurse=True):
            if list(node.inputs())[place].toIValue() is True:
                raise NetworkError(
                    f"the TorchScript has {kind} fixed in train mode, so that its outputs are random or depend on the rest of "
                    "the batch: call network.eval() before torch.jit.trace."
                )


def _check_placement(network: Callable[..., Any], image: Tensor, any_dtype: bool) -> None:
    parameters = list(network.parameters()) if isinstance(network, nn.Module) else []
    weights = [p for p in parameters if p.is_floating_point()]
    if not weights:
        return
    if all(p.device != image.device for p in weights):
        raise ImageError(f"the image is on {image.device} and the network on {weights[0].device}: move one, image.to(device).")
    autocast = torch.is_autocast_enabled(image.device.type)
    if not autocast and not any_dtype and all(p.dtype != image.dtype for p in weights):
        raise ImageError(f"the image is {image.dtype} and the network {weights[0].dtype}: convert one, image.to(dtype).")
