"""Precision of a network's passes, by the names of `Settings.precision`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

WEIGHTS = {"float32": torch.float32, "float64": torch.float64}
AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def weight_dtype(precision: str | None) -> torch.dtype | None:
    """Dtype that image and weights are converted to; None leaves them as they are."""
    return WEIGHTS.get(precision or "")


def autocast(precision: str | None, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass: autocast where the precision names its dtype."""
    dtype = AUTOCAST.get(precision or "")
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def coarsest_eps(precision: str | None, device: torch.device, *dtypes: torch.dtype) -> float:
    """Machine epsilon of the coarsest of the dtypes, that of an autocast which is on in `autocast` among them."""
    with autocast(precision, device):
        if torch.is_autocast_enabled(device.type):
            dtypes = (*dtypes, torch.get_autocast_dtype(device.type))
    return max(torch.finfo(dtype).eps for dtype in dtypes)
