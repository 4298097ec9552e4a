"""Macro AUROC against counted pairs and scikit-learn, its resamples against repeated rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from monai_ifim.evaluation.analysis.auroc import (
    area_difference,
    macro_auroc_curves,
    read_scores,
    resample_within_classes,
    weighted_macro_auroc,
)

Array = np.ndarray[Any, Any]

GRID = (0.0, 0.01, 0.05)


def _softmax(logits: Array) -> Array:
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(odds / odds.sum(-1, keepdims=True))


def _scores(draws: int, images: int, classes: int, seed: int = 0) -> tuple[Array, Array]:
    """Probabilities [draws, images, classes] that tell something of the labels [images], with ties among them."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    logits = np.round(random.normal(size=(draws, images, classes)) + 1.2 * np.eye(classes)[labels], 1)
    return _softmax(logits), labels


def _counted(scores: Array, labels: Array) -> float:
    """Macro average over classes of the share of won pairs, [images, classes] scores, pair by pair."""
    classes = scores.shape[1]
    shares = []
    for c in range(classes):
        won = [
            1.0 if scores[i, c] > scores[j, c] else 0.5 if scores[i, c] == scores[j, c] else 0.0
            for i in range(len(labels))
            for j in range(len(labels))
            if labels[i] == c and labels[j] != c
        ]
        shares.append(sum(won) / len(won))
    return sum(shares) / classes


def _table(scores: Array, labels: Array, family: str, grid: tuple[float, ...] = GRID) -> pd.DataFrame:
    """Measurements of scores [norms, draws, images, classes], shuffled."""
    rows = [
        {"image": f"image {i}", "label": labels[i], "family": family, "draw": d, "relative_norm": e}
        | {f"p{c:02d}": scores[n, d, i, c] for c in range(scores.shape[3])}
        for n, e in enumerate(grid)
        for d in range(scores.shape[1])
        for i in range(scores.shape[2])
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=3)


@pytest.mark.parametrize(("draws", "images", "classes"), [(1, 11, 2), (3, 17, 3), (2, 23, 5)])
def test_value_is_the_share_of_counted_pairs(draws: int, images: int, classes: int) -> None:
    scores, labels = _scores(draws, images, classes)
    expected = np.mean([_counted(one, labels) for one in scores])
    assert weighted_macro_auroc(scores, labels, np.ones((1, images)))[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
def test_value_is_scikit_learns(classes: int) -> None:
    scores, labels = _scores(3, 29, classes)
    settings = {"multi_class": "ovr", "average": "macro"} if classes > 2 else {}
    expected = np.mean([roc_auc_score(labels, one if classes > 2 else one[:, 1], **settings) for one in scores])
    assert weighted_macro_auroc(scores, labels, np.ones((1, 29)))[0] == pytest.approx(expected, rel=1e-12)


def test_weights_are_repeated_images() -> None:
    scores, labels = _scores(2, 13, 3)
    weights = resample_within_classes(labels, seed=4, resamples=6)
    for found, weight in zip(weighted_macro_auroc(scores, labels, weights), weights, strict=True):
        rows = np.repeat(np.arange(13), weight.astype(int))
        expected = np.mean([_counted(one[rows], labels[rows]) for one in scores])
        assert found == pytest.approx(expected, rel=1e-12)


def test_resamples_keep_the_size_of_every_class() -> None:
    labels = np.array([2, 0, 1, 1, 2, 2, 0, 1, 1])
    weights = resample_within_classes(labels, seed=0, resamples=4000)
    for c, size in enumerate((2, 4, 3)):
        np.testing.assert_array_equal(weights[:, labels == c].sum(1), size)
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.06)
    np.testing.assert_array_equal(weights, resample_within_classes(labels, seed=0, resamples=4000))


def test_resample_without_a_class_has_no_value() -> None:
    scores, labels = _scores(1, 7, 3)
    weights = np.stack([np.ones(7), (labels != 1).astype(float)])
    found = weighted_macro_auroc(scores, labels, weights)
    assert np.isfinite(found).tolist() == [True, False]


def test_scores_come_out_of_a_shuffled_table_as_they_went_in() -> None:
    random = np.random.default_rng(1)
    values, labels = random.random((3, 2, 5, 3)), np.array([0, 1, 2, 0, 1])
    table = pd.concat([_table(values, labels, "noise_high"), _table(values[:, :1] / 2, labels, "step_plus")])
    table = table.assign(p03=np.nan, p10=np.nan, precision=0.5)  # columns of cells with more classes, and another one
    scores = read_scores(table)
    order = [int(name.split()[1]) for name in table["image"].unique()]
    draws = table["draw"].unique()
    assert scores.families == ("noise_high", "step_plus")
    np.testing.assert_array_equal(scores.labels, labels[order])
    np.testing.assert_array_equal(scores.of("noise_high"), values[:, draws][:, :, order])
    np.testing.assert_array_equal(scores.of("step_plus"), values[:, :1, order] / 2)


def test_ten_classes_keep_their_order() -> None:
    values = np.random.default_rng(1).random((3, 1, 12, 11))
    table = _table(values, np.arange(12) % 11, "noise_high")
    scores = read_scores(table[sorted(table.columns, reverse=True)])
    assert scores.values.shape == (1, 3, 1, 12, 11)
    found = macro_auroc_curves(table, seed=0, resamples=10)["noise_high"]
    assert found[1].value == pytest.approx(_counted(values[1, 0], np.arange(12) % 11))


def test_curve_and_its_band_against_a_loop() -> None:
    values, labels = zip(*(_scores(2, 16, 3, seed=n) for n in range(3)), strict=True)
    table = _table(np.stack(values), labels[0], "noise_low").sort_values("image", kind="stable")
    found = macro_auroc_curves(table, seed=7, resamples=50)["noise_low"]
    assert [(point.norm, point.images) for point in found] == [(norm, 16) for norm in GRID]
    order = [int(name.split()[1]) for name in table["image"].unique()]
    weights = resample_within_classes(labels[0][order], seed=7, resamples=50)
    for point, scores in zip(found, values, strict=True):
        resampled = []
        for weight in weights:
            rows = np.repeat(order, weight.astype(int))
            resampled.append(np.mean([_counted(one[rows], labels[0][rows]) for one in scores]))
        expected = [np.mean([_counted(one, labels[0]) for one in scores]), *np.quantile(resampled, [0.025, 0.975])]
        assert [point.value, point.low, point.high] == pytest.approx(expected)


def test_area_difference_is_positive_where_the_first_family_costs_more() -> None:
    good, labels = _scores(2, 21, 3)
    blur = np.linspace(1, 0, 3)[:, None, None, None]
    high, low = blur * good + (1 - blur) / 3, np.stack([good] * 3)  # at the largest norm all scores are equal
    table = pd.concat([_table(high, labels, "noise_high"), _table(low, labels, "noise_low")])
    images, difference, lowest, highest = area_difference(table, "noise_high", "noise_low", seed=0, resamples=400)
    # ranks stay as they are until all scores are equal, so only the last trapezoid loses
    whole = np.mean([_counted(one, labels) for one in good])
    assert difference == pytest.approx((whole - 0.5) / 2 * (GRID[2] - GRID[1]) / GRID[2])
    assert images == 21
    assert 0 < lowest < difference < highest
    swapped = area_difference(table, "noise_low", "noise_high", seed=0, resamples=400)
    assert swapped[1:] == pytest.approx((-difference, -highest, -lowest))


def test_images_without_label_or_score_are_left_out_of_both_families() -> None:
    high, labels = _scores(2, 15, 3)
    low, _ = _scores(2, 15, 3, seed=5)
    table = pd.concat([_table(np.stack([one] * 3), labels, name) for one, name in ((high, "noise_high"), (low, "noise_low"))])
    table.loc[table["image"] == "image 4", "label"] = -1
    lost = (table["image"] == "image 6") & (table["family"] == "noise_low") & (table["draw"] == 1)
    table.loc[lost & (table["relative_norm"] == GRID[1]), "p01"] = np.nan
    table = table[~((table["image"] == "image 9") & (table["relative_norm"] == GRID[2]) & (table["family"] == "noise_high"))]
    images, difference, _, _ = area_difference(table, "noise_high", "noise_low", seed=0, resamples=20)
    kept = ~np.isin(np.arange(15), [4, 6, 9])
    means = [np.mean([_counted(one[kept], labels[kept]) for one in scores]) for scores in (high, low)]
    assert images == 12
    assert difference == pytest.approx(means[1] - means[0])
    points = macro_auroc_curves(table, seed=0, resamples=20)
    assert [point.images for point in points["noise_high"]] == [14, 14, 13]
    assert [point.images for point in points["noise_low"]] == [14, 13, 14]


def test_missing_class_has_no_value_and_a_lone_image_no_interval() -> None:
    scores, labels = _scores(1, 9, 3)
    table = _table(np.stack([scores] * 3), labels, "noise_high")
    table = pd.concat([table, table.assign(family="noise_low")])
    lone = table[~table["image"].isin(["image 5", "image 8"])]  # image 2 alone is of class 2
    found = macro_auroc_curves(lone, seed=0, resamples=20)["noise_high"]
    assert np.isfinite([point.value for point in found]).all()
    assert np.isnan([[point.low, point.high] for point in found]).all()
    none = lone[lone["image"] != "image 2"]
    assert macro_auroc_curves(none, seed=0, resamples=20) == {"noise_high": [], "noise_low": []}
    images, *numbers = area_difference(none, "noise_high", "noise_low", seed=0, resamples=20)
    assert images == 6
    assert np.isnan(numbers).all()


@pytest.mark.filterwarnings("error")
def test_nothing_to_score_has_no_value() -> None:
    scores, labels = _scores(1, 6, 3)
    table = _table(np.stack([scores] * 3), labels, "noise_high")
    bare = table.drop(columns=["p00", "p01", "p02"])
    for empty in (bare, table.assign(label=-1), bare.assign(label=-1), table.assign(p00=np.nan, p01=np.nan, p02=np.nan)):
        assert macro_auroc_curves(empty, seed=0, resamples=5) == {"noise_high": []}
    assert area_difference(table, "noise_high", "noise_low", seed=0, resamples=5)[0] == 0
