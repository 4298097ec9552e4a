"""How long the files of an image will take to write, from one that is written and thrown away."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass

import numpy as np
from monai.data import MetaTensor
from torch import Tensor

from monai_ifim.core.memory.scratch import ScratchFolder
from monai_ifim.io.case import WRITERS
from monai_ifim.io.nifti import write_volume

MAPS = 4  # input, high, low and sensitivity, besides the components
LARGEST_SAMPLE = 2**22  # voxels that are written for it; of a larger image so many, and the time is scaled
BESIDE = 0.15  # seconds for scene, pictures, tables and sidecar: an allowance, which is not measured


@dataclass(frozen=True)
class FileTimes:
    """seconds: of a file on the grid of the network's input. growth: voxels of the grid of the files, by those of that grid.
    channels: that have files of their own."""

    seconds: float
    growth: float
    channels: int

    def of(self, components: int, parallel: bool) -> float:
        """Seconds of all files of a case with so many components; parallel: by all threads at their best, else one by one."""
        count = self.channels * (MAPS + components)
        threads = min(WRITERS, os.cpu_count() or 1) if parallel else 1
        return BESIDE + math.ceil(count / threads) * self.seconds * self.growth


def measured_files(image: Tensor) -> FileTimes:
    """For an input [1, channel, *spatial] of a network: writes noise, which is as hard to compress as a map of sensitivity."""
    shape = tuple(image.shape[2:])
    sample = _sample(shape)
    noise = np.random.default_rng(0).standard_normal(sample, dtype=np.float32)
    with ScratchFolder() as folder:
        started = time.perf_counter()
        write_volume(folder / "sample.nii.gz", noise, np.eye(4))
        seconds = time.perf_counter() - started
    return FileTimes(seconds * math.prod(shape) / math.prod(sample), 1.0, int(image.shape[1]))


def growth_to(image: Tensor) -> float:
    """Voxels of the file that the preprocessing read, by those of the network's input that it made; 1 where that is not known."""
    read = image.meta.get("spatial_shape") if isinstance(image, MetaTensor) else None
    if read is None:
        return 1.0
    return float(np.prod(np.asarray(read, dtype=np.float64))) / math.prod(image.shape[1:])


def _sample(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape, with fewer planes along its first axis where it is large."""
    planes = max(1, min(shape[0], LARGEST_SAMPLE // max(1, math.prod(shape[1:]))))
    return (planes, *shape[1:])
