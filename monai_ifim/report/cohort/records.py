"""The records of a run as its page needs them: cases, how they were made, groups of one predicted class, outliers."""

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

from monai_ifim.io import InputError
from monai_ifim.run.cohort import confidence, find_outliers, read_cases

__all__ = ["ALL_CASES", "LEAST_CONFIDENT", "MOST_GROUPS", "QUANTITIES", "CaseGroup", "Cohort", "CohortQuantity", "read_cohort"]

Array = npt.NDArray[np.float64]

MOST_GROUPS = 8  # predicted classes shown by themselves; further ones are put together
ALL_CASES = "all cases"
LEAST_CONFIDENT = 10  # answers that are named


@dataclass(frozen=True)
class CohortQuantity:
    """A number that every case has. column: its name in the table of cases; title, unit: for readers, unit may be empty."""

    column: str
    title: str
    unit: str
    logarithmic: bool = False
    whole: bool = False

    @property
    def head(self) -> str:
        """Title and unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


QUANTITIES = (
    CohortQuantity("trace", "trace of F", "nats per unit²", logarithmic=True),
    CohortQuantity("eigenvalue", "leading eigenvalue", "nats per unit²", logarithmic=True),
    CohortQuantity("rank", "rank", "components kept", whole=True),
    CohortQuantity("confidence", "confidence", "0 to 1"),
    CohortQuantity("seconds", "time of a case", "s", logarithmic=True),
)


@dataclass(frozen=True, eq=False)
class CaseGroup:
    """Cases that are shown together: all, those of one predicted class, or those of all further classes."""

    label: str
    cases: pd.DataFrame

    def values(self, quantity: CohortQuantity) -> Array:
        """Finite values; of the seconds those of cases that this run made, since kept ones do not tell their whole time."""
        cases = self.cases[self.cases["status"] == "done"] if quantity.column == "seconds" else self.cases
        values = cases[quantity.column].to_numpy(np.float64, na_value=np.nan)
        return np.asarray(values[np.isfinite(values)])


@dataclass(frozen=True, eq=False)
class Cohort:
    """cases: the frame of `read_cases` with the column "confidence"; run: run.json, empty where there is none; outliers: what
    `find_outliers` gave."""

    cases: pd.DataFrame
    run: Mapping[str, Any]
    outliers: pd.DataFrame

    @property
    def made(self) -> pd.DataFrame:
        """Cases that have numbers."""
        return self.cases[self.cases["status"] != "failed"]

    @property
    def failed(self) -> pd.DataFrame:
        """Cases that have none."""
        return self.cases[self.cases["status"] == "failed"]

    @property
    def least_confident(self) -> pd.DataFrame:
        """The cases of lowest confidence, the lowest first, outliers or not."""
        known = self.made[np.isfinite(self.made["confidence"])]
        return known.sort_values("confidence", kind="stable").head(LEAST_CONFIDENT)

    def quantities(self) -> list[CohortQuantity]:
        """Those of QUANTITIES that any case has."""
        everything = CaseGroup(ALL_CASES, self.made)
        return [quantity for quantity in QUANTITIES if len(everything.values(quantity))]

    def groups(self) -> list[CaseGroup]:
        """All cases, then, where there are several predicted classes, each of them, the most frequent first."""
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
    """cases.parquet and, where there is one, run.json of a folder; raises InputError where they cannot be read, or where a case
    is called by no name of a folder in there: its files would be looked for elsewhere."""
    cases = read_cases(output)
    outside = [name for name in cases["case"] if "/" in name or name in ("", ".", "..")]
    if outside:
        raise InputError(f"{output}: cases.parquet has a case {outside[0]!r}, no folder in there: run the command again.")
    cases["confidence"] = confidence(cases)
    return Cohort(cases, _read_run(output / "run.json"), find_outliers(cases))


def _read_run(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return MappingProxyType({})
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no JSON ({error}): run the same command again, which keeps all whole cases.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not the record of a run: run the same command again, which keeps all whole cases.")
    return MappingProxyType(content)
