"""The viewer in headless Chromium: what it shows and where, and what the mouse and the keys do."""

from __future__ import annotations

import io
import re
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from monai_ifim.display.numbers import number
from monai_ifim.display.windows import bar_shape

Array = npt.NDArray[Any]
Page = Any  # conftest's
UNPLACED = "Image without a scale in mm"
ODD = "odd 100% & <b>"


def _colored(pixels: Array) -> Array:
    return np.asarray(np.ptp(pixels, axis=2) > 40)


def _middle(chosen: Array) -> tuple[float, float]:
    row, column = np.argwhere(chosen).mean(axis=0)
    return float(row), float(column)


def _place(case: Any, index: tuple[int, ...]) -> Array:
    return np.asarray(case.affine[:3, :3] @ np.asarray(index) + case.affine[:3, 3])


def _voxels_apart(case: Any, first: Any, second: Any) -> float:
    return float(np.abs(np.linalg.inv(case.affine[:3, :3]) @ (np.asarray(first) - np.asarray(second))).max())


def test_views_open_at_the_most_sensitive_voxel_with_its_values(page: Page, run: Any) -> None:
    case = run.cases["a tilted"]
    place, background, overlay = page.reading("cross")
    assert place == pytest.approx(_place(case, case.blob), abs=0.06)
    ramp = sum(case.blob) / (sum(case.shape) - 3)
    assert background == f"Image {number(int(1000 * ramp))} Hounsfield units"
    assert overlay == f"Sensitivity {number(case.peak)} nats per (network input intensity on the network's grid)²"
    assert [title.split("\n")[0] for title in page.titles()] == ["Axial", "Coronal", "Sagittal"]


@pytest.mark.parametrize("orientation", ["Axial", "Coronal", "Sagittal"])
def test_planted_blob_is_drawn_where_it_lies_in_the_patient(bare: Page, run: Any, orientation: str) -> None:
    """The pointer is put on the middle of what is coloured, and 3D Slicer's own reading of that place must be the blob's."""
    case = run.cases["a tilted"]
    colored = _colored(bare.settled(orientation))
    assert colored.sum() > 50
    bare.point_at(orientation, *_middle(colored)).perform()
    bare.wait(lambda: bare.reading("pointer")[0])
    place, _, overlay = bare.reading("pointer")
    assert _voxels_apart(case, place, _place(case, case.blob)) < 0.5
    assert overlay.startswith(f"Sensitivity {number(case.peak)} ")


def test_patient_is_seen_from_the_feet_with_the_right_side_at_the_left(page: Page) -> None:
    assert [edge[0] for edge in page.edges("Axial")] == ["R", "L", "A", "P"]
    assert [edge[0] for edge in page.edges("Coronal")] == ["R", "L", "S", "I"]
    assert [edge[0] for edge in page.edges("Sagittal")] == ["A", "P", "S", "I"]
    middle = [size / 2 for size in page.picture("Axial").shape[:2]]
    places = []
    for row, column in ((0, -40), (0, 40), (-40, 0), (40, 0)):
        last = page.reading("pointer")[0]
        page.point_at("Axial", middle[0] + row, middle[1] + column).perform()
        page.wait(lambda last=last: page.reading("pointer")[0] not in ([], last))
        places.append(page.reading("pointer")[0])
    left, right, top, bottom = places
    assert left[0] > right[0] + 5
    assert top[1] > bottom[1] + 5


def test_overlay_changes_its_colours_with_its_kind_and_goes(bare: Page) -> None:
    def reddest() -> float:
        pixels = bare.picture("Axial")
        red, _, blue = pixels[_colored(pixels)].mean(axis=0)
        return float(red - blue)

    assert reddest() < 0  # most of the blob's slope is in the blue and green of viridis
    bare.choose(".ifim-overlay", "Component 1")
    bare.wait(lambda: reddest() > 40)  # the blob is positive in the first direction
    bare.choose(".ifim-overlay", "None")
    bare.wait(lambda: not _colored(bare.picture("Axial")).any())
    bare.point_at("Axial", 200, 200).perform()  # the keys belong to the pictures again
    bare.press(" ")
    bare.wait(lambda: "Component 1" in bare.text(".ifim-overlay"))
    bare.wait(lambda: reddest() > 40)


def test_negative_values_are_blue_where_they_lie(bare: Page, run: Any) -> None:
    case = run.cases["a tilted"]
    bare.choose(".ifim-overlay", "Sensitive part (high)")
    target = _place(case, case.opposite)
    slices = round(
        (target - np.array(bare.reading("cross")[0])) @ (case.affine[:3, 2] / np.linalg.norm(case.affine[:3, 2]) / 3.3)
    )
    bare.point_at("Axial", 200, 200).perform()
    for _ in range(abs(slices)):
        bare.press(Keys.ARROW_UP if slices > 0 else Keys.ARROW_DOWN)
    bare.wait(lambda: f" {case.opposite[2] + 1} of 13" in bare.titles()[0])
    bare.wait(lambda: _colored(bare.picture("Axial")).sum() > 50)
    pixels = bare.settled("Axial")
    red, _, blue = pixels[_colored(pixels)].mean(axis=0)
    assert blue > red + 40
    bare.point_at("Axial", *_middle(_colored(pixels))).perform()
    bare.wait(lambda: _voxels_apart(case, bare.reading("pointer")[0], target) < 0.5)


def test_wheel_goes_to_the_next_slice_of_one_view(page: Page) -> None:
    before = page.titles()
    origin = ScrollOrigin.from_element(page.view("Axial"))
    ActionChains(page.browser).scroll_from_origin(origin, 0, -120).perform()
    page.wait(lambda: page.titles() != before)
    after = page.titles()
    counts = [int(re.search(r"(\d+) of 13", title)[1]) for title in (before[0], after[0])]  # type: ignore[index]
    assert abs(counts[1] - counts[0]) == 1
    assert after[1:] == before[1:]


def test_click_moves_all_views_there_and_a_drag_changes_the_window(page: Page) -> None:
    before, place = page.titles(), page.reading("cross")[0]
    page.point_at("Axial", 250, 260).click().perform()
    page.wait(lambda: page.reading("cross")[0] != place)
    page.wait(lambda: all(then != now for then, now in zip(before[1:], page.titles()[1:], strict=True)))
    assert page.titles()[0] == before[0]
    scale, unmoved = page.state("background_scale"), page.reading("cross")[0]
    page.point_at("Axial", 250, 260).click_and_hold().move_by_offset(60, 20).move_by_offset(30, 30).release().perform()
    page.wait(lambda: page.state("background_scale") != scale)
    assert page.reading("cross")[0] == unmoved
    page.browser.find_element(By.XPATH, "//button[contains(., 'Reset brightness')]").click()
    page.wait(lambda: page.state("background_scale") == scale)


def test_ct_has_its_usual_windows_and_other_images_have_none(page: Page) -> None:
    buttons = page.browser.find_elements(By.CSS_SELECTOR, ".ifim-windows button")
    assert [button.text.lower() for button in buttons] == ["soft tissue", "lung", "bone", "brain"]
    before = page.settled("Axial")
    buttons[2].click()
    page.wait(
        lambda: page.state("background_scale")["low"] == "\N{MINUS SIGN}500" and page.state("background_scale")["high"] == "1300"
    )
    page.wait(lambda: page.picture("Axial").mean() < before.mean() - 10)
    page.choose(".ifim-background", "Image as the network saw it")
    page.wait(lambda: not page.browser.find_elements(By.CSS_SELECTOR, ".ifim-windows"))


def test_drag_on_the_overlay_and_its_sliders_change_the_overlay_alone(bare: Page) -> None:
    before, scales = bare.settled("Axial"), (bare.state("background_scale"), bare.state("overlay_scale"))
    bare.set_state("clear_share", 0.6)
    bare.wait(lambda: 0 < _colored(bare.picture("Axial")).sum() < _colored(before).sum() / 2)
    bare.set_state("clear_share", 0.2)
    bare.set_state("opacity", 0.0)
    bare.wait(lambda: not _colored(bare.picture("Axial")).any())
    bare.set_state("opacity", 0.6)
    bare.wait(lambda: np.array_equal(bare.picture("Axial"), before))
    bare.browser.find_element(By.CSS_SELECTOR, "button[value=overlay]").click()
    bare.point_at("Axial", 400, 300).click_and_hold().move_by_offset(60, 0).move_by_offset(60, 0).release().perform()
    bare.wait(lambda: bare.state("overlay_scale") != scales[1])
    assert bare.state("background_scale") == scales[0]
    bare.browser.find_element(By.CSS_SELECTOR, "button[value=background]").click()


def test_shift_leads_the_crosshair_and_the_picture_can_be_moved_and_magnified(bare: Page) -> None:
    keys, place = ActionChains(bare.browser), bare.reading("cross")[0]

    def column() -> float:
        return _middle(_colored(bare.picture("Axial")))[1]

    bare.point_at("Axial", 250, 260).perform()
    keys.key_down(Keys.SHIFT).move_by_offset(30, 30).key_up(Keys.SHIFT).perform()
    bare.wait(lambda: bare.reading("cross")[0] != place)
    before = _middle(_colored(bare.settled("Axial")))[1]
    drag = bare.point_at("Axial", 250, 260).key_down(Keys.SHIFT).click_and_hold().move_by_offset(60, 0)
    drag.release().key_up(Keys.SHIFT).perform()
    bare.wait(lambda: abs(column() - before - 60) < 3)
    small = _colored(bare.settled("Axial")).sum()
    origin = ScrollOrigin.from_element(bare.view("Axial"))
    ActionChains(bare.browser).key_down(Keys.CONTROL).scroll_from_origin(origin, 0, -240).key_up(Keys.CONTROL).perform()
    bare.wait(lambda: _colored(bare.picture("Axial")).sum() > 1.1 * small)
    bare.press("r")
    bare.wait(lambda: abs(column() - before) < 3)


def test_arrow_keys_step_between_cases_and_a_single_slice_fills_one_view(page: Page, run: Any) -> None:
    case = run.cases["b sagittal"]
    page.press(Keys.ARROW_RIGHT)
    page.wait(lambda: page.titles() and page.titles()[0].startswith("Sagittal"))
    assert len(page.titles()) == 1
    assert [edge[0] for edge in page.edges("Sagittal")] == ["A", "P", "S", "I"]
    page.wait(lambda: page.reading("cross")[0])
    assert page.reading("cross")[0] == pytest.approx(_place(case, case.blob), abs=0.06)
    assert " of " not in page.titles()[0]
    before = page.settled("Sagittal")
    assert _colored(before).any()
    ActionChains(page.browser).scroll_from_origin(ScrollOrigin.from_element(page.view("Sagittal")), 0, -120).perform()
    assert np.array_equal(page.settled("Sagittal"), before)  # there is no other slice
    page.press(Keys.ARROW_LEFT)
    page.wait(lambda: len(page.titles()) == 3)


def test_there_and_back_before_a_case_is_open_ends_where_it_began(page: Page) -> None:
    for name in ("b sagittal", "c photograph", "a tilted"):
        page.set_state("case_name", name)
    page.wait(lambda: page.state("case_number") == 1 and not page.state("loading"))
    assert len(page.titles()) == 3
    time.sleep(0.5)
    assert not page.state("loading")


def test_photograph_is_upright_and_its_places_are_rows_and_columns(bare: Page, run: Any) -> None:
    case = run.cases["c photograph"]
    bare.choose_case(case.name)
    bare.wait(lambda: bare.titles() == [UNPLACED])
    assert bare.text(".ifim-cross td:nth-child(2)") == f"column {case.blob[0] + 1}, row {case.blob[1] + 1}"
    bare.choose(".ifim-overlay", "None")
    pixels = bare.settled(UNPLACED)[:, :, 0]
    drawn = np.argwhere(pixels > 20)
    (top, left), (bottom, right) = drawn.min(axis=0), drawn.max(axis=0)
    assert pixels[bottom - 15, right - 15] > pixels[top + 15, left + 15] + 100  # the ramp rises to the right and down


def test_a_colour_bar_is_pointed_where_values_lie_beyond_it(page: Page) -> None:
    """The values of the volume run from 0 to 1000, its window in the sidecar from -100 to 900."""

    def points() -> tuple[str, int]:
        drawn = "return getComputedStyle(document.querySelector('.ifim-scale')).clipPath"
        return page.state("background_scale")["shape"], page.browser.execute_script(drawn).count("calc(")

    assert points() == (bar_shape(below=False, above=True), 2)
    page.browser.find_element(By.XPATH, "//button[contains(., 'Bone')]").click()  # from -500 to 1300
    page.wait(lambda: points() == (bar_shape(below=False, above=False), 0))
    page.browser.find_element(By.XPATH, "//button[contains(., 'Soft tissue')]").click()
    page.wait(lambda: points() == (bar_shape(below=False, above=True), 2))


def test_keys_of_one_character_can_be_turned_off(page: Page) -> None:
    def switch() -> None:
        page.browser.execute_script("document.querySelector('.ifim-keys input').click()")
        page.point_at("Axial", 200, 200).perform()  # the keys belong to the pictures again

    switch()
    page.wait(lambda: page.state("keys_on") is False)
    page.press("c")
    page.press(" ")
    page.press(Keys.ARROW_RIGHT)
    page.wait(lambda: page.state("case_number") == 2)  # what was pressed before has been dealt with
    assert page.state("crosshair_shown") is True
    assert page.state("overlay_name") != "none"
    page.press(Keys.ARROW_LEFT)
    page.wait(lambda: page.state("case_number") == 1)
    page.wait(lambda: page.browser.find_elements(By.CSS_SELECTOR, ".ifim-title"))
    switch()
    page.wait(lambda: page.state("keys_on") is True)
    page.press("c")
    page.wait(lambda: page.state("crosshair_shown") is False)
    page.set_state("crosshair_shown", True)


def test_damaged_case_says_so_and_the_others_still_open(page: Page) -> None:
    page.choose_case(ODD)
    page.wait(lambda: "cut short" in page.text(".v-alert"))
    page.choose_case("a tilted")
    page.wait(lambda: not page.browser.find_elements(By.CSS_SELECTOR, ".v-alert"))
    assert _colored(page.settled("Axial")).any()


def test_panel_tells_the_answer_the_spectrum_and_how_it_was_made(page: Page) -> None:
    words = page.text(".ifim-panel")
    for expected in (
        "lesion",
        "0.812",
        "60.0 %",
        "Toy 1.2",
        "What they are not",
        "nats per (network input intensity on the network's grid)²",
    ):
        assert expected in words


def test_four_views_show_the_planes_in_space(page: Page) -> None:
    page.browser.find_element(By.CSS_SELECTOR, "button[aria-label^='Three planes']").click()
    page.wait(lambda: len(page.browser.find_elements(By.CSS_SELECTOR, ".layout-grid-item")) == 4)
    page.wait(lambda: len(page.titles()) == 3)
    space = next(
        view
        for view in page.browser.find_elements(By.CSS_SELECTOR, ".layout-grid-item")
        if not view.find_elements(By.CSS_SELECTOR, ".ifim-title")
    )
    page.wait(lambda: (np.asarray(Image.open(io.BytesIO(space.screenshot_as_png)).convert("L")) > 60).mean() > 0.05)
    page.browser.find_element(By.CSS_SELECTOR, "button[aria-label^='Axial, coronal']").click()
    page.wait(lambda: len(page.browser.find_elements(By.CSS_SELECTOR, ".layout-grid-item")) == 3)


def test_light_and_dark(page: Page) -> None:
    def panel() -> float:
        shot = page.browser.find_element(By.CSS_SELECTOR, ".v-navigation-drawer").screenshot_as_png
        return float(np.median(np.asarray(Image.open(io.BytesIO(shot)).convert("L"))))

    switch = page.browser.find_element(By.CSS_SELECTOR, "button[aria-label='Light or dark']")
    assert panel() > 200
    switch.click()
    page.wait(lambda: panel() < 80)
    switch.click()
    page.wait(lambda: panel() > 200)


def test_only_cases_of_the_list_are_opened(page: Page) -> None:
    for name in ("../../../etc", "other", "", "a tilted/../b sagittal", None, 7, ["a tilted"]):
        page.set_state("case_name", name)
        page.wait(lambda: page.state("case_name") == "a tilted")
    assert page.reading("cross")[2].startswith("Sensitivity 2.50 ")
    assert not page.state("problem")


def test_case_comes_from_the_list_by_typing_part_of_its_name(page: Page) -> None:
    box = page.browser.find_element(By.CSS_SELECTOR, ".ifim-case input")
    box.click()
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys("phot")
    page.wait(lambda: page.item("c photograph")).click()
    page.wait(lambda: page.titles() == [UNPLACED])
