"""Families by name, as settings and command lines state them, and families from their descriptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_ifim.coordinates.acquisition import Acquisition
from monai_ifim.coordinates.placement import Placement
from monai_ifim.coordinates.regions import Regions
from monai_ifim.core.coordinates import Family
from monai_ifim.core.errors import IFIMError
from monai_ifim.options import MODALITIES

NAMED = ("placement", "acquisition", *(f"acquisition={modality}" for modality in MODALITIES))


def named_families(text: str | None) -> tuple[Family, ...]:
    """The families of a text such as "placement,acquisition=ct"; raises IFIMError for an unknown name."""
    return tuple(_named(name.strip()) for name in (text or "").split(",") if name.strip())


def families_of(descriptions: Sequence[Mapping[str, Any]], regions: Regions | None = None) -> tuple[Family, ...]:
    """The families that `Family.describe` described; regions: the label map, of which a description holds a hash alone.

    Raises IFIMError where a description does not hold the family: for a label map that is not given, and for directions.
    """
    return tuple(_described(each, regions) for each in descriptions)


def _named(name: str) -> Family:
    kind, _, modality = name.partition("=")
    if kind == "placement" and not modality:
        return Placement()
    if kind == "acquisition" and (modality in MODALITIES or name == kind):
        return Acquisition(modality or None)
    raise IFIMError(f"unknown coordinates {name!r}: choose from {', '.join(NAMED)}.")


def _described(description: Mapping[str, Any], regions: Regions | None) -> Family:
    kind = description.get("kind")
    if kind == Placement.kind:
        return Placement(description.get("affine"))
    if kind == Acquisition.kind:
        return Acquisition(description.get("modality"), description.get("affine"))
    if kind == Regions.kind:
        if regions is None:
            raise IFIMError("the regions were a label map, of which the description holds a hash alone: give the map again.")
        return regions
    raise IFIMError(f"the coordinates {kind!r} were images or code, which a description cannot restore: decompose in Python.")
