"""The components of a batch as inferer and handler hand them on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from monai_ifim.adapt.answer_facts import facts_of_batch
from monai_ifim.adapt.collation import Margins, cropped, margins_of_batch
from monai_ifim.adapt.components import component_tensors, joined_tensors
from monai_ifim.adapt.scanner.space import ScannerSpace, decomposed_batch
from monai_ifim.core.answer import AnswerFacts
from monai_ifim.core.operator.arguments import for_items
from monai_ifim.core.settings import Settings


def batch_components(
    settings: Settings,
    scanner: ScannerSpace | None,
    network: Callable[..., Any],
    batch: Tensor,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    class_names: Sequence[str] = (),
) -> tuple[dict[str, Tensor], Tensor]:
    """`component_tensors` of a batch [B, channel, *spatial], and the batch that was decomposed (`decomposed_batch`).

    Images that `pad_list_data_collate` padded to one size are decomposed each at its own size, and their maps padded by zeros.
    class_names: in the order of the network's outputs.
    """
    facts = facts_of_batch(batch, class_names)
    margins = margins_of_batch(batch) if scanner is None else None
    if margins is not None:
        singles = [
            _of_image(settings, network, batch, index, margin, args, kwargs or {}, facts) for index, margin in enumerate(margins)
        ]
        return joined_tensors(singles, margins, batch), batch
    start = time.perf_counter()
    decomposition, image = decomposed_batch(settings, scanner, network, batch, args, kwargs, facts)
    return component_tensors(decomposition, image, time.perf_counter() - start), image


def _of_image(
    settings: Settings,
    network: Callable[..., Any],
    batch: Tensor,
    index: int,
    margins: Margins,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    facts: AnswerFacts,
) -> dict[str, Tensor]:
    """The tensors of one image of a batch at its own size, with a batch axis."""
    start, items, size = time.perf_counter(), slice(index, index + 1), batch.shape[0]
    own = cropped(batch.as_subclass(Tensor)[items], margins)
    further = [for_items(value, items, size) for value in args]
    named = {name: for_items(value, items, size) for name, value in kwargs.items()}
    of_image = replace(facts.part(items), grid=tuple(own.shape[2:]))
    decomposition, _ = decomposed_batch(settings, None, network, own, further, named, of_image)
    return component_tensors(decomposition, own, time.perf_counter() - start)
