"""Tables of a cohort: quantiles, outliers, the least confident cases, failures; each of bounded length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from markupsafe import Markup

from monai_ifim.display import numbers
from monai_ifim.display.vocabulary import ANSWER, CASE, COMPONENTS_KEPT, CONFIDENCE, INPUT, TOTAL_SENSITIVITY
from monai_ifim.report.cohort.records import QUANTITIES, Array, CaseGroup, Cohort, CohortQuantity
from monai_ifim.report.pages.blocks import ABSENT, Entry, Table, TableRow
from monai_ifim.report.pages.texts import breakable, explained, shortened, words

__all__ = [
    "FAILURES_SHOWN",
    "OUTLIERS_SHOWN",
    "case_anchor",
    "case_link",
    "failures",
    "finding_text",
    "label_of",
    "least_confident",
    "limited",
    "named_cases",
    "outliers",
    "quantiles",
    "vanishing",
]

OUTLIERS_SHOWN = 100  # rows of each of the two tables of outliers
FAILURES_SHOWN = 200
QUANTILES = (0, 5, 25, 50, 75, 95, 100)
SHORT_COLUMNS = tuple(map(explained, (ANSWER, CONFIDENCE, COMPONENTS_KEPT, TOTAL_SENSITIVITY)))


def quantiles(groups: Sequence[CaseGroup], quantities: Sequence[CohortQuantity]) -> Table:
    """Number of cases, number of zeros, and quantiles of each quantity in each group."""
    rows = []
    for quantity in quantities:
        for group in groups:
            heads = (quantity.head, shortened(group.label)) if len(groups) > 1 else (quantity.head,)
            rows.append(TableRow(heads, _quantile_entries(quantity, group.values(quantity))))
    between = [f"{share}{numbers.FIRM_SPACE}%" for share in QUANTILES[1:-1]]
    between[QUANTILES.index(50) - 1] = "median"
    return Table(
        "The same in numbers: how many cases have the quantity, how many of these are zero, and the quantiles.",
        ("quantity", *([explained(ANSWER)] if len(groups) > 1 else []), "cases", "at zero", "lowest", *between, "highest"),
        tuple(rows),
    )


def _quantile_entries(quantity: CohortQuantity, values: Array) -> tuple[Entry, ...]:
    if not len(values):
        return (Entry("0"), *[ABSENT] * (1 + len(QUANTILES)))
    texts = [quantity.text(float(value)) for value in np.percentile(values, QUANTILES)]
    counts = (numbers.count(len(values)), numbers.count(int((values <= 0).sum())))
    return tuple(map(Entry, (*counts, *texts)))


def outliers(cohort: Cohort) -> Table:
    """Cases far from the others, the farthest first, each with all its reasons."""
    found = cohort.outliers[cohort.outliers["kind"] != "vanishing"]
    reasons: dict[str, list[str]] = {}
    for finding in found.to_dict("records"):
        reasons.setdefault(finding["case"], []).append(finding_text(finding))
    cases = _by_name(cohort)
    shown = list(reasons.items())[:OUTLIERS_SHOWN]
    rows = tuple(TableRow((_head(cases[name]),), (*_brief(cases[name]), _words("; ".join(texts)))) for name, texts in shown)
    caption = "Cases that lie far from the others, the farthest first." + limited(len(rows), len(reasons))
    return Table(caption, ("case", *SHORT_COLUMNS, "why"), rows)


def vanishing(cohort: Cohort) -> Table:
    """Cases without sensitivity."""
    names = cohort.outliers["case"][cohort.outliers["kind"] == "vanishing"].tolist()
    cases = _by_name(cohort)
    rows = tuple(TableRow((_head(cases[name]),), _brief(cases[name])) for name in names[:OUTLIERS_SHOWN])
    caption = "Cases without sensitivity, in the order of the run." + limited(len(rows), len(names))
    return Table(caption, ("case", *SHORT_COLUMNS), rows)


def least_confident(cohort: Cohort) -> Table:
    """The cases of lowest confidence."""
    rows = tuple(TableRow((_head(case),), _brief(case)) for case in _records(cohort.least_confident))
    return Table(f"The {len(rows)} cases of lowest confidence, outliers included.", ("case", *SHORT_COLUMNS), rows)


def named_cases(cohort: Cohort) -> set[str]:
    """Cases in the tables `outliers`, `vanishing` and `least_confident`."""
    still = cohort.outliers["kind"] == "vanishing"
    found = {name for names in (cohort.outliers["case"][~still], cohort.outliers["case"][still]) for name in _first(names)}
    return found | set(cohort.least_confident["case"])


def _first(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))[:OUTLIERS_SHOWN]


def label_of(quantity: str) -> str:
    """What a quantity of `run.cohort.find_outliers` is called."""
    return next(each.term.label for each in QUANTITIES if each.column == quantity)


def failures(cohort: Cohort) -> Table:
    """Cases that failed, with input and reason."""
    rows = tuple(
        TableRow((shortened(case["case"]),), (_words(words(case["input"])), _words(words(case["reason"]))))
        for case in cohort.failed.head(FAILURES_SHOWN).to_dict("records")
    )
    caption = "Cases that failed, in the order of the run." + limited(len(rows), len(cohort.failed))
    return Table(caption, (CASE.label, INPUT.label, "reason"), rows)


def case_anchor(position: int) -> str:
    """Anchor of a case on the page. position: in the run, from 1."""
    return f"case-{position}"


def case_link(name: str, file: str = "", text: str | None = None, root: str = "./") -> Markup:
    """Link to the folder of a case, or to a file in it; root: the folder of the run, relative to the page."""
    target = f"{root}{quote(name, safe='')}/{quote(file, safe='')}"
    return Markup('<a href="{}" dir="auto">{}</a>').format(target, breakable(shortened(name)) if text is None else text)


def _brief(case: dict[str, Any]) -> tuple[Entry, ...]:
    """The fields of SHORT_COLUMNS."""
    prediction = words(case["prediction"])
    return (
        Entry(shortened(prediction), "words") if prediction else ABSENT,
        Entry(numbers.probability(_float(case["confidence"]))),
        Entry(numbers.count(_float(case["rank"]))),
        Entry(numbers.number(_float(case["trace"]))),
    )


def finding_text(finding: dict[str, Any]) -> str:
    """An outlier in words: total sensitivity 3.10 is high (z = +5.2 among 84 cases predicted liver)."""
    value = finding["value"]
    if finding["kind"] == "vanishing":
        return f"without sensitivity: {TOTAL_SENSITIVITY.label} {numbers.number(value)}"
    text = {"confidence": numbers.probability(value), "rank": numbers.count(value)}.get(
        finding["quantity"], numbers.number(value)
    )
    z = f"{numbers.signed(finding['z'], 1)}"
    number = numbers.count(finding["cases"])
    among = f"{number} cases predicted {shortened(finding['among'])}" if finding["among"] else f"all {number} cases"
    return f"{label_of(finding['quantity'])} {text} is {finding['kind']} (z = {z} among {among})"


def _by_name(cohort: Cohort) -> dict[str, dict[str, Any]]:
    """Outliers by name."""
    chosen = cohort.made[cohort.made["case"].isin(set(cohort.outliers["case"]))]
    return {case["case"]: case for case in _records(chosen)}


def _records(cases: pd.DataFrame) -> list[dict[str, Any]]:
    """Cases as dictionaries with a further key "position": place in the run, from 1."""
    return [{**case, "position": int(i) + 1} for i, case in zip(cases.index, cases.to_dict("records"), strict=True)]


def _head(case: dict[str, Any]) -> Markup:
    """The name of a case as a link to its card."""
    return Markup('<a href="#{}" dir="auto">{}</a>').format(case_anchor(case["position"]), breakable(shortened(case["case"])))


def limited(shown: int, number: int) -> str:
    """The end of the caption of a truncated table; empty for a complete one."""
    if shown == number:
        return ""
    return f" Only the first {numbers.count(shown)} of {numbers.count(number)}; cases.csv and cases.parquet hold all."


def _words(text: str) -> Entry:
    return Entry(shortened(text), "words") if text else ABSENT


def _float(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
