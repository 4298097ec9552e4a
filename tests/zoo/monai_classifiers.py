"""The classification networks of `monai.networks.nets`."""

from __future__ import annotations

from typing import Any

from monai.networks import nets
from torch import nn

from zoo.entry import Entry
from zoo.packages import torchvision_in_monai
from zoo.parts import Chosen, Pooled

FLAT, SOLID = (1, 19, 17), (1, 11, 9, 10)
THIN = {"init_features": 8, "growth_rate": 4}
STAGES = ("layer2", "layer3", "layer4")


def _densenet(kind: str, dims: int, **options: Any) -> nn.Module:
    return getattr(nets, kind)(spatial_dims=dims, in_channels=1, out_channels=4, **THIN, **options)


def _resnet(kind: str, dims: int, **options: Any) -> nn.Module:
    options = {"widen_factor": 0.1, "n_input_channels": 1, "num_classes": 4} | options
    return getattr(nets, kind)(spatial_dims=dims, conv1_t_size=3, **options)


def _senet(kind: str, dims: int, **options: Any) -> nn.Module:
    return getattr(nets, kind)(spatial_dims=dims, in_channels=1, num_classes=3, **options)


def _efficientnet(dims: int) -> nn.Module:
    blocks = ["r1_k3_s11_e1_i32_o8_se0.25", "r2_k3_s22_e4_i8_o12_se0.25", "r1_k5_s22_e4_i12_o16_se0.25"]
    return nets.EfficientNet(blocks, spatial_dims=dims, in_channels=1, num_classes=4, depth_divisor=4)


def _efficientnet_features() -> nn.Module:
    features = nets.EfficientNetBNFeatures("efficientnet-b0", pretrained=False, spatial_dims=2, in_channels=1, num_classes=3)
    return Pooled(features, 16 + 24 + 40 + 112 + 320)


def _vit(dims: int, size: tuple[int, ...]) -> nn.Module:
    return nets.ViT(
        1,
        size,
        4,
        hidden_size=24,
        mlp_dim=32,
        num_layers=2,
        num_heads=3,
        classification=True,
        num_classes=4,
        post_activation="none",
        spatial_dims=dims,
    )


def _mil(mode: str) -> nn.Module:
    backbone = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nets.MILModel(3, mode, pretrained=False, backbone=backbone, backbone_num_features=8, trans_blocks=1)


def _mil_pyramid() -> nn.Module:
    with torchvision_in_monai():
        return nets.MILModel(3, "att_trans_pyramid", pretrained=False, trans_blocks=1)


def _torchvision() -> nn.Module:
    with torchvision_in_monai():
        return nets.TorchVisionFCModel("resnet18", num_classes=3, pool=("adaptiveavg", {"output_size": 1}), use_conv=True)


def _highresnet() -> nn.Module:
    layers: list[dict[str, Any]] = [
        {"name": "conv_0", "n_features": 6, "kernel_size": 3},
        {"name": "res_1", "n_features": 6, "kernels": (3, 3), "repeat": 2},
        {"name": "res_2", "n_features": 8, "kernels": (3, 3), "repeat": 2},
        {"name": "res_3", "n_features": 10, "kernels": (3, 3), "repeat": 1},
        {"name": "conv_1", "n_features": 12, "kernel_size": 1},
        {"name": "conv_2", "kernel_size": 1},
    ]
    return Pooled(nets.HighResNet(3, 1, 8, layer_params=layers), 8)


def _swin_encoder() -> nn.Module:
    whole = nets.SwinUNETR(1, 2, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2), window_size=4, feature_size=12, spatial_dims=2)
    return Pooled(whole.swinViT, 12 * (1 + 2 + 4 + 8 + 16))


def _autoencoder_of_masks() -> nn.Module:
    whole = nets.ViTAutoEnc(1, (16, 16), 4, hidden_size=24, mlp_dim=32, num_layers=2, num_heads=3, spatial_dims=2)
    return Pooled(Chosen(whole, lambda network, x: network(x)[1][-1].transpose(1, 2)), 24)


def _navit() -> nn.Module:
    whole = nets.NaViT((16, 12), 4, num_classes=4, hidden_size=24, mlp_dim=32, num_layers=2, num_heads=3, spatial_dims=2)
    return Chosen(whole, lambda network, x: network([[image] for image in x.unbind()]))


def _patch_discriminator() -> nn.Module:
    whole = nets.PatchDiscriminator(2, channels=6, in_channels=1, num_layers_d=2)
    return Chosen(whole, lambda network, x: network(x)[-1].flatten(1)[:, :5])


def _discriminators_of_patches() -> nn.Module:
    whole = nets.MultiScalePatchDiscriminator(2, 1, 2, channels=6, in_channels=1, minimum_size_im=16)
    return Chosen(whole, lambda network, x: network(x)[0][0].flatten(1)[:, :4])


def _variational_encoder() -> nn.Module:
    whole = nets.VarAutoEncoder(2, (1, 16, 16), 1, latent_size=3, channels=(4, 8), strides=(2, 2))
    return Chosen(whole, lambda network, x: network.encode_forward(x)[0])


def _small(kind: str, **options: Any) -> nn.Module:
    return getattr(nets, kind)((1, 12, 10), channels=(4, 6), strides=(2, 2), **options)


CLASSIFIERS = (
    Entry("DenseNet 3D", "MONAI", lambda: _densenet("DenseNet", 3, block_config=(2, 3)), SOLID, covers=("DenseNet",)),
    Entry("DenseNet121", "MONAI", lambda: _densenet("DenseNet121", 2), (1, 32, 33), covers=("DenseNet121",)),
    Entry("DenseNet169", "MONAI", lambda: _densenet("DenseNet169", 2), (1, 32, 33), covers=("DenseNet169",), slow=True),
    Entry("DenseNet201", "MONAI", lambda: _densenet("DenseNet201", 2), (1, 32, 33), covers=("DenseNet201",), slow=True),
    Entry("DenseNet264", "MONAI", lambda: _densenet("DenseNet264", 2), (1, 32, 33), covers=("DenseNet264",), slow=True),
    Entry("ResNet10, shortcut A", "MONAI", lambda: _resnet("resnet10", 2, shortcut_type="A"), FLAT, covers=("resnet10",)),
    Entry("ResNet18 3D, shortcut A", "MONAI", lambda: _resnet("resnet18", 3, shortcut_type="A"), SOLID, covers=("resnet18",)),
    Entry(
        "ResNet34 3D, shortcut A",
        "MONAI",
        lambda: _resnet("resnet34", 3, shortcut_type="A"),
        SOLID,
        covers=("resnet34",),
        slow=True,
    ),
    Entry("ResNet10, shortcut B", "MONAI", lambda: _resnet("resnet10", 2), FLAT),
    Entry("ResNet18 3D, shortcut B", "MONAI", lambda: _resnet("resnet18", 3), SOLID),
    Entry(
        "ResNet of bottlenecks, shortcut A",
        "MONAI",
        lambda: nets.ResNet("bottleneck", [1, 1, 1, 1], [4, 6, 8, 8], 2, 1, 3, shortcut_type="A", num_classes=4),
        FLAT,
        covers=("ResNet", "ResNetBlock", "ResNetBottleneck"),
    ),
    Entry("ResNet50", "MONAI", lambda: _resnet("resnet50", 2), FLAT, covers=("resnet50",)),
    Entry("ResNet101", "MONAI", lambda: _resnet("resnet101", 2), FLAT, covers=("resnet101",), slow=True),
    Entry("ResNet152", "MONAI", lambda: _resnet("resnet152", 2), FLAT, covers=("resnet152",), slow=True),
    Entry("ResNet200", "MONAI", lambda: _resnet("resnet200", 2), FLAT, covers=("resnet200",), slow=True),
    Entry(
        "ResNetFeatures of ResNet18",
        "MONAI",
        lambda: Pooled(nets.ResNetFeatures("resnet18", pretrained=False, spatial_dims=2), 64 + 64 + 128 + 256 + 512),
        FLAT,
        covers=("ResNetFeatures", "ResNetEncoder"),
        slow=True,
    ),
    Entry(
        "SENet",
        "MONAI",
        lambda: nets.SENet(
            3, 1, "se_bottleneck", (1, 1, 1, 1), groups=4, reduction=4, inplanes=8, num_classes=3, dropout_prob=None
        ),
        SOLID,
        covers=("SENet",),
        slow=True,
    ),
    Entry(
        "SENet154, a block a stage",
        "MONAI",
        lambda: _senet("SENet154", 2, layers=(1, 1, 1, 1)),
        FLAT,
        covers=("SENet154",),
        slow=True,
    ),
    Entry("SEResNet50", "MONAI", lambda: _senet("SEResNet50", 2, layers=(1, 1, 1, 1)), FLAT, covers=("SEResNet50",)),
    Entry(
        "SEResNet101, eleven blocks",
        "MONAI",
        lambda: _senet("SEResNet101", 2, layers=(2, 3, 4, 2)),
        FLAT,
        covers=("SEResNet101",),
        slow=True,
    ),
    Entry(
        "SEResNet152, ten blocks",
        "MONAI",
        lambda: _senet("SEResNet152", 2, layers=(2, 3, 3, 2)),
        FLAT,
        covers=("SEResNet152",),
        slow=True,
    ),
    Entry("SEResNeXt50", "MONAI", lambda: _senet("SEResNext50", 2, layers=(1, 1, 1, 1)), FLAT, covers=("SEResNext50",)),
    Entry(
        "SEResNeXt101, eleven blocks",
        "MONAI",
        lambda: _senet("SEResNext101", 2, layers=(2, 3, 4, 2)),
        FLAT,
        covers=("SEResNext101",),
        slow=True,
    ),
    Entry("EfficientNet 3D", "MONAI", lambda: _efficientnet(3), SOLID, covers=("EfficientNet", "BlockArgs")),
    Entry(
        "EfficientNet-b0",
        "MONAI",
        lambda: nets.EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=2, in_channels=1, num_classes=4),
        (1, 32, 33),
        covers=("EfficientNetBN",),
        slow=True,
    ),
    Entry(
        "EfficientNetBNFeatures",
        "MONAI",
        _efficientnet_features,
        (1, 32, 33),
        covers=("EfficientNetBNFeatures", "EfficientNetEncoder"),
        slow=True,
    ),
    Entry("ViT", "MONAI", lambda: _vit(2, (16, 12)), (1, 16, 12), covers=("ViT",)),
    Entry("ViT 3D", "MONAI", lambda: _vit(3, (12, 8, 8)), (1, 12, 8, 8)),
    Entry("ViTAutoEnc, encoder", "MONAI", _autoencoder_of_masks, (1, 16, 16), covers=("ViTAutoEnc",)),
    Entry("NaViT", "MONAI", _navit, (1, 16, 12), covers=("NaViT",)),
    Entry("Classifier", "MONAI", lambda: _small("Classifier", classes=4), (1, 12, 10), covers=("Classifier",)),
    Entry(
        "Discriminator",
        "MONAI",
        lambda: _small("Discriminator"),
        (1, 12, 10),
        "bernoulli_probabilities",
        covers=("Discriminator",),
    ),
    Entry("Critic", "MONAI", lambda: _small("Critic"), (1, 12, 10), "bernoulli", covers=("Critic",)),
    Entry("Regressor", "MONAI", lambda: _small("Regressor", out_shape=(3,)), (1, 12, 10), "gaussian", covers=("Regressor",)),
    *(
        Entry(f"MILModel, {mode}", "MONAI", lambda mode=mode: _mil(mode), (3, 1, 9, 11), covers=("MILModel",))
        for mode in ("mean", "max", "att", "att_trans")
    ),
    Entry("MILModel, att_trans_pyramid", "MONAI and torchvision", _mil_pyramid, (2, 3, 33, 32), slow=True),
    Entry(
        "TorchVisionFCModel, ResNet18",
        "MONAI and torchvision",
        _torchvision,
        (3, 33, 32),
        covers=("TorchVisionFCModel", "NetAdapter"),
        slow=True,
    ),
    Entry("HighResNet, features", "MONAI", _highresnet, SOLID, covers=("HighResNet", "HighResBlock")),
    Entry("SwinUNETR, encoder", "MONAI", _swin_encoder, (1, 32, 32), covers=("PatchMerging", "PatchMergingV2")),
    Entry("PatchDiscriminator", "MONAI", _patch_discriminator, (1, 21, 19), "gaussian", covers=("PatchDiscriminator",)),
    Entry(
        "MultiScalePatchDiscriminator",
        "MONAI",
        _discriminators_of_patches,
        (1, 24, 25),
        "gaussian",
        covers=("MultiScalePatchDiscriminator",),
    ),
    Entry("VarAutoEncoder, encoder", "MONAI", _variational_encoder, (1, 16, 16), "gaussian", covers=("VarAutoEncoder",)),
)
