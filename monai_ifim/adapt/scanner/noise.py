"""Noise levels from the command line: a number, or a NIfTI map on the grid of its scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_ifim.core import NoiseLevel
from monai_ifim.io import InputError
from monai_ifim.io.geometry import Affine, same_grid, world_affine
from monai_ifim.io.option_file import read_option_file


class NoiseMap(NoiseLevel):
    """A `NoiseLevel` with a position: sigma [channel, *spatial], affine voxel -> RAS mm, and the file's name."""

    def __init__(self, sigma: Tensor, affine: Affine, name: str) -> None:
        super().__init__(sigma)
        self.affine, self.name = affine, name

    def of(self, scan: MetaTensor) -> NoiseLevel:
        """The level for a scan [channel, *spatial]; raises InputError if the map has another shape or position."""
        sigma = self.sigma[..., 0] if self.sigma.ndim == scan.ndim + 1 and self.sigma.shape[-1] == 1 else self.sigma
        if sigma.shape[1:] != scan.shape[1:]:
            found, wanted = (" x ".join(map(str, values.shape[1:])) for values in (sigma, scan))
            raise InputError(
                f"the noise map {self.name} has {found} voxels and the scan {wanted}: resample it onto the scan's grid."
            )
        if not same_grid(self.affine, world_affine(scan.affine, scan.meta), tuple(sigma.shape[1:])):
            raise InputError(f"the noise map {self.name} has another affine than the scan: resample it onto the scan's grid.")
        return NoiseLevel(sigma)


def read_noise(noise: str | float | None) -> NoiseLevel | None:
    """A noise level from a number, or from a NIfTI file whose fourth axis holds channels; raises InputError for neither,
    IFIMError for an invalid level."""
    if noise is None:
        return None
    number = _number(noise)
    if number is not None:
        return NoiseLevel(number)
    path = Path(str(noise))
    values, affine = read_option_file(
        path, lambda reason: f"--noise {path.name}: neither a number nor a readable NIfTI file ({reason}): give one of them."
    )
    values = np.moveaxis(values, 3, 0) if values.ndim == 4 else values[None]
    return NoiseMap(torch.from_numpy(np.ascontiguousarray(values)), affine, path.name)


def _number(noise: str | float) -> float | None:
    try:
        return float(noise)
    except ValueError:
        return None
