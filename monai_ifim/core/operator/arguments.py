"""Further arguments of a network: which of them belong to the images of a batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map


def is_per_image(value: Any, batch: int) -> bool:
    """True if an argument has one entry for each of `batch` images: a tensor whose first axis has that length."""
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == batch


def for_items(value: Any, items: slice | Tensor, batch: int) -> Any:
    """An argument for some of the `batch` images: their entries where there is one for each image, else all of it.

    Tensors in dictionaries, lists and tuples count one by one.
    """
    if isinstance(value, (dict, list, tuple)):
        return tree_map(lambda part: part[items] if is_per_image(part, batch) else part, value)
    return value[items] if is_per_image(value, batch) else value
