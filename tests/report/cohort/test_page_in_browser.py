"""index.html in a real browser: nothing leaves the page, cases are found, sorted, stepped through and opened, in any light."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chromium import KEYS, Browser
from monai_ifim.io.planes import CasePlanes
from monai_ifim.report.cohort.page import write_cohort
from monai_ifim.run.table import CaseRow

LARGEST = 30_000_000
SPACING = (0.9, 0.9, 4.0)
AFFINE, SHAPE, INDEX = np.diag([*SPACING, 1.0]), (21, 34, 13), (5, 20, 9)
HOSTILE = "</script><img src=x onerror=document.title='pwned'>"


@pytest.fixture(scope="module")
def rows(case_row: Callable[..., CaseRow]) -> list[CaseRow]:
    """Sixty cases, one far from the others, one failed, one without a trace; most names are in no order."""
    generator = np.random.default_rng(1)
    found = []
    for i in range(60):
        answer = ("normal", "pneumonia", "mass")[i % 3]
        sure = float(generator.uniform(0.6, 0.99))
        trace = float(generator.uniform(0.5, 2.0))
        found.append(case_row(f"case_{(17 * i) % 60}", prediction=answer, trace=trace, probability=sure))
    found[5] = replace(found[5], trace=1e7)
    found[6] = CaseRow(found[6].case, "failed", "the <file> ends early", "x.nii")
    found[7] = replace(found[7], rank=None)
    return found


def test_nothing_is_asked_of_anybody_and_nothing_is_refused(browser: Browser, page: Path) -> None:
    browser.open(page).table()
    browser.press("j", "Enter", "j", "k", "Escape", "/", "m", "Escape")
    browser.run("document.querySelector('#cases thead button').click()")
    errors, asked = browser.logs()
    assert errors == []
    assert page.as_uri() in asked
    assert [url for url in asked if url != page.as_uri() and not url.startswith("data:image/")] == []


def test_what_comes_from_outside_would_be_refused(browser: Browser, page: Path) -> None:
    """The counterpart of the test above: its two logs do show a request and a script that are not the page's own."""
    browser.open(page).table()
    browser.run("const i = new Image(); i.src = 'http://127.0.0.1:9/x.png'; document.body.append(i)")
    browser.run("const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)")
    browser.run("document.body.insertAdjacentHTML('beforeend', '<p onclick=\"window.ran = 1\" id=hit>')")
    browser.run("document.querySelector('#hit').click()")
    errors, asked = browser.logs()
    assert len([error for error in errors if "Content Security Policy" in error]) == 3
    assert not browser.run("return window.ran")
    assert [url for url in asked if url.startswith("http")] == ["http://127.0.0.1:9/x.png"]


def test_the_list_holds_all_cases_in_the_order_of_the_run(browser: Browser, page: Path, rows: list[CaseRow]) -> None:
    browser.open(page).table()
    assert browser.listed() == [row.case for row in rows]
    assert browser.listed(2) == [row.prediction or "n/a" for row in rows]
    assert browser.says("60 of 60 cases", "#found")
    assert not browser.run("return document.querySelector('#cards').checkVisibility()")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("case_3", lambda row: "case_3" in row.case),
        ("PNEUMONIA", lambda row: row.prediction == "pneumonia"),
        ("mass case_1", lambda row: row.prediction == "mass" and "case_1" in row.case),
        ("total sensitivity high", lambda row: row.trace is not None and row.trace > 1e6),
        ("<file> ends", lambda row: row.status == "failed"),
        ("no such case", lambda row: False),
    ],
)
def test_search_leaves_the_cases_that_hold_all_words(
    browser: Browser, page: Path, rows: list[CaseRow], text: str, wanted: Callable[[CaseRow], bool]
) -> None:
    browser.open(page).table().press("/")
    assert browser.settles(browser.focused, "words") == "words"
    browser.press(*text)
    expected = [row.case for row in rows if wanted(row)]
    assert browser.listed() == expected
    assert browser.says(f"{len(expected)} of 60 cases", "#found")
    browser.press("Escape")
    assert len(browser.listed()) == 60


@pytest.mark.parametrize(
    ("head", "column"), [("total sensitivity", "trace"), ("confidence", "probability"), ("components kept", "rank")]
)
def test_numbers_sort_by_value_and_unknown_ones_come_last(
    browser: Browser, page: Path, rows: list[CaseRow], head: str, column: str
) -> None:
    browser.open(page).table()
    button = f"[...document.querySelectorAll('#cases thead button')].find(b => b.innerText.trim() === '{head}')"
    known = [row for row in rows if getattr(row, column) is not None]
    unknown = [row.case for row in rows if getattr(row, column) is None]
    for order, sign in (("descending", -1), ("ascending", 1)):
        browser.run(f"{button}.click()")
        assert browser.run(f"return {button}.closest('th').ariaSort") == order
        expected = [row.case for row in sorted(known, key=lambda row: sign * getattr(row, column))]
        assert browser.listed() == expected + unknown
    browser.run(f"{button}.click()")
    assert browser.listed() == [row.case for row in rows]
    assert browser.run("return document.querySelectorAll('#cases [aria-sort]').length") == 0


def test_names_sort_as_people_count_and_the_search_stays(browser: Browser, page: Path, rows: list[CaseRow]) -> None:
    browser.open(page).table()
    button = browser.driver.find_element("css selector", "#cases thead button")
    button.send_keys(KEYS["Enter"])  # by keyboard
    assert browser.listed() == [f"case_{i}" for i in range(60)]
    browser.press("/", *"mass")
    masses = sorted((row.case for row in rows if row.prediction == "mass"), key=lambda name: int(name[5:]))
    assert browser.listed() == masses


def test_cases_are_reached_by_keys_alone(browser: Browser, page: Path, rows: list[CaseRow]) -> None:
    names = [row.case for row in rows]
    browser.open(page).table().press("j")
    assert browser.settles(browser.focused, names[0]) == names[0]
    browser.press("j", "ArrowDown", "k", "ArrowDown", "ArrowUp")
    assert browser.settles(browser.focused, names[1]) == names[1]
    assert browser.run("return document.querySelectorAll('#cases tr.active').length") == 1
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"  # the focus is seen
    browser.press("Enter")
    assert browser.opens(names[1])
    assert browser.says("2 of 60", "#viewer-place")
    browser.press("ArrowRight", "j", "ArrowLeft")
    assert browser.opens(names[2])
    browser.press("k", "k", "k")  # there is none before the first
    assert browser.opens(names[0])
    assert browser.run("return document.querySelector('#previous').disabled")
    browser.press("Escape")
    assert browser.closes()
    assert browser.settles(browser.focused, names[0]) == names[0]
    assert browser.settles(lambda: browser.run("return location.hash"), "") == ""


def test_stepping_follows_search_and_order(browser: Browser, page: Path, rows: list[CaseRow]) -> None:
    browser.open(page).table().press("/", *"pneumonia", "Enter", "Enter", "j")
    expected = [row.case for row in rows if row.prediction == "pneumonia"]
    assert browser.opens(expected[1])
    assert browser.says(f"2 of {len(expected)}", "#viewer-place")


def test_a_link_leads_to_a_case(browser: Browser, page: Path, rows: list[CaseRow]) -> None:
    browser.open(page, "#case-9")
    assert browser.opens(rows[8].case)
    browser.press("Escape")
    assert browser.closes()
    browser.run("document.querySelector('#outliers table a').click()")  # the farthest
    assert browser.opens(rows[5].case)
    assert browser.says("Stands out: total sensitivity 1.00e7 is high", "#viewer-card")
    browser.run("document.querySelector('#viewer-card a[href=\"#making\"]').click()")
    assert browser.closes()
    assert browser.settles(lambda: browser.run("return location.hash"), "#making") == "#making"


def test_a_click_on_a_row_opens_it_and_buttons_step(browser: Browser, page: Path, rows: list[CaseRow]) -> None:
    browser.open(page).table()
    browser.driver.find_element("css selector", "#cases tbody tr:nth-child(3) td:nth-child(4)").click()
    assert browser.opens(rows[2].case)
    browser.driver.find_element("id", "next").click()
    assert browser.opens(rows[3].case)
    browser.driver.find_element("id", "previous").click()
    browser.driver.find_element("id", "close").click()
    assert browser.settles(browser.focused, rows[2].case) == rows[2].case


def measured(browser: Browser) -> list[dict[str, Any]]:
    """Every picture in the case that is open, as it stands on the screen."""
    browser.until("document.querySelector('#viewer').open")
    browser.until("[...document.querySelectorAll('#viewer img')].every(i => i.complete)")
    script = """return [...document.querySelectorAll('#viewer .plane')].map((plane) => {
      const [image, bar] = [plane.querySelector('img'), plane.querySelector('.bar')];
      const box = image.getBoundingClientRect();
      const middle = (letter) => {
        const at = letter.getBoundingClientRect();
        return [at.x + at.width / 2 - box.x, at.y + at.height / 2 - box.y];
      };
      return {
        natural: [image.naturalWidth, image.naturalHeight], shown: [box.width, box.height], top: box.y, alt: image.alt,
        bar: bar && [bar.getBoundingClientRect().width, parseFloat(bar.innerText)],
        letters: Object.fromEntries([...plane.querySelectorAll('.edge')].map((e) => [e.innerText, middle(e)])),
      };
    })"""
    return list(browser.run(script))


def test_a_case_opens_with_twelve_pictures_of_true_shape_and_scale(browser: Browser, page: Path) -> None:
    browser.open(page).table().press("j", "Enter")
    found = measured(browser)
    sizes = dict(zip("xyz", SHAPE, strict=True))
    axes = [("x", "y"), ("x", "z"), ("y", "z")] * 4
    spacing = dict(zip("xyz", SPACING, strict=True))
    letters = [("R", "L", "A", "P"), ("R", "L", "S", "I"), ("A", "P", "S", "I")] * 4
    assert len(found) == 12
    scales = []
    for picture, (across, down), (left, right, top, bottom) in zip(found, axes, letters, strict=True):
        assert picture["natural"] == [sizes[across], sizes[down]]
        width, height = picture["shown"]
        wide, tall = sizes[across] * spacing[across], sizes[down] * spacing[down]
        assert width / height == pytest.approx(wide / tall, rel=0.02)
        scales.append(width / wide)
        pixels, length = picture["bar"]
        assert pixels / length == pytest.approx(width / wide, rel=0.03)
        places = picture["letters"]
        assert set(places) == {left, right, top, bottom}
        assert places[left][0] < 0.3 * width
        assert places[right][0] > 0.7 * width
        assert places[top][1] < 0.3 * height
        assert places[bottom][1] > 0.7 * height
    np.testing.assert_allclose(scales, scales[0], rtol=0.03)
    assert browser.says("How to read the pictures", "#viewer")
    browser.press("j", *"j" * 25)
    assert browser.says("There are no pictures of this case")
    assert measured(browser) == []


@pytest.mark.parametrize("width", [1400, 1000, 800, 420])
def test_pictures_keep_their_shape_on_narrow_screens(browser: Browser, page: Path, width: int) -> None:
    browser.command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    try:
        browser.open(page).table().press("j", "Enter")
        for picture in measured(browser)[:3]:
            assert picture["shown"][0] > 30
        beside = 4 if width > 960 else 2
        for n in range(3):  # the same plane of maps beside each other, whatever stands above it
            assert len({picture["top"] for picture in measured(browser)[n : 3 * beside : 3]}) == 1
        ratios = [picture["shown"][0] / picture["shown"][1] for picture in measured(browser)[:3]]
        np.testing.assert_allclose(ratios, [21 / 34, 18.9 / 52, 30.6 / 52], rtol=0.03)
        assert browser.run("const v = document.querySelector('#viewer'); return v.scrollWidth <= v.clientWidth")
    finally:
        browser.command("Emulation.clearDeviceMetricsOverride")


CONTRAST = """
const light = (text) => {
  const parts = text.match(/[\\d.]+/g).slice(0, 3).map((p) => p / 255);
  const linear = parts.map((p) => p <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const ground = (e) => {
  for (; e; e = e.parentElement) {
    const color = getComputedStyle(e).backgroundColor;
    if (!color.startsWith('rgba') || !/, 0(\\.\\d+)?\\)$/.test(color)) return color;
  }
  return getComputedStyle(document.documentElement).colorScheme.includes('dark') ? 'rgb(0,0,0)' : 'rgb(255,255,255)';
};
return [...document.querySelectorAll(arguments[0])].filter((e) => e.checkVisibility() && e.innerText?.trim()).map((e) => {
  const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
  return [(a + 0.05) / (b + 0.05), e.tagName + '.' + e.className + ': ' + e.innerText.slice(0, 30)];
})
"""


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_light_and_dark_are_readable(browser: Browser, page: Path, scheme: str, dark: bool, tmp_path: Path) -> None:
    browser.open(page, scheme=scheme).table()
    seen = browser.picture()
    assert (np.median(seen) < 60) == dark
    assert seen.std() > 10
    parts = "h1, h2, h3, p, a, th, td, li, dt, dd, summary, button:enabled, .verdict, .note, figcaption, kbd"
    browser.press("j", *"j" * 5, "Enter")
    assert browser.says("Stands out:", "#viewer-card")
    for where in (f"main :is({parts})", f"dialog :is({parts})"):
        poor = [(round(ratio, 2), what) for ratio, what in browser.run(CONTRAST, where) if ratio < 4.5]
        assert poor == []
    drawn = "[...document.querySelectorAll('#viewer .spectrum text, #viewer .spectrum .axis')]"
    colors = set(browser.run(f"return {drawn}.map(e => getComputedStyle(e)[e.tagName === 'text' ? 'fill' : 'stroke'])"))
    assert len(colors) == 1
    channels = [float(part) for part in colors.pop().strip("rgba()").split(",")[:3]]
    assert (min(channels) > 200) if dark else (max(channels) < 60)
    assert (np.median(browser.picture()) < 60) == dark


def test_colour_is_never_the_only_cue(browser: Browser, page: Path) -> None:
    browser.open(page).table().press("j", *"j" * 5, "Enter")
    assert browser.says("Stands out:")
    browser.press("j")
    assert browser.says("This case failed.", "#viewer .verdict")
    browser.press("Escape")
    assert browser.closes()
    button = browser.driver.find_element("css selector", "#cases thead th:nth-child(6) button")
    button.click()
    mark = "getComputedStyle(document.querySelectorAll('#cases thead button')[5], '::after').content"
    assert "▼" in browser.run(f"return {mark}")
    button.click()
    assert "▲" in browser.run(f"return {mark}")
    assert browser.run("return getComputedStyle(document.querySelector('#cases tr.active')).boxShadow") != "none"


def test_names_and_roles_are_there_for_screen_readers(browser: Browser, page: Path, rows: list[CaseRow]) -> None:
    browser.open(page).table().press("j", "Enter")
    assert browser.opens(rows[0].case)
    assert len(measured(browser)) == 12
    tree = browser.command("Accessibility.getFullAXTree")["nodes"]
    named = {(node["role"]["value"], node["name"]["value"]) for node in tree if not node["ignored"] and "name" in node}
    roles = {role for role, _ in named}
    assert {"dialog", "heading", "button", "table", "image", "figure", "link"} <= roles
    assert ("dialog", rows[0].case) in named
    assert not [name for role, name in named if role in ("image", "button", "link", "dialog") and not name.strip()]
    browser.press("Escape")
    assert browser.closes()
    tree = browser.command("Accessibility.getFullAXTree")["nodes"]
    named = {(node["role"]["value"], node["name"]["value"]) for node in tree if not node["ignored"] and "name" in node}
    assert {("searchbox", "Search"), ("search", ""), ("navigation", "Contents")} <= named
    assert browser.run("return [...document.querySelectorAll('#cases tbody a')].filter(a => a.tabIndex === 0).length") >= 1


def test_without_scripts_cases_are_a_list_that_opens(browser: Browser, page: Path, rows: list[CaseRow]) -> None:
    browser.open(page, scripts=False)
    # The driver itself needs scripts: it looks through the protocol, and what it runs is its own.
    browser.driver.find_element("css selector", "#case-1 > summary").click()
    find = browser.driver.find_elements
    assert len(find("css selector", "#cases tbody tr")) == 60
    assert [element.is_displayed() for element in find("css selector", ".tools, #viewer")] == [False, False]
    images = find("css selector", "#case-1 img")
    assert len(images) == 12
    assert all(image.is_displayed() for image in images)
    assert [(int(image.get_property("naturalWidth")), int(image.get_property("naturalHeight"))) for image in images[:3]] == [
        (21, 34), (21, 13), (34, 13),
    ]  # fmt: skip
    assert not find("css selector", "#case-2 img")[0].is_displayed()
    summaries = [element.text for element in find("css selector", "#cards > details > summary")]
    assert [text.partition(":")[0] for text in summaries] == [row.case for row in rows]


def test_hostile_names_stay_text(
    browser: Browser,
    tmp_path: Path,
    case_row: Callable[..., CaseRow],
    case_planes: Callable[..., CasePlanes],
    case_run: Callable[..., Path],
) -> None:
    name = HOSTILE.replace("/", "|")
    spoilt = case_planes(AFFINE, SHAPE, INDEX)
    spoilt = replace(spoilt, maps=tuple(replace(found, unit=HOSTILE, kind=HOSTILE) for found in spoilt.maps))
    rows = [
        case_row(name, prediction=HOSTILE, class_names=(HOSTILE, "</noscript><b id=out>", "&lt;"), input=HOSTILE, unit=HOSTILE),
        CaseRow("bad", "failed", HOSTILE, HOSTILE),
        case_row("</noscript>".replace("/", "|"), prediction="</noscript><b id=out>"),
    ]
    path = write_cohort(case_run(tmp_path, rows, {name: spoilt}, name=HOSTILE))
    for scripts in (True, False):
        browser.open(path, scripts=scripts)
        if scripts:
            browser.table()
            assert browser.listed()[0] == name
            assert browser.listed(2)[0] == HOSTILE
            browser.press("j", "Enter")
            assert browser.opens(name)
            assert browser.says(HOSTILE, "#viewer-card")
            assert browser.says("</noscript><b id=out>", "#viewer-card")
            assert browser.run("return document.querySelectorAll('[onerror], #out').length") == 0
            browser.press("j")
            assert browser.says(HOSTILE, "#viewer-card")
        assert browser.driver.title == f"{HOSTILE} 1.2.3: 3 cases"
        assert browser.driver.find_elements("css selector", "[onerror], #out") == []
        errors, asked = browser.logs()
        assert errors == []
        assert [url for url in asked if not url.startswith((path.as_uri(), "data:image/"))] == []


@pytest.mark.soak
def test_a_hundred_cases_with_the_heaviest_pictures_are_light(
    browser: Browser,
    tmp_path: Path,
    case_row: Callable[..., CaseRow],
    large_planes: Callable[[int], CasePlanes],
    case_run: Callable[..., Path],
    record_property: Callable[[str, object], None],
) -> None:
    names = [f"case_{i:03d}" for i in range(100)]
    planes = {name: large_planes(i % 10) for i, name in enumerate(names)}
    run = case_run(tmp_path, [case_row(name, trace=float(i + 1)) for i, name in enumerate(names)], planes)
    started = time.perf_counter()
    path = write_cohort(run)
    written = time.perf_counter() - started
    weight = path.stat().st_size
    assert weight < LARGEST
    browser.open(path).table()
    timing = browser.run("const n = performance.getEntriesByType('navigation')[0]; return [n.domInteractive, n.loadEventEnd]")
    listed = browser.run("return performance.getEntriesByName('list')[0].startTime")
    clicked = time.perf_counter()
    browser.press("j", "Enter")
    assert browser.opens(names[0])
    found = measured(browser)
    facts = {
        "written_s": written, "megabytes": weight / 1e6, "list_ms": listed, "dom_interactive_ms": timing[0], "load_ms": timing[1],
        "case_open_ms": 1e3 * (time.perf_counter() - clicked),
    }  # fmt: skip
    for name, value in facts.items():
        record_property(name, round(value, 2))
        print(f"{name} {value:.2f}")  # noqa: T201
    shown = browser.run(
        "return [...document.querySelectorAll('#cases tbody tr')]"
        ".filter((r) => r.cells[r.cells.length - 2].innerText === 'yes').length"
    )
    assert shown >= 60
    assert len(found) == 12


@pytest.mark.soak
def test_ten_thousand_cases_are_searched_and_each_one_opens(
    browser: Browser,
    tmp_path: Path,
    case_row: Callable[..., CaseRow],
    case_planes: Callable[..., CasePlanes],
    case_run: Callable[..., Path],
) -> None:
    rows = [case_row(f"case_{i:05d}", trace=1.0 + i % 1000 / 1000, prediction=("normal", "mass")[i % 2]) for i in range(10_000)]
    path = write_cohort(case_run(tmp_path, rows, {"case_07000": case_planes(AFFINE, SHAPE, INDEX)}))
    browser.open(path).table()
    assert len(browser.listed()) == 200
    assert browser.says("1 to 200", "#page")
    browser.run("document.querySelector('#later').click()")
    assert browser.listed()[0] == "case_00200"
    browser.press("/", *"mass 8765", "Enter", "Enter")
    assert browser.opens("case_08765")
    assert browser.until("document.querySelector('#viewer-card').textContent.includes('case_08765.nii.gz')")  # folded
    browser.press("Escape")
    assert browser.closes()
    browser.press("/", *"\b" * 12, *"case_07000", "Enter", "Enter")
    assert browser.opens("case_07000")
    assert len(measured(browser)) == 12
    browser.press("Escape")
    errors, _ = browser.logs()
    assert errors == []
