"""The records of a run for its page: cases, run.json, groups by predicted class, outliers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_ifim.display import numbers
from monai_ifim.display.vocabulary import COMPONENTS_KEPT, CONFIDENCE, LEADING, PER_UNIT, SECONDS, TOTAL_SENSITIVITY, Term
from monai_ifim.io import InputError
from monai_ifim.run.cohort import confidence, find_outliers, read_cases

__all__ = ["ALL_CASES", "LEAST_CONFIDENT", "MOST_GROUPS", "QUANTITIES", "CaseGroup", "Cohort", "CohortQuantity", "read_cohort"]

Array = npt.NDArray[np.float64]

MOST_GROUPS = 8  # rows of predicted classes; the rarest share the last
ALL_CASES = "all cases"
LEAST_CONFIDENT = 10  # cases that are listed


@dataclass(frozen=True)
class CohortQuantity:
    """A quantity of the cases. column: of the table of cases; term: what it is called; unit: for readers."""

    column: str
    term: Term
    unit: str
    logarithmic: bool = False
    whole: bool = False

    @property
    def head(self) -> str:
        """Label and unit."""
        return f"{self.term.label} ({self.unit})"

    def text(self, value: float) -> str:
        """A value as the page writes it."""
        if self.column == "confidence":
            return numbers.probability(value)
        return numbers.count(value) if self.whole and value == int(value) else numbers.number(value)


QUANTITIES = (
    CohortQuantity("trace", TOTAL_SENSITIVITY, PER_UNIT, logarithmic=True),
    CohortQuantity("eigenvalue", LEADING, PER_UNIT, logarithmic=True),
    CohortQuantity("rank", COMPONENTS_KEPT, "number", whole=True),
    CohortQuantity("confidence", CONFIDENCE, "0 to 1"),
    CohortQuantity("seconds", SECONDS, "s", logarithmic=True),
)


@dataclass(frozen=True, eq=False)
class CaseGroup:
    """Cases in one row of the figure: all cases, or those of one or more predicted classes."""

    label: str
    cases: pd.DataFrame

    def values(self, quantity: CohortQuantity) -> Array:
        """Finite values of a quantity; seconds of done cases only, since those of kept cases exclude reading and writing."""
        cases = self.cases[self.cases["status"] == "done"] if quantity.column == "seconds" else self.cases
        values = cases[quantity.column].to_numpy(np.float64, na_value=np.nan)
        return np.asarray(values[np.isfinite(values)])


@dataclass(frozen=True, eq=False)
class Cohort:
    """cases: table of `read_cases` with a further column "confidence"; run: content of run.json, empty if missing; outliers:
    result of `find_outliers`."""

    cases: pd.DataFrame
    run: Mapping[str, Any]
    outliers: pd.DataFrame

    @property
    def made(self) -> pd.DataFrame:
        """Cases with a result."""
        return self.cases[self.cases["status"] != "failed"]

    @property
    def failed(self) -> pd.DataFrame:
        """Cases that failed."""
        return self.cases[self.cases["status"] == "failed"]

    @property
    def least_confident(self) -> pd.DataFrame:
        """The cases of lowest confidence, the lowest first."""
        known = self.made[np.isfinite(self.made["confidence"])]
        return known.sort_values("confidence", kind="stable").head(LEAST_CONFIDENT)

    def quantities(self) -> list[CohortQuantity]:
        """Quantities that at least one case has."""
        everything = CaseGroup(ALL_CASES, self.made)
        return [quantity for quantity in QUANTITIES if len(everything.values(quantity))]

    def groups(self) -> list[CaseGroup]:
        """All cases; then, if there are several predicted classes, one group per class, the most frequent first."""
        made = self.made
        answers = made["prediction"].fillna("").astype(str)
        counts = sorted(Counter(answer for answer in answers if answer).items(), key=lambda item: (-item[1], item[0]))
        found = [CaseGroup(ALL_CASES, made)]
        if len(counts) < 2:
            return found
        names = [name for name, _ in counts]
        shown = names if len(names) <= MOST_GROUPS else names[: MOST_GROUPS - 1]
        found += [CaseGroup(name, made[answers == name]) for name in shown]
        if rest := names[len(shown) :]:
            found.append(CaseGroup(f"{len(rest)} other classes", made[answers.isin(rest)]))
        return found


def read_cohort(output: Path) -> Cohort:
    """Read cases.parquet and, if present, run.json of a folder.

    Raises InputError if one cannot be read, or if the name of a case is not that of a folder inside `output`.
    """
    cases = read_cases(output)
    outside = [name for name in cases["case"] if "/" in name or name in ("", ".", "..")]
    if outside:
        raise InputError(f"{output}: case {outside[0]!r} in cases.parquet is not a name of a folder: run the command again.")
    cases["confidence"] = confidence(cases)
    return Cohort(cases, _read_run(output / "run.json"), find_outliers(cases))


def _read_run(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return MappingProxyType({})
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not valid JSON ({error}): run the same command again; it keeps complete cases.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not the record of a run: run the same command again; it keeps complete cases.")
    return MappingProxyType(content)
