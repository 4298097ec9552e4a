"""Tables of a cohort: quantiles, outliers, the least confident, failures, all cases; each of bounded length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from markupsafe import Markup

from monai_ifim.io import sidecar_path
from monai_ifim.report import formatting
from monai_ifim.report.blocks import Entry, Row, Table
from monai_ifim.report.cohort_records import Cohort, Group, Quantity
from monai_ifim.report.formatting import FIRM_SPACE
from monai_ifim.report.records import Array
from monai_ifim.report.tables import NOTHING

__all__ = [
    "CASES_SHOWN",
    "FAILURES_SHOWN",
    "LEAST_CONFIDENT",
    "OUTLIERS_SHOWN",
    "all_cases",
    "case_link",
    "failures",
    "least_confident",
    "outliers",
    "quantiles",
    "vanishing",
]

CASES_SHOWN = 500
OUTLIERS_SHOWN = 100  # in each of the two tables of outliers
FAILURES_SHOWN = 200
LEAST_CONFIDENT = 10
LONGEST_TEXT = 300  # of a reason or a name on the page
QUANTILES = (0, 5, 25, 50, 75, 95, 100)
SHORT_COLUMNS = ("predicted class", "confidence", "rank", "trace")


def quantiles(groups: Sequence[Group], quantities: Sequence[Quantity]) -> Table:
    """Cases, zeros and quantiles of every quantity in every group."""
    rows = []
    for quantity in quantities:
        for group in groups:
            heads = (quantity.head, _short(group.label)) if len(groups) > 1 else (quantity.head,)
            rows.append(Row(heads, _quantile_entries(quantity, group.values(quantity))))
    between = [f"{share}{FIRM_SPACE}%" for share in QUANTILES[1:-1]]
    between[QUANTILES.index(50) - 1] = "median"
    return Table(
        "The same in numbers: how many cases have the quantity, how many of them are at zero, and the values below which the "
        "share of cases in each column's head lies.",
        ("quantity", *(["predicted class"] if len(groups) > 1 else []), "cases", "at zero", "lowest", *between, "highest"),
        tuple(rows),
    )


def _quantile_entries(quantity: Quantity, values: Array) -> tuple[Entry, ...]:
    if not len(values):
        return (Entry("0"), *[NOTHING] * (1 + len(QUANTILES)))
    numbers = [_number(quantity, float(value)) for value in np.percentile(values, QUANTILES)]
    counts = (formatting.count(len(values)), formatting.count(int((values <= 0).sum())))
    return tuple(map(Entry, (*counts, *numbers)))


def outliers(cohort: Cohort) -> Table:
    """Cases far from the others, the farthest first, each with all reasons."""
    found = cohort.outliers[cohort.outliers["kind"] != "vanishing"]
    reasons: dict[str, list[str]] = {}
    for finding in found.to_dict("records"):
        reasons.setdefault(finding["case"], []).append(_reason(finding))
    cases = _by_name(cohort)
    shown = list(reasons.items())[:OUTLIERS_SHOWN]
    rows = tuple(Row((case_link(name),), (*_brief(cases[name]), _words("; ".join(texts)))) for name, texts in shown)
    caption = "Cases that lie far from the others, the farthest first." + _limit(len(rows), len(reasons))
    return Table(caption, ("case", *SHORT_COLUMNS, "why"), rows)


def vanishing(cohort: Cohort) -> Table:
    """Cases whose answer no small change of the image moves."""
    names = cohort.outliers["case"][cohort.outliers["kind"] == "vanishing"].tolist()
    cases = _by_name(cohort)
    rows = tuple(Row((case_link(name),), _brief(cases[name])) for name in names[:OUTLIERS_SHOWN])
    caption = "Cases without sensitivity, in the order of the run." + _limit(len(rows), len(names))
    return Table(caption, ("case", *SHORT_COLUMNS), rows)


def least_confident(cohort: Cohort) -> Table:
    """The cases of lowest confidence, outliers or not."""
    known = cohort.made[np.isfinite(cohort.made["confidence"])]
    chosen = known.sort_values("confidence", kind="stable").head(LEAST_CONFIDENT)
    rows = tuple(Row((case_link(case["case"]),), _brief(case)) for case in chosen.to_dict("records"))
    return Table(f"The {len(rows)} least confident answers, outliers or not.", ("case", *SHORT_COLUMNS), rows)


def failures(cohort: Cohort) -> Table:
    """Cases that failed, and why."""
    rows = tuple(
        Row((_short(case["case"]),), (_words(_text(case["input"])), _words(_text(case["reason"]))))
        for case in cohort.failed.head(FAILURES_SHOWN).to_dict("records")
    )
    caption = "Cases that failed, in the order of the run." + _limit(len(rows), len(cohort.failed))
    return Table(caption, ("case", "input file", "reason"), rows)


def all_cases(cohort: Cohort) -> Table:
    """A row for every case, up to CASES_SHOWN."""
    rows = tuple(_case_row(case) for case in cohort.cases.head(CASES_SHOWN).to_dict("records"))
    return Table(
        "Every case, in the order of the run; the name leads to its folder." + _limit(len(rows), len(cohort.cases)),
        ("case", "status", *SHORT_COLUMNS, "trace kept", "leading eigenvalue", "|x_high|", "|x_low|", "seconds", "sidecar"),
        rows,
    )


def case_link(name: str, file: str = "", text: str | None = None) -> Markup:
    """A link to a case's folder, or to a file in it, relative to the page."""
    target = f"./{quote(name, safe='')}/{quote(file, safe='')}"
    return Markup('<a href="{}">{}</a>').format(target, _short(name) if text is None else text)


def _case_row(case: dict[str, Any]) -> Row:
    if case["status"] == "failed":
        return Row((_short(case["case"]),), (Entry("failed", "failed"), *[NOTHING] * 10))
    share = case["energy_kept"]
    numbers = [formatting.number(_float(case[name])) for name in ("eigenvalue", "norm_high", "norm_low", "seconds")]
    return Row(
        (case_link(case["case"]),),
        (
            Entry(case["status"], "text"),
            *_brief(case),
            NOTHING if pd.isna(share) else Entry(f"{formatting.fixed(100 * share, 1)}{FIRM_SPACE}%"),
            *map(Entry, numbers),
            Entry(case_link(case["case"], sidecar_path(Path(), case["case"]).name, "json"), "text"),
        ),
    )


def _brief(case: dict[str, Any]) -> tuple[Entry, ...]:
    """The fields of SHORT_COLUMNS."""
    prediction = _text(case["prediction"])
    return (
        Entry(_short(prediction), "words") if prediction else NOTHING,
        Entry(formatting.proportion(_float(case["confidence"]))),
        Entry(formatting.count(_float(case["rank"]))),
        Entry(formatting.number(_float(case["trace"]))),
    )


def _reason(finding: dict[str, Any]) -> str:
    """Such as: trace 3.10 is high (z = +5.2 among 84 cases predicted liver)."""
    value = finding["value"]
    text = {"confidence": formatting.proportion(value), "rank": formatting.count(value)}.get(
        finding["quantity"], formatting.number(value)
    )
    z = f"{'+' if finding['z'] > 0 else ''}{formatting.fixed(finding['z'], 1)}"
    number = formatting.count(finding["cases"])
    among = f"{number} cases predicted {_short(finding['among'])}" if finding["among"] else f"all {number} cases"
    return f"{finding['quantity']} {text} is {finding['kind']} (z = {z} among {among})"


def _number(quantity: Quantity, value: float) -> str:
    if quantity.column == "confidence":
        return formatting.proportion(value)
    if quantity.whole and value == int(value):
        return formatting.count(value)
    return formatting.number(value)


def _by_name(cohort: Cohort) -> dict[str, dict[str, Any]]:
    """Cases that stand out, by name."""
    chosen = cohort.made[cohort.made["case"].isin(set(cohort.outliers["case"]))]
    return {case["case"]: case for case in chosen.to_dict("records")}


def _limit(shown: int, number: int) -> str:
    if shown == number:
        return ""
    return f" Only the first {formatting.count(shown)} of {formatting.count(number)}; cases.csv and cases.parquet hold all."


def _words(text: str) -> Entry:
    return Entry(_short(text), "words") if text else NOTHING


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _float(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
