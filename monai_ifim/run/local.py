"""The local engine: one process that reads, computes and writes at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from monai_ifim.adapt.bundle import Bundle
from monai_ifim.run.case_clock import Activity, unheard
from monai_ifim.run.cases import Case
from monai_ifim.run.output_folder import output_of_run
from monai_ifim.run.pipeline import decompose_cases
from monai_ifim.run.places import placed
from monai_ifim.run.reading_journal import journal_of
from monai_ifim.run.run_record import Start, write_outcome
from monai_ifim.run.settings import RunSettings, with_head
from monai_ifim.run.stop_request import StoppedError, StopRequest
from monai_ifim.run.table import CaseRow

Report = Callable[[CaseRow], None]


def run_cases(
    bundle: Bundle,
    cases: Sequence[Case],
    settings: RunSettings,
    report: Report,
    stop_request: StopRequest | None = None,
    activity: Activity = unheard,
) -> list[CaseRow]:
    """Decompose every case, write its files, then cases.csv, cases.parquet and run.json; a case that fails is a row.

    report is called with each row as it is finished, activity with how far a long computation is. Once stop_request is due, the
    cases not yet started have no row. Raises OutputError if OUT cannot be written, or another run is writing into it;
    StoppedError as `decompose_cases`, after the table is written.
    """
    with output_of_run(settings, cases):
        return run_locked(bundle, cases, settings, report, stop_request, activity)


def run_locked(
    bundle: Bundle,
    cases: Sequence[Case],
    settings: RunSettings,
    report: Report,
    stop_request: StopRequest | None = None,
    activity: Activity = unheard,
) -> list[CaseRow]:
    """`run_cases` in an OUT that the caller holds already (`output_folder.held_output`)."""
    began, settings = Start(), with_head(settings, bundle.head)
    cases = placed(cases, settings)
    rows: list[CaseRow] = []
    try:
        for row in decompose_cases(bundle, cases, settings, stop_request, journal_of(bundle, settings), activity):
            rows.append(row)
            report(row)
    except StoppedError as stop:
        with suppress(OSError):  # a full disk may have no room for the table either
            write_outcome(bundle.identity, settings, cases, rows, began)
        whole = sum(row.status != "failed" for row in rows)
        raise StoppedError(f"{stop} {whole} of {len(cases)} cases are finished.") from stop
    return write_outcome(bundle.identity, settings, cases, rows, began)
