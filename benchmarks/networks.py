"""Networks and images that the benchmarks measure: random weights from a fixed seed, eval mode, float32."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from monai.networks.nets import DenseNet, DenseNet121, UNet, ViT, resnet18
from torch import Tensor, nn

SEED = 0


@dataclass(frozen=True)
class Subject:
    """A network with C classes (of each voxel, for a segmentation) and one image [1, 1, *spatial]."""

    name: str
    network: nn.Module
    image: Tensor
    classes: int

    @property
    def title(self) -> str:
        """Name and number of classes."""
        return f"{self.name}, C = {self.classes}"

    def batch(self, count: int) -> Tensor:
        """Images [count, 1, *spatial] from a fixed seed."""
        generator = torch.Generator().manual_seed(SEED + 2)
        return torch.rand(count, *self.image.shape[1:], generator=generator).to(self.image.device)


def densenet121(classes: int, size: int, device: torch.device) -> Subject:
    """MONAI's DenseNet121 for 2D images of size^2."""
    return subject(
        f"DenseNet121 2D {size}^2",
        lambda: DenseNet121(spatial_dims=2, in_channels=1, out_channels=classes),
        (size, size),
        classes,
        device,
    )


def small_densenet(classes: int, size: int, device: torch.device) -> Subject:
    """The DenseNet of the MedNIST bundle, with random weights, for 2D images of size^2."""
    widths = {"init_features": 32, "growth_rate": 16, "block_config": (3, 6, 12, 8)}
    return subject(
        f"MedNIST bundle's DenseNet 2D {size}^2",
        lambda: DenseNet(spatial_dims=2, in_channels=1, out_channels=classes, **widths),
        (size, size),
        classes,
        device,
    )


def residual18(dims: int, classes: int, size: int, device: torch.device) -> Subject:
    """MONAI's ResNet-18 for 2D or 3D images of `size` along every axis."""
    return subject(
        f"ResNet-18 {dims}D {size}^{dims}",
        lambda: resnet18(spatial_dims=dims, n_input_channels=1, num_classes=classes),
        (size,) * dims,
        classes,
        device,
    )


def vision_transformer(classes: int, size: int, device: torch.device, *, hidden: int = 384, layers: int = 6) -> Subject:
    """MONAI's ViT for 2D images of size^2 in patches of 16^2; it returns (logits, hidden states)."""
    heads = hidden // 64
    return subject(
        f"ViT 2D {size}^2, patch 16, hidden {hidden}, depth {layers}",
        lambda: ViT(
            in_channels=1,
            img_size=(size, size),
            patch_size=(16, 16),
            hidden_size=hidden,
            mlp_dim=4 * hidden,
            num_layers=layers,
            num_heads=heads,
            classification=True,
            num_classes=classes,
            spatial_dims=2,
            post_activation=None,  # "Tanh" by default, and then the outputs are no plain logits
        ),
        (size, size),
        classes,
        device,
    )


def unet(classes: int, size: int, device: torch.device) -> Subject:
    """MONAI's UNet for 2D images of size^2, logits [B, C, H, W]."""
    return subject(
        f"UNet 2D {size}^2",
        lambda: UNet(
            spatial_dims=2, in_channels=1, out_channels=classes, channels=(16, 32, 64, 128), strides=(2, 2, 2), num_res_units=0
        ),
        (size, size),
        classes,
        device,
    )


def frozen(network: nn.Module) -> nn.Module:
    """A copy whose parameters want no gradient."""
    return copy.deepcopy(network).requires_grad_(False)


def subject(name: str, build: Callable[[], nn.Module], spatial: tuple[int, ...], classes: int, device: torch.device) -> Subject:
    """A subject of this name: the network that `build` makes, and an image of this size."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        network = build()
    image = torch.rand(1, 1, *spatial, generator=torch.Generator().manual_seed(SEED + 1))
    return Subject(name, network.to(device).eval(), image.to(device), classes)
