"""The table coordinates.csv: a row for each case and named coordinate."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from monai_ifim.io import atomic
from monai_ifim.io.case_files import COORDINATES, LARGEST_TABLE
from monai_ifim.io.written_files import read_regular

COLUMNS = ("case", "coordinate", "unit", "nats_per_unit", "nats_error", "step_for_0.1_nat", "norm", "grid", "gradient_of")

PER_UNIT = "per unit: "  # before the name of an answer, in the head of the column of its changes


@dataclass(frozen=True)
class CoordinateRow:
    """The sensitivity of one case to one coordinate: fields of an entry of the sidecar's block, None where unknown or infinite.

    gradient: pairs of an answer and its change per unit.
    """

    coordinate: str
    unit: str
    nats_per_unit: float | None
    nats_error: float | None
    step: float | None
    norm: float | None
    grid: str
    gradient_of: str
    gradient: tuple[tuple[str, float | None], ...]


def coordinate_rows(sidecar: Mapping[str, Any]) -> tuple[CoordinateRow, ...]:
    """The rows of a sidecar, none where no coordinates were asked for; raises what a damaged one makes its reading raise."""
    block = sidecar.get("coordinates")
    if block is None:
        return ()
    return tuple(
        CoordinateRow(
            str(each["name"]),
            str(each["unit"]),
            _number(each["nats_per_unit"]),
            _number(each["nats_error"]),
            _number(each["step"]),
            _number(each["norm"]),
            str(block["grid"]),
            str(block["gradient_of"]),
            tuple((str(answer), _number(value)) for answer, value in each["gradient"].items()),
        )
        for each in block["coordinates"]
    )


def write_coordinates(output: Path, rows: Sequence[tuple[str, Sequence[CoordinateRow]]]) -> dict[str, str]:
    """Write the table of cases with their rows, whole or absent; returns its hex SHA-256 by its name.

    Without any row there is none, and one of an earlier run is removed.
    """
    known = [(case, row) for case, found in rows for row in found]
    if not known:
        (output / COORDINATES).unlink(missing_ok=True)
        return {}
    return {COORDINATES: atomic.write_bytes(output / COORDINATES, _csv(known), root=output)}


def read_coordinates(output: Path) -> dict[str, tuple[CoordinateRow, ...]]:
    """The rows of coordinates.csv by case; none without that file. Raises OSError, ValueError, KeyError for a damaged one."""
    path = output / COORDINATES
    if not path.exists():
        return {}
    found: dict[str, list[CoordinateRow]] = {}
    for line in csv.DictReader(io.StringIO(read_regular(path, output, LARGEST_TABLE).decode("utf-8"), newline="")):
        gradient = ((name.removeprefix(PER_UNIT), _stated(value)) for name, value in line.items() if name.startswith(PER_UNIT))
        nats, error, step, norm = (_stated(line[name]) for name in COLUMNS[3:7])
        row = CoordinateRow(
            line["coordinate"], line["unit"], nats, error, step, norm, line["grid"], line["gradient_of"], tuple(gradient)
        )
        found.setdefault(line["case"], []).append(row)
    return {case: tuple(rows) for case, rows in found.items()}


def _stated(text: str) -> float | None:
    return _number(text or None)


def _csv(known: Sequence[tuple[str, CoordinateRow]]) -> bytes:
    """The rows, with a column "per unit: ANSWER" for each answer."""
    answers = list(dict.fromkeys(answer for _, row in known for answer, _ in row.gradient))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS, *(_writable(f"{PER_UNIT}{answer}") for answer in answers)))
    for case, row in known:
        numbers = (row.nats_per_unit, row.nats_error, row.step, row.norm)
        gradient = dict(row.gradient)
        fields = (case, row.coordinate, row.unit, *numbers, row.grid, row.gradient_of, *map(gradient.get, answers))
        writer.writerow([_writable(field) if isinstance(field, str) else field for field in fields])
    return text.getvalue().encode("utf-8")


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    return number if isfinite(number) else None


def _writable(text: str) -> str:
    """The text in UTF-8, on one line."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode("utf-8").splitlines())
