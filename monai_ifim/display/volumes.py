"""Volumes of labels in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_ifim.display.numbers import number


def volume_sentence(volumes: Mapping[str, Any], step: str) -> str | None:
    """By how much one unit along the first component changes the volume that it changes most, against its tolerance.

    volumes: as a sidecar states them; step: what a unit along a component is. None where there is no component, or the changes
    were not computed.
    """
    changed = [label for label in volumes["labels"] if label["changes"]]
    if not changed:
        return None
    most = max(changed, key=lambda label: abs(label["changes"][0]) / label["tolerance"])
    change, unit = most["changes"][0], volumes["unit"]
    return (
        f"One unit ({step}) along component 1 {'raises' if change > 0 else 'lowers'} the volume of {most['name']} by "
        f"{number(abs(change))} {unit}; it is {number(most['expected'])} {unit}, with a tolerance of {number(most['tolerance'])} "
        f"{unit}."
    )
