"""Figures and numbers of the pages are what python -m docs.figures makes of the files as they are; nothing is drawn here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from docs.figures import measurements, numbers, record
from docs.figures.catalogue import FIGURES, GROUPS, ROOT, inputs_of, module_of
from docs.figures.demo import differences


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of the record, the figures and what they were drawn from."""
    folder = tmp_path / "docs" / "figures"
    shutil.copytree(FIGURES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in {path for group in GROUPS for path in inputs_of(group)}:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setattr(record, "FIGURES", folder)
    monkeypatch.setattr(record, "RECORD", folder / "made.json")
    return tmp_path


def test_no_figure_and_no_number_is_stale() -> None:
    assert [*record.stale_figures(), *record.unknown_figures(), *numbers.stale_pages()] == []


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_has_a_module_that_draws(group: str) -> None:
    assert "def draw_figures(demo: Path, output: Path) -> None:" in module_of(group).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", ["docs/results/demo.json", "bundles/lumpy_lesion_detection_3d/models/model.pt", "docs/figures/plots.py"]
)
def test_what_a_figure_was_drawn_from_and_changed_is_found(copied: Path, path: str) -> None:
    drawn = [group for group in record.read_record() if path in inputs_of(group)]
    assert drawn
    (copied / path).write_bytes((copied / path).read_bytes() + b" ")
    found = list(record.stale_figures())
    assert [line.rpartition(" ")[2] for line in found] == drawn
    assert all(f"{path} changed since" in line for line in found)


def test_a_figure_from_elsewhere_is_found(copied: Path) -> None:
    (copied / "docs" / "figures" / "plot-2d.png").write_bytes(b"another")
    (found,) = record.stale_figures()
    assert found.endswith("not the file that was drawn; draw it again: python -m docs.figures plots")
    record.write_record(["plots"])
    assert list(record.stale_figures()) == []


def test_a_group_that_was_never_drawn_is_named(copied: Path) -> None:
    stored = record.read_record()
    (copied / "docs" / "figures" / "made.json").write_text(json.dumps({"plots": stored["plots"]}), encoding="utf-8")
    assert list(record.stale_figures()) == []
    assert [line.rpartition(" ")[2] for line in record.older_figures()] == [group for group in GROUPS if group != "plots"]


def test_figures_without_a_module_or_a_page_are_found(copied: Path) -> None:
    (copied / "docs" / "figures" / "stray.png").write_bytes(b"")
    (copied / "docs" / "one.md").write_text("![gone](figures/gone.png) ![plot](figures/plot-2d.png)", encoding="utf-8")
    found = list(record.unknown_figures())
    assert "stray.png: no module draws it: name it in docs/figures/catalogue.py, or delete it" in found
    assert "gone.png: a page shows it and no module draws it" in found
    assert "plot-3d.png: no page shows it" in found
    assert not any(line.startswith("plot-2d.png") for line in found)


def test_numbers_of_a_page_are_written_between_the_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("before <!-- made: ratio -->1.70<!-- end --> after <!-- made: ratio --><!-- end -->", encoding="utf-8")
    monkeypatch.setattr(numbers, "ROOT", tmp_path)
    monkeypatch.setattr(numbers, "TEXTS", {"ratio": lambda: "1.71"})
    assert list(numbers.stale_pages()) == [
        "docs/page.md: numbers are not those of the results; write them again: python -m docs.figures"
    ]
    numbers.write_numbers()
    assert (
        page.read_text(encoding="utf-8")
        == "before <!-- made: ratio -->1.71<!-- end --> after <!-- made: ratio -->1.71<!-- end -->"
    )
    assert list(numbers.stale_pages()) == []


def test_ratios_of_the_page_are_the_measured_ones() -> None:
    rows = json.loads(measurements.COMPARISON.read_text(encoding="utf-8"))["sections"]["scanner"]["rows"]
    page = (ROOT / "docs" / "scanner_space.md").read_text(encoding="utf-8")
    assert len(rows) == 4
    assert [f"{row['value']:.2f}" in page for row in rows] == [True] * 4


@pytest.mark.parametrize(
    ("stored", "found", "same"),
    [
        ({"a": [1.0, 2.0]}, {"a": [1.005, 2.0]}, True),
        ({"a": [1.0, 2.0]}, {"a": [1.02, 2.0]}, False),
        ({"a": [1.0]}, {"a": [1.0, 2.0]}, False),
        ({"a": 1}, {"b": 1}, False),
        ("HeadCT with 0.981, 12 mm", "HeadCT with 0.982, 12 mm", True),
        ("HeadCT with 0.981", "CXR with 0.981", False),
        ("1 \N{MINUS SIGN} 0.002", "1 \N{MINUS SIGN} 0.003", False),
        (None, 0.0, False),
        ({"right": True}, {"right": False}, False),
    ],
)
def test_results_differ_by_more_than_a_percent_or_in_words(stored: object, found: object, same: bool) -> None:
    assert (differences(stored, found) == []) == same
