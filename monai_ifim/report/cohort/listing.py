"""The list of all cases: the static table, and the complete list as data for the script that searches and sorts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from monai_ifim.display import numbers
from monai_ifim.display.vocabulary import (
    ANSWER,
    CASE,
    COMPONENTS_KEPT,
    CONFIDENCE,
    CONVERGENCE,
    LEADING,
    SECONDS,
    SENSITIVITY_KEPT,
    STANDS_OUT,
    STATUS,
    TOTAL_SENSITIVITY,
    Term,
)
from monai_ifim.io import sidecar_path
from monai_ifim.report.cohort.pictures import CasePictures
from monai_ifim.report.cohort.records import Cohort
from monai_ifim.report.cohort.tables import case_anchor, case_link, label_of, limited
from monai_ifim.report.pages.blocks import ABSENT, Entry, Table, TableRow
from monai_ifim.report.pages.texts import breakable, explained, shortened, words

__all__ = ["CASES_SHOWN", "CaseList", "all_cases", "list_cases", "listed_records"]

CASES_SHOWN = 500  # in the static table
PICTURES = Term("pictures", "Whether the case has pictures: on this page, on a page of its own, or none.")
DIGITS = 9  # of the values that the script sorts by


@dataclass(frozen=True)
class ListColumn:
    """A column of the list. kind: CSS class of its fields; text: of a field, empty if unknown; value: sort key, None if the
    text is the key; unit: of the numbers, where they all have one."""

    term: Term
    kind: str
    text: Callable[[Mapping[str, Any]], str]
    value: Callable[[Mapping[str, Any]], float | None] | None = None
    unit: str = ""

    @property
    def head(self) -> str:
        """What it is called, with the unit."""
        return f"{self.term.label} ({self.unit})" if self.unit else self.term.label


@dataclass(frozen=True)
class CaseList:
    """Cases in the order of the run, as dictionaries of the columns of cases.parquet and two more: "notes", the outliers in
    short, and "pictures"."""

    cases: Sequence[Mapping[str, Any]]


def list_cases(cohort: Cohort, pictures: CasePictures) -> CaseList:
    """All cases of a cohort."""
    notes: dict[str, list[str]] = {}
    for name, quantity, kind in cohort.outliers[["case", "quantity", "kind"]].itertuples(index=False):
        notes.setdefault(name, []).append("no sensitivity" if kind == "vanishing" else f"{label_of(quantity)} {kind}")
    cases = cohort.cases.to_dict("records")
    notes.update({case["case"]: ["saturated"] for case in cases if case["saturated"] == "yes"})
    return CaseList(
        [
            {
                **case,
                "notes": ", ".join(notes.get(case["case"], [])) if case["status"] != "failed" else "",
                "pictures": _pictures(case, pictures),
            }
            for case in cases
        ]
    )


def _pictures(case: Mapping[str, Any], pictures: CasePictures) -> str:
    name = case["case"]
    if case["status"] == "failed":
        return ""
    if name in pictures.grids:
        return "yes"
    if name in pictures.beside:
        return "own page"
    return "left out" if name in pictures.left_out else "none"


def _text(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda case: shortened(words(case[name]))


def _number(name: str, form: Callable[[float], str]) -> dict[str, Any]:
    def value(case: Mapping[str, Any]) -> float | None:
        return None if pd.isna(case[name]) or not math.isfinite(case[name]) else float(case[name])

    def text(case: Mapping[str, Any]) -> str:
        known = value(case)
        return "" if known is None else form(known)

    return {"text": text, "value": value}


COLUMNS = (
    ListColumn(CASE, "name", _text("case")),
    ListColumn(STATUS, "text", _text("status")),
    ListColumn(ANSWER, "words", _text("prediction")),
    ListColumn(CONFIDENCE, "number", **_number("confidence", numbers.probability)),
    ListColumn(COMPONENTS_KEPT, "number", **_number("rank", numbers.count)),
    ListColumn(TOTAL_SENSITIVITY, "number", **_number("trace", numbers.number)),
    ListColumn(SENSITIVITY_KEPT, "number", **_number("energy_kept", numbers.percent)),
    ListColumn(CONVERGENCE, "text", _text("convergence")),
    ListColumn(LEADING, "number", **_number("eigenvalue", numbers.number)),
    ListColumn(SECONDS, "number", **_number("seconds", numbers.number), unit="s"),
    ListColumn(STANDS_OUT, "text", _text("notes")),
    ListColumn(PICTURES, "text", _text("pictures")),
)


def all_cases(listed: CaseList) -> Table:
    """The static table: one row per case, up to CASES_SHOWN."""
    cases = listed.cases
    rows = tuple(_row(position, case) for position, case in enumerate(cases[:CASES_SHOWN], start=1))
    caption = Markup('All cases. The name links to pictures and numbers.<span class="still">{}</span>')  # the script shows all
    caption = caption.format(limited(len(rows), len(cases)))
    return Table(caption, (*(explained(column.term, column.head) for column in COLUMNS), "sidecar"), rows)


def _row(position: int, case: Mapping[str, Any]) -> TableRow:
    link = Markup('<a href="#{}" dir="auto">{}</a>').format(case_anchor(position), breakable(shortened(case["case"])))
    if case["status"] == "failed":
        return TableRow((link,), (Entry("failed", "failed"), *[ABSENT] * (len(COLUMNS) - 1)))
    entries = [_entry(column, case) for column in COLUMNS[1:]]
    sidecar = case_link(case["case"], sidecar_path(Path(), case["case"]).name, "json")
    return TableRow((link,), (*entries, Entry(sidecar, "text")))


def _entry(column: ListColumn, case: Mapping[str, Any]) -> Entry:
    text = column.text(case)
    if not text and column.term is not STANDS_OUT:
        return ABSENT
    return Entry(text, column.kind)


def listed_records(listed: CaseList) -> dict[str, Any]:
    """The list as plain data for the script: texts of each column in the order of the run, and values of numeric columns.

    searched: further text per case that the search includes.
    """
    return {
        "columns": [_column_record(column, listed.cases) for column in COLUMNS],
        "searched": [_searched(case) for case in listed.cases],
        "absent": numbers.NOT_AVAILABLE,
        "heads": {"answer": ANSWER.label, "probability": CONFIDENCE.label, "status": STATUS.label, "notes": STANDS_OUT.label},
    }


def _searched(case: Mapping[str, Any]) -> str:
    """Input file and reason of a failure; the file only if the name of the case differs from it."""
    file, reason = _text("input")(case), _text("reason")(case)
    return reason if file.startswith(case["case"]) else f"{file} {reason}".strip()


def _column_record(column: ListColumn, cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    failed = [case["status"] == "failed" and column.term not in (CASE, STATUS) for case in cases]
    texts = ["" if gone else column.text(case) for case, gone in zip(cases, failed, strict=True)]
    record: dict[str, Any] = {"head": column.head, "kind": column.kind, "texts": texts}
    if (value := column.value) is not None:
        values = [None if gone else value(case) for case, gone in zip(cases, failed, strict=True)]
        record["values"] = [None if number is None else float(f"{number:.{DIGITS}g}") for number in values]
    return record
