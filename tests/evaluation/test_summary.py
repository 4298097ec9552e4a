"""Records of cells and of the experiment: their numbers against loops over the tables, their shape, strict JSON."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.analysis.curves import areas, removals
from monai_ifim.evaluation.analysis.statistics import compare_paired
from monai_ifim.evaluation.analysis.summary import summarise_cell, summarise_experiment

GRID = (0.0, 0.01, 0.05, 0.1)
CLASSES = ["cyst", "stone", "normal"]
FORCE = {
    "noise_high": 30.0,
    "noise_low": 3.0,
    "noise_random": 6.0,
    "pixels_saliency": 9.0,
    "attenuate_high": 20.0,
    "remove_high": 20.0,
    "remove_low": 2.0,
    "step_plus": 40.0,
    "step_minus": 40.0,
}
RANDOM = ("noise", "pixels")
DESCRIPTION = {
    "task": "kidney",
    "task_title": "Kidney CT",
    "architecture": "densenet",
    "classes": CLASSES,
    "spatial_shape": (13, 9),
    "selection": {"energy": 0.99},
    "classifier": {"accuracy": np.float64(0.9), "macro_auroc": float("nan"), "epochs": np.int64(3), "weights_sha256": None},
}
HEADER = {
    "name": "test",
    "seed": 3,
    "command": "monai-ifim experiment",
    "settings": {"draws": 2, "largest": math.inf},
    "environment": {"torch": "2.13.0"},
    "seconds": np.float32(1.5),
    "relative_norms": GRID,
}
Tables = tuple[pd.DataFrame, pd.DataFrame]


def _softmax(logits: Any) -> Any:
    odds = np.exp(logits - logits.max())
    return odds / odds.sum()


def _row(before: Any, move: Any, label: int) -> dict[str, float]:
    """Measures of a move of the logits, by their definitions."""
    p, q = _softmax(before), _softmax(before + move)
    c = int(p.argmax())
    return {
        "predicted": c,
        "probability_change": q[c] - p[c],
        "absolute_change": abs(q[c] - p[c]),
        "divergence": float((p * np.log(p / q)).sum()),
        "predicted_divergence": float(0.5 * move @ (np.diag(p) - np.outer(p, p)) @ move),
        "flipped": float(q.argmax() != c),
        "correct": float(q.argmax() == label),
        "negative_log_likelihood": float(-np.log(q[label])),
        **{f"p{k:02d}": q[k] for k in range(len(q))},
    }


def _tables(images: int = 14, seed: int = 0, force: dict[str, float] = FORCE) -> Tables:
    """A cell's measurements (in random order) and images."""
    random = np.random.default_rng(seed)
    rows, scalars = [], []
    for n in range(images):
        label, length = n % 3, 40 + 10 * random.random()
        before = 2 * random.normal(size=3) + 2 * np.eye(3)[label]
        scalars.append(
            {"task": "kidney", "architecture": "densenet", "image": f"{n:03d}", "label": label}
            | {"predicted": int(before.argmax()), "locality_radius": 0.03 * length, "trace": random.random()}
            | {"rank": 1 + n % 2, "agreement_seed": np.nan, "twin_trace_share": random.random() if n % 4 else np.nan}
        )
        for family, size in force.items():
            norms = (0.0, 0.02 + 0.01 * random.random()) if family.startswith("remove") else GRID
            for draw in range(2 if family.startswith(RANDOM) else 1):
                direction = random.normal(size=3)
                for norm in norms[: 3 if family.startswith("attenuate") else None]:
                    key = {"image": f"{n:03d}", "label": label, "family": family, "draw": draw, "relative_norm": norm}
                    rows.append(key | {"norm": norm * length} | _row(before, norm * size * direction, label))
    return pd.DataFrame(rows).sample(frac=1, random_state=1), pd.DataFrame(scalars)


@pytest.fixture(scope="module")
def tables() -> Tables:
    return _tables()


@pytest.fixture(scope="module")
def cell(tables: Tables) -> dict[str, Any]:
    return summarise_cell(*tables, DESCRIPTION, seed=5, resamples=200)


@pytest.fixture(scope="module")
def short(cell: dict[str, Any]) -> dict[str, Any]:
    """The same cell with two comparisons, because every family of tests costs the adjustment a third of a second."""
    return cell | {"comparisons": cell["comparisons"][:2]}


def _comparison(cell: dict[str, Any], second: str, measure: str) -> dict[str, Any]:
    (found,) = (c for c in cell["comparisons"] if (c["second"], c["measure"]) == (second, measure))
    return dict(found)


def _cell(p_value: float | None, difference: float = 0.2, low: float | None = 0.1, **changes: Any) -> dict[str, Any]:
    """A bare cell with the claim's comparison alone; the interval is symmetric about the difference."""
    high = None if low is None else 2 * difference - low
    comparison = {"first": "noise_high", "second": "noise_low", "measure": "absolute_change", "kind": "area"}
    comparison |= {"difference": difference, "low": low, "high": high, "rank_biserial": math.copysign(0.8, difference)}
    task = changes.pop("task", "kidney")
    return {"task": task, "comparisons": [comparison | {"p_value": p_value} | changes]}


def test_cell_has_the_agreed_keys(cell: dict[str, Any]) -> None:
    results = ["curves", "comparisons", "macro_auroc_area", "divergence_ratio", "images_scalars", "by_class"]
    assert list(cell) == [*DESCRIPTION, "images", *results]
    assert cell["images"] == 14
    assert cell["spatial_shape"] == [13, 9]
    assert cell["classifier"] == {"accuracy": 0.9, "macro_auroc": None, "epochs": 3, "weights_sha256": None}
    assert list(cell["curves"][0]) == ["family", "measure", "relative_norm", "images", "mean", "low", "high"]
    keys = ["images", "first_mean", "second_mean", "difference", "low", "high", "interval", "p_value", "rank_biserial"]
    assert list(cell["comparisons"][0]) == ["first", "second", "measure", "kind", *keys, "cohens_dz"]


def test_every_pair_that_was_measured_is_compared(cell: dict[str, Any]) -> None:
    found = [(c["first"], c["second"], c["kind"]) for c in cell["comparisons"] if c["measure"] == "flipped"]
    seconds = ["noise_low", "noise_random", "pixels_saliency"]
    assert sorted(found) == [*(("noise_high", second, "area") for second in seconds), ("remove_high", "remove_low", "removal")]
    assert len(cell["comparisons"]) == 5 * 4


def test_curves_are_of_every_family_but_the_removals(cell: dict[str, Any]) -> None:
    for measure in ("absolute_change", "accuracy", "macro_auroc"):
        assert {c["family"] for c in cell["curves"] if c["measure"] == measure} == set(FORCE) - {"remove_high", "remove_low"}


@pytest.mark.parametrize("measure", ["absolute_change", "divergence", "flipped", "negative_log_likelihood"])
@pytest.mark.parametrize("second", ["noise_low", "pixels_saliency", "remove_low"])
def test_comparison_is_first_less_second(tables: Tables, cell: dict[str, Any], second: str, measure: str) -> None:
    rows = tables[0].sort_values("image")
    table = removals(rows, measure) if second == "remove_low" else areas(rows, measure)
    first = "remove_high" if second == "remove_low" else "noise_high"
    expected = compare_paired(table[first], table[second], seed=5, resamples=200)
    found = _comparison(cell, second, measure)
    for name in ("images", "difference", "low", "high", "p_value", "rank_biserial", "interval", "first_mean", "second_mean"):
        assert found[name] == pytest.approx(getattr(expected, name)) or found[name] == getattr(expected, name)
    assert found["difference"] == pytest.approx(found["first_mean"] - found["second_mean"])


def test_lost_accuracy_counts_as_moved(tables: Tables, cell: dict[str, Any]) -> None:
    found = _comparison(cell, "noise_low", "correct")
    means = areas(tables[0], "correct").mean()
    assert found["first_mean"] == pytest.approx(means["noise_high"])
    assert found["second_mean"] == pytest.approx(means["noise_low"])
    assert found["difference"] == pytest.approx(means["noise_low"] - means["noise_high"])
    assert found["low"] <= found["difference"] <= found["high"]


def test_divergence_ratio_is_near_one_inside_the_radius_only(tables: Tables, cell: dict[str, Any]) -> None:
    measurements, images = tables
    radius = dict(zip(images["image"], images["locality_radius"], strict=True))
    ratios: dict[str, list[float]] = {"inside": [], "outside": []}
    for row in measurements.to_dict("records"):
        if row["family"].startswith("step") and row["norm"] > 0:
            side = "inside" if row["norm"] <= radius[row["image"]] else "outside"
            ratios[side].append(row["divergence"] / row["predicted_divergence"])
    for side, values in ratios.items():
        found = cell["divergence_ratio"][side]
        assert found["median"] == pytest.approx(np.median(values))
        assert (found["rows"], found["images"]) == (len(values), 14)
        assert found["low"] <= found["median"] <= found["high"]
    assert len(ratios["inside"]) == 14 * 2
    inside, outside = (cell["divergence_ratio"][side] for side in ("inside", "outside"))
    assert abs(inside["median"] - 1) < abs(outside["median"] - 1)


def test_ratio_interval_draws_images_with_all_their_rows() -> None:
    measurements, images = _tables(images=6)
    images.loc[images["image"] == "002", "locality_radius"] = 1e9
    found = summarise_cell(measurements, images, DESCRIPTION, seed=9, resamples=150)["divergence_ratio"]["inside"]
    steps = measurements[measurements["family"].isin(["step_plus", "step_minus"]) & (measurements["norm"] > 0)]
    radius = dict(zip(images["image"], images["locality_radius"], strict=True))
    rows = [
        [
            d / p
            for d, p, n in steps.loc[steps["image"] == name, ["divergence", "predicted_divergence", "norm"]].to_numpy()
            if n <= r
        ]
        for name, r in ((name, radius[name]) for name in sorted(steps["image"].unique()))
    ]
    assert sorted(len(row) for row in rows) == [2, 2, 2, 2, 2, 6]
    draws = np.random.default_rng(9).integers(0, 6, (150, 6))
    medians = [np.median([value for image in draw for value in rows[image]]) for draw in draws]
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.quantile(medians, [0.025, 0.975])))


def test_scalars_are_means_of_the_finite_values(tables: Tables, cell: dict[str, Any]) -> None:
    images = tables[1]
    assert list(cell["images_scalars"]) == ["locality_radius", "trace", "rank", "twin_trace_share"]
    assert cell["images_scalars"]["rank"]["mean"] == 1.5
    share = cell["images_scalars"]["twin_trace_share"]
    assert share["images"] == 14 - 4
    assert share["mean"] == pytest.approx(images["twin_trace_share"].dropna().mean())
    assert share["low"] < share["mean"] < share["high"]


def test_classes_are_the_predicted_ones(tables: Tables, cell: dict[str, Any]) -> None:
    images = tables[1]
    assert set(cell["by_class"]) == {CLASSES[c] for c in images["predicted"]}
    for name, record in cell["by_class"].items():
        rows = [row for row in images.to_dict("records") if CLASSES[row["predicted"]] == name]
        assert record["trace"] == {"mean": pytest.approx(np.mean([row["trace"] for row in rows])), "images": len(rows)}


def test_auroc_area_is_that_of_low_less_that_of_high(cell: dict[str, Any]) -> None:
    means = {}
    for family in ("noise_high", "noise_low"):
        (curve,) = (c for c in cell["curves"] if (c["family"], c["measure"]) == (family, "macro_auroc"))
        means[family] = np.trapezoid(curve["mean"], GRID) / GRID[-1]
    found = cell["macro_auroc_area"]
    assert found["difference"] == pytest.approx(means["noise_low"] - means["noise_high"])
    assert found["low"] <= found["difference"] <= found["high"]
    assert found["images"] == 14


def test_same_seed_gives_the_same_record(tables: Tables, cell: dict[str, Any]) -> None:
    assert summarise_cell(*tables, DESCRIPTION, seed=5, resamples=200) == cell
    assert summarise_cell(*tables, DESCRIPTION, seed=6, resamples=200) != cell


def test_order_of_the_images_does_not_matter(tables: Tables, cell: dict[str, Any]) -> None:
    measurements, images = tables
    turned = summarise_cell(measurements.iloc[::-1], images.iloc[::-1], DESCRIPTION, seed=5, resamples=200)
    for comparison in cell["comparisons"]:
        found = _comparison(turned, comparison["second"], comparison["measure"])
        for name, value in comparison.items():
            assert found[name] == (value if isinstance(value, str | None) else pytest.approx(value, rel=1e-9))
    assert turned["images_scalars"] == cell["images_scalars"]
    assert turned["divergence_ratio"] == cell["divergence_ratio"]
    assert turned["macro_auroc_area"] == pytest.approx(cell["macro_auroc_area"])


def test_unlabelled_images_lack_what_needs_a_label(tables: Tables) -> None:
    measurements, images = tables
    bare = measurements.assign(label=-1, correct=np.nan, negative_log_likelihood=np.nan)
    found = summarise_cell(bare, images.assign(label=-1), DESCRIPTION, seed=0, resamples=50)
    assert {c["measure"] for c in found["comparisons"]} == {"absolute_change", "divergence", "flipped"}
    assert {c["measure"] for c in found["curves"]}.isdisjoint({"accuracy", "macro_auroc", "negative_log_likelihood"})
    assert found["macro_auroc_area"] == {"difference": None, "low": None, "high": None, "images": 0}


def test_missing_families_are_absent(tables: Tables) -> None:
    measurements, images = tables
    fewer = measurements[measurements["family"].isin(["noise_high", "noise_random"])]
    found = summarise_cell(fewer, images, DESCRIPTION, seed=0, resamples=50)
    assert {c["second"] for c in found["comparisons"]} == {"noise_random"}
    assert found["macro_auroc_area"]["difference"] is None
    nothing = {"median": None, "low": None, "high": None, "rows": 0, "images": 0}
    assert found["divergence_ratio"] == {"inside": nothing, "outside": nothing}
    alone = summarise_cell(measurements[measurements["family"] == "noise_low"], images, DESCRIPTION, seed=0, resamples=50)
    assert alone["comparisons"] == []


@pytest.mark.filterwarnings("error")
def test_saturated_cell_shows_nothing() -> None:
    measurements, images = _tables(images=9, force=dict.fromkeys(FORCE, 0.0))
    cell = summarise_cell(measurements, images, DESCRIPTION, seed=0, resamples=100)
    for comparison in cell["comparisons"]:
        numbers = [comparison[name] for name in ("difference", "low", "high", "rank_biserial")]
        assert (numbers, comparison["p_value"], comparison["cohens_dz"]) == ([0, 0, 0, 0], 1, None)
    short = cell | {"comparisons": cell["comparisons"][:1]}
    claim = summarise_experiment([short], HEADER)["claim"]
    assert [claim[name] for name in ("cells", "holds", "favourable", "reverse")] == [1, 0, 0, 0]
    assert cell["divergence_ratio"]["inside"]["rows"] == 0
    assert cell["macro_auroc_area"]["difference"] == 0


@pytest.mark.filterwarnings("error")
def test_one_image_has_means_and_decides_nothing() -> None:
    measurements, images = _tables(images=1)
    cell = summarise_cell(measurements, images, DESCRIPTION, seed=0, resamples=100)
    assert json.loads(json.dumps(cell, allow_nan=False)) == cell
    results = summarise_experiment([cell | {"comparisons": cell["comparisons"][:1]}], HEADER)
    found = _comparison(results["cells"][0], "noise_low", "absolute_change")
    assert (found["images"], found["low"], found["p_value"], found["p_holm"], found["holds"]) == (1, None, 1, 1, False)
    assert results["claim"]["cells"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, i, d: (m, i, {k: v for k, v in d.items() if k != "classes"}), "description lacks classes"),
        (lambda m, i, d: (m, i.drop(columns="locality_radius"), d), "lacks locality_radius"),
        (lambda m, i, d: (m, pd.concat([i, i]), d), "image twice"),
        (lambda m, i, d: (m, i[i["image"] != "003"], d), "image 003"),
        (lambda m, i, d: (m[m["image"] != "004"], i, d), "image 004"),
        (lambda m, i, d: (pd.concat([m, m]), i, d), "measured twice"),
        (lambda m, i, d: (m, i, d | {"classes": ["one"]}), "1 classes are named"),
    ],
)
def test_tables_that_are_no_cell_are_refused(tables: Tables, change: Any, message: str) -> None:
    with pytest.raises(IFIMError, match=message):
        summarise_cell(*change(*tables, DESCRIPTION), seed=0, resamples=20)


def test_experiment_has_the_agreed_keys(short: dict[str, Any]) -> None:
    results = summarise_experiment([short], HEADER)
    assert list(results) == ["schema_version", *HEADER, "cells", "claim", "failed"]
    assert results["schema_version"] == 1
    assert results["failed"] == []
    failed = [{"task": "chest", "architecture": "vit", "reason": "no weights"}]
    assert summarise_experiment([short], HEADER | {"failed": failed})["failed"] == failed
    with pytest.raises(IFIMError, match="header lacks seed"):
        summarise_experiment([short], {k: v for k, v in HEADER.items() if k != "seed"})


def test_results_are_strict_json_and_survive_it(short: dict[str, Any]) -> None:
    results = summarise_experiment([short, short], HEADER)
    text = json.dumps(results, allow_nan=False)
    assert results["settings"]["largest"] is None
    assert json.loads(text) == results
    read = json.loads(json.dumps(short, allow_nan=False))
    assert summarise_experiment([read, read], HEADER) == results


def test_cells_are_left_as_they_were(short: dict[str, Any]) -> None:
    before = copy.deepcopy(short)
    summarise_experiment([short], HEADER)
    assert short == before


def test_p_values_are_adjusted_over_cells_within_one_comparison() -> None:
    cells = [_cell(p) for p in (0.01, 0.04, 0.03, 0.005)]
    other = _cell(0.02, measure="flipped")["comparisons"][0]
    cells[0]["comparisons"].append(other)
    cells[1]["comparisons"].append(other | {"second": "noise_random", "p_value": None})
    results = summarise_experiment(cells, HEADER)
    assert [c["comparisons"][0]["p_holm"] for c in results["cells"]] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [c["comparisons"][0]["holds"] for c in results["cells"]] == [True, False, False, True]
    assert results["cells"][0]["comparisons"][1]["p_holm"] == pytest.approx(0.02)
    untested = results["cells"][1]["comparisons"][1]
    assert (untested["p_holm"], untested["holds"], untested["reverse"]) == (None, False, False)


def test_claim_needs_evidence_and_direction() -> None:
    cases = [
        (_cell(1e-4), "holds"),
        (_cell(0.9), "open"),
        (_cell(1e-4, low=0.0), "open"),
        (_cell(1e-4, low=-0.1), "open"),
        (_cell(1e-4, difference=-0.2, low=-0.3), "reverse"),
        (_cell(1e-4, difference=-0.2, low=-0.4), "open"),
        (_cell(0.9, difference=-0.2, low=-0.3), "open"),
        (_cell(1e-4, low=None), "open"),
        (_cell(None), "open"),
        (_cell(1e-4, rank_biserial=-0.5), "open"),
        (_cell(1e-4, difference=-0.2, low=-0.3, rank_biserial=0.5), "open"),
    ]
    results = summarise_experiment([given for given, _ in cases], HEADER)
    found = [cell["comparisons"][0] for cell in results["cells"]]
    assert [c["holds"] for c in found] == [verdict == "holds" for _, verdict in cases]
    assert [c["reverse"] for c in found] == [verdict == "reverse" for _, verdict in cases]


def test_claim_at_the_level_itself_does_not_hold() -> None:
    (comparison,) = summarise_experiment([_cell(0.05)], HEADER)["cells"][0]["comparisons"]
    assert (comparison["p_holm"], comparison["holds"]) == (0.05, False)


def test_claim_is_counted_over_cells_tasks_and_measures() -> None:
    cells = [
        _cell(0.001),
        _cell(0.5),
        _cell(0.001, difference=-0.2, low=-0.3, task="chest"),
        _cell(0.001, task="chest"),
        _cell(0.001, measure="divergence", task="chest"),
        _cell(0.001, second="noise_random"),
        {"task": "chest", "comparisons": []},
    ]
    claim = summarise_experiment(cells, HEADER)["claim"]
    counts = {"cells": 4, "holds": 2, "favourable": 3, "reverse": 1}
    assert {name: claim[name] for name in ("first", "second", "measure")} == {
        "first": "noise_high",
        "second": "noise_low",
        "measure": "absolute_change",
    }
    assert {name: claim[name] for name in counts} == counts
    assert claim["by_task"] == {
        "kidney": {"cells": 2, "holds": 1, "favourable": 2, "reverse": 0},
        "chest": {"cells": 2, "holds": 1, "favourable": 1, "reverse": 1},
    }
    assert claim["by_measure"]["absolute_change"] == counts
    assert claim["by_measure"]["divergence"] == {"cells": 1, "holds": 1, "favourable": 1, "reverse": 0}
    assert claim["by_measure"]["flipped"]["cells"] == 0


def test_experiment_without_cells_counts_none() -> None:
    claim = summarise_experiment([], HEADER)["claim"]
    assert (claim["cells"], claim["holds"], claim["by_task"]) == (0, 0, {})
