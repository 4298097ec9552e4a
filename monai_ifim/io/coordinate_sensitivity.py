"""Sensitivity to named coordinates as sidecars state it: numbers by coordinate, with the names of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_ifim.io.grids import Grid
from monai_ifim.options import STEP_NATS


def described_coordinates(record: Mapping[str, Any], names: Sequence[str], unit: str, grid: Grid) -> dict[str, Any] | None:
    """The block of a sidecar; None where no coordinates were asked for.

    names: of the answers; unit: of the values of the image that was moved; grid: that it lies on.
    """
    found = record.get("coordinates")
    if found is None:
        return None
    answers = _answers(record, names, len(found["gradient"]))
    entries = [
        {
            "name": name,
            "unit": found["units"][i].replace("unit of the image", unit),
            "nats_per_unit": found["nats_per_unit"][i],
            "nats_error": None if found["fisher_error"][i] is None else found["fisher_error"][i] / 2,
            "step": found["step"][i],
            "norm": found["tangent_norms"][i],
            "gradient": {answer: row[i] for answer, row in zip(answers, found["gradient"], strict=True)},
        }
        for i, name in enumerate(found["names"])
    ]
    return {
        "grid": grid,
        "gradient_of": found["gradient_of"],
        "way": found["way"],
        "jacobian_products": found["jacobian_products"],
        "step_nats": STEP_NATS,
        "coordinates": entries,
        "fisher": found["fisher"],
    }


def _answers(record: Mapping[str, Any], names: Sequence[str], count: int) -> list[str]:
    """Names of the answers of the gradient: all of them, or the one that was asked about."""
    asked = record.get("answer") or {}
    if count == 1 and asked.get("label") is not None and asked["label"] < len(names):
        return [names[asked["label"]]]
    return list(names) if len(names) == count else [str(number) for number in range(count)]
