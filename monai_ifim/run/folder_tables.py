"""The tables of a folder of results, brought up to date with the sidecars that lie in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_ifim.io import InputError
from monai_ifim.io.case_files import SIDECAR, TABLES
from monai_ifim.io.containment import real_folder
from monai_ifim.run.run_record import rows_of_sidecars, write_tables
from monai_ifim.run.table import CaseRow
from monai_ifim.run.verification.tables import RunFiles, read_run_files

__all__ = ["check_folder", "refresh_tables"]

MOST_NAMED = 5  # folders that an error names


def refresh_tables(output: Path) -> bool:
    """Write cases.csv and cases.parquet from the sidecars in OUT, unless those that lie there say the same; True if written.

    What the sidecars do not state is taken from the tables of the last run: which cases failed, paths and times. Raises
    InputError for a folder without a case in it, OSError.
    """
    check_folder(output)
    made = rows_of_sidecars(output)
    with real_folder(output, output) as folder:
        tables = read_run_files(folder)
    failed = _failed(tables.rows or {})
    rows = [_with_facts_of_run(tables, row) for row in made if row.case not in {each.case for each in failed}]
    if not made and not failed:
        raise InputError(_without_cases(output))
    damaged = {finding.place for finding in tables.findings} & set(TABLES)
    if tables.rows is not None and not damaged and not _differ(tables, rows):
        return False
    write_tables(output, sorted([*rows, *failed], key=lambda row: row.case))
    return True


def check_folder(output: Path) -> None:
    """Raise InputError where there is no such folder."""
    if not output.is_dir():
        raise InputError(f"{output}: no such folder.")


def _differ(tables: RunFiles, rows: Sequence[CaseRow]) -> bool:
    """True if the tables lack one of these cases, say otherwise of it, or have one of which nothing lies there."""
    lacking = any(tables.unlisted(row.case) for row in rows)
    return lacking or any(_otherwise(tables, row) for row in rows) or any(tables.check_rows({row.case for row in rows}))


def _otherwise(tables: RunFiles, row: CaseRow) -> bool:
    return any(tables.check_row(row.case, row))


def _with_facts_of_run(tables: RunFiles, row: CaseRow) -> CaseRow:
    """The row of a sidecar with status, path and time of the tables, where these are of the same case."""
    known = (tables.rows or {}).get(row.case)
    if known is None or row.status == "failed" or _otherwise(tables, row):
        return row
    return replace(row, status=known["status"], path=known.get("path") or "", seconds=known.get("seconds"))


def _failed(rows: Mapping[str, Mapping[str, Any]]) -> list[CaseRow]:
    """The cases of a table that failed in the run."""
    return [
        CaseRow(name, "failed", row.get("reason") or "", row.get("input") or "").of_listed(name, row.get("path") or "")
        for name, row in rows.items()
        if row["status"] == "failed"
    ]


def _without_cases(output: Path) -> str:
    below = sorted(folder.name for folder in output.iterdir() if folder.is_dir() and any(folder.glob(f"*/*{SIDECAR}")))
    if not below:
        return (
            f"{output}: no case in it: name the folder that was given to --output, or as output_dir to the handler or SaveIFIM."
        )
    named = ", ".join(below[:MOST_NAMED]) + (", ..." if len(below) > MOST_NAMED else "")
    return f"{output}: no case in it, but in folders below ({named}): name one of these."
