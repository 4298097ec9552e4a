"""Masks of an answer: the voxels of a segmentation that a decomposition asks about."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from monai_ifim.core.errors import HeadError

RESTORE = "the answer was restricted to a mask, of which a description holds a hash alone: give the mask again"


class AnswerMask:
    """Voxels of a segmentation that are asked about, one mask for all images of a batch or one for each.

    values: [*spatial] or [B, *spatial], nonzero where the answer counts, on the grid of the network's output or on that of its
    input. Raises HeadError for a mask without such a voxel, and for NaN.
    """

    def __init__(self, values: Tensor) -> None:
        if not isinstance(values, Tensor):
            raise HeadError(
                f"answer_mask={values!r}: give a tensor [*spatial] or [B, *spatial], nonzero where the answer counts."
            )
        plain = values.detach().as_subclass(Tensor)
        if plain.is_floating_point() and not bool(torch.isfinite(plain).all()):
            raise HeadError("the mask of the answer holds NaN or infinite values: give 0 outside of the region and 1 inside.")
        self.values = plain != 0
        if not bool(self.values.any()):
            raise HeadError("the mask of the answer is 0 everywhere: give one with voxels inside.")

    def describe(self) -> dict[str, Any]:
        """Shape, number of voxels and SHA-256 of the mask, as plain data."""
        packed = self.values.cpu().contiguous().numpy().tobytes()
        return {"shape": list(self.values.shape), "voxels": int(self.values.sum()), "sha256": hashlib.sha256(packed).hexdigest()}

    def of_batch(self, batch: int, spatial: int) -> Tensor:
        """The masks [B, *spatial] of a batch of images with so many spatial axes; raises HeadError where they do not fit it."""
        own = self.values[None] if self.values.ndim == spatial else self.values
        if own.ndim != spatial + 1 or own.shape[0] not in (1, batch):
            raise HeadError(
                f"the mask of the answer has shape {tuple(self.values.shape)} for {batch} image(s) of {spatial} spatial axes: "
                "give [*spatial], or one mask for each image, [B, *spatial]."
            )
        return own.expand(batch, *own.shape[1:])


def as_answer_mask(mask: AnswerMask | Tensor | None) -> AnswerMask | None:
    """The mask of a tensor; raises HeadError for anything else."""
    return mask if mask is None or isinstance(mask, AnswerMask) else AnswerMask(mask)


def mask_from(description: Mapping[str, Any]) -> AnswerMask:
    """Raises HeadError: what `AnswerMask.describe` gave does not hold the mask."""
    raise HeadError(f"{RESTORE}, answer_mask=.")
