"""Time of the exact method over that of the passes it needs: one forward and C - 1 input-only backward passes."""

from __future__ import annotations

import torch
from monai.networks.nets import DenseNet121, resnet18
from torch import Tensor, nn

from benchmarks.baselines import bare_passes
from benchmarks.results import Row
from benchmarks.timing import Setting
from monai_ifim import decompose

CLASSES = (2, 6, 14)


def exact(setting: Setting) -> list[Row]:
    """A row per network and number of classes."""
    rows = []
    for classes in CLASSES[: setting.size(len(CLASSES), 1)]:
        for name, network, image in _cases(setting, classes):
            setting.note(f"{name}, {classes} classes")
            timings = setting.measure(
                {
                    "exact": lambda n=network, x=image: decompose(n, x, head="categorical"),  # type: ignore[misc]
                    "passes": lambda n=network, x=image, c=classes: bare_passes(n, x, c),  # type: ignore[misc]
                }
            )
            case = f"{name}, {classes} classes"
            rows.append(
                Row("exact / passes", case, timings.ratio("exact", "passes"), None, "", timings.describe(), timings.seconds)
            )
    return rows


def _cases(setting: Setting, classes: int) -> list[tuple[str, nn.Module, Tensor]]:
    """The two networks at their usual input sizes, with random weights and images from a fixed seed."""
    torch.manual_seed(0)
    flat = DenseNet121(spatial_dims=2, in_channels=1, out_channels=classes)
    solid = resnet18(spatial_dims=3, n_input_channels=1, num_classes=classes)
    side, edge = setting.size(224, 64), setting.size(64, 32)
    device = setting.device
    return [
        (f"DenseNet121 2D {side}^2", flat.eval().to(device), torch.rand(1, 1, side, side).to(device)),
        (f"ResNet-18 3D {edge}^3", solid.eval().to(device), torch.rand(1, 1, edge, edge, edge).to(device)),
    ]
