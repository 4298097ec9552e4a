"""The gallery of a run in a real browser: filtered, sorted, searched, walked by keys, and beside it pages of heavy cases."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from chromium import Browser
from monai_ifim.io.planes import CasePlanes
from monai_ifim.report.cohort.page import write_cohort
from monai_ifim.report.cohort.pictures import choose_pictures
from monai_ifim.run.table import CaseRow

AFFINE, SHAPE, INDEX = np.diag([0.9, 0.9, 4.0, 1.0]), (21, 34, 13), (5, 20, 9)
NAMES = [f"case_{(7 * i) % 23}" for i in range(23)]
FAILED, STANDING_OUT = 4, 11


@pytest.fixture(scope="module")
def rows(case_row: Callable[..., CaseRow]) -> list[CaseRow]:
    """Cases of three answers, one failed, one far from the others."""
    generator = np.random.default_rng(2)
    found = [
        case_row(
            name,
            prediction=("normal", "pneumonia", "mass")[i % 3],
            trace=1e9 if i == STANDING_OUT else float(generator.uniform(0.5, 2)),
            probability=float(generator.uniform(0.6, 0.99)),
        )
        for i, name in enumerate(NAMES)
    ]
    found[FAILED] = CaseRow(NAMES[FAILED], "failed", "the file ends early", "x.nii")
    return found


def tiles(browser: Browser, part: str = "a") -> list[str]:
    script = "return [...document.querySelectorAll('#gallery li')].map((li) => li.querySelector(arguments[0])?.innerText ?? '')"
    return list(browser.run(script, part))


def select(browser: Browser, name: str, start: str) -> None:
    """Choose the option whose text begins so."""
    script = """
    const select = document.querySelector(arguments[0]);
    select.value = [...select.options].find((option) => option.text.startsWith(arguments[1])).value;
    select.dispatchEvent(new Event('change'));
    """
    browser.run(script, name, start)


def test_the_page_opens_on_the_gallery(browser: Browser, page: Path, rows: list[CaseRow]) -> None:
    browser.open(page)
    assert tiles(browser) == NAMES
    assert browser.run("return document.querySelector('#cases .wide').checkVisibility()") is False
    answers = tiles(browser, "b")
    assert answers[0].startswith("normal 0.")
    assert answers[FAILED] == "failed"
    sentences = tiles(browser, "p")
    assert sentences[STANDING_OUT].startswith("Stands out: total sensitivity high")
    assert sentences[FAILED] == "Failed: the file ends early"
    assert sentences[0].startswith("A change of ")
    shown = browser.run("return [...document.querySelectorAll('#gallery img')].map((i) => [i.naturalWidth, i.naturalHeight])")
    assert len(shown) == 19
    assert {tuple(size) for size in shown} == {(89, 144)}
    assert browser.run("return document.querySelector('#gallery img').getBoundingClientRect().top < innerHeight")  # unscrolled
    assert browser.opened() is None


@pytest.mark.parametrize(
    ("start", "wanted"),
    [
        ("answer: mass", lambda i, row: row.prediction == "mass"),
        ("cases that stand out", lambda i, row: i == STANDING_OUT),
        ("failed cases", lambda i, row: i == FAILED),
        ("all cases", lambda i, row: True),
    ],
)
def test_the_filter_leaves_its_cases(
    browser: Browser, page: Path, rows: list[CaseRow], start: str, wanted: Callable[[int, CaseRow], bool]
) -> None:
    browser.open(page)
    select(browser, "#filter", start)
    expected = [row.case for i, row in enumerate(rows) if wanted(i, row)]
    assert tiles(browser) == expected
    assert browser.says(f"{len(expected)} of 23 cases", "#found")
    browser.press("/", *"case_1")  # the search goes on within the filter
    assert tiles(browser) == [name for name in expected if "case_1" in name]


def test_the_gallery_sorts_as_the_table_does(browser: Browser, page: Path, rows: list[CaseRow]) -> None:
    browser.open(page)
    select(browser, "#order", "case, A to Z")
    assert tiles(browser) == sorted(NAMES, key=lambda name: int(name[5:]))
    select(browser, "#order", "confidence, smallest first")
    known = sorted((row for row in rows if row.probability is not None), key=lambda row: row.probability or 0)
    expected = [*(row.case for row in known), NAMES[FAILED]]
    assert tiles(browser) == expected
    browser.run("document.querySelector('#look').click()")
    assert browser.listed() == expected
    assert browser.run("return document.querySelector('#cases [aria-sort]').ariaSort") == "ascending"
    select(browser, "#order", "in the order")
    assert browser.listed() == NAMES


def test_keys_walk_through_the_gallery(browser: Browser, page: Path) -> None:
    browser.open(page).press("j")
    assert browser.settles(browser.focused, NAMES[0]) == NAMES[0]
    across = browser.run("return getComputedStyle(document.querySelector('#gallery')).gridTemplateColumns.split(' ').length")
    assert across > 3
    browser.press("ArrowRight", "ArrowDown")
    assert browser.settles(browser.focused, NAMES[1 + across]) == NAMES[1 + across]
    browser.press("ArrowUp", "ArrowUp", "k", "ArrowLeft")  # nothing above the first row, nothing before the first
    assert browser.settles(browser.focused, NAMES[0]) == NAMES[0]
    browser.press("End")
    assert browser.settles(browser.focused, NAMES[-1]) == NAMES[-1]
    browser.press("Home", "j", "Enter")
    assert browser.opens(NAMES[1])
    browser.press("j", "Escape")
    assert browser.closes()
    assert browser.settles(browser.focused, NAMES[2]) == NAMES[2]


def test_a_click_on_a_tile_opens_the_case(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.driver.find_element("css selector", "#gallery li:nth-child(3) img").click()
    assert browser.opens(NAMES[2])


def test_heavy_cases_open_on_pages_of_their_own(
    browser: Browser,
    tmp_path: Path,
    case_row: Callable[..., CaseRow],
    case_planes: Callable[..., CasePlanes],
    case_run: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("monai_ifim.report.cohort.page.choose_pictures", partial(choose_pictures, largest=1))
    planes = {f"c{i}": case_planes(AFFINE, SHAPE, INDEX, i) for i in range(3)}
    path = write_cohort(case_run(tmp_path, [case_row(name) for name in planes], planes))
    browser.open(path)
    browser.driver.find_element("css selector", "#gallery li:nth-child(2) img").click()
    browser.until("document.title === 'c1'")
    assert browser.run("return [...document.images].every((image) => image.complete && image.naturalWidth)")
    assert browser.run("return document.images.length") == 12
    browser.press("j")
    browser.until("document.title === 'c2'")
    browser.press("k", "k")
    browser.until("document.title === 'c0'")
    errors, _ = browser.logs()
    assert errors == []
    browser.run("[...document.links].find((a) => a.innerText === 'All cases').click()")
    browser.until("document.querySelectorAll('#gallery img').length === 3")


@pytest.mark.soak
def test_the_first_screen_of_a_thousand_cases_comes_at_once(
    browser: Browser,
    tmp_path: Path,
    case_row: Callable[..., CaseRow],
    large_planes: Callable[[int], CasePlanes],
    case_run: Callable[..., Path],
    record_property: Callable[[str, object], None],
) -> None:
    names = [f"case_{i:04d}" for i in range(1000)]
    planes = {name: large_planes(i % 10) for i, name in enumerate(names)}
    started = time.perf_counter()
    path = write_cohort(case_run(tmp_path, [case_row(name, trace=float(i + 1)) for i, name in enumerate(names)], planes))
    browser.open(path)
    browser.until("[...document.querySelectorAll('#gallery img')].slice(0, 30).every((image) => image.complete)")
    facts = {
        "written_s": time.perf_counter() - started,
        "megabytes": path.stat().st_size / 1e6,
        "gallery_ms": browser.run("return performance.getEntriesByName('list')[0].startTime"),
        "load_ms": browser.run("return performance.getEntriesByType('navigation')[0].loadEventEnd"),
    }
    for name, value in facts.items():
        record_property(name, round(value, 2))
        print(f"{name} {value:.2f}")  # noqa: T201
    assert path.stat().st_size < 30_000_000
    assert len(tiles(browser)) == 200
    assert len(list((tmp_path / "pages").iterdir())) > 800
