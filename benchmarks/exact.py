"""Exact method against the passes it cannot do without: one forward and C - 1 input-only backward passes.

python -m benchmarks.exact [--rounds N]
"""

from __future__ import annotations

import argparse

import torch
from monai.networks.nets import DenseNet121, resnet18
from torch import Tensor, nn

from benchmarks.baselines import bare_passes
from benchmarks.timing import environment_stamp, interleaved_medians
from monai_ifim import decompose

CLASSES = (2, 6, 14)


def cases(classes: int) -> list[tuple[str, nn.Module, Tensor]]:
    """The two networks at their usual input sizes, with random weights and images from a fixed seed."""
    torch.manual_seed(0)
    flat = DenseNet121(spatial_dims=2, in_channels=1, out_channels=classes)
    solid = resnet18(spatial_dims=3, n_input_channels=1, num_classes=classes)
    return [
        ("DenseNet121 2D 224^2", flat.eval(), torch.rand(1, 1, 224, 224)),
        ("ResNet-18 3D 64^3", solid.eval(), torch.rand(1, 1, 64, 64, 64)),
    ]


def main() -> None:
    """Print one row a network and number of classes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(environment_stamp())
    print(f"{'network':22s} {'C':>3s} {'exact, s':>9s} {'passes, s':>10s} {'ratio':>6s}")
    for classes in CLASSES:
        for name, network, image in cases(classes):
            seconds = interleaved_medians(
                {
                    "exact": lambda n=network, x=image: decompose(n, x, head="categorical"),  # type: ignore[misc]
                    "passes": lambda n=network, x=image, c=classes: bare_passes(n, x, c),  # type: ignore[misc]
                },
                rounds,
            )
            ratio = seconds["exact"] / seconds["passes"]
            print(f"{name:22s} {classes:3d} {seconds['exact']:9.3f} {seconds['passes']:10.3f} {ratio:6.2f}", flush=True)


if __name__ == "__main__":
    main()
