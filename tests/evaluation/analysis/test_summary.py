"""Records of cells and of the experiment: their numbers against loops over the tables, their shape, strict JSON."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import fields, replace
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.analysis.curves import areas, removal_values
from monai_ifim.evaluation.analysis.statistics import compare_paired
from monai_ifim.evaluation.analysis.summary import summarise_cell, summarise_experiment
from monai_ifim.evaluation.records import CellDescription, CellRecord, Comparison, Estimate, ExperimentHeader, FailedCell, Tally

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
DESCRIPTION = CellDescription(
    task="kidney",
    architecture="densenet",
    task_title="Kidney CT",
    classes=tuple(CLASSES),
    spatial_shape=(13, 9),
    selection={"energy": 0.99},
    classifier={"accuracy": np.float64(0.9), "macro_auroc": float("nan"), "epochs": np.int64(3), "weights_sha256": None},
)
HEADER = ExperimentHeader(
    name="test",
    seed=3,
    command="monai-ifim experiment",
    settings={"draws": 2, "largest": math.inf},
    environment={"torch": "2.13.0"},
    seconds=1.5,
    relative_norms=GRID,
)
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
def cell(tables: Tables) -> CellRecord:
    return summarise_cell(*tables, DESCRIPTION, seed=5, resamples=200)


@pytest.fixture(scope="module")
def short(cell: CellRecord) -> CellRecord:
    """The same cell with two comparisons."""
    return replace(cell, comparisons=cell.comparisons[:2])


def plain(record: Any) -> Any:
    """What the file holds of a record."""
    return json.loads(msgspec.json.encode(record, enc_hook=lambda value: value.tolist()))


def _comparison(cell: CellRecord, second: str, measure: str) -> Comparison:
    (found,) = (c for c in cell.comparisons if (c.second, c.measure) == (second, measure))
    return found


def _bare(p_value: float | None, difference: float = 0.2, low: float | None = 0.1, **changes: Any) -> Comparison:
    """The claim's comparison; the interval is symmetric about the difference."""
    high = None if low is None else 2 * difference - low
    ranks = math.copysign(0.8, difference)
    names = ("noise_high", "noise_low", "absolute_change", "area")
    bare = Comparison(*names, 9, None, None, difference, low, high, "bca", p_value, ranks, None)
    return replace(bare, **changes)


def _cell(*comparisons: Comparison, task: str = "kidney") -> CellRecord:
    return CellRecord(task=task, task_title=task, architecture="a", images=9, curves=(), comparisons=comparisons)


def test_cell_keeps_its_description(cell: CellRecord) -> None:
    assert cell.images == 14
    assert all(getattr(cell, f.name) == getattr(DESCRIPTION, f.name) for f in fields(DESCRIPTION))
    written = plain(cell)
    assert written["spatial_shape"] == [13, 9]
    assert written["classifier"] == {"accuracy": 0.9, "macro_auroc": None, "epochs": 3, "weights_sha256": None}
    assert list(written["curves"][0]) == ["family", "measure", "relative_norm", "images", "mean", "low", "high"]


def test_every_pair_that_was_measured_is_compared(cell: CellRecord) -> None:
    found = [(c.first, c.second, c.kind) for c in cell.comparisons if c.measure == "flipped"]
    seconds = ["noise_low", "noise_random", "pixels_saliency"]
    assert sorted(found) == [*(("noise_high", second, "area") for second in seconds), ("remove_high", "remove_low", "removal")]
    assert len(cell.comparisons) == 5 * 4


def test_curves_are_of_every_family_but_the_removals(cell: CellRecord) -> None:
    for measure in ("absolute_change", "accuracy", "macro_auroc"):
        assert {c.family for c in cell.curves if c.measure == measure} == set(FORCE) - {"remove_high", "remove_low"}


@pytest.mark.parametrize("measure", ["absolute_change", "divergence", "flipped", "negative_log_likelihood"])
@pytest.mark.parametrize("second", ["noise_low", "pixels_saliency", "remove_low"])
def test_comparison_is_first_less_second(tables: Tables, cell: CellRecord, second: str, measure: str) -> None:
    rows = tables[0].sort_values("image")
    table = removal_values(rows, measure) if second == "remove_low" else areas(rows, measure)
    first = "remove_high" if second == "remove_low" else "noise_high"
    expected = compare_paired(table[first], table[second], seed=5, resamples=200)
    found = _comparison(cell, second, measure)
    for name in ("images", "difference", "low", "high", "p_value", "rank_biserial", "interval", "first_mean", "second_mean"):
        value = getattr(found, name)
        assert value == pytest.approx(getattr(expected, name)) or value == getattr(expected, name)
    assert found.difference == pytest.approx(found.first_mean - found.second_mean)


def test_lost_accuracy_counts_as_moved(tables: Tables, cell: CellRecord) -> None:
    found = _comparison(cell, "noise_low", "correct")
    means = areas(tables[0], "correct").mean()
    assert found.first_mean == pytest.approx(means["noise_high"])
    assert found.second_mean == pytest.approx(means["noise_low"])
    assert found.difference == pytest.approx(means["noise_low"] - means["noise_high"])
    assert found.low <= found.difference <= found.high


def test_divergence_ratio_is_near_one_inside_the_radius_only(tables: Tables, cell: CellRecord) -> None:
    measurements, images = tables
    radius = dict(zip(images["image"], images["locality_radius"], strict=True))
    ratios: dict[str, list[float]] = {"inside": [], "outside": []}
    for row in measurements.to_dict("records"):
        if row["family"].startswith("step") and row["norm"] > 0:
            side = "inside" if row["norm"] <= radius[row["image"]] else "outside"
            ratios[side].append(row["divergence"] / row["predicted_divergence"])
    for side, values in ratios.items():
        found = cell.divergence_ratio[side]
        assert found.value == pytest.approx(np.median(values))
        assert (found.rows, found.images) == (len(values), 14)
        assert found.low <= found.value <= found.high
    assert len(ratios["inside"]) == 14 * 2
    inside, outside = (cell.divergence_ratio[side] for side in ("inside", "outside"))
    assert abs(inside.value - 1) < abs(outside.value - 1)


def test_ratio_interval_draws_images_with_all_their_rows() -> None:
    measurements, images = _tables(images=6)
    images.loc[images["image"] == "002", "locality_radius"] = 1e9
    found = summarise_cell(measurements, images, DESCRIPTION, seed=9, resamples=150).divergence_ratio["inside"]
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
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(medians, [0.025, 0.975])))


def test_scalars_are_means_of_the_finite_values(tables: Tables, cell: CellRecord) -> None:
    images = tables[1]
    assert list(cell.images_scalars) == ["locality_radius", "trace", "rank", "twin_trace_share"]
    assert cell.images_scalars["rank"].value == 1.5
    share = cell.images_scalars["twin_trace_share"]
    assert share.images == 14 - 4
    assert share.value == pytest.approx(images["twin_trace_share"].dropna().mean())
    assert share.low < share.value < share.high


def test_classes_are_the_predicted_ones(tables: Tables, cell: CellRecord) -> None:
    images = tables[1]
    assert set(cell.by_class) == {CLASSES[c] for c in images["predicted"]}
    for name, record in cell.by_class.items():
        rows = [row for row in images.to_dict("records") if CLASSES[row["predicted"]] == name]
        assert record["trace"] == Estimate(pytest.approx(np.mean([row["trace"] for row in rows])), images=len(rows))


def test_auroc_area_is_that_of_low_less_that_of_high(cell: CellRecord) -> None:
    means = {}
    for family in ("noise_high", "noise_low"):
        (curve,) = (c for c in cell.curves if (c.family, c.measure) == (family, "macro_auroc"))
        means[family] = np.trapezoid(curve.mean, GRID) / GRID[-1]
    found = cell.macro_auroc_area
    assert found.value == pytest.approx(means["noise_low"] - means["noise_high"])
    assert found.low <= found.value <= found.high
    assert found.images == 14


def test_same_seed_gives_the_same_record(tables: Tables, cell: CellRecord) -> None:
    assert plain(summarise_cell(*tables, DESCRIPTION, seed=5, resamples=200)) == plain(cell)
    assert plain(summarise_cell(*tables, DESCRIPTION, seed=6, resamples=200)) != plain(cell)


def test_order_of_the_images_does_not_matter(tables: Tables, cell: CellRecord) -> None:
    measurements, images = tables
    turned = summarise_cell(measurements.iloc[::-1], images.iloc[::-1], DESCRIPTION, seed=5, resamples=200)
    for comparison in cell.comparisons:
        found = _comparison(turned, comparison.second, comparison.measure)
        for name, value in vars(comparison).items():
            assert getattr(found, name) == (value if isinstance(value, str | None) else pytest.approx(value, rel=1e-9))
    assert turned.images_scalars == cell.images_scalars
    assert turned.divergence_ratio == cell.divergence_ratio
    assert vars(turned.macro_auroc_area) == pytest.approx(vars(cell.macro_auroc_area))


def test_unlabelled_images_lack_what_needs_a_label(tables: Tables) -> None:
    measurements, images = tables
    bare = measurements.assign(label=-1, correct=np.nan, negative_log_likelihood=np.nan)
    found = summarise_cell(bare, images.assign(label=-1), DESCRIPTION, seed=0, resamples=50)
    assert {c.measure for c in found.comparisons} == {"absolute_change", "divergence", "flipped"}
    assert {c.measure for c in found.curves}.isdisjoint({"accuracy", "macro_auroc", "negative_log_likelihood"})
    assert found.macro_auroc_area == Estimate(None, images=0)


def test_missing_families_are_absent(tables: Tables) -> None:
    measurements, images = tables
    fewer = measurements[measurements["family"].isin(["noise_high", "noise_random"])]
    found = summarise_cell(fewer, images, DESCRIPTION, seed=0, resamples=50)
    assert {c.second for c in found.comparisons} == {"noise_random"}
    assert found.macro_auroc_area.value is None
    nothing = Estimate(None, images=0, rows=0)
    assert found.divergence_ratio == {"inside": nothing, "outside": nothing}
    alone = summarise_cell(measurements[measurements["family"] == "noise_low"], images, DESCRIPTION, seed=0, resamples=50)
    assert alone.comparisons == ()


@pytest.mark.filterwarnings("error")
def test_saturated_cell_shows_nothing() -> None:
    measurements, images = _tables(images=9, force=dict.fromkeys(FORCE, 0.0))
    cell = summarise_cell(measurements, images, DESCRIPTION, seed=0, resamples=100)
    for comparison in cell.comparisons:
        numbers = [comparison.difference, comparison.low, comparison.high, comparison.rank_biserial]
        assert (numbers, comparison.p_value, comparison.cohens_dz) == ([0, 0, 0, 0], 1, None)
    assert summarise_experiment([replace(cell, comparisons=cell.comparisons[:1])], HEADER).claim.total == Tally(1, 0, 0, 0)
    assert cell.divergence_ratio["inside"].rows == 0
    assert cell.macro_auroc_area.value == 0


@pytest.mark.filterwarnings("error")
def test_one_image_has_means_and_decides_nothing() -> None:
    measurements, images = _tables(images=1)
    cell = summarise_cell(measurements, images, DESCRIPTION, seed=0, resamples=100)
    results = summarise_experiment([replace(cell, comparisons=cell.comparisons[:1])], HEADER)
    found = _comparison(results.cells[0], "noise_low", "absolute_change")
    assert (found.images, found.low, found.p_value, found.p_holm, found.holds) == (1, None, 1, 1, False)
    assert results.claim.total.cells == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, i, d: (m, i.drop(columns="locality_radius"), d), "lacks locality_radius"),
        (lambda m, i, d: (m, pd.concat([i, i]), d), "image twice"),
        (lambda m, i, d: (m, i[i["image"] != "003"], d), "image 003"),
        (lambda m, i, d: (m[m["image"] != "004"], i, d), "image 004"),
        (lambda m, i, d: (pd.concat([m, m]), i, d), "measured twice"),
        (lambda m, i, d: (m, i, replace(d, classes=("one",))), "1 classes are named"),
    ],
)
def test_tables_that_are_no_cell_are_refused(tables: Tables, change: Any, message: str) -> None:
    with pytest.raises(IFIMError, match=message):
        summarise_cell(*change(*tables, DESCRIPTION), seed=0, resamples=20)


def test_experiment_has_its_header_and_failures(short: CellRecord) -> None:
    failed = (FailedCell("chest", "vit", "no weights"),)
    results = summarise_experiment([short], HEADER, failed)
    assert all(getattr(results, f.name) == getattr(HEADER, f.name) for f in fields(HEADER))
    assert results.failed == failed
    assert summarise_experiment([short], HEADER).failed == ()


def test_cells_are_left_as_they_were(short: CellRecord) -> None:
    before = copy.deepcopy(plain(short))
    summarise_experiment([short], HEADER)
    assert plain(short) == before


def test_p_values_are_adjusted_over_cells_within_one_comparison() -> None:
    other = _bare(0.02, measure="flipped")
    cells = [
        _cell(_bare(0.01), other),
        _cell(_bare(0.04), replace(other, second="noise_random", p_value=None)),
        _cell(_bare(0.03)),
        _cell(_bare(0.005)),
    ]
    results = summarise_experiment(cells, HEADER)
    assert [c.comparisons[0].p_holm for c in results.cells] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [c.comparisons[0].holds for c in results.cells] == [True, False, False, True]
    assert results.cells[0].comparisons[1].p_holm == pytest.approx(0.02)
    untested = results.cells[1].comparisons[1]
    assert (untested.p_holm, untested.holds, untested.reverse) == (None, False, False)


def test_claim_needs_evidence_and_direction() -> None:
    cases = [
        (_bare(1e-4), "holds"),
        (_bare(0.9), "open"),
        (_bare(1e-4, low=0.0), "open"),
        (_bare(1e-4, low=-0.1), "open"),
        (_bare(1e-4, difference=-0.2, low=-0.3), "reverse"),
        (_bare(1e-4, difference=-0.2, low=-0.4), "open"),
        (_bare(0.9, difference=-0.2, low=-0.3), "open"),
        (_bare(1e-4, low=None), "open"),
        (_bare(None), "open"),
        (_bare(1e-4, rank_biserial=-0.5), "open"),
        (_bare(1e-4, difference=-0.2, low=-0.3, rank_biserial=0.5), "open"),
    ]
    results = summarise_experiment([_cell(given) for given, _ in cases], HEADER)
    found = [cell.comparisons[0] for cell in results.cells]
    assert [c.holds for c in found] == [verdict == "holds" for _, verdict in cases]
    assert [c.reverse for c in found] == [verdict == "reverse" for _, verdict in cases]


def test_claim_at_the_level_itself_does_not_hold() -> None:
    (comparison,) = summarise_experiment([_cell(_bare(0.05))], HEADER).cells[0].comparisons
    assert (comparison.p_holm, comparison.holds) == (0.05, False)


def test_claim_is_counted_over_cells_tasks_and_measures() -> None:
    cells = [
        _cell(_bare(0.001)),
        _cell(_bare(0.5)),
        _cell(_bare(0.001, difference=-0.2, low=-0.3), task="chest"),
        _cell(_bare(0.001), task="chest"),
        _cell(_bare(0.001, measure="divergence"), task="chest"),
        _cell(_bare(0.001, second="noise_random")),
        _cell(task="chest"),
    ]
    claim = summarise_experiment(cells, HEADER).claim
    assert (claim.first, claim.second, claim.measure) == ("noise_high", "noise_low", "absolute_change")
    assert claim.total == Tally(cells=4, holds=2, favourable=3, reverse=1)
    assert claim.by_task == {"kidney": Tally(2, 1, 2, 0), "chest": Tally(2, 1, 1, 1)}
    assert claim.by_measure["absolute_change"] == claim.total
    assert claim.by_measure["divergence"] == Tally(1, 1, 1, 0)
    assert claim.by_measure["flipped"].cells == 0


def test_experiment_without_cells_counts_none() -> None:
    claim = summarise_experiment([], HEADER).claim
    assert (claim.total, claim.by_task) == (Tally(0, 0, 0, 0), {})
