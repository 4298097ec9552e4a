"""How many voxels a preprocessing resamples an image to, told before it does: the file states the voxel size that decides it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from monai.data import MetaTensor
from monai.transforms import Spacing, Spacingd

from monai_ifim.adapt.input_keys import flat, keys_of
from monai_ifim.adapt.input_steps import InputSteps


def resampled_voxels(steps: InputSteps, read: MetaTensor) -> int:
    """Largest number of voxels, times channels, that a Spacing or Spacingd step makes of a freshly read image; 0 without one.

    Steps before it that crop or turn the image are not run for this.
    """
    axes = read.shape[1:] if steps.reads_channel_first else read.shape
    channels = read.shape[0] if steps.reads_channel_first else 1
    empty = MetaTensor(torch.empty(()).expand(1, *axes), affine=read.affine)  # of this shape, in no memory
    return max((_voxels(spacing, empty) * channels for spacing in _spacings(steps)), default=0)


def _spacings(steps: InputSteps) -> Iterator[Spacing]:
    """The Spacing transforms that the image passes after it is read."""
    for step in flat(steps.compose.transforms[steps.reading :]):
        if isinstance(step, Spacingd) and (steps.file_key in keys_of(step) or steps.input_key in keys_of(step)):
            yield step.spacing_transform
        elif isinstance(step, Spacing):
            yield step


def _voxels(spacing: Spacing, image: MetaTensor) -> int:
    try:
        shape = spacing(image, lazy=True).peek_pending_shape()
    except Exception:  # the step itself then fails on the image, and its error is explained
        return 0
    count = 1
    for size in shape:
        count *= int(size)
    return count
