"""Built-in architectures: MONAI's classification networks in sizes that two CPU cores train in minutes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from monai.networks.nets import DenseNet121, EfficientNetBN, ResNet, SEResNet50, ViT
from torch import nn

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.classifiers.recipes import NetworkRecipe

__all__ = ["ARCHITECTURES", "Architecture", "architecture_name", "build_network", "known_architecture"]

Architecture = str | NetworkRecipe  # a key of ARCHITECTURES, or any network class

PATCHES_PER_AXIS = MappingProxyType({2: 8, 3: 4})  # of the vision transformer: 64 tokens in either case


def _dense_net(spatial_shape: Sequence[int], channels: int, classes: int) -> nn.Module:
    return DenseNet121(
        spatial_dims=len(spatial_shape), in_channels=channels, out_channels=classes, init_features=16, growth_rate=8
    )


def _res_net(spatial_shape: Sequence[int], channels: int, classes: int) -> nn.Module:
    return ResNet(
        block="basic",
        layers=[2, 2, 2, 2],
        block_inplanes=[16, 32, 64, 128],
        spatial_dims=len(spatial_shape),
        n_input_channels=channels,
        num_classes=classes,
        conv1_t_size=3,
        conv1_t_stride=len(spatial_shape) - 1,  # a volume at full resolution takes two cores too long
    )


def _se_res_net(spatial_shape: Sequence[int], channels: int, classes: int) -> nn.Module:
    return SEResNet50(spatial_dims=len(spatial_shape), in_channels=channels, num_classes=classes)


def _efficient_net(spatial_shape: Sequence[int], channels: int, classes: int) -> nn.Module:
    # MONAI's momentum of 0.01 needs thousands of steps until the running statistics are right; a short training has hundreds.
    return EfficientNetBN(
        "efficientnet-b0",
        pretrained=False,
        spatial_dims=len(spatial_shape),
        in_channels=channels,
        num_classes=classes,
        norm=("batch", {"eps": 1e-3, "momentum": 0.1}),
    )


def _vision_transformer(spatial_shape: Sequence[int], channels: int, classes: int) -> nn.Module:
    patches = PATCHES_PER_AXIS[len(spatial_shape)]
    if any(size % patches for size in spatial_shape):
        raise IFIMError(f"ViT: each axis of {tuple(spatial_shape)} must be divisible by {patches}: resize the images.")
    # The default post_activation is a tanh on the logits, which would bound every probability.
    return ViT(
        in_channels=channels,
        img_size=tuple(spatial_shape),
        patch_size=tuple(size // patches for size in spatial_shape),
        hidden_size=96,
        mlp_dim=192,
        num_layers=4,
        num_heads=4,
        classification=True,
        num_classes=classes,
        spatial_dims=len(spatial_shape),
        post_activation="",
    )


ARCHITECTURES: Mapping[str, Callable[[Sequence[int], int, int], nn.Module]] = MappingProxyType(
    {
        "DenseNet121": _dense_net,
        "ResNet18": _res_net,
        "SEResNet50": _se_res_net,
        "EfficientNetB0": _efficient_net,
        "ViT": _vision_transformer,
    }
)


def known_architecture(given: Architecture | Mapping[str, Any]) -> Architecture:
    """The architecture of a name, a recipe or {"_target_": class, ...}; raises IFIMError for an unknown name or class."""
    if isinstance(given, NetworkRecipe):
        return given
    if isinstance(given, Mapping):
        return NetworkRecipe.of(given)
    if given not in ARCHITECTURES:
        raise IFIMError(
            f"unknown architecture {given!r}: choose among {', '.join(ARCHITECTURES)}, or name any class as "
            "{_target_: monai.networks.nets.DenseNet121, ...}."
        )
    return given


def architecture_name(architecture: Architecture) -> str:
    """Its name in tables and file names."""
    return architecture.name if isinstance(architecture, NetworkRecipe) else architecture


def build_network(architecture: Architecture, spatial_shape: Sequence[int], channels: int, classes: int, seed: int) -> Any:
    """An untrained network in eval mode; its weights depend on the arguments alone.

    Args:
        architecture: a key of `ARCHITECTURES`, or a recipe. DenseNet121 and ResNet18 have the depth of their namesakes and
            fewer features.
        spatial_shape: two or three sizes. channels: of the image. classes: number of logits.
        seed: of the initial weights; the caller's random state is restored.

    Raises:
        IFIMError: the architecture is unknown or does not fit the shape.
    """
    if len(spatial_shape) not in (2, 3):
        raise IFIMError(f"images of {len(spatial_shape)} axes: the architectures take two or three.")
    chosen = known_architecture(architecture)
    build = chosen.build if isinstance(chosen, NetworkRecipe) else ARCHITECTURES[chosen]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(spatial_shape, channels, classes).eval()
