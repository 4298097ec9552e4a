"""Curves, areas and bands against loops over a small, shuffled table of known values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.analysis.curves import areas, curve_bands, image_curves, removal_values

Array = np.ndarray[Any, Any]

GRID = (0.0, 0.01, 0.04, 0.1)
IMAGES = 7
CLASSES = 3
DRAWS = {"noise_high": 3, "noise_low": 3, "step_plus": 1, "attenuate_high": 1, "remove_high": 1, "remove_low": 1}
MEASURES = ("absolute_change", "flipped", "correct")


def _end(image: int) -> float:
    """Relative norm of complete removal."""
    return 0.02 + 0.03 * image / IMAGES


def _norms(family: str, image: int) -> tuple[float, ...]:
    if family.startswith("remove"):
        return (0.0, _end(image))
    return tuple(norm for norm in GRID if not family.startswith("attenuate") or norm <= _end(image))


@pytest.fixture
def table() -> pd.DataFrame:
    """Measurements of seven images in random order; all values are random."""
    random = np.random.default_rng(0)
    rows = []
    for image in range(IMAGES):
        for family, draws in DRAWS.items():
            for draw in range(draws):
                for norm in _norms(family, image):
                    p = random.dirichlet(np.ones(CLASSES))
                    row = {
                        "image": f"{image}.png",
                        "label": image % CLASSES,
                        "family": family,
                        "draw": draw,
                        "relative_norm": norm,
                    }
                    row |= {"absolute_change": random.random(), "flipped": float(random.random() < 0.3)}
                    row |= {"correct": float(p.argmax() == image % CLASSES)} | {f"p{c:02d}": p[c] for c in range(CLASSES)}
                    rows.append(row)
    return pd.DataFrame(rows).sample(frac=1, random_state=1)


def _value(table: pd.DataFrame, family: str, image: str, norm: float, measure: str) -> float:
    """Mean over draws, row by row; NaN where there is none."""
    found = [
        row[measure]
        for row in table.to_dict("records")
        if (row["family"], row["image"], row["relative_norm"]) == (family, image, norm)
    ]
    return float(sum(found) / len(found)) if found else float("nan")


def _reference_curve(table: pd.DataFrame, family: str, image: str, measure: str) -> list[float]:
    return [_value(table, family, image, norm, measure) for norm in GRID]


@pytest.mark.parametrize("measure", MEASURES)
def test_curves_are_means_over_draws(table: pd.DataFrame, measure: str) -> None:
    curves = image_curves(table, measure)
    assert tuple(curves.columns) == GRID
    assert len(curves) == 4 * IMAGES
    for (family, image), curve in curves.iterrows():
        np.testing.assert_allclose(curve, _reference_curve(table, family, image, measure))


def test_curve_of_an_attenuation_ends_where_the_component_is_gone(table: pd.DataFrame) -> None:
    curves = image_curves(table, "absolute_change").loc["attenuate_high"]
    defined = {image: int(curve.notna().sum()) for image, curve in curves.iterrows()}
    assert defined == {f"{image}.png": len(_norms("attenuate_high", image)) for image in range(IMAGES)}
    assert set(defined.values()) == {2, 3}


def test_draw_without_a_finite_value_takes_its_mean_along(table: pd.DataFrame) -> None:
    one = (table["image"] == "2.png") & (table["family"] == "noise_high") & (table["draw"] == 1)
    for lost in (np.nan, np.inf):
        broken = table.copy()
        broken.loc[one & (table["relative_norm"] == GRID[2]), "absolute_change"] = lost
        missing = image_curves(broken, "absolute_change").loc["noise_high"].isna()
        assert missing.sum().tolist() == [0, 0, 1, 0]
        assert missing.loc["2.png"].tolist() == [False, False, True, False]
        found = areas(broken, "absolute_change")
        assert found.index[found["noise_high"].isna()].tolist() == ["2.png"]
        assert found["noise_low"].notna().all()


@pytest.mark.parametrize("measure", MEASURES)
def test_area_is_the_mean_height_of_the_trapezoids(table: pd.DataFrame, measure: str) -> None:
    found = areas(table, measure)
    assert set(found.columns) == {"noise_high", "noise_low", "step_plus"}
    for image, row in found.iterrows():
        for family in found.columns:
            heights = _reference_curve(table, family, image, measure)
            whole = sum((GRID[n + 1] - GRID[n]) * (heights[n] + heights[n + 1]) / 2 for n in range(3))
            assert row[family] == pytest.approx(whole / GRID[-1])


def test_area_of_a_straight_line_is_its_middle(table: pd.DataFrame) -> None:
    straight = table.assign(absolute_change=3 * table["relative_norm"])
    np.testing.assert_allclose(areas(straight, "absolute_change"), 3 * GRID[-1] / 2)


def test_family_that_one_image_lacks_is_missing_for_that_image(table: pd.DataFrame) -> None:
    fewer = table[~((table["image"] == "3.png") & (table["family"] == "noise_low"))]
    found = areas(fewer, "absolute_change")
    assert found.index[found["noise_low"].isna()].tolist() == ["3.png"]
    assert found["noise_high"].notna().all()


def test_removal_is_the_value_at_the_end_point(table: pd.DataFrame) -> None:
    found = removal_values(table, "absolute_change")
    assert found.columns.tolist() == ["remove_high", "remove_low"]
    for image, row in found.iterrows():
        for family in found.columns:
            norm = _end(int(image[0]))
            assert row[family] == _value(table, family, image, norm, "absolute_change")


def test_nothing_to_remove_has_no_value(table: pd.DataFrame) -> None:
    nothing = table.copy()
    nothing.loc[(table["image"] == "1.png") & (table["family"] == "remove_high"), "relative_norm"] = 0.0
    found = removal_values(nothing, "absolute_change")
    assert found.index[found["remove_high"].isna()].tolist() == ["1.png"]
    assert found["remove_low"].notna().all()


def test_table_without_removals_has_none(table: pd.DataFrame) -> None:
    found = removal_values(table[table["family"] == "noise_high"], "absolute_change")
    assert found.shape == (IMAGES, 0)


def test_bands_are_percentiles_of_resampled_means(table: pd.DataFrame) -> None:
    bands = curve_bands(table, ["absolute_change", "accuracy"], seed=5, resamples=300)
    order = table["image"].unique()
    draws = np.random.default_rng(5).integers(0, IMAGES, (300, IMAGES))
    assert len(bands) == 8
    for band in bands:
        measure = "correct" if band.measure == "accuracy" else band.measure
        if band.family == "attenuate_high":
            continue
        curves = np.array([_reference_curve(table, band.family, image, measure) for image in order])
        assert band.relative_norm.tolist() == list(GRID)
        assert band.images.tolist() == [IMAGES] * 4
        np.testing.assert_allclose(band.mean, curves.mean(0))
        low, high = np.quantile(curves[draws].mean(1), [0.025, 0.975], axis=0)
        np.testing.assert_allclose(band.low, low)
        np.testing.assert_allclose(band.high, high)


def test_band_of_an_attenuation_counts_the_images_that_are_defined(table: pd.DataFrame) -> None:
    (band,) = (b for b in curve_bands(table, ["flipped"], seed=0, resamples=100) if b.family == "attenuate_high")
    reaching = [image for image in range(IMAGES) if _end(image) >= GRID[2]]
    assert band.relative_norm.tolist() == list(GRID[:3])
    assert band.images.tolist() == [IMAGES, IMAGES, len(reaching)]
    values = [_value(table, "attenuate_high", f"{image}.png", GRID[2], "flipped") for image in reaching]
    assert band.mean[2] == pytest.approx(np.mean(values))


def test_macro_auroc_of_a_band_is_scikit_learns(table: pd.DataFrame) -> None:
    bands = curve_bands(table, ["macro_auroc"], seed=0, resamples=50)
    assert {band.family for band in bands} == {"noise_high", "noise_low", "step_plus", "attenuate_high"}
    for band in bands:
        for norm, images, mean in zip(band.relative_norm, band.images, band.mean, strict=True):
            rows = table[(table["family"] == band.family) & (table["relative_norm"] == norm)]
            draws = [draw for _, draw in rows.groupby("draw")]
            expected = [roc_auc_score(d["label"], d[["p00", "p01", "p02"]], multi_class="ovr") for d in draws]
            assert mean == pytest.approx(np.mean(expected))
            assert images == rows["image"].nunique()


def test_measure_without_values_has_no_band(table: pd.DataFrame) -> None:
    unlabelled = table.assign(label=-1, correct=np.nan)
    assert curve_bands(unlabelled, ["accuracy", "macro_auroc"], seed=0, resamples=20) == []


def test_one_image_has_a_mean_without_a_band(table: pd.DataFrame) -> None:
    bands = curve_bands(table[table["image"] == "0.png"], ["flipped"], seed=0, resamples=20)
    assert len(bands) == 4
    assert all(np.isfinite(band.mean).all() and np.isnan(band.low + band.high).all() for band in bands)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="flipped"), "lack the column.*flipped"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "measured twice"),
        (lambda t: t[t["relative_norm"] == 0], "enclose no area"),
        (lambda t: t.assign(image=t["image"].where(t["draw"] == 0)), "rows without"),
    ],
)
def test_table_that_is_no_measurement_is_refused(table: pd.DataFrame, change: Any, message: str) -> None:
    # removals measured at norm zero twice over are no repetition of a curve's point
    rows = change(table[~table["family"].str.startswith("remove")])
    with pytest.raises(IFIMError, match=message):
        areas(rows, "flipped")


def test_removal_measured_twice_is_refused(table: pd.DataFrame) -> None:
    with pytest.raises(IFIMError, match="measured twice"):
        removal_values(pd.concat([table, table]), "flipped")


def test_text_columns_may_be_categories(table: pd.DataFrame) -> None:
    packed = table.astype({"image": "category", "family": "category"})
    expected = areas(table, "flipped")
    found = areas(packed, "flipped")
    np.testing.assert_array_equal(found.loc[list(expected.index), list(expected.columns)], expected)
