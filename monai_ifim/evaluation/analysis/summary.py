"""Statistics of the measurements: the record of one cell (a task with an architecture), and of the whole experiment.

p values are adjusted over all cells, so that verdicts and the claim's count belong to the experiment and not to a cell.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd  # type: ignore[import-untyped, unused-ignore]
from scipy import stats

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.analysis.auroc import area_difference
from monai_ifim.evaluation.analysis.curves import BAND_RESAMPLES, areas, curve_bands, removal_values
from monai_ifim.evaluation.analysis.labels import label_records
from monai_ifim.evaluation.analysis.statistics import BLOCK, CONFIDENCE, RESAMPLES, compare_columns, holm, mean_intervals
from monai_ifim.evaluation.measuring.end_points import CLAIM, MEASURES, REMOVAL, compared_measures, curve_measures
from monai_ifim.evaluation.measuring.families import families_of
from monai_ifim.evaluation.records import (
    Array,
    CellDescription,
    CellRecord,
    Claim,
    Comparison,
    Estimate,
    ExperimentHeader,
    ExperimentRecord,
    FailedCell,
    Tally,
    known,
)

__all__ = ["summarise_cell", "summarise_experiment"]

SIGNIFICANCE = 0.05
IDENTIFIERS = ("task", "architecture", "image", "label", "predicted")  # columns of the table of images that are no quantities


def summarise_cell(
    measurements: pd.DataFrame, images: pd.DataFrame, description: CellDescription, seed: int, resamples: int = RESAMPLES
) -> CellRecord:
    """Summarise one cell: curves, comparisons (p_holm and verdicts still open) and means over images.

    Args:
        measurements: rows of `measure_image` with a column `image`, of this cell alone.
        images: one row per image with a column `image`, `predicted` (index of a class), `locality_radius` (L2, of u_1)
            and any numeric columns to be averaged.
        description: of the cell.
        seed: of all resampling.
        resamples: of the comparisons and means; curves and ratios take at most 1000.

    Raises:
        IFIMError: a missing column or image, an image that occurs twice, or a predicted class without a name.
    """
    _check_images(measurements, images)
    # resamples draw images by their place: the order in which they were measured must not matter
    measurements, images = (table.sort_values("image", kind="stable") for table in (measurements, images))
    return CellRecord(
        **vars(description),
        images=len(images),
        curves=tuple(curve_bands(measurements, curve_measures(), seed, min(resamples, BAND_RESAMPLES))),
        comparisons=tuple(_comparisons(measurements, seed, resamples)),
        macro_auroc_area=_macro_auroc_area(measurements, seed, resamples),
        divergence_ratio=_divergence_ratio(measurements, images, seed, min(resamples, BAND_RESAMPLES)),
        images_scalars=_scalars(images, seed, resamples),
        by_class=_by_class(images, description.classes),
        labels=label_records(measurements, images, description.classes, seed, resamples),
    )


def summarise_experiment(
    cells: Sequence[CellRecord], header: ExperimentHeader, failed: Sequence[FailedCell] = ()
) -> ExperimentRecord:
    """The record of the experiment, with p values adjusted (Holm) over cells and the claim counted.

    A family of tests is one comparison (first, second, measure, kind) over all cells. `holds`: p_holm below 0.05, and the
    interval of the mean difference and the rank-biserial correlation above zero; `reverse`: both below. If a few large
    differences go one way and many small ones the other, the mean and the ranks disagree, and neither is set.
    """
    judged = _judged(cells)
    return ExperimentRecord(**vars(header), cells=judged, claim=_count_claim(judged), failed=tuple(failed))


def _check_images(measurements: pd.DataFrame, images: pd.DataFrame) -> None:
    missing = [name for name in ("image", "predicted", "locality_radius") if name not in images.columns]
    if missing:
        raise IFIMError(f"the table of images lacks {', '.join(missing)}: pass it as it was written.")
    if images["image"].duplicated().any():
        raise IFIMError("the table of images has an image twice: pass the images of one cell, one row each.")
    unknown = set(measurements["image"]) ^ set(images["image"])
    if unknown:
        raise IFIMError(f"image {min(map(str, unknown))} is in one of measurements and images only: pass both of one cell.")


def _comparisons(measurements: pd.DataFrame, seed: int, resamples: int) -> list[Comparison]:
    """The claim's first family against every other noise by areas, and the removals; those without an image are absent."""
    found: list[Comparison] = []
    for measure in compared_measures():
        table = areas(measurements, measure)
        seconds = [name for name in families_of("noise", "pixels") if name in table.columns and name != CLAIM.first]
        if CLAIM.first in table.columns and seconds:
            found += _compare(table, CLAIM.first, seconds, measure, "area", seed, resamples)
        table = removal_values(measurements, measure)
        if len(table.columns) == len(REMOVAL):
            found += _compare(table, REMOVAL[0], REMOVAL[1:], measure, "removal", seed, resamples)
    return found


def _compare(
    table: pd.DataFrame, first: str, seconds: Sequence[str], measure: str, kind: str, seed: int, resamples: int
) -> list[Comparison]:
    two = table[list(seconds)].to_numpy(dtype=np.float64)
    one = np.broadcast_to(table[[first]].to_numpy(dtype=np.float64), two.shape)
    lowered = MEASURES[measure].lowered
    found = compare_columns(two, one, seed, resamples) if lowered else compare_columns(one, two, seed, resamples)
    comparisons = []
    for second, compared in zip(seconds, found, strict=True):
        if not compared.images:
            continue
        values: dict[str, Any] = {
            name: known(value) if isinstance(value, float) else value for name, value in asdict(compared).items()
        }
        if lowered:
            values["first_mean"], values["second_mean"] = values["second_mean"], values["first_mean"]
        comparisons.append(Comparison(first, second, measure, kind, **values))
    return comparisons


def _macro_auroc_area(measurements: pd.DataFrame, seed: int, resamples: int) -> Estimate:
    images, difference, low, high = area_difference(measurements, CLAIM.first, CLAIM.second, seed, resamples)
    return Estimate(known(difference), known(low), known(high), images)


def _divergence_ratio(measurements: pd.DataFrame, images: pd.DataFrame, seed: int, resamples: int) -> dict[str, Estimate]:
    """Measured over predicted divergence of steps along +-u_1, inside and outside the locality radius."""
    steps = measurements[measurements["family"].isin(families_of("step")) & (measurements["norm"] > 0)]
    radius = steps["image"].map(images.set_index("image")["locality_radius"]).to_numpy(dtype=np.float64)
    predicted = steps["predicted_divergence"].to_numpy(dtype=np.float64)
    ratio = np.full(len(steps), np.nan)
    with np.errstate(over="ignore"):  # a vanishing prediction gives an infinite ratio, which is left out
        np.divide(steps["divergence"].to_numpy(dtype=np.float64), predicted, out=ratio, where=predicted > 0)
    norm, image = steps["norm"].to_numpy(dtype=np.float64), pd.factorize(steps["image"])[0]
    return {
        name: _median_over_rows(ratio[side & np.isfinite(ratio)], image[side & np.isfinite(ratio)], seed, resamples)
        for name, side in (("inside", norm <= radius), ("outside", norm > radius))
    }


def _median_over_rows(values: Array, image: npt.NDArray[np.intp], seed: int, resamples: int) -> Estimate:
    """Median of all rows with a 95 % percentile bootstrap that draws images with all their rows."""
    drawn, codes = np.unique(image, return_inverse=True)
    middle = known(np.median(values)) if len(values) else None
    if len(drawn) < 2:
        return Estimate(middle, None, None, len(drawn), len(values))
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
    low, high = (known(bound) for bound in result.confidence_interval)
    return Estimate(middle, low, high, len(drawn), len(values))


def _numeric(images: pd.DataFrame) -> pd.DataFrame:
    """The numeric columns that describe images, as float64; columns without any finite value are left out."""
    numeric = images.drop(columns=[name for name in IDENTIFIERS if name in images]).select_dtypes(["number", "bool"])
    finite: pd.DataFrame = numeric.astype(np.float64).replace([np.inf, -np.inf], np.nan).dropna(axis=1, how="all")
    return finite


def _scalars(images: pd.DataFrame, seed: int, resamples: int) -> dict[str, Estimate]:
    numeric = _numeric(images)
    intervals = mean_intervals(numeric.to_numpy(), seed, resamples)
    return {
        str(name): Estimate(known(i.mean), known(i.low), known(i.high), i.images)
        for name, i in zip(numeric.columns, intervals, strict=True)
    }


def _by_class(images: pd.DataFrame, classes: Sequence[str]) -> dict[str, Mapping[str, Estimate]]:
    """Means of the same columns by predicted class, in the order of the classes; classes never predicted are absent. Nothing for
    independent labels, of which none is the answer."""
    numeric, predicted = _numeric(images), images["predicted"].to_numpy(dtype=np.int64)
    found: dict[str, Mapping[str, Estimate]] = {}
    if "label_answers" in images:
        return found
    for c in np.unique(predicted):
        if not 0 <= c < len(classes):
            raise IFIMError(f"predicted is {c} and {len(classes)} classes are named: predicted must be the index of a class.")
        rows = numeric[predicted == c].dropna(axis=1, how="all")
        found[str(classes[c])] = {str(name): Estimate(known(rows[name].mean()), images=int(rows[name].count())) for name in rows}
    return found


def _judged(cells: Sequence[CellRecord]) -> tuple[CellRecord, ...]:
    """Copies of the cells whose comparisons have p_holm, holds and reverse."""
    families: dict[tuple[str, ...], list[Comparison]] = {}
    for cell in cells:
        for comparison in cell.comparisons:
            families.setdefault(comparison.key, []).append(comparison)
    adjusted = {key: iter(holm([_number(c.p_value) for c in family])) for key, family in families.items()}
    return tuple(
        replace(
            cell, comparisons=tuple(_with_verdict(comparison, next(adjusted[comparison.key])) for comparison in cell.comparisons)
        )
        for cell in cells
    )


def _with_verdict(comparison: Comparison, p_holm: float) -> Comparison:
    """With NaN, every condition is false: nothing is decided without a value."""
    significant = p_holm < SIGNIFICANCE
    ranks = _number(comparison.rank_biserial)
    return replace(
        comparison,
        p_holm=known(p_holm),
        holds=significant and _number(comparison.low) > 0 and ranks > 0,
        reverse=significant and _number(comparison.high) < 0 and ranks < 0,
    )


def _count_claim(cells: Sequence[CellRecord]) -> Claim:
    """How often the claim holds, over all cells, by task and by measure."""
    pairs = [(cell.task, c) for cell in cells for c in cell.comparisons if (c.first, c.second) == (CLAIM.first, CLAIM.second)]
    own = [(task, comparison) for task, comparison in pairs if comparison.measure == CLAIM.measure]
    return Claim(
        CLAIM.first,
        CLAIM.second,
        CLAIM.measure,
        _tally(comparison for _, comparison in own),
        {name: _tally(c for task, c in own if task == name) for name in dict.fromkeys(task for task, _ in own)},
        {name: _tally(c for _, c in pairs if c.measure == name) for name in compared_measures()},
    )


def _tally(comparisons: Iterable[Comparison]) -> Tally:
    counted: Counter[str] = Counter()
    for comparison in comparisons:
        counted["cells"] += 1
        counted["holds"] += comparison.holds
        counted["favourable"] += _number(comparison.difference) > 0
        counted["reverse"] += comparison.reverse
    return Tally(*(counted[name] for name in ("cells", "holds", "favourable", "reverse")))


def _number(value: float | None) -> float:
    """NaN for a value that is not known."""
    return math.nan if value is None else value
