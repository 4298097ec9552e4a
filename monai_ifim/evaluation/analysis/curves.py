"""Curves over the perturbation's norm, from the table of measurements of one cell (a task with an architecture).

The table has one row per image, family, draw and norm (:mod:`monai_ifim.evaluation.measuring.measurements`) and a column `image`.
Draws of one image are averaged first, so every image counts once. A mean of draws of which one has no finite value has
none either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped, unused-ignore]

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.analysis.auroc import macro_auroc_curves
from monai_ifim.evaluation.analysis.statistics import mean_intervals

__all__ = ["areas", "curve_bands", "image_curves", "removals"]

ACCURACY = "accuracy"  # the mean of `correct` over images
MACRO_AUROC = "macro_auroc"
PARTIAL = ("attenuate_high", "attenuate_low")  # defined up to the complete removal of a component, per image
END_POINTS = ("remove_high", "remove_low")  # one norm per image, so no curve
BAND_RESAMPLES = 1000
KEY = ("image", "family", "draw", "relative_norm")  # what tells the rows of one cell apart


def image_curves(measurements: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Curve of every image, draws averaged: rows (family, image), columns the norms relative to |x|, ascending.

    NaN where an image has no value at a norm; every family that is there has a row for every image. The removals, each at
    a norm of its own, are in `removals`. Raises IFIMError for a missing column or key, and for a key that occurs twice.
    """
    rows = _rows(measurements, measure)
    rows = _unique(rows[~rows["family"].isin(END_POINTS)], KEY)
    mean = _mean_of_draws(rows, ["family", "image", "relative_norm"], measure)
    table = mean.unstack("relative_norm").sort_index(axis=1)
    every = pd.MultiIndex.from_product([rows["family"].unique(), measurements["image"].unique()], names=["family", "image"])
    return table.reindex(every)


def areas(measurements: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Mean of each image's curve along the grid of norms: rows images, columns families, in the measure's unit.

    Trapezoids in the relative norm over the whole grid, divided by its width; NaN where a point of it is missing. Families
    that are not defined on the whole grid (attenuations, removals) have none. Raises IFIMError for a grid of one norm.
    """
    curves = image_curves(measurements[~measurements["family"].isin(PARTIAL)], measure)
    grid = curves.columns.to_numpy(dtype=np.float64)
    if len(grid) < 2:
        raise IFIMError(f"the measurements have {len(grid)} relative norm(s), which enclose no area: measure at 0 and beyond.")
    area = np.trapezoid(curves.to_numpy(), grid, axis=1) / (grid[-1] - grid[0])
    table: pd.DataFrame = pd.Series(area, index=curves.index).unstack("family")
    return table.reindex(index=curves.index.unique("image"), columns=curves.index.unique("family"))


def removals(measurements: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Value at the end point of each removal: rows images, columns `remove_high` and `remove_low`, in the measure's unit.

    NaN where a component is zero and there is nothing to remove. Raises IFIMError as `image_curves`.
    """
    rows = _rows(measurements, measure)
    rows = _unique(rows[rows["family"].isin(END_POINTS) & (rows["relative_norm"] > 0)], KEY[:3])
    table = _mean_of_draws(rows, ["family", "image"], measure).unstack("family")
    present = [family for family in END_POINTS if (measurements["family"] == family).any()]
    return table.reindex(index=measurements["image"].unique(), columns=present)


def curve_bands(
    measurements: pd.DataFrame, measures: Sequence[str], seed: int, resamples: int = BAND_RESAMPLES
) -> list[dict[str, Any]]:
    """Mean curve over images with a 95 % bootstrap band, one record per family and measure.

    A record holds `family`, `measure` and, for every norm where there is a value, `relative_norm`, `images` (that have one),
    `mean`, `low` and `high` (percentile bootstrap over images; NaN for one image). Measures are columns of the table,
    or `accuracy`, or `macro_auroc` (one-versus-rest, averaged over draws, resampled within classes; absent where the
    images lack a class or scores). A record without any value is absent.
    """
    bands: list[dict[str, Any]] = []
    for measure in measures:
        if measure == MACRO_AUROC:
            rows = measurements[~measurements["family"].isin(END_POINTS)]
            for family, found in macro_auroc_curves(rows, seed, resamples).items():
                bands += _band(family, measure, [(p.norm, p.images, p.value, p.low, p.high) for p in found])
            continue
        curves = image_curves(measurements, "correct" if measure == ACCURACY else measure)
        for family in curves.index.unique("family"):
            intervals = mean_intervals(curves.loc[family].to_numpy(dtype=np.float64), seed, resamples)
            points = [(norm, i.images, i.mean, i.low, i.high) for norm, i in zip(curves.columns, intervals, strict=True)]
            bands += _band(family, measure, [point for point in points if point[1] > 0])
    return bands


def _band(family: str, measure: str, points: Sequence[tuple[float, int, float, float, float]]) -> list[dict[str, Any]]:
    """One record of (norm, images, mean, low, high) points, or none of no point."""
    if not points:
        return []
    columns = ("relative_norm", "images", "mean", "low", "high")
    values = {name: list(column) for name, column in zip(columns, zip(*points, strict=True), strict=True)}
    return [{"family": str(family), "measure": measure, **values}]


def _rows(measurements: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The table, once it is seen to have what is asked of it."""
    missing = [name for name in (*KEY, measure) if name not in measurements.columns]
    if missing:
        raise IFIMError(f"the measurements lack the column(s) {', '.join(missing)}: pass the table as it was measured.")
    if measurements[list(KEY)].isna().any(axis=None):
        raise IFIMError(f"the measurements have rows without {', '.join(KEY)}: every row must say what it is of.")
    return measurements


def _unique(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    again = rows.duplicated(list(by))
    if again.any():
        raise IFIMError(
            f"image {rows.loc[again, 'image'].iloc[0]!r} was measured twice at one {', '.join(by[1:])}: pass one cell at a "
            "time, and give every image a name of its own."
        )
    return rows


def _mean_of_draws(rows: pd.DataFrame, by: Sequence[str], measure: str) -> pd.Series:
    """Mean over draws; NaN where any of them is not finite."""
    finite = rows[measure].astype(np.float64).replace([np.inf, -np.inf], np.nan)
    groups = finite.groupby([rows[name] for name in by], sort=False, observed=True)
    mean: pd.Series = groups.mean().where(groups.count() == groups.size())
    return mean
