"""Paired comparisons over images: effect size, bootstrap interval, signed-rank test, and correction for multiple tests.

Everything here takes one value per image. Draws of one image are repeats of one observation and are averaged before
(:mod:`monai_ifim.evaluation.analysis.curves`), so that the number of images, not of draws, sets the uncertainty.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from monai_ifim.core import IFIMError

Array = npt.NDArray[np.float64]

__all__ = ["Interval", "PairedComparison", "compare_columns", "compare_paired", "holm", "mean_intervals", "signed_rank_p_value"]

CONFIDENCE = 0.95
RESAMPLES = 9999
EXACT_UP_TO = 150  # nonzero differences; beyond, the normal approximation holds to many digits
BLOCK = 4_000_000  # numbers held at once while resampling, 32 MB
_ROUNDING = 16 * np.finfo(np.float64).eps  # of the larger of two values, below which they count as equal


@dataclass(frozen=True)
class Interval:
    """A mean over images with its 95 % bootstrap interval, all in the unit of the values.

    images: number of finite values. low and high are NaN below two images; `kind` is "bca", "percentile" or "none".
    """

    images: int
    mean: float
    low: float
    high: float
    kind: str


@dataclass(frozen=True)
class PairedComparison:
    """Two quantities measured at the same images; difference = mean of (first - second), in their unit.

    images: pairs of which both values are finite. low, high: 95 % bootstrap interval of the difference over images,
    NaN below two images. interval: "bca", "percentile" (where BCa is undefined: no spread) or "none".
    p_value: two-sided Wilcoxon signed-rank test, see `signed_rank_p_value`; 1 below two images.
    rank_biserial: (W+ - W-) / (n (n + 1) / 2) with Pratt's ranks, that is the mean sign of all Walsh averages
    (d_i + d_j) / 2, i <= j; in [-1, 1], equal pairs pull it to 0. cohens_dz: mean over standard deviation of the
    differences; NaN where they have no spread.
    """

    images: int
    first_mean: float
    second_mean: float
    difference: float
    low: float
    high: float
    interval: str
    p_value: float
    rank_biserial: float
    cohens_dz: float


def compare_paired(first: npt.ArrayLike, second: npt.ArrayLike, seed: int, resamples: int = RESAMPLES) -> PairedComparison:
    """Compare two values per image, [n] each; pairs with a value that is not finite are left out.

    Raises IFIMError for other shapes.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 1 or one.shape != two.shape:
        raise IFIMError(
            f"paired values have shapes {one.shape} and {two.shape}: pass one number per image in both, in one order."
        )
    return compare_columns(one[:, None], two[:, None], seed, resamples)[0]


def compare_columns(first: Array, second: Array, seed: int, resamples: int = RESAMPLES) -> list[PairedComparison]:
    """`compare_paired` for every column of [n, K] at once; columns with the same images share their resamples."""
    usable = np.isfinite(first) & np.isfinite(second)
    one, two = np.where(usable, first, np.nan), np.where(usable, second, np.nan)
    differences = one - two
    # two sums that are equal in exact arithmetic must not be told apart by their rounding
    differences[np.abs(differences) <= _ROUNDING * np.fmax(np.abs(one), np.abs(two))] = 0.0
    intervals = mean_intervals(differences, seed, resamples, method="BCa")
    return [_comparison(*columns) for columns in zip(one.T, two.T, differences.T, intervals, strict=True)]


def _comparison(first: Array, second: Array, difference: Array, interval: Interval) -> PairedComparison:
    """One column with its interval."""
    kept = np.isfinite(difference)
    values = difference[kept]
    return PairedComparison(
        images=interval.images,
        first_mean=_mean(first[kept]),
        second_mean=_mean(second[kept]),
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        interval=interval.kind,
        p_value=signed_rank_p_value(values),
        rank_biserial=_rank_biserial(values),
        cohens_dz=interval.mean / float(values.std(ddof=1)) if _spread(values) else math.nan,
    )


def mean_intervals(values: Array, seed: int, resamples: int, method: str = "percentile") -> list[Interval]:
    """Mean over images of each column of [n, K] with its 95 % bootstrap interval; values that are not finite are left out.

    method: "percentile", or "BCa" (Efron 1987), replaced by the percentile interval where it is undefined.
    All columns with the same images get the same resamples, whatever else is in the table.
    """
    usable = np.isfinite(values)
    found: dict[int, Interval] = {}
    for rows, columns in _same_rows(usable):
        sample = values[np.ix_(rows, columns)]
        low, high, kinds = _bootstrap(sample, seed, resamples, method)
        for place, column in enumerate(columns):
            found[int(column)] = Interval(
                len(sample), _mean(sample[:, place]), float(low[place]), float(high[place]), kinds[place]
            )
    return [found[column] for column in range(values.shape[1])]


def _same_rows(usable: npt.NDArray[np.bool_]) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Columns of [n, K] grouped by which rows they can use: (rows, columns) of each group."""
    groups: dict[bytes, list[int]] = {}
    for column in range(usable.shape[1]):
        groups.setdefault(usable[:, column].tobytes(), []).append(column)
    for columns in groups.values():
        yield np.flatnonzero(usable[:, columns[0]]), np.asarray(columns, dtype=np.intp)


def _bootstrap(sample: Array, seed: int, resamples: int, method: str) -> tuple[Array, Array, list[str]]:
    """(low, high, kinds) of the means of the columns of [n, K], all finite."""
    images, columns = sample.shape
    if images < 2:
        nothing = np.full(columns, np.nan)
        return nothing, nothing, ["none"] * columns
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            (sample,),
            np.mean,
            axis=0,
            vectorized=True,
            method=method,
            n_resamples=resamples,
            confidence_level=CONFIDENCE,
            batch=max(1, BLOCK // sample.size),
            rng=np.random.default_rng(seed),
        )
    low, high = (np.array(bound, dtype=np.float64) for bound in result.confidence_interval)
    kinds = [method.lower()] * columns
    for column in range(columns):
        if not (math.isfinite(low[column]) and math.isfinite(high[column]) and _spread(sample[:, column])):
            tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
            low[column], high[column] = np.quantile(result.bootstrap_distribution[column], tails)
            kinds[column] = "percentile"
    return low, high, kinds


def signed_rank_p_value(differences: npt.ArrayLike) -> float:
    """Two-sided p value of Wilcoxon's signed-rank test of finite differences [n]; 1 where n < 2 or all are zero.

    Zeros are ranked with the others and have no sign (Pratt 1959), so that many equal pairs weaken the evidence of the few
    unequal ones; splitting their ranks ("zsplit") gives the same exact test.
    Ties get mean ranks. The null distribution is enumerated exactly given the ranks (shift algorithm, Streitberg and
    Roehmel 1986): with mostly zero differences the normal approximation finds p = 0.025 for five positive differences
    among sixty, where no sign test can go below 2 / 2^5. Above 150 nonzero differences the normal approximation is used.
    """
    values = np.asarray(differences, dtype=np.float64)
    nonzero = values != 0
    if not nonzero.any():
        return 1.0
    if nonzero.sum() > EXACT_UP_TO:
        return float(stats.wilcoxon(values, zero_method="pratt", method="asymptotic", correction=False).pvalue)
    # mean ranks are multiples of one half: doubled they are whole numbers
    ranks = np.rint(2 * stats.rankdata(np.abs(values))).astype(np.int64)[nonzero]
    positive = int(ranks[values[nonzero] > 0].sum())
    null = np.zeros(int(ranks.sum()) + 1)
    null[0] = 1.0
    for rank in ranks:
        shifted = 0.5 * null
        shifted[rank:] += 0.5 * null[:-rank]
        null = shifted
    tail = min(null[: positive + 1].sum(), null[positive:].sum())
    return float(min(1.0, 2 * tail))


def holm(p_values: Sequence[float] | Array) -> list[float]:
    """Holm's step-down adjustment (1979) within one family of tests; a NaN stays NaN and does not count as a test.

    Own code: scipy has none, and that of statsmodels runs the garbage collector at every call, which takes longer than all else.
    """
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    order = [int(index) for index in np.argsort(values, kind="stable") if np.isfinite(values[index])]
    largest = 0.0
    for done, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - done) * float(values[index])))
        adjusted[index] = largest
    return [float(value) for value in adjusted]


def _rank_biserial(differences: Array) -> float:
    """Matched-pairs rank-biserial correlation of finite differences [n], zeros ranked; NaN for n = 0."""
    if len(differences) == 0:
        return math.nan
    signed = np.sign(differences) * stats.rankdata(np.abs(differences))
    return float(signed.sum() / (len(differences) * (len(differences) + 1) / 2))


def _spread(values: Array) -> bool:
    """True if [n] values differ by more than rounding."""
    return len(values) > 1 and bool(np.ptp(values) > _ROUNDING * np.abs(values).max())


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else math.nan
