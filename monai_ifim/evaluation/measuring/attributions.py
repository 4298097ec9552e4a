"""Attribution maps by Captum (Kokhlikyan et al., arXiv:2009.07896), as controls for the iFIM."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from monai_ifim.core import IFIMError
from monai_ifim.core.operator.module_state import evaluation_mode
from monai_ifim.core.operator.recurrence import differentiable_recurrence
from monai_ifim.core.operator.requirements import check_image
from monai_ifim.core.operator.shortcuts import whole_shortcuts

__all__ = ["ATTRIBUTIONS", "attribute", "last_spatial_layer"]

ATTRIBUTIONS = ("integrated_gradients", "saliency", "gradcam", "occlusion")

PATH_STEPS = 32  # of integrated gradients
PASS_IMAGES = 16  # images in one pass
WINDOWS_PER_AXIS = {2: 8, 3: 4}  # occluding windows that would cover an axis side by side; a volume has more axes
SMALLEST_WINDOW = 2

_INTERPOLATION = {2: "bilinear", 3: "trilinear"}
# Layers that act entry by entry give no feature map of their own; in a transformer they hold attention weights [B, head, N, N].
_PASSES_ON = (_DropoutNd, nn.Softmax, nn.Identity)


def attribute(network: nn.Module, image: Tensor, target: int, method: str, predict: Callable[[Tensor], Tensor]) -> Tensor:
    """Attribution of the output `target` to every entry of an image, [channel, *spatial], detached, in the image's dtype.

    The network is evaluated in eval mode; network and image are left unchanged.

    Args:
        network: the module itself, whose layers Grad-CAM chooses from.
        image: [1, channel, *spatial], two or three spatial axes.
        target: class index; where there is one output z, class 1 has the score z and class 0 the score -z.
        method: "integrated_gradients" (Sundararajan et al. 2017, from the zero image), "saliency" (absolute gradient;
            Simonyan et al. 2014), "gradcam" (Selvaraju et al. 2017, zero or more, the same for all channels) or "occlusion"
            (Zeiler and Fergus 2014, windows of all channels set to the image's mean).
        predict: the network as a function [B, channel, *spatial] -> outputs [B, C].

    Raises:
        IFIMError: unknown method or target, more than one image, a network without a layer for Grad-CAM, or an attribution
            that is not finite.
    """
    if method not in ATTRIBUTIONS:
        raise IFIMError(f"unknown attribution {method!r}: choose one of {', '.join(map(repr, ATTRIBUTIONS))}.")
    plain = check_image(network, image)
    if plain.shape[0] != 1:
        raise IFIMError(
            f"the image has shape {tuple(plain.shape)}: attributions are made one image at a time, [1, channel, ...]."
        )
    with evaluation_mode(network), whole_shortcuts(network), differentiable_recurrence(network, plain):
        leaf = plain.clone().requires_grad_(True)
        scores = _scores(predict, leaf, target)
        found = _attribute_with(method, network, leaf, target, scores).detach()
    if not bool(torch.isfinite(found).all()):
        raise IFIMError(f"the attribution {method!r} is NaN or infinite: check the network's weights and the image's scaling.")
    return found[0].to(plain.dtype).expand(plain.shape[1:]).clone()  # Captum sums occlusion up in single precision


def last_spatial_layer(network: nn.Module, image: Tensor, predict: Callable[[Tensor], Tensor]) -> tuple[str, nn.Module]:
    """Name and module of the last layer, in order of execution, that gives a feature map with more than one position.

    A feature map is [1, K, *spatial], no axis longer than the image's; a module that runs several times counts with its last
    run. Raises IFIMError where there is none: then Grad-CAM is not defined.

    Args:
        network: in eval mode.
        image: [1, channel, *spatial].
        predict: the network as a function [B, channel, *spatial] -> outputs [B, C].
    """
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, _: Any, output: Any) -> None:
        shapes.pop(module, None)  # so that the dict is ordered by last runs
        shapes[module] = tuple(output.shape) if isinstance(output, Tensor) else ()

    handles = [module.register_forward_hook(note) for module in network.modules() if not isinstance(module, _PASSES_ON)]
    try:
        with torch.no_grad():
            predict(image.detach().clone())
    finally:
        for handle in handles:
            handle.remove()
    names = {module: name for name, module in network.named_modules()}
    for module, shape in reversed(shapes.items()):
        if _is_feature_map(shape, tuple(image.shape)):
            return names[module], module
    raise IFIMError(
        f"Grad-CAM needs a layer whose output is [1, K, {image.ndim - 2} spatial axes] with more than one position, and "
        f"{type(network).__name__} has none for an image of shape {tuple(image.shape)}: leave Grad-CAM out."
    )


def _is_feature_map(shape: tuple[int, ...], image: tuple[int, ...]) -> bool:
    fits = len(shape) == len(image) and shape[0] == image[0]
    return fits and all(a <= b for a, b in zip(shape[2:], image[2:], strict=True)) and math.prod(shape[2:]) > 1


def _scores(predict: Callable[[Tensor], Tensor], image: Tensor, target: int) -> Callable[[Tensor], Tensor]:
    """[B, channel, *spatial] -> scores [B, C] of two classes or more; raises IFIMError where `target` is none of them."""

    def scores(images: Tensor) -> Tensor:
        output = predict(images.clone())  # a copy, so that a network may write into its input
        return torch.cat([-output, output], dim=1) if output.shape[1] == 1 else output

    with torch.no_grad():
        classes = scores(image).shape[1]
    if not 0 <= target < classes:
        raise IFIMError(f"target {target} is none of the {classes} classes: give a class index from 0 to {classes - 1}.")
    return scores


def _attribute_with(method: str, network: nn.Module, leaf: Tensor, target: int, scores: Callable[[Tensor], Tensor]) -> Tensor:
    """[1, channel or 1, *spatial]."""
    from captum import attr  # type: ignore[import-untyped, unused-ignore]

    found: Tensor
    if method == "integrated_gradients":
        found = attr.IntegratedGradients(scores).attribute(
            leaf, baselines=0.0, target=target, n_steps=PATH_STEPS, internal_batch_size=PASS_IMAGES
        )
    elif method == "saliency":
        found = attr.Saliency(scores).attribute(leaf, target=target)
    elif method == "gradcam":
        _, layer = last_spatial_layer(network, leaf, scores)
        coarse = attr.LayerGradCam(scores, layer).attribute(leaf, target=target, relu_attributions=True)
        size = tuple(leaf.shape[2:])
        found = attr.LayerAttribution.interpolate(coarse, size, interpolate_mode=_INTERPOLATION[len(size)])
    else:
        window = tuple(min(size, max(SMALLEST_WINDOW, round(size / WINDOWS_PER_AXIS[leaf.ndim - 2]))) for size in leaf.shape[2:])
        channels = leaf.shape[1]
        found = attr.Occlusion(scores).attribute(
            leaf.detach(),
            sliding_window_shapes=(channels, *window),
            strides=(channels, *(max(1, size // 2) for size in window)),
            baselines=float(leaf.detach().mean()),
            target=target,
            perturbations_per_eval=PASS_IMAGES,
        )
    return found
