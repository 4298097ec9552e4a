"""Verdicts as a table in Markdown, and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from benchmarks.geometry.reasons import REASONS
from benchmarks.geometry.verdicts import Row
from benchmarks.stamp import Stamp

COLUMNS = ("volume", "sizes", "compared with", "place, mm", "values", "verdict", "why", "said")


def as_table(rows: Sequence[Row]) -> str:
    """A line a volume, and below it the counts."""
    lines = [_line(COLUMNS), _line(["---"] * len(COLUMNS)), *(_line(_cells(row)) for row in rows)]
    return "\n".join([*lines, "", summary(rows), ""])


def summary(rows: Sequence[Row]) -> str:
    """The number of volumes of each verdict, and of tracebacks, in one line."""
    counts = Counter(row.verdict for row in rows)
    tracebacks = sum(row.traceback is not None for row in rows)
    return ", ".join(
        [f"{len(rows)} rows", *(f"{count} {verdict}" for verdict, count in counts.items()), f"{tracebacks} tracebacks"]
    )


def as_json(rows: Iterable[Row], stamp: Stamp) -> str:
    """Rows, reasons and stamp."""
    reasons = {reason.name: reason.words for reason in REASONS}
    return json.dumps({"stamp": asdict(stamp), "rows": [asdict(row) for row in rows], "reasons": reasons}, indent=1) + "\n"


def _cells(row: Row) -> list[str]:
    theirs = "" if row.which is None else f", its volume {row.which}"
    why = row.why if row.traceback is None else f"TRACEBACK: {row.why} at {row.traceback}"
    return [
        row.volume, _sizes(row), row.reader + theirs, _number(row.place, 4), _number(row.values, 1), row.verdict, why, row.said,
    ]  # fmt: skip


def _sizes(row: Row) -> str:
    ours, theirs = (None if sizes is None else " x ".join(map(str, sizes)) for sizes in (row.ours, row.theirs))
    if ours is None:
        return "" if theirs is None else f"theirs {theirs}"
    return ours if theirs is None or row.ours == row.theirs else f"{ours}; theirs {theirs}"


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}f}" if digits > 1 else ("0" if value == 0 else f"{value:.0e}")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
