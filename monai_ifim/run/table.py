"""The two files that sum up a run: cases.csv, one row a case, and run.json, how it was done."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from monai_ifim.io import atomic


@dataclass(frozen=True)
class CaseRow:
    """How one case ended. status: "done", "kept" (whole from an earlier run) or "failed"; reason: why it failed.

    eigenvalue: the leading one, and trace: of F, both in nats per (unit of the sidecar)^2; seconds: all of the case.
    """

    case: str
    status: str
    reason: str = ""
    input: str = ""
    prediction: str = ""
    probability: float | None = None
    rank: int | None = None
    energy_kept: float | None = None
    eigenvalue: float | None = None
    trace: float | None = None
    seconds: float | None = None


def row_from_sidecar(case: str, status: str, sidecar: Mapping[str, Any], seconds: float | None = None) -> CaseRow:
    """The row of a case that has a sidecar."""
    prediction = sidecar["prediction"]
    name = prediction["class"]
    eigenvalues = sidecar["eigenvalues"]
    return CaseRow(
        case=case,
        status=status,
        input=sidecar["input"]["file"],
        prediction=name or "",
        probability=prediction["probability"][name] if name else None,
        rank=sidecar["rank"],
        energy_kept=sidecar["energy_kept"],
        eigenvalue=eigenvalues[0] if eigenvalues else 0.0,
        trace=sidecar["trace"],
        seconds=sidecar["seconds"] if seconds is None else seconds,
    )


def write_table(output: Path, rows: Sequence[CaseRow]) -> None:
    """cases.csv, whole or absent."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(CaseRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    atomic.write_text(output / "cases.csv", text.getvalue())


def write_run(output: Path, content: Mapping[str, Any]) -> None:
    """run.json, whole or absent."""
    atomic.write_text(output / "run.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
