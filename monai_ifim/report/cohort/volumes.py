"""The volumes of a case's labels on its card: how large each is, its tolerance, and what a change of the image does to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_ifim.display import numbers
from monai_ifim.report.pages.texts import shortened, words

MOST_LABELS = 24  # rows of the table


@dataclass(frozen=True)
class VolumeTable:
    """rows: label, expected volume, tolerance, and by how much one unit changes it, along its own steepest direction and along
    the first component; unit: of the volumes; sentence: the largest change in words; rest: how many labels are left out."""

    rows: tuple[tuple[str, ...], ...]
    unit: str
    sentence: str
    rest: str


def volume_table(case: Mapping[str, Any]) -> VolumeTable | None:
    """The table of a case, from its row of cases.parquet; None where its answer is not volumes."""
    names = case["volume_labels"]
    if not isinstance(names, Sequence | np.ndarray) or len(names) == 0:
        return None
    expected = dict(zip(case["class_names"], case["means"], strict=True))
    plain = [[expected.get(name) for name in names], case["volume_tolerances"], case["volume_slopes"]]
    rows = [
        (shortened(words(name)), *(numbers.number(column[i]) for column in plain), _signed(case["volume_changes"][i]))
        for i, name in enumerate(names[:MOST_LABELS])
    ]
    left = len(names) - len(rows)
    rest = f"and {numbers.counted(left, 'label')} in the sidecar" if left > 0 else ""
    return VolumeTable(tuple(rows), words(case["means_unit"]), words(case["volume_sentence"]), rest)


def _signed(value: float | None) -> str:
    return f"+{numbers.number(value)}" if value is not None and value > 0 else numbers.number(value)
