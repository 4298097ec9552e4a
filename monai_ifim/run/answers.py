"""What a table states of the part of an answer that was asked for, and of the volumes of labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_ifim.display.volumes import answer_words


def answer_fields(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `run.table.CaseRow` on answer and volumes, from a sidecar of any version.

    volume_changes: of each label by one unit along the first component.
    """
    fields: dict[str, Any] = {"answer": answer_words(sidecar.get("answer"))}
    volumes = sidecar.get("volumes")
    if volumes is None:
        return fields
    labels = volumes["labels"]
    first = [each["changes"][0] if each["changes"] else None for each in labels]
    return fields | {
        "volume_sentence": volumes["sentence"] or "",
        "volume_unit": volumes["unit"],
        "volume_labels": tuple(each["name"] for each in labels),
        "volume_expected": tuple(each["expected"] for each in labels),
        "volume_tolerances": tuple(each["tolerance"] for each in labels),
        "volume_slopes": tuple(each["slope"] for each in labels),
        "volume_changes": tuple(first),
    }
