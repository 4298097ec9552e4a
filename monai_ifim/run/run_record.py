"""The table of a run and the record of how it was done, written at its end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_ifim.core import IFIMError
from monai_ifim.io import ModelIdentity
from monai_ifim.io.case_files import COORDINATES, LARGEST_RECORD, LARGEST_SIDECAR, SIDECAR, TABLES
from monai_ifim.io.sidecar import parse_sidecar, versions
from monai_ifim.io.written_files import read_regular
from monai_ifim.run.cases import Case
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.stage_seconds import profile_of, with_page
from monai_ifim.run.table import CaseRow, row_from_sidecar, write_run, write_table

STATUSES = ("done", "kept", "failed")


@dataclass(frozen=True)
class Start:
    """Start of a run. date: seconds since 1970; clock: of a monotonic clock, for the duration."""

    date: float = field(default_factory=time.time)
    clock: float = field(default_factory=time.perf_counter)


def write_outcome(
    identity: ModelIdentity,
    settings: RunSettings,
    cases: Sequence[Case],
    rows: Iterable[CaseRow],
    began: Start,
    engine: Mapping[str, Any] | None = None,
    processes: int = 1,
) -> list[CaseRow]:
    """Write cases.csv, cases.parquet and run.json; returns the rows in the order of the cases, and fewer if the run
    was stopped.

    engine: what ran the cases, if it was not this process alone; processes: that shared them.
    """
    by_name = {row.key: row for row in rows}
    ordered = [by_name[case.name] for case in cases if case.name in by_name]
    written = write_table(settings.output, ordered)
    counts = {status: sum(row.status == status for row in ordered) for status in STATUSES}
    if left := len(cases) - len(ordered):
        counts["left"] = left
    described = _describe(identity, settings, counts, began, engine or {"name": "local"})
    profile = profile_of((row.stages for row in ordered if row.stages is not None), described["seconds"], processes)
    write_run(settings.output, described | {"profile": profile, "written": written})
    return ordered


def record_pages(output: Path, written: Mapping[str, str], seconds: float) -> None:
    """Add the hashes of the pages that were made of the tables to run.json, if there is one that can be read, in place of those
    of earlier pages, and their time to its profile; written: by their paths in OUT; seconds: that they took."""
    record = _record(output)
    if record is None:
        return
    tables = {name: sha256 for name, sha256 in record["written"].items() if name in (*TABLES, COORDINATES)}
    profile = _profile(record)
    timed = {} if profile is None else {"profile": with_page(profile, seconds, record["seconds"])}
    write_run(output, record | timed | {"written": {**tables, **written}})


def profile_of_run(output: Path) -> dict[str, Any] | None:
    """Where the time of the run in OUT went (`stage_seconds.profile_of`), as its run.json states it; None if that does not."""
    record = _record(output)
    return None if record is None else _profile(record)


def record_unread(output: Path, unread: Mapping[str, int]) -> None:
    """Add to run.json, if it can be read, the number of files by kind that may be images and were not read."""
    record = _record(output)
    if record is not None:
        write_run(output, record | {"unread": dict(unread)})


def tabulate(output: str | Path) -> list[CaseRow]:
    """Write cases.csv and cases.parquet of all finished cases in OUT, whichever pipeline made them, sorted by name."""
    rows = rows_of_sidecars(Path(output))
    write_tables(Path(output), rows)
    return rows


def rows_of_sidecars(output: Path) -> list[CaseRow]:
    """The row of each folder in OUT that has a sidecar, by their names; one that cannot be read is a failed case."""
    rows = []
    for sidecar in sorted(output.glob(f"*/*{SIDECAR}")):
        if sidecar.name != f"{sidecar.parent.name}{SIDECAR}":
            continue
        try:
            content = parse_sidecar(sidecar.name, read_regular(sidecar, output, LARGEST_SIDECAR))
            rows.append(row_from_sidecar(sidecar.parent.name, "done", content))
        except (IFIMError, OSError, LookupError, TypeError, ValueError, AttributeError):
            rows.append(CaseRow(sidecar.parent.name, "failed", f"{sidecar.name}: not a sidecar of a whole case."))
    return rows


def write_tables(output: Path, rows: Sequence[CaseRow]) -> None:
    """Write cases.csv and cases.parquet, and their hashes into run.json, if there is one that can be read."""
    written = write_table(output, rows)
    record = _record(output)
    if record is not None:
        write_run(output, record | {"written": written})


def _record(output: Path) -> dict[str, Any] | None:
    """The content of run.json; None if there is none, or a damaged one, or one of an earlier version."""
    try:
        content = json.loads(read_regular(output / "run.json", output, LARGEST_RECORD), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("written"), dict) else None


def _profile(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The profile in the content of run.json; None in those of earlier versions, and where it is damaged."""
    profile, seconds = record.get("profile"), record.get("seconds")
    whole = isinstance(profile, dict) and all(isinstance(profile.get(part), dict) for part in ("seconds", "shares"))
    return profile if whole and isinstance(seconds, (int, float)) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _describe(
    identity: ModelIdentity, settings: RunSettings, counts: Mapping[str, int], began: Start, engine: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "bundle": identity.described(),
        "settings": settings.case.describe(),
        "batch_size": settings.batch_size,
        "device": settings.device,
        "engine": dict(engine),
        "cases": dict(counts),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began.date)),
        "seconds": time.perf_counter() - began.clock,
        "versions": versions(),
    }
