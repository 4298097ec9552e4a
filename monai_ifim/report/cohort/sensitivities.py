"""Sensitivity of a case to named coordinates on its card: sentences on the largest, and a bar for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from monai_ifim.display import numbers
from monai_ifim.display.coordinate_words import UNTRIED, coordinate_sentence, move_words
from monai_ifim.report.pages.texts import shortened, words
from monai_ifim.run.coordinate_table import CoordinateRow, read_coordinates

MOST_SENTENCES, MOST_BARS = 3, 40


@dataclass(frozen=True)
class SensitivityBar:
    """One coordinate: its move in words, cost of one unit, the step that costs 0.1 nat, and the length of its bar in percent."""

    name: str
    nats: str
    step: str
    percent: float


@dataclass(frozen=True)
class SensitivityChart:
    """Coordinates, the costliest first.

    sentences: on the first of them, none of a saturated answer; untried: how far these can be trusted; moved: what is moved;
    rest: how many are left out.
    """

    sentences: tuple[str, ...]
    untried: str
    bars: tuple[SensitivityBar, ...]
    moved: str
    rest: str


def charts_of(output: Path) -> dict[str, tuple[CoordinateRow, ...]]:
    """The rows of coordinates.csv by case; none without that file, or where it cannot be read."""
    try:
        return read_coordinates(output)
    except (OSError, ValueError, KeyError):
        return {}


def sensitivity_chart(case: Mapping[str, Any], rows: Sequence[CoordinateRow]) -> SensitivityChart | None:
    """The chart of a case, from its row of cases.parquet and those of coordinates.csv; None without the latter."""
    if not rows or case["status"] == "failed":
        return None
    ordered = sorted(rows, key=lambda row: -(row.nats_per_unit or 0.0))
    largest = max((row.nats_per_unit or 0.0 for row in rows), default=0.0)
    shown = ordered[:MOST_BARS]
    left = len(ordered) - len(shown)
    saturated = words(case["saturated"]) == "yes"  # the card says so in place of what a move does
    moved = "what the network sees" if rows[0].grid == "network" else "the scan"
    return SensitivityChart(
        () if saturated else tuple(_sentence(case, row) for row in ordered[:MOST_SENTENCES] if row.nats_per_unit),
        UNTRIED,
        tuple(_bar(row, largest) for row in shown),
        moved,
        f"and {numbers.counted(left, 'more coordinate')}, in coordinates.csv" if left > 0 else "",
    )


def _bar(row: CoordinateRow, largest: float) -> SensitivityBar:
    nats = row.nats_per_unit or 0.0
    step = numbers.NOT_AVAILABLE if row.step is None else f"{numbers.number(row.step, 2)} {shortened(row.unit)}"
    name = shortened(move_words(row.coordinate, row.unit))
    return SensitivityBar(name, numbers.number(row.nats_per_unit, 2), step, round(100 * nats / largest, 2) if largest else 0.0)


def _sentence(case: Mapping[str, Any], row: CoordinateRow) -> str:
    answer, slope = _answer(case, row)
    share = row.gradient_of == "log-probability"
    probability = None if pd.isna(case["probability"]) else float(case["probability"])
    if share:
        slope = None if slope is None or probability is None else slope * probability
    return coordinate_sentence(
        shortened(row.coordinate), shortened(row.unit), row.nats_per_unit, row.step, shortened(answer), slope, share
    )


def _answer(case: Mapping[str, Any], row: CoordinateRow) -> tuple[str, float | None]:
    """The answer that the sentence is about with its change per unit: the predicted class, else the one that changes most."""
    known = dict(row.gradient)
    predicted = words(case["prediction"])
    if predicted in known:
        return predicted, known[predicted]
    if row.gradient_of == "log-probability":
        return "", None
    name = max(known, key=lambda answer: abs(known[answer] or 0.0), default="")
    return name, known.get(name)
