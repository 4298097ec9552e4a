"""The cases of a run as a pandas frame, and its outliers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from scipy.stats import median_abs_deviation

from monai_ifim.io import InputError
from monai_ifim.io.errors import single_line
from monai_ifim.run.table import SCHEMA, SCHEMA_VERSION, SINCE_1_1, SINCE_1_2, SINCE_1_3, SINCE_1_4, UNITS

__all__ = ["LARGEST_Z", "SMALLEST_COHORT", "SMALLEST_GROUP", "VANISHING", "confidence", "find_outliers", "read_cases"]

Array = npt.NDArray[np.float64]

LARGEST_Z = 3.5  # robust z beyond which a case is an outlier (Iglewicz and Hoaglin, 1993)
SMALLEST_GROUP = 20  # number of cases of one answer from which they are compared only with each other
SMALLEST_COHORT = 10  # number of cases below which none is an outlier
VANISHING = 1e-12  # share of the median of all positive traces
SMALLEST_SCALE = {"trace": 1e-3, "confidence": 1e-3, "rank": 0.5}  # spread below which differences are rounding
MEAN_DEVIATION = float(np.sqrt(np.pi / 2))  # times the mean absolute deviation is a normal distribution's standard deviation
LONGEST_CAUSE = 200  # characters of the cause that an error message quotes
SMALLEST_DOUBT = 2.0**-53  # smallest difference of a probability in float64 from 1
ADDED_SINCE = {
    "1.0": (*SINCE_1_1, *SINCE_1_2, *SINCE_1_3, *SINCE_1_4),
    "1.1": (*SINCE_1_2, *SINCE_1_3, *SINCE_1_4),
    "1.2": (*SINCE_1_3, *SINCE_1_4),
    "1.3": SINCE_1_4,
}
OUTLIER_COLUMNS = ("case", "quantity", "kind", "value", "z", "among", "cases")


def read_cases(output: str | PathLike[str]) -> pd.DataFrame:
    """One row per case, in the order of the run, from OUT/cases.parquet; output: the folder OUT, or the file itself.

    Columns of lists hold numpy arrays; whole numbers are pandas' Int64. `attrs["units"]` has the units by column,
    `attrs["schema_version"]` the version. Raises InputError if there is no table, or one of another major version.
    """
    path = Path(output)
    if path.is_dir():
        path = path / "cases.parquet"
    if not path.is_file():
        raise InputError(
            f"{path}: no such file: pass the folder that `monai-ifim decompose --output` wrote to; where an earlier version made "
            "it, give the same command again, which keeps all whole cases and adds the table."
        )
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
        table.validate(full=True)  # texts are text
        metadata = table.schema.metadata or {}
        columns = {field.name: field.type for field in table.schema}
        units = json.loads(metadata.get(b"monai_ifim.units", json.dumps(dict(UNITS))))
    except (OSError, ValueError, pa.ArrowException) as error:
        said = single_line(str(error))[:LONGEST_CAUSE]
        raise InputError(f"{path}: not a readable Parquet file ({said}): run the same command again.") from error
    version = metadata.get(b"monai_ifim.schema_version", b"").decode("utf-8", "replace")
    if version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise InputError(
            f"{path}: schema version {version or 'missing'}; this program reads {SCHEMA_VERSION}: read it with the version of "
            "monai_ifim that wrote it, or run the same command again."
        )
    if version in ADDED_SINCE:
        table = _with_newer_columns(table, ADDED_SINCE[version])
        columns = {field.name: field.type for field in table.schema}
    _check_columns(path, columns)
    frame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    frame.attrs.update(schema_version=version, units=units)
    return frame


def _with_newer_columns(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """The table of an earlier schema with the columns added since, empty."""
    for name in names:
        if name not in table.column_names:
            table = table.append_column(SCHEMA.field(name), pa.nulls(table.num_rows, SCHEMA.field(name).type))
    return table


def _check_columns(path: Path, known: Mapping[str, Any]) -> None:
    """Raise InputError if a column of this version is missing or of another type; further columns are allowed."""
    wrong = [field.name for field in SCHEMA if not _alike(known.get(field.name), field.type)]
    if wrong:
        raise InputError(f"{path}: column {', '.join(wrong)} missing or of another type: run the same command again.")


def _alike(found: Any, wanted: Any) -> bool:
    """True if two types are the same, whatever Parquet calls the items of a list."""
    if found is None or not pa.types.is_list(wanted):
        return bool(found == wanted)
    return bool(pa.types.is_list(found) and found.value_type == wanted.value_type)


def confidence(cases: pd.DataFrame) -> Array:
    """Confidence of each answer, [cases] in [0, 1]; NaN if there is none (failed cases, regressions).

    The probability of the predicted class. For independent labels or a single output, the larger of p and 1 - p of the named
    label, because a small p is a confident "no".
    """
    probability = cases["probability"].to_numpy(np.float64, na_value=np.nan)
    heads = cases["head"].fillna("").astype(str)
    one = cases["probabilities"].map(lambda values: 0 if values is None else len(values)) == 1
    binary = (heads.str.startswith("bernoulli") | one).to_numpy(bool)
    return np.where(binary, np.maximum(probability, 1 - probability), probability)


def find_outliers(cases: pd.DataFrame) -> pd.DataFrame:
    """Outliers in a frame of `read_cases`: one row per finding, the most extreme first.

    Columns: case; quantity ("trace", "confidence", "rank"); kind ("high", "low", or "vanishing": the answer is saturated, or its
    trace not above VANISHING times the cohort's median, or not finite); value, in the quantity's unit; z, the robust z (NaN for
    "vanishing"): distance from the median over 1.4826 MAD, of ln trace, of the log-odds of the confidence, of the
    rank; among: the answer whose cases it was compared with, "" for all; cases: their number.
    """
    made = cases[cases["status"] != "failed"]
    answers = made["prediction"].fillna("").astype(str).to_numpy(object)
    trace = made["trace"].to_numpy(np.float64, na_value=np.nan)
    sure = confidence(made)
    rank = made["rank"].to_numpy(np.float64, na_value=np.nan)
    positive = trace > 0  # NaN is not
    bound = VANISHING * float(np.median(trace[positive])) if positive.any() else 0.0
    vanishing = ~(trace > bound) | (made["saturated"] == "yes").to_numpy(bool)
    logarithm = np.log(np.where(positive, trace, 1.0))
    odds = np.clip(sure, SMALLEST_DOUBT, 1 - SMALLEST_DOUBT)
    names = made["case"].to_numpy(object)
    found = [
        _compared(names, answers, "trace", trace, np.where(vanishing, np.nan, logarithm)),
        _compared(names, answers, "confidence", sure, np.log(odds / (1 - odds)), ("low",)),
        _compared(names, answers, "rank", rank, np.where(vanishing, np.nan, rank)),
        [(names[i], "trace", "vanishing", trace[i], np.nan, "", len(made)) for i in np.flatnonzero(vanishing)],
    ]
    frame = pd.DataFrame([finding for findings in found for finding in findings], columns=list(OUTLIER_COLUMNS))
    frame = frame.astype({"value": np.float64, "z": np.float64, "cases": np.int64})
    order = np.argsort(-frame["z"].abs().fillna(0.0).to_numpy(), kind="stable")
    return frame.iloc[order].reset_index(drop=True)


def _compared(
    names: npt.NDArray[Any],
    answers: npt.NDArray[Any],
    quantity: str,
    shown: Array,
    values: Array,
    kinds: tuple[str, ...] = ("high", "low"),
) -> list[tuple[Any, ...]]:
    """Findings of one quantity. values: to compare, NaN if unknown; shown: the same in the quantity's unit."""
    known = np.isfinite(values)
    counts = Counter(answers[known])
    large = sorted(answer for answer, number in counts.items() if answer and number >= SMALLEST_GROUP)
    rest = ~np.isin(answers, large)
    groups = [("", known, known & rest)]
    groups += [(answer, own, own) for answer in large for own in [known & (answers == answer)]]
    found = []
    for among, members, judged in groups:
        if members.sum() < SMALLEST_COHORT:
            continue
        z = (values - np.median(values[members])) / _scale(values[members], SMALLEST_SCALE[quantity])
        for i in np.flatnonzero(judged & (np.abs(z) > LARGEST_Z)):
            kind = "high" if z[i] > 0 else "low"
            if kind in kinds:
                found.append((names[i], quantity, kind, shown[i], float(z[i]), among, int(members.sum())))
    return found


def _scale(values: Array, smallest: float) -> float:
    """1.4826 MAD; if that is 0, because most values are equal, sqrt(pi / 2) times the mean absolute deviation."""
    spread = float(median_abs_deviation(values, scale="normal"))
    if spread == 0:
        spread = MEAN_DEVIATION * float(np.abs(values - np.median(values)).mean())
    return max(spread, smallest)
