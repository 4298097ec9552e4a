"""The files about all cases: cases.csv, cases.parquet, run.json and pages, against each other and the sidecars."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from monai_ifim.io.case_files import LARGEST_RECORD, LARGEST_TABLE, OWN_PAGE, PAGES, TABLES
from monai_ifim.io.containment import is_plain_name
from monai_ifim.io.digests import sha256_of_stream
from monai_ifim.io.errors import single_line
from monai_ifim.io.seal import is_unaltered
from monai_ifim.io.written_files import open_regular, opened_folder, read_in
from monai_ifim.run.labels import label_columns, label_values
from monai_ifim.run.table import COLUMNS, SCHEMA, SEAL, CaseRow
from monai_ifim.run.verification.findings import Finding

RECORD, PAGE = "run.json", "index.html"
AGAIN = "give the command of the run again, which writes it anew"
NOT_OF_THE_CASE = ("case", "path", "status", "reason", "seconds")  # columns of what the run did, which a sidecar does not state
LARGEST = {RECORD: LARGEST_RECORD, "cases.csv": LARGEST_TABLE, "cases.parquet": LARGEST_TABLE}
LARGEST_UNPACKED = 2**31  # bytes of cases.parquet, as it states itself
LONGEST_CAUSE = 200  # characters
SHOWN = 8  # columns that a line names


class _UnreadableError(Exception):
    """A file about all cases that cannot be used; its text says why."""


@dataclass(frozen=True)
class RunFiles:
    """What the files about all cases say. rows: of cases.parquet by case; record: of run.json; both None if there is none."""

    rows: Mapping[str, Mapping[str, Any]] | None
    record: Mapping[str, Any] | None
    findings: list[Finding] = field(default_factory=list)

    @property
    def proven(self) -> bool:
        """True if the tables are, by run.json, those that the last run wrote."""
        return self.record is not None and not self.findings

    def path_of(self, case: str) -> object:
        """Where the tables say that the input of a case lay, relative to what the user named; None if they do not."""
        return (self.rows or {}).get(case, {}).get("path")

    def unlisted(self, case: str) -> Finding | None:
        """A case without a row in the tables."""
        if self.rows is None or case in self.rows:
            return None
        said = "lies here, but has no row in the tables, which are of the last run alone"
        return Finding(case, "no row", f"{said}. For tables of all, give one command with all inputs, which keeps whole cases.")

    def check_row(self, case: str, row: CaseRow) -> Iterator[Finding]:
        """What the row of a case in the tables says otherwise than its sidecar."""
        found = (self.rows or {}).get(case)
        if found is None:
            return
        if found["status"] == "failed":
            said = "failed in the last run, and results of an earlier one lie here"
            yield Finding(case, "stale", f"{said}. See the reason in cases.csv, or move them away.")
        else:
            expected = _as_stored(row)
            wrong = [name for name in expected if name not in NOT_OF_THE_CASE and found.get(name) != expected[name]]
            if wrong:
                named = ", ".join(wrong[:SHOWN])
                yield Finding("cases.parquet", "row", f"says otherwise of {case} than its sidecar ({named}): {AGAIN}.")

    def check_rows(self, cases: set[str]) -> Iterator[Finding]:
        """Rows of cases that do not lie here."""
        for case, row in (self.rows or {}).items():
            if case not in cases and row["status"] != "failed":
                yield Finding(case, "missing", "has a row in cases.csv, but no files: give the command of the run again.")


def read_run_files(folder: int) -> RunFiles:
    """Read and compare the files about all cases in the folder of a descriptor; they may hold anything."""
    findings: list[Finding] = []
    there = set(os.listdir(folder))
    found: dict[str, Any] = {}
    readers = {RECORD: _read_record, "cases.parquet": _read_parquet, "cases.csv": _read_csv}
    for name, reader in readers.items():
        if name not in there:
            continue
        try:
            found[name] = reader(read_in(folder, name, LARGEST[name]), findings)
        except Exception as error:  # whatever a damaged table makes its reader raise
            said = single_line(str(error.strerror if isinstance(error, OSError) and error.strerror else error))[:LONGEST_CAUSE]
            findings.append(Finding(name, "damaged", f"cannot be read ({said}): {AGAIN}."))
    record, rows = found.get(RECORD), found.get("cases.parquet")
    for name in TABLES:
        if name not in there:
            findings.append(Finding(name, "missing", f"is missing, as after a run that was killed: {AGAIN}."))
    if record is not None:
        findings += _written(folder, record.get("written"), there)
    if rows is not None and "cases.csv" in found:
        findings += _compared(found["cases.csv"], rows)
    return RunFiles(rows, record, findings)


def _read_record(content: bytes, findings: list[Finding]) -> dict[str, Any]:
    record = json.loads(content)
    if not isinstance(record, dict):
        raise _UnreadableError("not the record of a run")
    if "written" not in record:
        findings.append(Finding(RECORD, "unproven", f"was written by an earlier version and states no SHA-256: {AGAIN}."))
    elif not is_unaltered(content, SEAL):
        findings.append(Finding(RECORD, "altered", f"was altered since it was written: {AGAIN}."))
    return record


def _read_parquet(content: bytes, findings: list[Finding]) -> dict[str, dict[str, Any]]:
    file = pq.ParquetFile(pa.BufferReader(content))
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    if sum(group.total_byte_size for group in groups) > LARGEST_UNPACKED:
        raise _UnreadableError("too large for a table of cases")
    table = file.read()
    table.validate(full=True)
    lacking = {"case", "status"} - set(table.column_names)
    if lacking:
        raise _UnreadableError(f"no column {', '.join(sorted(lacking))}")
    rows = table.to_pylist()
    return _by_case("cases.parquet", rows, findings)


def _read_csv(content: bytes, findings: list[Finding]) -> dict[str, dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""), restval="", restkey="further")
    missing = {"case", "status"} - set(reader.fieldnames or ())
    if missing:
        raise _UnreadableError(f"no column {', '.join(sorted(missing))}")
    return _by_case("cases.csv", list(reader), findings)


def _by_case(name: str, rows: list[dict[str, Any]], findings: list[Finding]) -> dict[str, dict[str, Any]]:
    found = {str(row["case"]): row for row in rows}
    if len(found) < len(rows):
        findings.append(Finding(name, "row", f"has several rows of one case: {AGAIN}."))
    return found


def _written(folder: int, written: Any, there: set[str]) -> Iterator[Finding]:
    """The hashes that run.json states of all other files: tables, page, and pages of single cases."""
    if not isinstance(written, dict):
        return
    within = _names_in(folder, PAGES)
    there = there | {f"{PAGES}/{name}" for name in within}
    for name in dict.fromkeys((*TABLES, PAGE, *written)):
        of, _, plain = name.rpartition("/")
        if of not in ("", PAGES) or not is_plain_name(plain):
            yield Finding(RECORD, "no name", f"states a file that no run writes, {name}: {AGAIN}.")
        elif name not in there:
            if name in written and name not in TABLES:
                yield Finding(name, "missing", f"is missing: {AGAIN}.")
        elif name not in written:
            yield Finding(name, "stale", f"is of an earlier run than run.json: {AGAIN}.")
        else:
            try:
                with opened_folder(folder, of) as inside, open_regular(inside, plain) as stream:
                    if sha256_of_stream(stream) != written[name]:
                        yield Finding(name, "altered", f"is another file than the run wrote: {AGAIN}.")
            except OSError as error:
                yield Finding(name, "unreadable", f"cannot be read ({error.strerror}): {AGAIN}.")
    for name in sorted(within):
        if f"{PAGES}/{name}" not in written and OWN_PAGE.fullmatch(name):
            yield Finding(f"{PAGES}/{name}", "stale", f"is of an earlier page than {PAGE}: {AGAIN}.")


def _names_in(folder: int, name: str) -> list[str]:
    """What lies in a folder of the results; nothing where it is none, or a link."""
    try:
        with opened_folder(folder, name) as inside:
            return os.listdir(inside)
    except OSError:
        return []


def _compared(csv_rows: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Differences between the two tables."""
    try:
        labels = label_columns(rows.values())
        of_labels = {case: label_values(row, labels) for case, row in rows.items()}
    except (LookupError, TypeError, ValueError, AttributeError):  # of an earlier version, or damaged: `check_row` says so
        labels, of_labels = (), {}
    for case in dict.fromkeys((*rows, *csv_rows)):
        if case not in csv_rows or case not in rows:
            lacking, other = ("cases.csv", "cases.parquet") if case in rows else ("cases.parquet", "cases.csv")
            yield Finding(lacking, "row", f"has no row of {case}, which {other} has: {AGAIN}.")
            continue
        said = {name: rows[case][name] for name in COLUMNS if name in rows[case]} | of_labels.get(case, {})
        wrong = [name for name, value in said.items() if ("" if value is None else str(value)) != csv_rows[case].get(name)]
        if wrong or "further" in csv_rows[case]:
            named = ", ".join(wrong[:SHOWN]) or "further fields"
            yield Finding("cases.csv", "row", f"says otherwise of {case} than cases.parquet ({named}): {AGAIN}.")


def _as_stored(row: CaseRow) -> dict[str, Any]:
    """The row as it comes back from cases.parquet."""
    return {field.name: _stored(getattr(row, field.name)) for field in SCHEMA}


def _stored(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_text(item) for item in value]
    return None if value == "" else _text(value)


def _text(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value
