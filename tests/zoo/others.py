"""Families of timm, and image classifiers of transformers, all with random weights."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from zoo.entry import Entry
from zoo.packages import available

CLASSES = 3


def _timm(name: str, **options: Any) -> nn.Module:
    with available():
        return importlib.import_module("timm").create_model(name, pretrained=False, num_classes=CLASSES, **options)


def _mixer() -> nn.Module:
    with available():
        mixer = importlib.import_module("timm.models.mlp_mixer").MlpMixer
        return mixer(num_classes=CLASSES, img_size=32, patch_size=8, num_blocks=2, embed_dim=24)


def _transformers(kind: str, **options: Any) -> nn.Module:
    with available():
        package = importlib.import_module("transformers")
        config = getattr(package, f"{kind}Config")(num_labels=CLASSES, image_size=32, **options)
        return getattr(package, f"{kind}ForImageClassification")(config)


def _family(name: str, shape: tuple[int, ...] = (3, 33, 32), slow: bool = False, **options: Any) -> Entry:
    return Entry(name, "timm", lambda: _timm(name, **options), shape, slow=slow)


SIZE = {"img_size": 32}
FAMILIES = (
    _family("hrnet_w18_small", (3, 64, 32), slow=True),
    _family("resnet10t"),
    _family("resnext50_32x4d", layers=(1, 1, 1, 1), slow=True),
    _family("densenet121", slow=True),
    _family("efficientnet_b0", slow=True),
    _family("mobilenetv3_small_050"),
    _family("regnety_002"),
    _family("convnext_atto", depths=(1, 1, 2, 1)),
    _family("convnextv2_atto", depths=(1, 1, 2, 1)),
    _family("inception_v3", (3, 75, 76), slow=True),
    _family("xception41", slow=True),
    _family("dpn48b", slow=True),
    _family("dla46_c", (3, 64, 32)),
    _family("repvgg_a0"),
    _family("ghostnet_050"),
    Entry("mlp_mixer", "timm", _mixer, (3, 32, 32)),
    _family("vit_tiny_patch16_224", (3, 32, 32), patch_size=8, depth=2, embed_dim=48, **SIZE),
    _family("pvt_v2_b0", slow=True),
    _family("edgenext_xx_small", (3, 64, 32), slow=True),
    _family("swin_tiny_patch4_window7_224", (3, 32, 32), depths=(1, 1, 2, 1), embed_dim=24, window_size=2, **SIZE),
    _family("maxvit_rmlp_pico_rw_256", (3, 32, 32), slow=True, **SIZE),
    _family("coatnet_nano_rw_224", (3, 32, 32), slow=True, **SIZE),
    _family("poolformer_s12", slow=True),
    _family("levit_128s", (3, 224, 224), slow=True),
    _family("mobilevit_xxs", (3, 32, 32)),
)
WIDTHS = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
TRANSFORMERS = (
    Entry(
        "ViT of transformers",
        "transformers",
        lambda: _transformers("ViT", patch_size=8, intermediate_size=32, **WIDTHS),
        (3, 32, 32),
        output_key="logits",
    ),
    Entry(
        "ConvNeXt of transformers",
        "transformers",
        lambda: _transformers("ConvNext", hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 2, 1]),
        (3, 33, 32),
        output_key="logits",
    ),
    Entry(
        "Dinov2 of transformers",
        "transformers",
        lambda: _transformers("Dinov2", patch_size=8, mlp_ratio=2, **WIDTHS),
        (3, 32, 32),
        output_key="logits",
    ),
    Entry(
        "Swin of transformers",
        "transformers",
        lambda: _transformers("Swin", embed_dim=12, depths=[1, 1], num_heads=[1, 2], window_size=4, patch_size=2),
        (3, 32, 32),
        output_key="logits",
    ),
)
