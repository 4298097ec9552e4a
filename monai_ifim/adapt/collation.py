"""Images that MONAI's `pad_list_data_collate` padded to one size: their own sizes, from the trace that it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import PadListDataCollate
from monai.utils import TraceKeys
from torch import Tensor
from torch.nn import functional

Margins = tuple[tuple[int, int], ...]  # voxels before and after, for each spatial axis


def margins_of_batch(batch: Tensor) -> list[Margins] | None:
    """Margins of each image of a batch [B, channel, *spatial]; None if no image was padded when the batch was made."""
    if not isinstance(batch, MetaTensor):
        return None
    traces = batch.applied_operations if batch.is_batch else [batch.applied_operations]
    found = [_margins(trace) for trace in traces]
    if len(found) != batch.shape[0] or not any(margin and any(map(any, margin)) for margin in found):
        return None
    return [margin or ((0, 0),) * (batch.ndim - 2) for margin in found]


def at_own_size(image: MetaTensor, maps: Mapping[str, Any]) -> tuple[MetaTensor, dict[str, Any]]:
    """An image [channel, *spatial] and tensors on its grid, without the margins that it got when its batch was made."""
    margins, size = _margins(image.applied_operations), image.shape[1:]
    if margins is None:
        return image, dict(maps)
    own = MetaTensor(cropped(image.as_subclass(Tensor), margins))
    own.copy_meta_from(image)
    shift = torch.eye(len(image.affine), dtype=image.affine.dtype)
    shift[: len(margins), -1] = torch.tensor([before for before, _ in margins], dtype=shift.dtype)
    own.affine = image.affine.cpu() @ shift
    own.applied_operations = image.applied_operations[:-1]
    return own, {
        name: cropped(value.as_subclass(Tensor), margins) if isinstance(value, Tensor) and value.shape[1:] == size else value
        for name, value in maps.items()
    }


def cropped(values: Tensor, margins: Margins) -> Tensor:
    """Values [..., *spatial] without the margins."""
    for axis, (before, after) in enumerate(margins, values.ndim - len(margins)):
        values = values.narrow(axis, before, values.shape[axis] - before - after)
    return values


def padded(values: Tensor, margins: Margins) -> Tensor:
    """Values [..., *spatial] with margins of zeros."""
    return functional.pad(values, [count for before, after in reversed(margins) for count in (before, after)])


def _margins(trace: Sequence[Any]) -> Margins | None:
    """The margins that the last entry of an image's trace states; None if that is no entry of a collation."""
    last = trace[-1] if isinstance(trace, list) and trace else None
    if not isinstance(last, dict) or last.get(TraceKeys.CLASS_NAME) != PadListDataCollate.__name__:
        return None
    widths = last[TraceKeys.EXTRA_INFO][TraceKeys.EXTRA_INFO]["padded"]
    return tuple((int(before), int(after)) for before, after in widths[1:])
