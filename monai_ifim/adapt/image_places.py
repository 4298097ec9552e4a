"""Where images lie and of which modality they are, by MONAI's metadata: what named coordinates have to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor

from monai_ifim.adapt.native import native_affine, network_affine
from monai_ifim.core.answer import AnswerFacts
from monai_ifim.core.coordinates import Place
from monai_ifim.core.settings import Settings
from monai_ifim.io.geometry import full_affine, is_photograph


def with_places(
    facts: AnswerFacts, settings: Settings, images: Sequence[MetaTensor], preprocessing: Compose | None = None
) -> AnswerFacts:
    """The facts with the places of network inputs [channel, *spatial], where the settings ask for coordinates.

    Raises GeometryError where the place of the network's grid is not known.
    """
    if not settings.families:
        return facts
    places = [Place(_tensor(network_affine(image, preprocessing)) if _is_placed(image) else None) for image in images]
    return replace(facts, places=tuple(places))


def place_of_scan(scan: MetaTensor, modality: str = "") -> Place:
    """The place of a scan [channel, *spatial] as its reader gave it."""
    return Place(_tensor(native_affine(scan)) if _is_placed(scan) else None, modality, raw=True)


def places_of_batch(batch: Tensor) -> tuple[Place, ...]:
    """The places of network inputs [B, channel, *spatial] that MONAI collated; unknown ones of a plain tensor."""
    if not isinstance(batch, MetaTensor) or not _is_placed(batch):
        return ()
    affines = batch.affine if batch.affine.ndim == 3 else batch.affine.expand(batch.shape[0], *batch.affine.shape)
    return tuple(Place(_tensor(full_affine(affine.cpu().numpy()))) for affine in affines)


def _is_placed(image: MetaTensor) -> bool:
    """True where a reader gave the affine, and the format has one."""
    if is_photograph(image.meta):
        return False
    affine = image.affine
    return image.meta.get("original_affine") is not None or not torch.equal(affine, torch.eye(len(affine)).to(affine))


def _tensor(affine: object) -> Tensor:
    return torch.as_tensor(affine, dtype=torch.float64)
