"""The viewer of a case in a real browser: what it draws and says is what the NIfTI files hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from chromium import Browser
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.io.planes import CasePlanes
from monai_ifim.report.cohort.page import write_cohort
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import CaseRow

Slices = Callable[..., tuple[CasePlanes, dict[str, Any]]]
SHAPE, INDEX = (21, 34, 13), (5, 20, 9)
AFFINE = np.array([[0.9, 0, 0, -7], [0, 0.9, 0, 3], [0, 0, 4, -20], [0, 0, 0, 1.0]])
FILES = {"image": "source", "high": "high", "low": "low", "sensitivity": "sensitivity", "eigenvector-1": "eigenvector-01"}
SIDES = {"R": 1, "L": -1, "A": 1, "P": -1, "S": 1, "I": -1}

PIXEL = """
const [n, r, c, rows, columns] = arguments;
const canvas = document.querySelectorAll('.slice canvas')[n];
const [x, y] = [(c + 0.5) * canvas.width / columns, (r + 0.5) * canvas.height / rows];
return [...canvas.getContext('2d').getImageData(Math.floor(x), Math.floor(y), 1, 1).data].slice(0, 3);
"""


@pytest.fixture(scope="module")
def one(
    tmp_path_factory: pytest.TempPathFactory, case_slices: Slices, case_row: Callable[..., CaseRow], case_run: Callable[..., Path]
) -> tuple[Path, dict[str, Any]]:
    """The page of a run of one case, and its maps."""
    planes, values = case_slices(AFFINE, SHAPE, INDEX)
    return write_cohort(case_run(tmp_path_factory.mktemp("one"), [case_row("scan")], {"scan": planes})), values


def ready(browser: Browser, path: Path) -> Browser:
    """The page, once the slices of its only case are drawn."""
    browser.open(path)
    browser.until("document.querySelector('.slices[data-ready]')")
    frame(browser)
    return browser


def frame(browser: Browser) -> None:
    """Wait until what was asked for is drawn."""
    browser.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def choose(browser: Browser, mode: str) -> None:
    browser.run("document.querySelector(`.modes input[value='${arguments[0]}']`).click()", mode)
    frame(browser)


def slide(browser: Browser, selector: str, value: int) -> None:
    script = "const e = document.querySelector(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('input'))"
    browser.run(script, selector, value)
    frame(browser)


def said(browser: Browser) -> dict[str, str]:
    """The values at the crosshair."""
    script = "return Object.fromEntries([...document.querySelectorAll('.values dd')].map((e) => [e.dataset.map, e.innerText]))"
    return dict(browser.run(script))


def place(browser: Browser) -> Any:
    """The place of the crosshair in RAS mm."""
    text = browser.run("return document.querySelector('.place').innerText")
    found = re.findall(r"([RLAPSI])\s([\d.]+)\smm", text)
    assert len(found) == 3
    return np.array([SIDES[side] * float(distance) for side, distance in found])


def number(text: str) -> float:
    return float(text.replace("\N{MINUS SIGN}", "-"))


def agrees(text: str, value: float) -> bool:
    """Whether a value on the page is this one, to within what it states itself."""
    plain = text.replace("\N{NO-BREAK SPACE}", " ")
    if plain[0] in "\N{LESS-THAN OR EQUAL TO}\N{GREATER-THAN OR EQUAL TO}":
        bound = number(plain.split()[1])
        slack = 0.006 * abs(bound)
        return value >= bound - slack if plain[0] == "\N{GREATER-THAN OR EQUAL TO}" else value <= bound + slack
    parts = plain.split()
    error = number(parts[2]) if parts[1:2] == ["\N{PLUS-MINUS SIGN}"] else 1e-3 * abs(value) + 1e-12
    return abs(number(parts[0]) - value) <= error


def test_one_case_opens_by_itself_and_its_picture_is_large(browser: Browser, one: tuple[Path, Any]) -> None:
    ready(browser, one[0])
    assert browser.opens("scan")
    width = browser.run("return document.querySelector('.planes').getBoundingClientRect().width / innerWidth")
    assert width >= 0.6
    boxes = browser.run(
        "return [...document.querySelectorAll('.slice canvas')].map((c) => [c.clientWidth, c.clientHeight, c.width, c.height])"
    )
    ratios = [box[0] / box[1] for box in boxes]
    np.testing.assert_allclose(ratios, [21 / 34, 21 * 0.9 / 52, 34 * 0.9 / 52], rtol=0.03)
    assert boxes[0][1] > 0.6 * browser.run("return innerHeight")  # the large one uses the height
    assert browser.logs()[0] == []


def test_values_at_the_crosshair_are_those_of_the_maps(browser: Browser, one: tuple[Path, dict[str, Any]]) -> None:
    path, values = one
    ready(browser, path)
    generator = np.random.default_rng(0)
    np.testing.assert_allclose(place(browser), AFFINE[:3, :3] @ INDEX + AFFINE[:3, 3], atol=0.051)
    assert said(browser)["sensitivity"].startswith("0.0003")
    for _ in range(8):
        for n, axis in enumerate((2, 1, 0)):
            index = int(generator.integers(SHAPE[axis]))
            slide(browser, f".slice:nth-child({n + 1}) .scroll", index)
        found = np.rint(np.linalg.solve(AFFINE[:3, :3], place(browser) - AFFINE[:3, 3])).astype(int)
        texts = said(browser)
        assert set(texts) == {"image", "high", "low", "sensitivity", "eigenvector-1"}
        for key, text in texts.items():
            true = values[{"image": "source", "eigenvector-1": "eigenvector"}.get(key, key)][tuple(found)]
            assert agrees(text, float(true)), (key, text, true)
            assert not agrees(text, float(true) + 0.2 * (abs(float(true)) + 0.5 * (key != "sensitivity"))) or text[0] in "≤≥"


def test_every_slice_is_drawn_where_and_as_the_map_says(browser: Browser, one: tuple[Path, dict[str, Any]]) -> None:
    path, values = one
    ready(browser, path)
    choose(browser, "image")
    for view, (normal, rows, columns) in enumerate([(2, 1, 0), (1, 2, 0), (0, 2, 1)]):
        for index in (1, SHAPE[normal] - 2):
            slide(browser, f".slice:nth-child({view + 1}) .scroll", index)
            for r, c in ((3, 4), (SHAPE[rows] - 4, 3), (4, SHAPE[columns] - 4)):  # off the crosshair
                voxel = [0, 0, 0]
                voxel[normal], voxel[rows], voxel[columns] = index, SHAPE[rows] - 1 - r, SHAPE[columns] - 1 - c
                share = np.clip((values["source"][tuple(voxel)] + 1000) / 1400, 0, 1)
                grey = browser.run(PIXEL, view, r, c, SHAPE[rows], SHAPE[columns])
                assert max(grey) - min(grey) <= 1
                assert abs(grey[0] - 255 * share) <= 12, (view, index, r, c)  # smoothed between neighbours


def test_the_slider_fades_the_overlay(browser: Browser, one: tuple[Path, dict[str, Any]]) -> None:
    ready(browser, one[0])
    assert browser.run("return document.querySelector('.modes :checked').value") == "overlay"
    at = (0, SHAPE[1] - 1 - INDEX[1], SHAPE[0] - 1 - INDEX[0], SHAPE[1], SHAPE[0])  # the spot
    colors = []
    for strength in (0, 50, 100):
        slide(browser, ".strength", strength)
        colors.append(np.array(browser.run(PIXEL, *at), dtype=float))
    choose(browser, "image")
    grey = np.array(browser.run(PIXEL, *at), dtype=float)
    np.testing.assert_allclose(colors[0], grey, atol=1)
    assert np.ptp(colors[2]) > np.ptp(colors[1]) > 3  # colour over grey
    np.testing.assert_allclose(colors[1], (colors[0] + colors[2]) / 2, atol=3)
    assert browser.run("return document.querySelector('.strength').disabled")


@pytest.mark.parametrize("mode", ["sensitivity", "high", "low", "eigenvector-1", "image"])
def test_the_switch_shows_each_map_with_its_bar(browser: Browser, one: tuple[Path, dict[str, Any]], mode: str) -> None:
    ready(browser, one[0])
    before = browser.run("return document.querySelector('.slice canvas').toDataURL()")
    choose(browser, mode)
    assert browser.run("return document.querySelector('.slice canvas').toDataURL()") != before
    colors = {"sensitivity": "sequential", "high": "diverging", "eigenvector-1": "diverging"}.get(mode, "grey")
    assert browser.run("return document.querySelector('.slice-scale .colors').className") == f"colors {colors}"
    ends = {"sensitivity": "0.000300", "high": "0.250", "low": "1.00", "eigenvector-1": "0.250", "image": "400"}
    assert browser.run("return document.querySelector('.slice-scale p span:last-child').innerText") == ends[mode]


def test_wheel_click_and_keys_move_the_crosshair(browser: Browser, one: tuple[Path, dict[str, Any]]) -> None:
    ready(browser, one[0])
    numbers = "return [...document.querySelectorAll('.slice .number')].map((e) => parseInt(e.innerText.split(' ')[1]) - 1)"
    assert browser.run(numbers) == [9, 20, 5]
    wheel = (
        "document.querySelector('.slice canvas').dispatchEvent(new WheelEvent('wheel', {deltaY: arguments[0], cancelable: true}))"
    )
    browser.run(wheel, -100)
    assert browser.run(numbers) == [10, 20, 5]
    browser.run(wheel, 100)
    browser.run("document.querySelector('.slice canvas').focus()")
    browser.press("ArrowLeft", "ArrowUp", "ArrowUp", "PageUp", "PageUp", "PageUp", "PageUp")  # left is the patient's right
    assert browser.run(numbers) == [12, 22, 6]
    browser.press("ArrowRight", "ArrowDown", "PageDown")
    assert browser.run(numbers) == [11, 21, 5]
    assert browser.opens("scan")
    canvas = browser.driver.find_elements("css selector", ".slice canvas")[0]
    canvas.click()  # the middle
    assert browser.run(numbers)[2] == SHAPE[0] // 2
    assert browser.run(numbers)[1] in (SHAPE[1] // 2 - 1, SHAPE[1] // 2)
    browser.run("document.querySelector('.home').click()")
    assert browser.run(numbers) == [9, 20, 5]
    browser.run("document.querySelectorAll('.enlarge')[2].click()")
    frame(browser)
    widths = browser.run("return [...document.querySelectorAll('.slice')].map((f) => f.getBoundingClientRect().width)")
    assert np.argmax(widths) == 2


def test_the_crosshair_leaves_the_spot_free(browser: Browser, one: tuple[Path, dict[str, Any]]) -> None:
    ready(browser, one[0])
    choose(browser, "sensitivity")
    browser.run("document.querySelector('.home').click()")
    frame(browser)
    at = (0, SHAPE[1] - 1 - INDEX[1], SHAPE[0] - 1 - INDEX[0], SHAPE[1], SHAPE[0])
    red, green, blue = browser.run(PIXEL, *at)
    assert red > 150
    assert green > 180
    assert blue < 110  # the yellow of the largest values, not the crosshair's white


def test_a_photograph_has_no_sides_and_no_millimetres(
    browser: Browser, tmp_path: Path, case_slices: Slices, case_row: Callable[..., CaseRow], case_run: Callable[..., Path]
) -> None:
    planes, values = case_slices(np.diag([-1.0, -1, 1, 1]), (25, 37), (4, 30), photograph=True)
    ready(browser, write_cohort(case_run(tmp_path, [case_row("photo")], {"photo": planes})))
    text = browser.run("return document.querySelector('.slices').innerText + document.querySelector('.pictures').innerText")
    assert not re.search(r"\bmm\b|\b[RLAPSI]\b", text)
    assert browser.run("return document.querySelector('.place').innerText") == "row 31, column 5"
    assert browser.run("return document.querySelectorAll('.scroll').length") == 0
    canvas = "document.querySelector('.slice canvas')"
    browser.run(f"{canvas}.focus()")
    browser.press("ArrowUp", "ArrowRight")
    assert browser.run("return document.querySelector('.place').innerText") == "row 30, column 6"
    assert agrees(said(browser)["image"], float(values["source"][5, 29]))


def test_a_cropped_input_fills_the_picture(
    browser: Browser, tmp_path: Path, case_slices: Slices, case_row: Callable[..., CaseRow], case_run: Callable[..., Path]
) -> None:
    seen = np.zeros((60, 50, 40))
    seen[20:36, 10:30, 5:15] = 1
    planes, _ = case_slices(np.diag([2.0, 2, 3, 1]), seen.shape, (25, 20, 9), seen=seen)
    ready(browser, write_cohort(case_run(tmp_path, [case_row("crop")], {"crop": planes})))
    ratio = "const c = document.querySelector('.slice canvas'); return c.clientWidth / c.clientHeight"
    assert browser.run(ratio) == pytest.approx(18 / 22, rel=0.03)  # one voxel of margin
    button = browser.driver.find_element("css selector", ".zoom")
    assert button.text == "Show the whole image"
    button.click()
    frame(browser)
    assert browser.run(ratio) == pytest.approx(60 / 50, rel=0.03)
    assert button.text == "Zoom to what the network saw"


@pytest.mark.slow
def test_a_real_run_says_what_its_nifti_files_hold(
    browser: Browser, tmp_path: Path, make_bundle: Callable[..., Path], write_scan: Callable[..., Path], oblique: Any
) -> None:
    write_scan(tmp_path / "in" / "scan.nii.gz", (9, 8, 7), oblique)
    out = tmp_path / "out"
    bundle = load_bundle(make_bundle(tmp_path / "bundle"))
    run_cases(bundle, find_cases([tmp_path / "in"]), RunSettings(out, CaseSettings("categorical")), lambda row: None)
    ready(browser, write_cohort(out))
    stems = {key: FILES.get(key) or f"eigenvector-0{key[-1]}" for key in said(browser)}
    assert set(FILES) <= set(stems)
    files = {key: nib.load(out / "scan" / f"scan_ifim_{stem}.nii.gz") for key, stem in stems.items()}
    affine = np.asarray(files["image"].affine)
    for index in (1, 4, 6):
        for n in (1, 2, 3):
            slide(browser, f".slice:nth-child({n}) .scroll", index)
        voxel = np.rint(np.linalg.solve(affine[:3, :3], place(browser) - affine[:3, 3])).astype(int)
        for key, text in said(browser).items():
            assert agrees(text, float(files[key].dataobj[tuple(voxel)])), (key, text)
