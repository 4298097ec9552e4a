"""The components of a batch as inferer and handler hand them on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from monai_ifim.adapt.answer_facts import facts_of_batch
from monai_ifim.adapt.collation import cropped, margins_of_batch
from monai_ifim.adapt.components import component_tensors, joined_tensors
from monai_ifim.adapt.grey_images import GreyImages, grey_batch
from monai_ifim.adapt.image_places import places_of_batch
from monai_ifim.adapt.scanner.space import ScannerSpace, decomposed_batch
from monai_ifim.adapt.tied_channels import Tie, tied_network
from monai_ifim.core.answer import AnswerFacts
from monai_ifim.core.operator.arguments import for_items
from monai_ifim.core.settings import Settings

Instead = ScannerSpace | GreyImages | None  # of the network's input: the scan, or the grey image that it was made of


def batch_components(
    settings: Settings,
    instead: Instead,
    network: Callable[..., Any],
    batch: Tensor,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    class_names: Sequence[str] = (),
) -> tuple[dict[str, Tensor], Tensor]:
    """`component_tensors` of a batch [B, channel, *spatial], and the batch that was decomposed: the network's inputs, or their
    grey images, or scans.

    Images that `pad_list_data_collate` padded to one size are decomposed each at its own size, and their maps padded by zeros.
    class_names: in the order of the network's outputs.
    """
    facts = facts_of_batch(batch, class_names)
    if settings.families:
        facts = replace(facts, places=places_of_batch(batch))
    if isinstance(instead, ScannerSpace):
        start = time.perf_counter()
        decomposition, scans = decomposed_batch(settings, instead, network, batch, args, kwargs, facts)
        return component_tensors(decomposition, scans, time.perf_counter() - start), scans
    ties = [] if instead is None else instead.of_batch(batch)
    shown = grey_batch(batch) if ties and isinstance(ties[0], Tie) else batch
    margins = margins_of_batch(batch)
    if margins is None:
        return _of_inputs(settings, network, batch, args, kwargs or {}, facts, ties, shown), shown
    singles = []
    for index, margin in enumerate(margins):
        items, size = slice(index, index + 1), batch.shape[0]
        own, own_shown = (cropped(each.as_subclass(Tensor)[items], margin) for each in (batch, shown))
        further = [for_items(value, items, size) for value in args]
        named = {name: for_items(value, items, size) for name, value in (kwargs or {}).items()}
        of_image = replace(facts.part(items), grid=tuple(own.shape[2:]))
        singles.append(_of_inputs(settings, network, own, further, named, of_image, ties[items], own_shown))
    return joined_tensors(singles, margins, shown), shown


def _of_inputs(
    settings: Settings,
    network: Callable[..., Any],
    inputs: Tensor,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    facts: AnswerFacts,
    ties: Sequence[Tie | str | None],
    shown: Tensor,
) -> dict[str, Tensor]:
    """The tensors of inputs [B, channel, *spatial] of one size; shown: these, or their grey images where they are tied."""
    start = time.perf_counter()
    called, further = tied_network(network, ties, inputs.device)
    decomposition, _ = decomposed_batch(settings, None, called, shown, (*further, *args), kwargs, facts)
    return component_tensors(decomposition, shown, time.perf_counter() - start, ties)
