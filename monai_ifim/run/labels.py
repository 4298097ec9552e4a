"""Independent labels and expected values of cases: what the tables say of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["MOST_LABEL_COLUMNS", "are_independent", "label_columns", "label_values"]

MOST_LABEL_COLUMNS = 100  # of cases.csv; cases.parquet holds all


def are_independent(head: str, outputs: int) -> bool:
    """True for a head by which each of several labels has a probability of its own."""
    return head.startswith("bernoulli") and outputs > 1


def label_columns(rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of the columns that cases.csv has for the labels: "probability: NAME" for independent labels, "volume (ml): NAME"
    and "mean: NAME" for expected volumes and other values.

    rows: of cases.parquet. None for exclusive classes, for cases of different labels, and for more than MOST_LABEL_COLUMNS.
    """
    found = {_columns(row) for row in rows if row["status"] != "failed"}
    columns = found.pop() if len(found) == 1 else ()
    return columns if len(set(columns)) == len(columns) <= MOST_LABEL_COLUMNS else ()


def label_values(row: Mapping[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a row in these columns, None in that of a failed case."""
    if row["status"] == "failed" or not columns:
        return dict.fromkeys(columns)
    return dict(zip(columns, _values(row), strict=True))


def _values(row: Mapping[str, Any]) -> Sequence[Any]:
    """The probabilities, or else the expected values."""
    found = row["means"] if row["probabilities"] is None else row["probabilities"]
    return () if found is None else found


def _columns(row: Mapping[str, Any]) -> tuple[str, ...]:
    names, head = row["class_names"] or (), row["head"] or ""
    if len(names) != len(_values(row)) or (row["probabilities"] is not None and not are_independent(head, len(names))):
        return ()
    volume = f"volume ({row['means_unit']})" if row["means_unit"] else "volume"
    kind = "probability" if row["probabilities"] is not None else volume if head.startswith("volumes") else "mean"
    return tuple(f"{kind}: {name}" for name in names)
