"""Curves over the perturbation's norm, from the table of measurements of one cell (a task with an architecture).

The table has one row per image, family, draw and norm (:mod:`monai_ifim.evaluation.measuring.measurements`) and a column `image`.
Draws of one image are averaged first, so every image counts once. The mean is NaN if the value of any draw is not finite.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd  # type: ignore[import-untyped, unused-ignore]

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.analysis.auroc import macro_auroc_curves
from monai_ifim.evaluation.analysis.statistics import mean_intervals
from monai_ifim.evaluation.measuring.end_points import REMOVAL
from monai_ifim.evaluation.measuring.families import families_of
from monai_ifim.evaluation.records import Curve

__all__ = ["areas", "curve_bands", "image_curves", "removal_values"]

ACCURACY = "accuracy"  # the mean of `correct` over images
MACRO_AUROC = "macro_auroc"
BAND_RESAMPLES = 1000
KEY = ("image", "family", "draw", "relative_norm")  # identifies a row of one cell


def image_curves(measurements: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Curve of every image, draws averaged: rows (family, image), columns the norms relative to |x|, ascending.

    NaN where an image has no value at a norm; every family in the table has a row for every image. Removals, each at
    a norm of its own, are in `removal_values`. Raises IFIMError for a missing column or key, or a key that occurs twice.
    """
    rows = _rows(measurements, measure)
    rows = _unique(rows[~rows["family"].isin(families_of("removal"))], KEY)
    mean = _mean_of_draws(rows, ["family", "image", "relative_norm"], measure)
    table = mean.unstack("relative_norm").sort_index(axis=1)
    every = pd.MultiIndex.from_product([rows["family"].unique(), measurements["image"].unique()], names=["family", "image"])
    return table.reindex(every)


def areas(measurements: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Mean of each image's curve along the grid of norms: rows images, columns families, in the measure's unit.

    Trapezoidal rule in the relative norm over the whole grid, divided by its width; NaN where a point is missing. Families
    that are not defined on the whole grid (attenuations, removals) are not included. Raises IFIMError for a grid of one norm.
    """
    curves = image_curves(measurements[~measurements["family"].isin(families_of("attenuation"))], measure)
    grid = curves.columns.to_numpy(dtype=np.float64)
    if len(grid) < 2:
        raise IFIMError(f"the measurements have {len(grid)} relative norm(s), which enclose no area: measure at 0 and beyond.")
    area = np.trapezoid(curves.to_numpy(), grid, axis=1) / (grid[-1] - grid[0])
    table: pd.DataFrame = pd.Series(area, index=curves.index).unstack("family")
    return table.reindex(index=curves.index.unique("image"), columns=curves.index.unique("family"))


def removal_values(measurements: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Value at the end point of each removal: rows images, columns `remove_high` and `remove_low`, in the measure's unit.

    NaN where one of the components is zero. Raises IFIMError as `image_curves`.
    """
    rows = _rows(measurements, measure)
    rows = _unique(rows[rows["family"].isin(families_of("removal")) & (rows["relative_norm"] > 0)], KEY[:3])
    table = _mean_of_draws(rows, ["family", "image"], measure).unstack("family")
    present = [family for family in REMOVAL if (measurements["family"] == family).any()]
    return table.reindex(index=measurements["image"].unique(), columns=present)


def curve_bands(measurements: pd.DataFrame, measures: Sequence[str], seed: int, resamples: int = BAND_RESAMPLES) -> list[Curve]:
    """Mean curve over images with a 95 % percentile bootstrap band, one per family and measure; norms without a value are absent.

    The band is NaN for one image. Measures are columns of the table, or `accuracy`, or `macro_auroc` (one-versus-rest, averaged
    over draws, resampled within classes; absent where the images lack a class or scores). A curve without any value is absent.
    """
    bands: list[Curve] = []
    for measure in measures:
        if measure == MACRO_AUROC:
            rows = measurements[~measurements["family"].isin(families_of("removal"))]
            for family, found in macro_auroc_curves(rows, seed, resamples).items():
                bands += _band(family, measure, [(p.norm, p.images, p.value, p.low, p.high) for p in found])
            continue
        curves = image_curves(measurements, "correct" if measure == ACCURACY else measure)
        for family in curves.index.unique("family"):
            intervals = mean_intervals(curves.loc[family].to_numpy(dtype=np.float64), seed, resamples)
            points = [(norm, i.images, i.mean, i.low, i.high) for norm, i in zip(curves.columns, intervals, strict=True)]
            bands += _band(family, measure, [point for point in points if point[1] > 0])
    return bands


def _band(family: str, measure: str, points: Sequence[tuple[float, int, float, float, float]]) -> list[Curve]:
    """One curve of (norm, images, mean, low, high) points; empty for no point."""
    if not points:
        return []
    return [Curve(str(family), measure, *np.array(points, dtype=np.float64).T)]


def _rows(measurements: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The table; raises IFIMError if a column or a key is missing."""
    missing = [name for name in (*KEY, measure) if name not in measurements.columns]
    if missing:
        raise IFIMError(f"the measurements lack the column(s) {', '.join(missing)}: pass the table as it was measured.")
    if measurements[list(KEY)].isna().any(axis=None):
        raise IFIMError(f"the measurements have rows without {', '.join(KEY)}: every row must say what it is of.")
    return measurements


def _unique(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The rows; raises IFIMError if a key occurs twice."""
    again = rows.duplicated(list(by))
    if again.any():
        raise IFIMError(
            f"image {rows.loc[again, 'image'].iloc[0]!r} was measured twice at one {', '.join(by[1:])}: pass one cell at a "
            "time, and give every image a name of its own."
        )
    return rows


def _mean_of_draws(rows: pd.DataFrame, by: Sequence[str], measure: str) -> pd.Series:
    """Mean over draws; NaN if any of them is not finite."""
    finite = rows[measure].astype(np.float64).replace([np.inf, -np.inf], np.nan)
    groups = finite.groupby([rows[name] for name in by], sort=False, observed=True)
    mean: pd.Series = groups.mean().where(groups.count() == groups.size())
    return mean
