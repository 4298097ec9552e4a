"""What is said of an answer that no change of the image could move. Standard library only, for the viewer's process too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_ifim.display.numbers import number

__all__ = ["SATURATED", "is_saturated", "saturation_sentence"]

SATURATED = "saturated: nothing here moves the answer"


def is_saturated(record: Mapping[str, Any]) -> bool:
    """True if a sidecar, or the record of an image, states that the answer is saturated; those before schema 2.4 do not."""
    stated = record.get("saturation")
    return isinstance(stated, Mapping) and stated.get("saturated") is True


def saturation_sentence(nats: float | None) -> str:
    """What saturated means, with the number that decided; nats: `core.saturation.Saturation.nats`."""
    return (
        "Saturated: nothing here moves the answer. By its strongest component, a change as large as the image's whole contrast "
        f"would cost {number(nats)} nats; one nat is a clear change. The maps are drawn in grey: their spots are no findings."
    )
