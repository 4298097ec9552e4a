"""Masks of the answer from files, on the grid of their scan or on the network's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, SpatialResample
from torch import Tensor

from monai_ifim.adapt.native import native_affine, native_shape, network_affine
from monai_ifim.core.heads.answer_mask import AnswerMask
from monai_ifim.io import InputError
from monai_ifim.io.geometry import Affine, same_grid
from monai_ifim.io.option_file import read_option_file


class MaskFile(AnswerMask):
    """An `AnswerMask` with a position: values [H, W] or [H, W, D], affine voxel -> RAS mm, and the file's name."""

    def __init__(self, values: Tensor, affine: Affine, name: str) -> None:
        super().__init__(values)
        self.affine, self.name = affine, name

    def of_image(self, image: MetaTensor, preprocessing: Compose | None) -> Tensor:
        """The mask on the grid of a network input [channel, *spatial], bool [*spatial], by the nearest voxel.

        Raises InputError where the mask lies neither on that grid nor on that of the scan, GeometryError where the place of the
        network's grid is not known.
        """
        grid, affine = tuple(image.shape[1:]), network_affine(image, preprocessing)
        if self._lies_on(grid, affine):
            return self.values.reshape(grid)
        if not self._lies_on(native_shape(image), native_affine(image)):
            sizes = [" x ".join(map(str, shape)) for shape in (self.values.shape, native_shape(image), grid)]
            raise InputError(
                f"the mask {self.name} ({sizes[0]}) lies neither on the scan's grid ({sizes[1]}) nor on the network's "
                f"({sizes[2]}), by its sizes and affine: resample it onto the scan's grid, by the nearest voxel."
            )
        mask = MetaTensor(self.values.reshape((*self.values.shape, 1)[:3])[None].to(torch.float32), affine=self.affine)
        resampled = SpatialResample(mode="nearest", padding_mode="zeros")
        return resampled(mask, dst_affine=affine, spatial_size=(*grid, 1)[:3]).as_subclass(Tensor).reshape(grid) > 0

    def _lies_on(self, shape: tuple[int, ...], affine: Affine) -> bool:
        sizes = (*shape, 1)[:3]
        return (*self.values.shape, 1)[:3] == sizes and same_grid(self.affine, affine, sizes)


def read_mask(file: str | None) -> MaskFile | None:
    """The mask in a NIfTI file; raises InputError where it cannot be read or is 4D, HeadError where it is 0 everywhere."""
    if file is None:
        return None
    path = Path(file)
    values, affine = read_option_file(
        path,
        lambda reason: f"--answer-mask {path.name}: not a readable NIfTI file ({reason}): give one, 0 outside of the region.",
    )
    if values.ndim not in (2, 3):
        raise InputError(f"--answer-mask {path.name}: {values.ndim} axes: give one volume, 0 outside of the region.")
    return MaskFile(torch.from_numpy(np.ascontiguousarray(values)), affine, path.name)
