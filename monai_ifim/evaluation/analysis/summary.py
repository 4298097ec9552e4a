"""The numbers of the report: one record per cell (a task with an architecture), and one of the whole experiment.

Both are plain data that strict JSON can hold: what has no value is null. Only `summarise_experiment` sees all cells, so
only there are p values adjusted for their number and the claim decided.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd  # type: ignore[import-untyped, unused-ignore]
from scipy import stats

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.analysis.auroc import area_difference
from monai_ifim.evaluation.analysis.curves import BAND_RESAMPLES, areas, curve_bands, removals
from monai_ifim.evaluation.analysis.statistics import BLOCK, CONFIDENCE, RESAMPLES, compare_columns, holm, mean_intervals

Array = npt.NDArray[np.float64]
Record = dict[str, Any]

__all__ = ["SCHEMA_VERSION", "summarise_cell", "summarise_experiment"]

SCHEMA_VERSION = 1
SIGNIFICANCE = 0.05
FIRST, SECOND, MEASURE = "noise_high", "noise_low", "absolute_change"  # the claim that the experiment is about
CURVE_MEASURES = (
    "probability_change",
    "absolute_change",
    "divergence",
    "predicted_divergence",
    "flipped",
    "negative_log_likelihood",
    "accuracy",
    "macro_auroc",
)
COMPARED_MEASURES = ("absolute_change", "divergence", "flipped", "negative_log_likelihood", "correct")
LOWERED = ("correct",)  # measures that the classifier loses when it is moved: compared as second - first
REFERENCES = ("noise_low", "noise_random", "noise_trailing", "noise_twin")  # and all pixels_*
STEPS = ("step_plus", "step_minus")
IDENTIFIERS = ("task", "architecture", "image", "label", "predicted")
DESCRIPTION = ("task", "task_title", "architecture", "classes", "spatial_shape", "selection", "classifier")
HEADER = ("name", "seed", "command", "settings", "environment", "seconds", "relative_norms")


def summarise_cell(
    measurements: pd.DataFrame, images: pd.DataFrame, description: Mapping[str, Any], seed: int, resamples: int = RESAMPLES
) -> Record:
    """Summarise one cell: curves, comparisons (without p_holm, holds and reverse) and scalars, as plain data.

    Args:
        measurements: rows of `measure_image` with a column `image`, of this cell alone.
        images: one row per image with a column `image`, `predicted` (index of a class), `locality_radius` (L2, of u_1)
            and any numeric columns to be averaged.
        description: task, task_title, architecture, classes (names), spatial_shape, selection, classifier.
        seed: of all resampling.
        resamples: of the comparisons and scalars; curves and ratios take no more than 1000.

    Raises:
        IFIMError: where the description, a column or an image is missing, or an image occurs twice.
    """
    _require(description, DESCRIPTION, "description")
    _check_images(measurements, images)
    # resamples draw images by their place: the order in which they were measured must not matter
    measurements, images = (table.sort_values("image", kind="stable") for table in (measurements, images))
    record = {
        **description,
        "images": len(images),
        "curves": curve_bands(measurements, CURVE_MEASURES, seed, min(resamples, BAND_RESAMPLES)),
        "comparisons": _comparisons(measurements, seed, resamples),
        "macro_auroc_area": _macro_auroc_area(measurements, seed, resamples),
        "divergence_ratio": _divergence_ratio(measurements, images, seed, min(resamples, BAND_RESAMPLES)),
        "images_scalars": _scalars(images, seed, resamples),
        "by_class": _by_class(images, description["classes"]),
    }
    plain: Record = _plain(record)
    return plain


def summarise_experiment(cells: Sequence[Mapping[str, Any]], header: Mapping[str, Any]) -> Record:
    """All of results.json out of the cells' records, with p values adjusted (Holm) over cells and the claim counted.

    A family of tests is one comparison (first, second, measure, kind) over all cells. `holds`: p_holm below 0.05, and the
    interval of the mean difference and the rank-biserial correlation above zero; `reverse`: both below. Where a few large
    differences go one way and many small ones the other, the mean and the ranks disagree, and neither is so.

    Args:
        cells: records of `summarise_cell`, as they are or read back from JSON; left as they are.
        header: name, seed, command, settings, environment, seconds, relative_norms, and `failed` cells if any.

    Raises:
        IFIMError: where the header lacks one of these.
    """
    _require(header, HEADER, "header")
    judged = _judged(cells)
    record = {
        "schema_version": SCHEMA_VERSION,
        **header,
        "cells": judged,
        "claim": _claim(judged),
        "failed": list(header.get("failed", [])),
    }
    plain: Record = _plain(record)
    return plain


def _require(given: Mapping[str, Any], names: Sequence[str], what: str) -> None:
    missing = [name for name in names if name not in given]
    if missing:
        raise IFIMError(f"the {what} lacks {', '.join(missing)}: give each, as null where it is unknown.")


def _check_images(measurements: pd.DataFrame, images: pd.DataFrame) -> None:
    _require(dict.fromkeys(images.columns), ("image", "predicted", "locality_radius"), "table of images")
    if images["image"].duplicated().any():
        raise IFIMError("the table of images has an image twice: pass the images of one cell, one row each.")
    unknown = set(measurements["image"]) ^ set(images["image"])
    if unknown:
        raise IFIMError(f"image {min(map(str, unknown))} is in one of measurements and images only: pass both of one cell.")


def _comparisons(measurements: pd.DataFrame, seed: int, resamples: int) -> list[Record]:
    """noise_high against every other noise by areas, and remove_high against remove_low; those without an image are absent."""
    records: list[Record] = []
    for measure in COMPARED_MEASURES:
        table = areas(measurements, measure)
        seconds = [name for name in REFERENCES if name in table.columns]
        seconds += [name for name in table.columns if name.startswith("pixels_")]
        if FIRST in table.columns and seconds:
            records += _compare(table, FIRST, seconds, measure, "area", seed, resamples)
        table = removals(measurements, measure)
        if len(table.columns) == 2:
            records += _compare(table, "remove_high", ["remove_low"], measure, "removal", seed, resamples)
    return records


def _compare(
    table: pd.DataFrame, first: str, seconds: Sequence[str], measure: str, kind: str, seed: int, resamples: int
) -> list[Record]:
    two = table[list(seconds)].to_numpy(dtype=np.float64)
    one = np.broadcast_to(table[[first]].to_numpy(dtype=np.float64), two.shape)
    lowered = measure in LOWERED
    found = compare_columns(two, one, seed, resamples) if lowered else compare_columns(one, two, seed, resamples)
    records = []
    for second, comparison in zip(seconds, found, strict=True):
        values = asdict(comparison)
        if lowered:
            values["first_mean"], values["second_mean"] = values["second_mean"], values["first_mean"]
        if comparison.images:
            records.append({"first": first, "second": second, "measure": measure, "kind": kind, **values})
    return records


def _macro_auroc_area(measurements: pd.DataFrame, seed: int, resamples: int) -> Record:
    images, difference, low, high = area_difference(measurements, FIRST, SECOND, seed, resamples)
    return {"difference": difference, "low": low, "high": high, "images": images}


def _divergence_ratio(measurements: pd.DataFrame, images: pd.DataFrame, seed: int, resamples: int) -> Record:
    """Measured over predicted divergence of steps along +-u_1, by whether the norm is within the locality radius."""
    steps = measurements[measurements["family"].isin(STEPS) & (measurements["norm"] > 0)]
    radius = steps["image"].map(images.set_index("image")["locality_radius"]).to_numpy(dtype=np.float64)
    predicted = steps["predicted_divergence"].to_numpy(dtype=np.float64)
    ratio = np.full(len(steps), np.nan)
    with np.errstate(over="ignore"):  # over a vanishing prediction: infinite, and left out
        np.divide(steps["divergence"].to_numpy(dtype=np.float64), predicted, out=ratio, where=predicted > 0)
    norm, image = steps["norm"].to_numpy(dtype=np.float64), pd.factorize(steps["image"])[0]
    return {
        name: _median_over_rows(ratio[side & np.isfinite(ratio)], image[side & np.isfinite(ratio)], seed, resamples)
        for name, side in (("inside", norm <= radius), ("outside", norm > radius))
    }


def _median_over_rows(values: Array, image: npt.NDArray[np.intp], seed: int, resamples: int) -> Record:
    """Median of all rows with a 95 % percentile bootstrap that draws images with all their rows."""
    drawn, codes = np.unique(image, return_inverse=True)
    record = {"median": math.nan, "low": math.nan, "high": math.nan, "rows": len(values), "images": len(drawn)}
    if len(values):
        record["median"] = float(np.median(values))
    if len(drawn) < 2:
        return record
    place = pd.Series(codes).groupby(codes).cumcount().to_numpy()
    rows = np.full((len(drawn), int(place.max()) + 1), np.nan)
    rows[codes, place] = values

    def median(index: npt.NDArray[np.intp], axis: int) -> Array:
        resampled: Array = np.nanmedian(rows[index].reshape(*index.shape[:-1], -1), axis=axis)
        return resampled

    result = stats.bootstrap(
        (np.arange(len(drawn)),),
        median,
        vectorized=True,
        method="percentile",
        n_resamples=resamples,
        confidence_level=CONFIDENCE,
        batch=max(1, BLOCK // rows.size),
        rng=np.random.default_rng(seed),
    )
    record["low"], record["high"] = (float(bound) for bound in result.confidence_interval)
    return record


def _numeric(images: pd.DataFrame) -> pd.DataFrame:
    """The columns of numbers that describe images, as float64; those without any value are left out."""
    numeric = images.drop(columns=[name for name in IDENTIFIERS if name in images]).select_dtypes(["number", "bool"])
    finite: pd.DataFrame = numeric.astype(np.float64).replace([np.inf, -np.inf], np.nan).dropna(axis=1, how="all")
    return finite


def _scalars(images: pd.DataFrame, seed: int, resamples: int) -> Record:
    numeric = _numeric(images)
    intervals = mean_intervals(numeric.to_numpy(), seed, resamples)
    return {
        name: {"mean": i.mean, "low": i.low, "high": i.high, "images": i.images}
        for name, i in zip(numeric.columns, intervals, strict=True)
    }


def _by_class(images: pd.DataFrame, classes: Sequence[str]) -> Record:
    """Means of the same columns by predicted class, in the order of the classes; classes never predicted are absent."""
    numeric, predicted = _numeric(images), images["predicted"].to_numpy(dtype=np.int64)
    records: Record = {}
    for c in np.unique(predicted):
        if not 0 <= c < len(classes):
            raise IFIMError(f"predicted is {c} and {len(classes)} classes are named: predicted must be the index of a class.")
        rows = numeric[predicted == c].dropna(axis=1, how="all")
        records[str(classes[c])] = {name: {"mean": rows[name].mean(), "images": int(rows[name].count())} for name in rows}
    return records


def _judged(cells: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Copies of the cells whose comparisons have p_holm, holds and reverse."""
    judged = [{**cell, "comparisons": [dict(comparison) for comparison in cell["comparisons"]]} for cell in cells]
    families: dict[tuple[str, ...], list[Record]] = {}
    for cell in judged:
        for comparison in cell["comparisons"]:
            key = tuple(comparison[name] for name in ("first", "second", "measure", "kind"))
            families.setdefault(key, []).append(comparison)
    for family in families.values():
        adjusted = holm([_number(comparison["p_value"]) for comparison in family])
        for comparison, p_holm in zip(family, adjusted, strict=True):
            # a comparison with NaN is false: what has no value decides nothing
            significant = p_holm < SIGNIFICANCE
            comparison["p_holm"] = p_holm
            ranks = _number(comparison["rank_biserial"])
            comparison["holds"] = significant and _number(comparison["low"]) > 0 and ranks > 0
            comparison["reverse"] = significant and _number(comparison["high"]) < 0 and ranks < 0
    return judged


def _claim(cells: Sequence[Record]) -> Record:
    """How often the claim holds, over all cells, by task and by measure."""
    pairs = [(cell["task"], c) for cell in cells for c in cell["comparisons"] if (c["first"], c["second"]) == (FIRST, SECOND)]
    own = [(task, comparison) for task, comparison in pairs if comparison["measure"] == MEASURE]
    return {
        "first": FIRST,
        "second": SECOND,
        "measure": MEASURE,
        **_counts([comparison for _, comparison in own]),
        "by_task": {name: _counts([c for task, c in own if task == name]) for name in dict.fromkeys(task for task, _ in own)},
        "by_measure": {name: _counts([c for _, c in pairs if c["measure"] == name]) for name in COMPARED_MEASURES},
    }


def _counts(comparisons: Sequence[Record]) -> Record:
    """Cells that were compared, and in how many the claim holds, the difference is above zero, the claim is reversed."""
    count = Counter(
        name
        for comparison in comparisons
        for name, true in (
            ("holds", comparison["holds"]),
            ("favourable", _number(comparison["difference"]) > 0),
            ("reverse", comparison["reverse"]),
        )
        if true
    )
    return {"cells": len(comparisons), **{name: count[name] for name in ("holds", "favourable", "reverse")}}


def _number(value: float | None) -> float:
    """A number out of a record, in which null stands for NaN."""
    return math.nan if value is None else float(value)


def _plain(value: Any) -> Any:
    """The same as plain Python data; numbers that are not finite become None, as strict JSON has none."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
