"""The page says what results.json holds, in words and numbers, and nothing else."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.records import CellRecord, Estimate
from monai_ifim.report.experiment.cell_tables import by_class
from monai_ifim.report.experiment.page import write_report

Content = dict[str, Any]
WORDS = {(True, False): "holds", (False, True): "reverse", (False, False): "not shown"}
NAMES = {
    "noise_high": "leading eigenspace",
    "noise_low": "complement",
    "noise_random": "random subspace",
    "noise_trailing": "trailing eigenvectors",
    "noise_twin": "untrained twin's eigenspace",
    "pixels_integrated_gradients": "pixels: integrated gradients",
    "pixels_saliency": "pixels: saliency",
    "pixels_gradcam": "pixels: GradCAM",
    "pixels_occlusion": "pixels: occlusion",
    "remove_high": "all of x_high removed",
    "remove_low": "as much of x_low removed",
}
MEASURES = {
    "absolute_change": "probability change",
    "divergence": "divergence (nats)",
    "flipped": "changed answers (share)",
    "correct": "accuracy",
    "negative_log_likelihood": "negative log-likelihood (nats)",
}


def shows(text: str, *values: float | None) -> bool:
    """Whether the numbers in a text are these, each to within half a unit of its last digit; n/a where there is none."""
    found = re.findall(r"n/a|[+-]?\d[\d.]*(?:e-?\d+)?", text.replace("\N{MINUS SIGN}", "-").replace(",", " "))
    return len(found) == len(values) and all(_equal(one, value) for one, value in zip(found, values, strict=True))


def _equal(text: str, value: float | None) -> bool:
    if text == "n/a" or value is None:
        return text == "n/a" and value is None
    mantissa, _, exponent = text.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return math.isclose(float(text), value, rel_tol=0, abs_tol=0.5001 * unit) and (float(text) != 0 or abs(value) < 0.01)


def asked(cell: Content) -> Content:
    wanted = ("noise_high", "noise_low", "absolute_change", "area")
    (found,) = [c for c in cell["comparisons"] if (c["first"], c["second"], c["measure"], c["kind"]) == wanted]
    return found


def cell_of(content: Content, title: str, architecture: str) -> Content:
    (found,) = [cell for cell in content["cells"] if (cell["task_title"], cell["architecture"]) == (title, architecture)]
    return found


def test_the_answer_counts_cells(page: Any, content: Content) -> None:
    claim = content["claim"]["total"]
    assert (claim["cells"], claim["holds"], claim["reverse"], claim["favourable"]) == (3, 1, 1, 2)
    text = " ".join(page.text.split())
    assert "It does in 1 of 3 cells. In 1 cell the data show the reverse. In 1 cell neither is shown." in text
    assert "points the asked way in 2 of 3 cells" in text
    assert "1 further cell failed" in text


def test_first_table_has_every_cell_with_its_numbers(page: Any, content: Content) -> None:
    table = page.tables[0]
    assert len(table.rows) == len(content["cells"]) + len(content["failed"])
    for row in table.rows[:-1]:
        cell = cell_of(content, row[0], row[1])
        comparison, classifier = asked(cell), cell["classifier"]
        assert shows(row[2], classifier["accuracy"])
        assert shows(row[3], classifier["macro_auroc"])
        assert shows(row[4], classifier["test_images"])
        assert shows(row[5], comparison["images"])
        ends = (comparison["low"], comparison["high"]) if comparison["low"] is not None else (None,)
        assert shows(row[6], comparison["difference"], *ends)
        assert row[7] == "< 0.0001" if comparison["p_holm"] < 1e-4 else shows(row[7], comparison["p_holm"])
        assert shows(row[8], comparison["rank_biserial"])
        assert row[9] == WORDS[comparison["holds"], comparison["reverse"]]


def test_failed_cell_is_listed_with_its_reason_and_no_numbers(page: Any, content: Content) -> None:
    failure = content["failed"][0]
    row = page.tables[0].rows[-1]
    assert row == ["Organs in CT, 3D", failure["architecture"], *["n/a"] * 7, "failed"]
    assert failure["reason"] in page.text


def test_cells_that_do_not_hold_are_named_with_their_numbers(experiment: Path, content: Content) -> None:
    text = (experiment / "report.html").read_text(encoding="utf-8")
    section = text[text.index('<section id="negative"') : text.index('<section id="meaning"')]
    lines = re.findall(r"<li>(.*?)</li>", section)
    assert len(lines) == 3
    assert "ViT: reverse; difference \N{MINUS SIGN}0." in lines[0]
    assert "DenseNet121: not shown; difference +0." in lines[1]
    assert "&lt;4&gt; &amp; the run stopped" in lines[2]


def test_cells_with_a_reversed_auroc_are_named_with_their_numbers(
    tmp_path: Path, cell_content: Callable[..., Content], experiment_content: Any
) -> None:
    areas = {"Reversed": (-0.215, -0.358, -0.063), "Open": (-0.006, -0.251, 0.238), "Lost": (0.172, 0.069, 0.27)}
    cells = []
    for name, (value, low, high) in areas.items():
        cell = cell_content(name.lower(), name, "Net", ["a", "b"], [9, 8], 12, 2.0, 5)
        cell["curves"] = []
        cell["macro_auroc_area"] = {"value": value, "low": low, "high": high, "images": 12}
        cell["classifier"]["macro_auroc"] = 0.454
        cells.append(cell)
    (tmp_path / "results.json").write_text(json.dumps(experiment_content(cells, [])))
    write_report(tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    section = text[text.index('<section id="negative"') : text.index('<section id="meaning"')]
    assert "The loss of macro AUROC, leading eigenspace less complement, is reversed here:" in section
    (line,) = re.findall(r"<li>(.*?)</li>", section)
    assert line.startswith("Reversed, Net: difference")
    assert shows(line.partition("difference")[2].rstrip("."), -0.215, -0.358, -0.063, 0.454)


def test_the_page_says_what_two_classes_and_a_mean_over_directions_mean(page: Any) -> None:
    text = " ".join(page.text.split())
    assert "For two classes it is one direction, the input gradient of the log-odds" in text
    assert "Its effect is a mean over random directions and no bound" in text
    assert "x_high is finer than the image where its share of fine detail exceeds the image's" in text


def test_every_comparison_is_in_the_table_of_its_cell(page: Any, content: Content) -> None:
    for cell in content["cells"]:
        table = page.table(f"{cell['task_title']}, {cell['architecture']}: all comparisons")
        rows = {(row[0], row[1]): row[2:] for row in table.rows}
        assert len(rows) == len(cell["comparisons"]) > 8
        for c in cell["comparisons"]:
            row = rows[f"{NAMES[c['first']]} against {NAMES[c['second']]}", MEASURES[c["measure"]]]
            ends = (c["low"], c["high"]) if c["low"] is not None else (None,)
            assert shows(row[0], c["images"])
            assert shows(row[1], c["first_mean"])
            assert shows(row[2], c["second_mean"])
            assert shows(row[3], c["difference"], *ends)
            assert row[4] == c["interval"]
            assert row[5] == "< 0.0001" if c["p_value"] < 1e-4 else shows(row[5], c["p_value"])
            assert row[6] == "< 0.0001" if c["p_holm"] < 1e-4 else shows(row[6], c["p_holm"])
            assert shows(row[7], c["rank_biserial"])
            assert shows(row[8], c["cohens_dz"])
            assert row[9] == WORDS[c["holds"], c["reverse"]]


def test_quantities_per_image_are_those_of_the_file(page: Any, content: Content) -> None:
    cells = [cell for cell in content["cells"] if cell["task"] == "lumpy_2d"]
    tables = [table for table in page.tables if table.columns[0] == "quantity" and "DenseNet121" in table.columns]
    rows = {row[0]: row[1:] for table in tables[:2] for row in table.rows}
    names = {
        "components kept, k": "rank",
        "strongest component (nats per unit² of the input)": "eigenvalue",
        "agreement of the kept components across training seeds (0 to 1)": "agreement_seed",
        "share of the total sensitivity inside the untrained twin's leading directions": "twin_trace_share",
        "a_new_quantity": "a_new_quantity",
    }
    for label, name in names.items():
        for text, cell in zip(rows[label], cells, strict=True):
            value = cell["images_scalars"][name]
            assert shows(text.replace("n =", ""), value["value"], value["low"], value["high"], value["images"])


def test_shortcuts_stand_beside_what_an_even_spread_gives(page: Any, content: Content) -> None:
    table = next(table for table in page.tables if "Signs of shortcuts" in table.caption)
    for row in table.rows:
        values = cell_of(content, "Lesion <2 cm> & noise, 2D", row[0])["images_scalars"]
        stem = {"corners of the image": "corner", "border of the image": "border", "fine detail": "fine"}[row[1]]
        ends = ("high", "sensitivity", None, "area") if stem != "fine" else ("high", None, "image", "area")
        for text, end in zip(row[2:], ends, strict=True):
            value = values[f"{stem}_share_{end}"] if end else None
            known = (value["value"], value["low"], value["high"], value["images"]) if value else (None,)
            assert shows(text.replace("n =", ""), *known)


def test_divergence_ratios_and_missing_ones(page: Any, content: Content) -> None:
    tables = [table for table in page.tables if "Measured divergence" in table.caption]
    assert [row[1:] for row in tables[1].rows] == [
        ["inside what component 1 describes", "40", "431", "1.01 [0.99, 1.04]"],
        ["outside what component 1 describes", "0", "0", "n/a"],
    ]
    outside = content["cells"][0]["divergence_ratio"]["outside"]
    assert shows(tables[0].rows[1][4], outside["value"], outside["low"], outside["high"])


def test_what_is_missing_reads_na_and_never_zero(page: Any) -> None:
    bare = next(table for table in page.tables if "The classifiers" in table.caption and len(table.rows) == 1)
    assert bare.rows == [["DenseNet121", *["n/a"] * 9]]
    performance = [table for table in page.tables if "How much more performance" in table.caption][1]
    assert [row[2:] for row in performance.rows] == [["n/a"] * 4] * 2
    checks = [table for table in page.tables if "Is the leading eigenspace stable" in table.caption][1]
    assert {row[0][:34]: row[1] for row in checks.rows}["agreement of the kept components un"[:34]] == "n/a"
    assert "agreement of the kept components across training seeds (0 to 1)" not in {row[0] for row in checks.rows}


def test_what_was_not_measured_is_told_with_the_reason(page: Any) -> None:
    text = " ".join(page.text.split())
    assert "DenseNet121, pixels: GradCAM: no layer has the image's <axes>" in text
    assert "DenseNet121, image image_0007 left out: it is zero everywhere & has no norm" in text
    assert "bundle spleen_ct 0.3.1" in text


def test_how_it_was_made_is_told(page: Any, content: Content) -> None:
    text = " ".join(page.text.split())
    for said in (
        content["command"],
        "20260",
        "2 h 03 min",
        "training.epochs 12",
        "training.label_smoothing n/a",
        "torch 2.13.0",
        "parameters.shape 9, 8",
    ):
        assert said in text


def test_task_note_is_shown(tmp_path: Path, cell_content: Callable[..., Content], experiment_content: Any) -> None:
    cell = cell_content("one", "One", "Net", ["a", "b"], [9, 8], 12, 2.0, 5)
    cell["curves"] = []
    cell["task_note"] = "The place of the lesion is known."
    (tmp_path / "results.json").write_text(json.dumps(experiment_content([cell], [])))
    write_report(tmp_path)
    assert "The place of the lesion is known." in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "None: the claim holds in every cell that gave a result." in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_an_experiment_of_failures_alone_still_has_a_page(tmp_path: Path, experiment_content: Any, parse_html: Any) -> None:
    failed = [{"task": "all_failed", "architecture": name, "reason": "no memory"} for name in ("A", "B")]
    (tmp_path / "results.json").write_text(json.dumps(experiment_content([], failed)))
    assert [path.name for path in write_report(tmp_path)] == ["report.md", "report.html"]
    page = parse_html((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "No cell gave a result, so the question stays open." in page.text
    assert "2 further cells failed and have no result" in page.text
    assert [row[:2] for row in page.tables[0].rows] == [["Of which every cell failed", name] for name in ("A", "B")]


def test_no_results_says_what_to_pass(tmp_path: Path) -> None:
    with pytest.raises(IFIMError, match="no such file; pass the folder that an experiment was written to"):
        write_report(tmp_path)


def test_incomplete_results_are_refused_and_nothing_is_written(tmp_path: Path, content: Content) -> None:
    broken = copy.deepcopy(content)
    broken.pop("claim")
    (tmp_path / "results.json").write_text(json.dumps(broken))
    with pytest.raises(IFIMError, match="'claim' is missing; run the experiment again"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_two_hundred_classes_are_rows_and_not_columns() -> None:
    values = {f"class {i}": {"rank": Estimate(2.0, images=4), "trace": Estimate(0.125, images=4)} for i in range(200)}
    table = by_class(cast("CellRecord", SimpleNamespace(task_title="Task", architecture="ViT", by_class=values)))
    assert table is not None
    assert (len(table.columns), len(table.rows)) == (3, 200)
    assert table.rows[7].heads == ("class 7",)
    assert shows(str(table.rows[7].entries[1].text), 0.125, 4)
