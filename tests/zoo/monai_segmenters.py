"""The segmentation networks of `monai.networks.nets`."""

from __future__ import annotations

from typing import Any

from monai.networks import nets
from torch import nn

from zoo.entry import Entry
from zoo.packages import torchvision_in_monai
from zoo.parts import Chosen

VOXELWISE = "voxelwise"


def _unet(kind: str, **options: Any) -> nn.Module:
    return getattr(nets, kind)(spatial_dims=2, in_channels=1, out_channels=3, channels=(4, 6, 8), strides=(2, 2), **options)


def _autoencoder() -> nn.Module:
    return nets.AutoEncoder(2, 1, 3, channels=(4, 6, 8), strides=(2, 2, 1))


def _basic(kind: str) -> nn.Module:
    return getattr(nets, kind)(spatial_dims=2, in_channels=1, out_channels=3, features=(4, 4, 6, 6, 8, 4))


def _dynunet() -> nn.Module:
    return nets.DynUNet(2, 1, 3, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 6, 8], res_block=True)


def _swin(**options: Any) -> nn.Module:
    widths = {"depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2), "window_size": 4, "feature_size": 12}
    return nets.SwinUNETR(1, 3, spatial_dims=2, **widths, **options)


def _unetr() -> nn.Module:
    return nets.UNETR(1, 3, (32, 16), feature_size=4, hidden_size=24, mlp_dim=32, num_heads=3, spatial_dims=2)


def _mednext(kind: str = "MedNeXt", **options: Any) -> nn.Module:
    return getattr(nets, kind)(spatial_dims=2, init_filters=4, in_channels=1, out_channels=3, kernel_size=3, **options)


def _segresnet(kind: str, **options: Any) -> nn.Module:
    return getattr(nets, kind)(
        spatial_dims=2, init_filters=8, in_channels=1, out_channels=3, blocks_down=(1, 1, 1), blocks_up=(1, 1), **options
    )


def _segresnet_ds(kind: str) -> nn.Module:
    whole = getattr(nets, kind)(spatial_dims=2, init_filters=4, in_channels=1, out_channels=3, blocks_down=(1, 1, 1))
    return whole if kind == "SegResNetDS" else Chosen(whole, lambda network, x: network(x, with_point=False)[1])


def _quicknat() -> nn.Module:
    return nets.Quicknat(num_classes=3, num_channels=1, num_filters=4, kernel_size=3)


def _daf3d() -> nn.Module:
    with torchvision_in_monai():
        return Chosen(nets.DAF3D(1, 2), lambda network, x: network(x).flatten(2).mean(2))


def _dints() -> nn.Module:
    space = nets.TopologyInstance(channel_mul=0.2, num_blocks=4, num_depths=3, spatial_dims=2)
    return nets.DiNTS(space, 1, 3, spatial_dims=2)


def _flexible() -> nn.Module:
    return nets.FlexibleUNet(1, 3, "resnet10", decoder_channels=(16, 8, 8, 8, 4), spatial_dims=2)


SEGMENTERS = (
    Entry("UNet", "MONAI", lambda: _unet("UNet", num_res_units=1), (1, 16, 20), VOXELWISE, covers=("UNet",)),
    Entry("AttentionUnet", "MONAI", lambda: _unet("AttentionUnet"), (1, 16, 20), VOXELWISE, covers=("AttentionUnet",)),
    Entry("AutoEncoder", "MONAI", _autoencoder, (1, 16, 20), VOXELWISE, covers=("AutoEncoder",)),
    Entry("BasicUNet", "MONAI", lambda: _basic("BasicUNet"), (1, 16, 32), VOXELWISE, covers=("BasicUNet",), slow=True),
    Entry(
        "BasicUNet++",
        "MONAI",
        lambda: _basic("BasicUNetPlusPlus"),
        (1, 16, 32),
        VOXELWISE,
        covers=("BasicUNetPlusPlus",),
        slow=True,
    ),
    Entry("SegResNet", "MONAI", lambda: _segresnet("SegResNet"), (1, 16, 12), VOXELWISE, covers=("SegResNet",)),
    Entry(
        "SegResNetVAE",
        "MONAI",
        lambda: _segresnet("SegResNetVAE", input_image_size=(16, 12), vae_nz=8),
        (1, 16, 12),
        VOXELWISE,
        covers=("SegResNetVAE",),
    ),
    Entry("SegResNetDS", "MONAI", lambda: _segresnet_ds("SegResNetDS"), (1, 16, 12), VOXELWISE, covers=("SegResNetDS",)),
    Entry("SegResNetDS2", "MONAI", lambda: _segresnet_ds("SegResNetDS2"), (1, 16, 12), VOXELWISE, covers=("SegResNetDS2",)),
    Entry("DynUNet", "MONAI", _dynunet, (1, 16, 12), VOXELWISE, covers=("DynUNet",)),
    Entry("VNet", "MONAI", lambda: nets.VNet(2, 1, 3, dropout_dim=2), (1, 16, 16), VOXELWISE, covers=("VNet",), slow=True),
    Entry("UNETR", "MONAI", _unetr, (1, 32, 16), VOXELWISE, covers=("UNETR",), slow=True),
    Entry("SwinUNETR", "MONAI", _swin, (1, 64, 32), VOXELWISE, covers=("SwinUNETR",), slow=True),
    Entry(
        "SwinUNETR v2, checkpointed", "MONAI", lambda: _swin(use_v2=True, use_checkpoint=True), (1, 64, 32), VOXELWISE, slow=True
    ),
    Entry(
        "MedNeXt",
        "MONAI",
        lambda: _mednext(
            use_residual_connection=True, global_resp_norm=True, blocks_down=(1,) * 4, blocks_bottleneck=1, blocks_up=(1,) * 4
        ),
        (1, 32, 16),
        VOXELWISE,
        covers=("MedNeXt",),
        slow=True,
    ),
    Entry("DAF3D, means over the image", "MONAI and torchvision", _daf3d, (1, 16, 16, 16), covers=("DAF3D",), slow=True, seed=2),
    Entry("DiNTS", "MONAI", _dints, (1, 32, 32), VOXELWISE, covers=("DiNTS", "TopologyInstance"), slow=True),
    Entry("Quicknat", "MONAI", _quicknat, (1, 32, 16), VOXELWISE, covers=("Quicknat",)),
    Entry("FlexibleUNet of ResNet10", "MONAI", _flexible, (1, 32, 32), VOXELWISE, covers=("FlexibleUNet",), slow=True),
    Entry(
        "AHNet",
        "MONAI",
        lambda: nets.AHNet((1, 1, 1, 1), 2, 1, 3, psp_block_num=0),
        (1, 32, 32),
        VOXELWISE,
        covers=("AHNet",),
        slow=True,
    ),
)
