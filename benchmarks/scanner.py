"""A large scan in scanner space: seconds against one forward and one backward pass as MONAI makes them, and peak memory.

python -m benchmarks.scanner [--rounds N] [--output FOLDER]
python -m benchmarks.scanner peak {passes,scanner} {densenet121,lumpy} [--resolution] [--budget SIZE]

The scan has 256 x 384 x 384 voxels of smooth structure and noise in whole numbers. The networks have two classes, so that one
backward pass is all that a decomposition cannot do without: a 3D DenseNet121 with random weights behind Orientation, Spacing,
percentile scaling, padding and Resize to 96^3; and the 3D bundle that comes with the package. The passes are MONAI's own
transforms and the network, applied to a scan that wants a gradient, the network's weights frozen.

Seconds are medians of rounds in which both take turns, in one process. Peaks are of fresh processes, above what was resident
with libraries, network and scan. Results go to scanner-cpu.json and scanner-cpu.md in benchmarks/results.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.networks.nets import DenseNet121
from monai.transforms import (
    Compose,
    Orientationd,
    Resized,
    ScaleIntensityRangePercentilesd,
    Spacingd,
    SpatialPadd,
)
from scipy.ndimage import gaussian_filter, zoom
from torch import Tensor, nn

from benchmarks.memory import Measurement, MeasurementFailed, Peak
from benchmarks.results import Bar, Comparison, Row, Section, read_comparison
from benchmarks.tables import full_table
from benchmarks.timing import environment_stamp, interleaved
from monai_ifim import Decomposition, decompose_scan
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.scan_preprocessing import reading_steps
from monai_ifim.io.installation import resolve_bundle

SHAPE = (256, 384, 384)
SPACING = (0.9, 0.7, 0.8)
SEEN = 96  # voxels along each axis of DenseNet121's input
BUDGET = "4GiB"
LIMIT = 4 * 2**30
SLOWEST = 2.0  # times the passes
SECTIONS = ("seconds", "peak memory")
RESULTS = Path(__file__).parent / "results"
SMALL = (24, 36, 36)


@dataclass(frozen=True)
class Subject:
    """A network, what lies between it and a freshly read scan, and such a scan [1, *spatial]."""

    title: str
    network: nn.Module
    preprocessing: Compose
    scan: MetaTensor

    def passes(self) -> Tensor:
        """One forward pass through MONAI's transforms and the network, and one backward pass to the scan."""
        leaf = self.scan.as_subclass(Tensor).clone().requires_grad_(True)
        image = MetaTensor(leaf * 1, affine=self.scan.affine, meta=dict(self.scan.meta))
        logits = self.network(self.preprocessing({"image": image})["image"].as_subclass(Tensor)[None])
        (gradient,) = torch.autograd.grad(logits[0, 0], leaf)
        return gradient

    def decomposed(self, resolution: bool = False, budget: str | None = None) -> Decomposition:
        """Its decomposition in scanner space, at the network's resolution or without a metric."""
        options: dict[str, Any] = {"resolution": "network"} if resolution else {}
        return decompose_scan(
            self.network, self.preprocessing, self.scan, head="categorical", memory_budget=budget, **options
        )


def make_scan(shape: tuple[int, ...] = SHAPE) -> MetaTensor:
    """A scan in whole numbers, its axes not in the order that Orientation asks for."""
    generator = np.random.default_rng(0)
    coarse = gaussian_filter(generator.standard_normal([-(-size // 8) for size in shape]), 2)
    smooth = zoom(coarse, 8, order=1)[tuple(slice(size) for size in shape)]
    values = 400 * smooth / smooth.std() + 20 * generator.standard_normal(shape)
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    return MetaTensor(torch.from_numpy(np.rint(values).astype(np.float32))[None], affine=torch.from_numpy(affine))


def densenet121(shape: tuple[int, ...] = SHAPE) -> Subject:
    """A DenseNet121 with random weights behind the usual steps."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = DenseNet121(spatial_dims=3, in_channels=1, out_channels=2)
    steps = [
        Orientationd("image", axcodes="RAS", labels=None),
        Spacingd("image", pixdim=(1.0, 1.0, 1.0)),
        ScaleIntensityRangePercentilesd("image", lower=1, upper=99, b_min=0.0, b_max=1.0, clip=True),
        SpatialPadd("image", spatial_size=(240, 280, 320)),
        Resized("image", spatial_size=(SEEN, SEEN, SEEN)),
    ]
    title = f"DenseNet121 3D {SEEN}^3 behind Orientation, Spacing, percentiles, SpatialPad, Resize"
    return Subject(title, network.eval().requires_grad_(False), Compose(steps), make_scan(shape))


def lumpy(shape: tuple[int, ...] = SHAPE) -> Subject:
    """The 3D bundle that comes with the package."""
    bundle = load_bundle(resolve_bundle("lumpy_lesion_detection_3d"))
    steps = bundle.preprocessing.flatten().transforms[len(reading_steps(bundle.preprocessing)) :]
    title = "lumpy_lesion_detection_3d: Orientation, Resize to 32^3, NormalizeIntensity"
    return Subject(title, bundle.network.requires_grad_(False), Compose(steps), make_scan(shape))
