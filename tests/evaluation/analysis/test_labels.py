"""Independent labels one by one, and their macro AUROC, against scikit-learn on the images whose label is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from monai_ifim.evaluation.analysis.auroc import macro_auroc_curves
from monai_ifim.evaluation.analysis.labels import label_records

Array = np.ndarray[Any, Any]
NAMES = ("nodule", "effusion", "fracture", "device")
GRID = (0.0, 0.02, 0.1)


def _cell(images: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, Array, Array]:
    """(measurements, images, labels [images, 4] with unknown ones, logits [families, norms, images, 4])."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, (images, 4))
    labels[random.random((images, 4)) < 0.2] = -1
    labels[:, 3] = np.where(labels[:, 3] == 1, 0, labels[:, 3])  # no image has the last label
    still = np.round(random.normal(size=(images, 4)) + 0.8 * labels, 1)
    size = np.array([[0.9], [0.3]]) * np.array(GRID)  # the first family moves farther
    logits = still + 20 * size[..., None, None] * random.normal(size=(2, 3, images, 4))
    rows = [
        {"image": f"image {i}", "label": -1, "family": family, "draw": 0, "relative_norm": norm}
        | {f"p{c:02d}": expit(logits[f, n, i, c]) for c in range(4)}
        | {f"y{c:02d}": labels[i, c] for c in range(4)}
        for f, family in enumerate(("noise_high", "noise_low"))
        for n, norm in enumerate(GRID)
        for i in range(images)
    ]
    losses = [
        [None if y == -1 else float(-np.log(expit(z if y == 1 else -z))) for y, z in zip(labels[i], still[i], strict=True)]
        for i in range(images)
    ]
    table = pd.DataFrame(
        {
            "image": [f"image {i}" for i in range(images)],
            "label": labels.tolist(),
            "label_probabilities": expit(still).tolist(),
            "label_answers": (still > 0).astype(int).tolist(),
            "label_losses": losses,
        }
    )
    return pd.DataFrame(rows), table, labels, logits


def test_each_label_is_judged_on_the_images_where_it_is_known() -> None:
    measurements, images, labels, logits = _cell(41, 3)
    found = label_records(measurements, images, NAMES, seed=1, resamples=499)
    assert [each.name for each in found] == list(NAMES)
    for c, each in enumerate(found):
        told, p = labels[:, c] != -1, expit(logits[0, 0, :, c])
        assert (each.positive, each.negative, each.unknown) == tuple(int((labels[:, c] == v).sum()) for v in (1, 0, -1))
        assert each.negative_log_likelihood.value == pytest.approx(log_loss(labels[told, c], p[told], labels=[0, 1]))
        assert each.negative_log_likelihood.images == told.sum()
        moved = np.abs(expit(logits[..., c]) - p)  # [families, norms, images]
        area = np.trapezoid(moved, GRID, axis=1) / GRID[-1]
        assert each.effect.value == pytest.approx((area[0] - area[1]).mean())
        assert each.effect.images == 41
        assert each.effect.low is not None
        assert each.effect.low > 0
        if c == 3:
            assert (each.auroc.value, each.auroc.low, each.auroc.images) == (None, None, told.sum())
            continue
        assert each.auroc.value == pytest.approx(roc_auc_score(labels[told, c], p[told]))
        assert each.auroc.low is not None
        assert each.auroc.high is not None
        assert each.auroc.low < each.auroc.value < each.auroc.high


def test_the_interval_of_an_auroc_is_as_wide_as_that_of_hanley_and_mcneil() -> None:
    """Their standard error (1982) for scores of two exponential distributions."""
    random = np.random.default_rng(5)
    truth = np.repeat([0, 1], [70, 50])
    scores = random.exponential(1.0 + 1.5 * truth)
    images = pd.DataFrame(
        {
            "label": [[int(y), -1] for y in truth],
            "label_probabilities": [[score / (1 + score), 0.5] for score in scores],
            "label_losses": [[0.1, None]] * 120,
        }
    )
    nothing = pd.DataFrame({"image": [], "family": [], "draw": [], "relative_norm": []})
    first, second = label_records(nothing, images, ("a", "b"), seed=2, resamples=1999)
    a = roc_auc_score(truth, scores)
    q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
    error = np.sqrt((a * (1 - a) + 49 * (q1 - a**2) + 69 * (q2 - a**2)) / (50 * 70))
    assert first.auroc.low is not None
    assert first.auroc.high is not None
    assert first.auroc.high - first.auroc.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert second.auroc.value is None
    assert (second.unknown, second.negative_log_likelihood.images) == (120, 0)


def test_the_macro_curve_is_the_mean_over_the_labels_that_can_be_told_apart() -> None:
    measurements, _, labels, logits = _cell(37, 4)
    curves = macro_auroc_curves(measurements, seed=1, resamples=199)
    for f, family in enumerate(("noise_high", "noise_low")):
        assert [point.norm for point in curves[family]] == list(GRID)
        for n, point in enumerate(curves[family]):
            of_labels = [roc_auc_score(labels[told, c], logits[f, n, told, c]) for c in range(3) for told in [labels[:, c] != -1]]
            assert point.value == pytest.approx(np.mean(of_labels))
            assert point.low < point.value < point.high


def test_exclusive_classes_have_no_records_of_labels() -> None:
    images = pd.DataFrame({"image": ["a"], "label": [1], "predicted": [1]})
    assert label_records(pd.DataFrame(), images, NAMES, seed=0, resamples=99) == ()
