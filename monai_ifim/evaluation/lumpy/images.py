"""Lumpy backgrounds: random images whose statistics are known in closed form, with or without a lesion.

A lumpy background is a Poisson number of equal Gaussian lumps at independent, uniformly distributed places. Here the
image is a torus: whatever leaves at one face comes back at the opposite one. So the background is stationary without
an edge region, its covariance is circulant, and the observers of :mod:`monai_ifim.evaluation.lumpy.observers` may invert it
exactly by Fourier transform.

Lengths are in voxels and grey values in one arbitrary unit throughout; a spacing in millimetres enters only when a
volume is written to a file.

Source: J. P. Rolland and H. H. Barrett, "Effect of random background inhomogeneity on observer detection
performance", J. Opt. Soc. Am. A 9, 649-658 (1992); type-I lumpy background.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

__all__ = [
    "LumpyDataset",
    "LumpyParameters",
    "LumpyVolume",
    "draw_volume",
    "grid_affine",
    "lesion_template",
    "lesion_window",
    "lump_mean",
    "noise_covariance",
    "write_image",
]

SPACING = 2.0  # mm between voxel centres, for files and pictures
_TAIL = 7.0  # a Gaussian is 2e-11 of its peak there, below float32 rounding


@dataclass(frozen=True)
class LumpyParameters:
    """Parameters of the distribution of a lumpy volume.

    Args:
        shape: voxels per axis; two or three axes, any sizes.
        mean_lumps: expected number of lumps in the whole image (mean of the Poisson law).
        lump_amplitude: grey value at the centre of one lump.
        lump_width: standard deviation of a lump, in voxels.
        lesion_amplitude: grey value the lesion adds at its centre.
        lesion_width: standard deviation of the lesion, in voxels.
        margin: least distance in voxels from a lesion's centre to the centres of the outermost voxels.
        noise_sigma: standard deviation of the white Gaussian noise, in grey values.
        place: voxel indices of the lesion's centre where it is known exactly; None where any place inside the margin is
            equally likely.

    Raises:
        ValueError: where a parameter describes no image, or a noise for which no observer is defined.
    """

    shape: Sequence[int] = (32, 32, 32)
    mean_lumps: float = 40.0
    lump_amplitude: float = 1.0
    lump_width: float = 5.0
    lesion_amplitude: float = 1.25
    lesion_width: float = 2.0
    margin: int = 5
    noise_sigma: float = 1.0
    place: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Check all parameters, and turn any sequence of sizes into a tuple."""
        shape = tuple(int(size) for size in self.shape)
        object.__setattr__(self, "shape", shape)
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise ValueError(f"shape is {shape}; give two or three positive sizes, such as (32, 32, 32)")
        for name in ("mean_lumps", "lump_amplitude", "lesion_amplitude"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}; give a finite number that is zero or more")
        for name in ("lump_width", "lesion_width", "noise_sigma"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; give a finite number above zero")
        if self.margin != int(self.margin) or not 0 <= self.margin <= (min(shape) - 1) // 2:
            raise ValueError(
                f"margin is {self.margin}; give a whole number from 0 to {(min(shape) - 1) // 2}, "
                f"so that a lesion has room in shape {shape}"
            )
        if self.place is not None:
            object.__setattr__(self, "place", self._checked_place(shape))

    def _checked_place(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        place = tuple(int(index) for index in self.place or ())
        if len(place) != len(shape) or not all(0 <= index < size for index, size in zip(place, shape, strict=True)):
            raise ValueError(f"place is {self.place}; give one voxel index for each axis of shape {shape}, or None")
        return place


@dataclass(frozen=True)
class LumpyVolume:
    """One random volume, with its label and the place of the lesion.

    Args:
        image: float32 ``[*shape]``, background + lesion (if any) + noise, in grey values.
        label: 1 with the lesion, 0 without.
        place: voxel indices of the lesion's centre; for label 0 the place where it would have been.
        lumps: number of lumps that were drawn.
    """

    image: Tensor
    label: int
    place: tuple[int, ...]
    lumps: int


def _axis_profile(centres: Tensor, size: int, width: float) -> Tensor:
    """One-dimensional Gaussians of unit peak on a ring of ``size`` voxels: float64 ``[len(centres), size]``."""
    turns = max(1, math.ceil(_TAIL * width / size))
    grid = torch.arange(size, dtype=torch.float64)
    shifts = size * torch.arange(-turns, turns + 1, dtype=torch.float64)
    distance = grid[None, :, None] - centres.to(torch.float64)[:, None, None] + shifts
    return torch.exp(-0.5 * (distance / width) ** 2).sum(-1)


def _sum_of_blobs(places: Tensor, shape: Sequence[int], width: float) -> Tensor:
    """Sum of unit-peak Gaussian blobs at ``places`` ``[n, axes]`` in voxels: float64 ``[*shape]``."""
    profiles = [_axis_profile(places[:, axis], size, width) for axis, size in enumerate(shape)]
    head = profiles[0]
    for profile in profiles[1:-1]:
        head = (head[:, :, None] * profile[:, None, :]).flatten(1)
    return (head.T @ profiles[-1]).reshape(tuple(shape))


def lesion_template(parameters: LumpyParameters, place: Sequence[int] | None = None) -> Tensor:
    """The lesion without background or noise, in grey values: float64 ``[*shape]``.

    Args:
        parameters: of the task.
        place: voxel indices of the centre; voxel (0, ..., 0) where None, the origin of circular shifts.
    """
    where = [0] * len(parameters.shape) if place is None else list(place)
    centre = torch.tensor([where], dtype=torch.float64)
    return parameters.lesion_amplitude * _sum_of_blobs(centre, parameters.shape, parameters.lesion_width)


def lesion_window(parameters: LumpyParameters) -> Tensor:
    """Places a lesion can take: bool ``[*shape]``, every True voxel being equally likely."""
    window = torch.zeros(tuple(parameters.shape), dtype=torch.bool)
    if parameters.place is not None:
        window[tuple(parameters.place)] = True
        return window
    margin = int(parameters.margin)
    window[tuple(slice(margin, size - margin) for size in parameters.shape)] = True
    return window


def lump_mean(parameters: LumpyParameters) -> float:
    """Mean grey value of the background: (N / V) a (2 pi w^2)^(axes / 2), by Campbell's theorem.

    >>> round(lump_mean(LumpyParameters(shape=(10, 10), margin=4, mean_lumps=5, lump_amplitude=2, lump_width=1)), 4)
    0.6283
    """
    density = parameters.mean_lumps / math.prod(parameters.shape)
    volume = (2 * math.pi * parameters.lump_width**2) ** (len(parameters.shape) / 2)
    return float(density * parameters.lump_amplitude * volume)


def noise_covariance(parameters: LumpyParameters) -> Tensor:
    """Covariance of background plus noise between voxel 0 and voxel r: float64 ``[*shape]``, grey values squared.

    The lump field gives (N / V) a^2 (pi w^2)^(axes / 2) exp(-r^2 / 4 w^2), summed over all images of r on the torus
    (shot noise; Rolland and Barrett 1992); the white noise adds sigma^2 at r = 0.
    """
    density = parameters.mean_lumps / math.prod(parameters.shape)
    peak = density * parameters.lump_amplitude**2 * (math.pi * parameters.lump_width**2) ** (len(parameters.shape) / 2)
    origin = torch.zeros(1, len(parameters.shape), dtype=torch.float64)
    # exp(-r^2 / 4 w^2) is a Gaussian of standard deviation w sqrt(2)
    covariance: Tensor = peak * _sum_of_blobs(origin, parameters.shape, math.sqrt(2) * parameters.lump_width)
    covariance[(0,) * covariance.ndim] += parameters.noise_sigma**2
    return covariance


def _draw_place(parameters: LumpyParameters, generator: torch.Generator) -> tuple[int, ...]:
    if parameters.place is not None:
        return tuple(parameters.place)
    margin = int(parameters.margin)
    return tuple(int(torch.randint(margin, size - margin, (), generator=generator)) for size in parameters.shape)


def draw_volume(parameters: LumpyParameters, lesion: bool, generator: torch.Generator) -> LumpyVolume:
    """Draw one volume; the generator is the only source of chance.

    The lesion's place is drawn in either case, so equal generator states give a pair of volumes that differ by
    exactly the lesion.

    Args:
        parameters: of the task.
        lesion: whether to add the lesion.
        generator: CPU generator; its state advances.
    """
    shape = tuple(parameters.shape)
    mean = torch.tensor(float(parameters.mean_lumps), dtype=torch.float64)
    lumps = int(torch.poisson(mean, generator=generator))
    sizes = torch.tensor(shape, dtype=torch.float64)
    lump_places = torch.rand(lumps, len(shape), dtype=torch.float64, generator=generator) * sizes
    place = _draw_place(parameters, generator)
    image = parameters.lump_amplitude * _sum_of_blobs(lump_places, shape, parameters.lump_width)
    image += parameters.noise_sigma * torch.randn(shape, dtype=torch.float64, generator=generator)
    if lesion:
        image += lesion_template(parameters, place)
    return LumpyVolume(image=image.to(torch.float32), label=int(lesion), place=place, lumps=lumps)


class LumpyDataset(Dataset[dict[str, Any]]):
    """Volumes with (odd index) and without (even index) a lesion, drawn when asked for.

    Item i depends on the parameters, the seed and i alone, not on the order of access or the process.

    Args:
        parameters: of the task.
        length: number of volumes.
        seed: zero or more; sets of different seeds are independent.

    Raises:
        ValueError: where length or seed is negative.
    """

    def __init__(self, parameters: LumpyParameters, length: int, seed: int) -> None:
        if length < 0:
            raise ValueError(f"length is {length}; give the number of volumes, zero or more")
        if seed < 0:
            raise ValueError(f"seed is {seed}; give a whole number that is zero or more")
        self.parameters = parameters
        self.length = int(length)
        self.seed = int(seed)

    def __len__(self) -> int:
        """Give the number of volumes."""
        return self.length

    def volume(self, index: int) -> LumpyVolume:
        """Item with its truth; negative indices count from the end.

        Raises:
            IndexError: beyond the end.
        """
        position = self.position(index)
        return draw_volume(self.parameters, lesion=position % 2 == 1, generator=self.generator(position))

    def position(self, index: int) -> int:
        """Index from the start; raises IndexError beyond the end."""
        position = index + self.length if index < 0 else index
        if not 0 <= position < self.length:
            raise IndexError(f"index {index} is outside a set of {self.length} volumes")
        return position

    def generator(self, position: int) -> torch.Generator:
        """The source of chance of one item."""
        # SeedSequence mixes both numbers: neighbouring seeds or items share no stream
        state = np.random.SeedSequence([self.seed, position]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(state))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``{"image": float32 [1, *shape], "label": int}``."""
        volume = self.volume(index)
        return {"image": volume.image[None], "label": volume.label}


def grid_affine(axes: int, spacing: float | Sequence[float] = SPACING) -> npt.NDArray[np.float64]:
    """Voxel index to RAS mm of a lumpy image: float64 [4, 4]; a two-dimensional image has a third axis of one voxel.

    Raises:
        ValueError: for a spacing that does not fit the number of axes.
    """
    steps = [float(spacing)] * axes if isinstance(spacing, (int, float)) else [float(s) for s in spacing]
    if len(steps) != axes or min(steps) <= 0:
        raise ValueError(f"spacing {spacing} does not fit {axes} axes; give one positive number, or one per axis")
    return np.diag([*steps, steps[-1]][:3] + [1.0])


def write_image(
    image: Tensor, path: str | os.PathLike[str], spacing: float | Sequence[float] = SPACING, root: Path | None = None
) -> Path:
    """Write an image as float32 NIfTI, axes right-anterior-superior, qform and sform equal with code 1.

    A two-dimensional image is written with a third axis of one voxel. The file appears whole or not at all.

    Args:
        image: ``[*shape]`` in grey values, two or three axes.
        path: file to write, ending in .nii.gz; its folder is made where missing.
        spacing: distance of voxel centres in mm, one for all axes or one per axis.
        root: folder from which on no link is followed, by default that of the file.

    Raises:
        ValueError: for another number of axes, a spacing that does not fit them, or another file ending.
    """
    from monai_ifim.io.nifti import write_volume

    target = Path(path)
    if not target.name.endswith(".nii.gz"):
        raise ValueError(f"{target.name} is not a name for a compressed NIfTI file; end it in .nii.gz")
    if image.ndim not in (2, 3):
        raise ValueError(f"image has {image.ndim} axes; give two or three, without batch or channel")
    write_volume(target, image.detach().cpu().numpy(), grid_affine(image.ndim, spacing), root or target.parent)
    return target
