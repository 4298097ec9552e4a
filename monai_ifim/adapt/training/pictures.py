"""Pictures of the sensitivity for training logs: the map over the image, turned as radiologists look at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import decollate_batch
from torch import Tensor

from monai_ifim.adapt.collation import at_own_size
from monai_ifim.adapt.components import UNPLACED, record_of_image
from monai_ifim.adapt.training.metric import components_of_output
from monai_ifim.core import IFIMError
from monai_ifim.display.overlay import overlay
from monai_ifim.display.saturation import is_saturated
from monai_ifim.display.windows import display_window
from monai_ifim.io import InputError
from monai_ifim.io.geometry import VIEWS, Affine, cut, world_affine

MAPS = ("ifim_high", "ifim_low", "ifim_sensitivity")
GAP = 4  # pixels between the planes of a volume

Picture = npt.NDArray[np.float64]


class OverlayPictures:
    """Of each image of an evaluator's output, the sensitivity over the image, as an RGB picture [3, rows, columns] from 0 to 1.

    For MONAI's TensorBoardImageHandler: `TensorBoardImageHandler(batch_transform=no_pictures,
    output_transform=OverlayPictures(), max_channels=3)`. A volume is shown in its axial, coronal and sagittal planes through the
    most sensitive voxel, side by side; front or head is at the top and the patient's right at the left, by the image's affine. A
    photograph stands as it was read, and an image without an affine as it lies in memory, the first axis down. Of a saturated
    answer the image alone is shown.

    channel: of the network's input, for image and map. Raises IFIMError for an output without components.
    """

    def __init__(self, channel: int = 0) -> None:
        self.channel = channel

    def __call__(self, output: Any) -> list[Picture]:
        """The pictures of a batch or of a list of decollated images."""
        return [self._picture(item) for item in _images(output)]

    def _picture(self, item: Mapping[str, Any]) -> Picture:
        maps = {name: item[name] for name in MAPS}
        own, parts = at_own_size(item["ifim_high"], maps)
        image = (parts["ifim_high"].as_subclass(Tensor) + parts["ifim_low"].as_subclass(Tensor)).cpu().to(torch.float64)
        if self.channel >= image.shape[0]:
            raise IFIMError(f"channel={self.channel}: the image has {image.shape[0]} channel(s), counted from 0.")
        sensitivity = parts["ifim_sensitivity"].as_subclass(Tensor).cpu().to(torch.float64)
        grey, heat = _shown("input", image[self.channel].numpy()), _shown("sensitivity", sensitivity[self.channel].numpy())
        heat = np.zeros_like(heat) if _is_saturated(item) else heat
        affine = None if own.meta.get(UNPLACED) else world_affine(own.affine.cpu().numpy(), own.meta)
        return _beside_each_other(_planes(grey, heat, affine))


def no_pictures(batch: Any) -> tuple[list[None], list[None]]:
    """No image and no label of any batch, for the `batch_transform` of TensorBoardImageHandler."""
    count = len(batch["image"]) if isinstance(batch, Mapping) else len(batch)
    return [None] * count, [None] * count


def _images(output: Any) -> list[Mapping[str, Any]]:
    """The components of each image."""
    found = components_of_output(output)
    if isinstance(output, Sequence):
        return found
    maps = {name: found[0][name] for name in MAPS}
    images: list[Mapping[str, Any]] = decollate_batch(maps)
    return images


def _is_saturated(item: Mapping[str, Any]) -> bool:
    """True if the record of the image says so; components that were carried on without their metadata have none."""
    try:
        return is_saturated(record_of_image(item))
    except InputError:
        return False


def _planes(grey: Picture, heat: Picture, affine: Affine | None) -> list[Picture]:
    """RGB planes [rows, columns, 3] through the most sensitive voxel; without an affine across each axis of the array."""
    shape = (*grey.shape, 1)[:3]
    grey, place, heat = grey.reshape(shape), np.unravel_index(int(heat.argmax()), shape), heat.reshape(shape)
    if affine is None:
        axes = [axis for axis in range(3) if shape[axis] == 1][:1] or range(3)
        return [overlay(np.take(grey, place[axis], axis), np.take(heat, place[axis], axis)) for axis in axes]
    cuts = [cut(affine, view) for view in VIEWS]
    flat = [chosen for chosen in cuts if shape[chosen.normal] == 1]
    return [
        overlay(chosen.plane(grey, int(place[chosen.normal])), chosen.plane(heat, int(place[chosen.normal])))
        for chosen in flat[:1] or cuts
    ]


def _beside_each_other(planes: Sequence[Picture]) -> Picture:
    """One picture [3, rows, columns], the planes at the top and black below the shorter ones."""
    rows = max(plane.shape[0] for plane in planes)
    columns = sum(plane.shape[1] for plane in planes) + GAP * (len(planes) - 1)
    whole, left = np.zeros((rows, columns, 3)), 0
    for plane in planes:
        whole[: plane.shape[0], left : left + plane.shape[1]] = plane
        left += plane.shape[1] + GAP
    return np.ascontiguousarray(whole.transpose(2, 0, 1))


def _shown(kind: str, values: Picture) -> Picture:
    """A map from 0 to 1 in its display window."""
    low, high = display_window(kind, values)
    return np.clip((values - low) / (high - low), 0.0, 1.0)
