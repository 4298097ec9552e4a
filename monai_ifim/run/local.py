"""The local engine: one process, its reading, computing and writing overlapped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from monai_ifim.adapt.bundle import Bundle
from monai_ifim.run.cases import Case
from monai_ifim.run.pipeline import decompose_cases
from monai_ifim.run.settings import RunSettings, prepared_folder
from monai_ifim.run.table import CaseRow
from monai_ifim.run.tally import write_outcome

Report = Callable[[CaseRow], None]


def run_cases(bundle: Bundle, cases: Sequence[Case], settings: RunSettings, report: Report) -> list[CaseRow]:
    """Decompose every case, write its files, then cases.csv, cases.parquet and run.json; a case that fails is a row.

    report is called with each row as it comes. Raises OutputError where OUT cannot be written at all.
    """
    began = time.time()
    prepared_folder(settings.output)
    rows: list[CaseRow] = []
    for row in decompose_cases(bundle, cases, settings):
        rows.append(row)
        report(row)
    return write_outcome(bundle.identity, settings, cases, rows, began)
