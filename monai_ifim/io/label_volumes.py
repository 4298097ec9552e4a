"""Volumes of labels and the part of the answer that was asked for, as the sidecar states them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_ifim.display.volumes import volume_sentence

FIELD_OF_VIEW = "the network's output covers the field of view of its input: ml of a voxel are those of it over their number"


def described_answer(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any] | None:
    """Which part of the answer was decomposed; None for all of it. names: of the outputs."""
    answer = record.get("answer")
    if answer is None:
        return None
    label = answer["label"]
    return answer | {"name": None if label is None else names[label], "voxels": record.get("answer_voxels")}


def described_volumes(record: Mapping[str, Any], names: Sequence[str], step: str) -> dict[str, Any] | None:
    """Of an answer of volumes, for each label: its expected volume, tolerance, the length of its gradient (the change by one unit
    along its own steepest direction) and its change by one unit along each component; None for other answers.

    names: of the outputs; step: what a unit is.
    """
    volumes = record.get("volumes")
    if volumes is None:
        return None
    asked = (record.get("answer") or {}).get("label")
    numbers = range(len(names)) if asked is None else (asked,)
    slopes, changes = volumes["slopes"], volumes["changes"]
    labels = [
        {
            "number": number,
            "name": names[number],
            "expected": record["probabilities"][number],
            "tolerance": volumes["tolerances"][place],
            "slope": None if slopes is None else slopes[place],
            "changes": None if changes is None else [row[place] for row in changes],
        }
        for place, number in enumerate(numbers)
    ]
    content = {
        "unit": volumes["unit"],
        "tolerance": volumes["tolerance"],
        "voxel_volume": volumes["voxel_volume"],
        "grid": volumes["grid"],
        "grid_meaning": FIELD_OF_VIEW,
        "step": step,
        "labels": labels,
    }
    return content | {"sentence": volume_sentence(content, step)}
