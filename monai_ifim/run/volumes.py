"""What a table states of the volumes of labels besides their expected values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def volume_fields(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `run.table.CaseRow` on volumes, from a sidecar of any version; empty for another answer.

    volume_changes: of each label by one unit along the first component.
    """
    volumes = sidecar.get("volumes")
    if volumes is None:
        return {}
    labels = volumes["labels"]
    return {
        "volume_sentence": volumes["sentence"] or "",
        "volume_labels": tuple(each["name"] for each in labels),
        "volume_tolerances": tuple(each["tolerance"] for each in labels),
        "volume_slopes": tuple(each["slope"] for each in labels),
        "volume_changes": tuple(each["changes"][0] if each["changes"] else None for each in labels),
    }
