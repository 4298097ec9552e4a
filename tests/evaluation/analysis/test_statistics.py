"""Paired comparisons against enumerated signs, counted pairs, written-out resampling and Holm's procedure by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import FrozenInstanceError, asdict
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.analysis import statistics
from monai_ifim.evaluation.analysis.statistics import compare_columns, compare_paired, holm, mean_intervals, signed_rank_p_value

Array = np.ndarray[Any, Any]

SAMPLES = {
    "distinct": np.array([0.3, -0.1, 0.7, 1.9, -0.4, 2.2, 0.05, 1.1]),
    "ties": np.array([1.0, 1.0, -1.0, 2.0, 2.0, -2.0, 3.0, 1.0, 3.0]),
    "zeros": np.array([0.0, 0.0, 0.5, -0.2, 0.0, 0.9, 0.5, 1.3, 0.2]),
    "all positive": np.array([0.2, 0.4, 0.1, 0.9, 0.7]),
    "mostly zero": np.array([0.0] * 7 + [0.1, 0.4, 0.2]),
    "two": np.array([0.4, -0.1]),
}
EACH_SAMPLE = pytest.mark.parametrize("differences", SAMPLES.values(), ids=SAMPLES.keys())


def _enumerated_p_value(differences: Array) -> float:
    """Share of all 2^n sign patterns whose rank sum is as far from its mean as that of the data, Pratt's ranks."""
    sizes = np.abs(differences)
    ranks = [(sizes < size).sum() + ((sizes == size).sum() + 1) / 2 for size in sizes]
    kept = [(rank, value) for rank, value in zip(ranks, differences, strict=True) if value != 0]
    mean = sum(rank for rank, _ in kept) / 2
    observed = abs(sum(rank for rank, value in kept if value > 0) - mean)
    signs = list(itertools.product((0, 1), repeat=len(kept)))
    sums = [sum(rank for (rank, _), sign in zip(kept, pattern, strict=True) if sign) for pattern in signs]
    return sum(abs(total - mean) >= observed - 1e-9 for total in sums) / len(signs)


@EACH_SAMPLE
def test_p_value_is_that_of_all_sign_patterns(differences: Array) -> None:
    expected = _enumerated_p_value(differences)
    assert signed_rank_p_value(differences) == pytest.approx(expected, rel=1e-12)
    assert signed_rank_p_value(-differences) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [9, 40, 63])
def test_p_value_is_scipys_exact_one_without_ties(size: int) -> None:
    values = np.random.default_rng(size).normal(0.3, 1, size)
    expected = stats.wilcoxon(values, method="exact").pvalue
    assert signed_rank_p_value(values) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("size", [200, 301])
def test_normal_approximation_takes_over_without_a_step(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(size).normal(0.1, 1, size)
    values[:20] = 0
    approximate = signed_rank_p_value(values)
    monkeypatch.setattr(statistics, "EXACT_UP_TO", size)
    assert signed_rank_p_value(values) == pytest.approx(approximate, rel=0.02)
    assert signed_rank_p_value(values) != approximate


def test_few_unequal_pairs_among_many_equal_ones_are_weak_evidence() -> None:
    values = np.zeros(60)
    values[:5] = [0.1, 0.3, 0.2, 0.5, 0.4]
    assert signed_rank_p_value(values) == pytest.approx(2 / 2**5)
    compared = compare_paired(values, np.zeros(60), seed=0, resamples=200)
    assert compared.rank_biserial == pytest.approx((56 + 57 + 58 + 59 + 60) / (60 * 61 / 2))


@EACH_SAMPLE
def test_rank_biserial_is_the_mean_sign_of_walsh_averages(differences: Array) -> None:
    pairs = itertools.combinations_with_replacement(differences, 2)
    signs = [np.sign(one + two) for one, two in pairs]
    compared = compare_paired(differences, np.zeros(len(differences)), seed=0, resamples=50)
    assert compared.rank_biserial == pytest.approx(float(np.mean(signs)))


def test_comparison_against_written_out_formulas() -> None:
    random = np.random.default_rng(3)
    first, second = random.exponential(2, 23), random.exponential(1, 23)
    compared = compare_paired(first, second, seed=11, resamples=999)
    gap = [a - b for a, b in zip(first, second, strict=True)]
    mean = sum(gap) / 23
    assert compared.images == 23
    assert compared.first_mean == pytest.approx(sum(first) / 23)
    assert compared.second_mean == pytest.approx(sum(second) / 23)
    assert compared.difference == pytest.approx(mean)
    assert compared.cohens_dz == pytest.approx(mean / math.sqrt(sum((g - mean) ** 2 for g in gap) / 22))
    assert compared.interval == "bca"
    low, high = _bca(np.array(gap), seed=11, resamples=999)
    assert (compared.low, compared.high) == pytest.approx((low, high), abs=2e-3)
    with pytest.raises(FrozenInstanceError):
        compared.images = 1  # type: ignore[misc]


def _resampled_means(values: Array, seed: int, resamples: int) -> Array:
    generator = np.random.default_rng(seed)
    return np.array([values[generator.integers(0, len(values), len(values))].mean() for _ in range(resamples)])


def _bca(values: Array, seed: int, resamples: int) -> tuple[float, float]:
    """Efron and Tibshirani (1993), equations 14.10, 14.14 and 14.15, one resample at a time."""
    means = _resampled_means(values, seed, resamples)
    normal = stats.norm
    bias = normal.ppf((means < values.mean()).mean())
    left_out = np.array([np.delete(values, i).mean() for i in range(len(values))])
    lean = left_out.mean() - left_out
    acceleration = (lean**3).sum() / (6 * (lean**2).sum() ** 1.5)
    z = [bias + normal.ppf(tail) for tail in (0.025, 0.975)]
    low, high = np.quantile(means, [normal.cdf(bias + one / (1 - acceleration * one)) for one in z])
    return float(low), float(high)


def test_percentile_interval_is_that_of_a_loop() -> None:
    values = np.random.default_rng(5).gamma(1.5, size=(17, 3))
    for column, interval in enumerate(mean_intervals(values, seed=8, resamples=400)):
        low, high = np.quantile(_resampled_means(values[:, column], 8, 400), [0.025, 0.975])
        assert (interval.mean, interval.low, interval.high) == pytest.approx((values[:, column].mean(), low, high))
        assert (interval.images, interval.kind) == (17, "percentile")


def test_missing_values_drop_their_pair_only(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(7)
    first, second = random.normal(1, 1, (19, 5)), random.normal(0, 1, (19, 5))
    first[3, 1] = np.nan
    second[[3, 8], 2] = np.inf, -np.inf
    first[1:, 3] = np.nan
    second[:, 4] = np.nan
    together = compare_columns(first, second, seed=2, resamples=300)
    assert [compared.images for compared in together] == [19, 18, 17, 1, 0]
    monkeypatch.setattr(statistics, "BLOCK", 1000)  # resamples in another number of pieces
    for column, compared in enumerate(together):
        kept = np.isfinite(first[:, column]) & np.isfinite(second[:, column])
        alone = asdict(compare_paired(first[kept, column], second[kept, column], seed=2, resamples=300))
        found = asdict(compared)
        assert found.pop("interval") == alone.pop("interval")
        assert found == pytest.approx(alone, rel=1e-12, nan_ok=True)


def test_one_image_has_a_difference_and_nothing_else() -> None:
    compared = compare_paired([0.75, np.nan], [0.25, 1.0], seed=0)
    assert (compared.images, compared.first_mean, compared.second_mean, compared.difference) == (1, 0.75, 0.25, 0.5)
    assert (compared.interval, compared.p_value, compared.rank_biserial) == ("none", 1.0, 1.0)
    assert np.isnan([compared.low, compared.high, compared.cohens_dz]).all()


def test_no_image_has_no_numbers() -> None:
    compared = compare_paired([np.nan], [1.0], seed=0)
    numbers = [compared.first_mean, compared.second_mean, compared.difference, compared.low, compared.high]
    assert np.isnan([*numbers, compared.rank_biserial, compared.cohens_dz]).all()
    assert (compared.images, compared.p_value, compared.interval) == (0, 1.0, "none")


@pytest.mark.filterwarnings("error")
def test_saturated_classifier_of_zero_differences_shows_nothing() -> None:
    compared = compare_paired(np.full(31, 0.125), np.full(31, 0.125), seed=0, resamples=200)
    assert (compared.difference, compared.low, compared.high, compared.p_value, compared.rank_biserial) == (0, 0, 0, 1, 0)
    assert compared.interval == "percentile"
    assert math.isnan(compared.cohens_dz)


@pytest.mark.filterwarnings("error")
def test_equal_differences_have_no_standardised_size_but_a_direction() -> None:
    base = np.random.default_rng(0).random(12)
    compared = compare_paired(base + 0.1, base, seed=0, resamples=200)
    assert (compared.low, compared.high) == pytest.approx((0.1, 0.1))
    assert compared.interval == "percentile"
    assert math.isnan(compared.cohens_dz)
    assert compared.p_value == pytest.approx(2 / 2**12)


def test_rounding_is_no_difference() -> None:
    first = np.array([0.1 + 0.2, 0.7 + 0.1, 1e-30 + 2e-30])
    second = np.array([0.3, 0.8, 3e-30])
    assert (first != second).any()
    compared = compare_paired(first, second, seed=0, resamples=50)
    assert (compared.difference, compared.rank_biserial, compared.p_value) == (0, 0, 1)
    tiny = compare_paired([2e-30, 3e-30, 5e-30], [1e-30, 1e-30, 1e-30], seed=0, resamples=50)
    assert tiny.rank_biserial == 1


def test_seed_fixes_the_interval() -> None:
    values = np.random.default_rng(1).normal(size=14)
    one, two, other = (compare_paired(values, np.zeros(14), seed=seed, resamples=200) for seed in (4, 4, 5))
    assert one == two
    assert one.low != other.low


@pytest.mark.parametrize(("first", "second"), [([1.0, 2.0], [1.0]), ([[1.0]], [[2.0]]), (1.0, 2.0)])
def test_values_that_are_no_pairs_are_refused(first: Any, second: Any) -> None:
    with pytest.raises(IFIMError, match="one number per image"):
        compare_paired(first, second, seed=0)


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    """400 samples of 40 normal values at once: 95 % of the intervals hold the true mean, give or take four deviations."""
    values = np.random.default_rng(9).normal(0.5, 1, (40, 400))
    intervals = mean_intervals(values, seed=1, resamples=500)
    covered = np.mean([interval.low <= 0.5 <= interval.high for interval in intervals])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 400)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.01, math.nan, 0.04, 0.03, 0.005, math.nan], [0.03, math.nan, 0.06, 0.06, 0.02, math.nan]),
        ([0.5, 0.9, 1.0], [1.0, 1.0, 1.0]),
        ([0.02], [0.02]),
        ([math.nan], [math.nan]),
        ([], []),
    ],
)
def test_holm_by_hand(given: list[float], expected: list[float]) -> None:
    assert holm(given) == pytest.approx(expected, nan_ok=True)


@pytest.mark.slow
def test_holm_is_that_of_statsmodels() -> None:
    generator = np.random.default_rng(12)
    for size in (1, 2, 7, 30):
        given = (10.0 ** generator.uniform(-6, 0, size)).round(4)
        np.testing.assert_allclose(holm(given), multipletests(given, method="holm")[1], rtol=1e-12)


def test_holm_written_out() -> None:
    given = np.random.default_rng(2).random(37) ** 3
    running, expected = 0.0, np.empty(37)
    for step, index in enumerate(np.argsort(given)):
        running = max(running, min(1.0, (37 - step) * given[index]))
        expected[index] = running
    np.testing.assert_allclose(holm(given), expected)
