"""The viewer in headless Chromium: what it shows and where, what the mouse and keys do, and who is kept out.

3D Slicer's libraries live in an environment of their own, whose Python the environment variable IFIM_SLICER_PYTHON names.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

Array = npt.NDArray[Any]
ROOT = Path(__file__).resolve().parents[3]
START = "import typer; from monai_ifim.cli.view import view; typer.run(view)"
SIZE = (1400, 900)
PATIENCE = 30  # seconds
ODD = "odd 100% & <b>"
EDGES = ("left", "right", "top", "bottom")


class Served(NamedTuple):
    """A running viewer. address: with the secret; said: everything it has printed is in these two files."""

    process: subprocess.Popen[str]
    address: str
    port: int
    secret: str
    said: tuple[Path, Path]


@pytest.fixture(scope="module")
def slicer_python() -> str:
    python = os.environ.get("IFIM_SLICER_PYTHON")
    if not python:
        pytest.skip("set IFIM_SLICER_PYTHON to a Python that has trame-slicer to run this test")
    return python


@pytest.fixture(scope="module")
def served(run: Any, slicer_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    started = _start(slicer_python, run.output, tmp_path_factory.mktemp("said"))
    yield started
    started.process.kill()
    started.process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("Debian's chromium and chromium-driver are needed to run this test")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--force-device-scale-factor=1"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={SIZE[0]},{SIZE[1]}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def opened(served: Served, browser: webdriver.Chrome) -> Page:
    browser.get(served.address)
    found = Page(browser)
    found.wait(lambda: found.text(".ifim-title"))
    return found


@pytest.fixture
def page(opened: Page, run: Any) -> Page:
    """The page at the first case, opened anew whatever the last test did to it, with its pictures drawn."""
    for name in ("b sagittal", min(run.cases)):
        opened.choose_case(name)
    opened.wait(lambda: len(opened.titles()) == 3)
    opened.wait(lambda: (opened.picture("Axial") > 60).mean() > 0.2)
    return opened


@pytest.fixture
def bare(page: Page) -> Iterator[Page]:
    """The page without the crosshair, whose lines have a colour too."""
    page.press("c")
    page.wait(lambda: page.state("crosshair_shown") is False)
    yield page
    page.set_state("crosshair_shown", True)


class Page:
    """What a reader sees and does."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser = browser

    def wait(self, condition: Callable[[], Any]) -> Any:
        return WebDriverWait(self.browser, PATIENCE, ignored_exceptions=(Exception,)).until(lambda _: condition())

    def text(self, selector: str) -> str:
        return self.browser.find_element(By.CSS_SELECTOR, selector).text

    def view(self, orientation: str) -> Any:
        """The element of one view."""
        views = self.browser.find_elements(By.CSS_SELECTOR, ".layout-grid-item")
        return next(view for view in views if view.find_element(By.CSS_SELECTOR, ".ifim-title").text.startswith(orientation))

    def titles(self) -> list[str]:
        return [found.text for found in self.browser.find_elements(By.CSS_SELECTOR, ".ifim-title")]

    def edges(self, orientation: str) -> list[str]:
        view = self.view(orientation)
        return [view.find_element(By.CSS_SELECTOR, f".ifim-{side}").text for side in EDGES]

    def picture(self, orientation: str) -> Array:
        """Pixels [rows, columns, RGB] of one view without the strips where its words are."""
        box = self.view(orientation).rect
        shot = np.asarray(Image.open(io.BytesIO(self.browser.get_screenshot_as_png())).convert("RGB"), dtype=int)
        left, top = int(box["x"]), int(box["y"])
        pixels = shot[top : top + int(box["height"]), left : left + int(box["width"])].copy()
        pixels[:60, :170], pixels[:35], pixels[-60:] = 0, 0, 0
        pixels[:, :30], pixels[:, -30:] = 0, 0
        return pixels

    def settled(self, orientation: str) -> Array:
        """The picture once it no longer changes."""
        before = self.picture(orientation)
        for _ in range(40):
            time.sleep(0.25)
            now = self.picture(orientation)
            if np.array_equal(before, now):
                return now
            before = now
        raise AssertionError(f"the {orientation} picture never comes to rest")

    def point_at(self, orientation: str, row: float, column: float) -> ActionChains:
        """The mouse at a pixel of a view; more may be chained."""
        view = self.view(orientation)
        across, down = column - view.rect["width"] / 2, row - view.rect["height"] / 2
        return ActionChains(self.browser).move_to_element_with_offset(view, round(across), round(down))

    def reading(self, which: str) -> tuple[list[float], str, str]:
        """RAS mm, and the words of background and overlay, at "cross" or "pointer"."""
        place, background, overlay = (self.text(f".ifim-{which} td:nth-child({i})") for i in (2, 3, 4))
        return [float(number) for number in re.findall(r"-?\d+\.\d", place.replace("\N{MINUS SIGN}", "-"))], background, overlay

    def press(self, key: str) -> None:
        ActionChains(self.browser).send_keys(key).perform()

    def choose(self, box: str, words: str) -> None:
        self.browser.find_element(By.CSS_SELECTOR, box).click()
        self.wait(lambda: self.item(words)).click()
        self.wait(lambda: words in self.text(box))

    def choose_case(self, name: str) -> None:
        self.set_state("case_name", name)
        number = self.state("case_names").index(name) + 1
        self.wait(lambda: self.state("case_number") == number and not self.state("loading"))

    def set_state(self, name: str, value: Any) -> None:
        """Tell the server what the page's own boxes would tell it."""
        script = "window.trame.state.set(arguments[0], arguments[1]); window.trame.state.flush(arguments[0])"
        self.browser.execute_script(script, name, value)

    def state(self, name: str) -> Any:
        return self.browser.execute_script("return window.trame.state.get(arguments[0])", name)

    def item(self, words: str) -> Any:
        items = self.browser.find_elements(By.CSS_SELECTOR, ".v-overlay__content .v-list-item")
        return next((item for item in items if words in item.text and item.is_displayed()), None)


def _start(python: str, output: Path, said: Path, *more: str) -> Served:
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "TRAME_ARGS")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "VTK_DEFAULT_OPENGL_WINDOW": "vtkEGLRenderWindow"}
    out, error = said / "out", said / "error"
    with out.open("w") as stdout, error.open("w") as stderr:
        command = [python, "-c", START, str(output), "--no-browser", *more]
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment, cwd=said, text=True)
    deadline = time.monotonic() + 2 * PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if address := re.search(r"http://\S+", out.read_text()):
            parts = urlsplit(address[0])
            return Served(process, address[0], parts.port or 0, parse_qs(parts.query)["secret"][0], (out, error))
        time.sleep(0.1)
    process.kill()
    raise AssertionError(f"the viewer did not start: {error.read_text()[-2000:]}")


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
    assert background == f"Scan {int(1000 * ramp)} Hounsfield units"
    assert overlay == f"Sensitivity {case.peak} nats per (network input intensity)²"
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
    assert overlay.startswith(f"Sensitivity {case.peak} ")


def test_patient_is_seen_from_the_feet_with_the_right_side_at_the_left(page: Page) -> None:
    assert [edge[0] for edge in page.edges("Axial")] == ["R", "L", "A", "P"]
    assert [edge[0] for edge in page.edges("Coronal")] == ["R", "L", "S", "I"]
    assert [edge[0] for edge in page.edges("Sagittal")] == ["A", "P", "S", "I"]
    middle = [size / 2 for size in page.picture("Axial").shape[:2]]
    places = []
    for row, column in ((0, -40), (0, 40), (-40, 0), (40, 0)):
        page.point_at("Axial", middle[0] + row, middle[1] + column).perform()
        time.sleep(0.5)
        places.append(page.reading("pointer")[0])
    left, right, top, bottom = places
    assert left[0] > right[0] + 5
    assert top[1] > bottom[1] + 5


def test_overlay_changes_its_colours_with_its_kind_and_goes(bare: Page) -> None:
    sensitivity = bare.settled("Axial")
    bare.choose(".ifim-overlay", "Direction 1")
    direction = bare.settled("Axial")
    assert not np.array_equal(sensitivity, direction)
    red, _, blue = direction[_colored(direction)].mean(axis=0)
    assert red > blue + 40  # the blob is positive in the first direction
    bare.choose(".ifim-overlay", "None")
    assert not _colored(bare.settled("Axial")).any()
    bare.point_at("Axial", 200, 200).perform()  # the keys belong to the pictures again
    bare.press(" ")
    bare.wait(lambda: "Direction 1" in bare.text(".ifim-overlay"))
    assert _colored(bare.settled("Axial")).any()


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
    after = page.titles()
    assert after[0] == before[0]
    assert [then != now for then, now in zip(before[1:], after[1:], strict=True)] == [True, True]
    scale, unmoved = page.state("background_scale"), page.reading("cross")[0]
    page.point_at("Axial", 250, 260).click_and_hold().move_by_offset(60, 20).move_by_offset(30, 30).release().perform()
    page.wait(lambda: page.state("background_scale") != scale)
    assert page.reading("cross")[0] == unmoved
    page.browser.find_element(By.XPATH, "//button[contains(., 'Reset brightness')]").click()
    page.wait(lambda: page.state("background_scale") == scale)


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
    bare.wait(lambda: bare.titles() == ["Photograph"])
    assert bare.text(".ifim-cross td:nth-child(2)") == f"column {case.blob[0] + 1}, row {case.blob[1] + 1}"
    bare.choose(".ifim-overlay", "None")
    pixels = bare.settled("Photograph")[:, :, 0]
    drawn = np.argwhere(pixels > 20)
    (top, left), (bottom, right) = drawn.min(axis=0), drawn.max(axis=0)
    assert pixels[bottom - 15, right - 15] > pixels[top + 15, left + 15] + 100  # the ramp rises to the right and down


def test_damaged_case_says_so_and_the_others_still_open(page: Page) -> None:
    page.choose_case(ODD)
    page.wait(lambda: "cut short" in page.text(".v-alert"))
    page.choose_case("a tilted")
    page.wait(lambda: not page.browser.find_elements(By.CSS_SELECTOR, ".v-alert"))
    assert _colored(page.settled("Axial")).any()


def test_panel_tells_the_answer_the_spectrum_and_how_it_was_made(page: Page) -> None:
    words = page.text(".ifim-panel")
    for expected in ("lesion", "0.812", "60.0 %", "Toy 1.2", "What they are not", "nats per (network input intensity)²"):
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
    assert page.reading("cross")[2].startswith("Sensitivity 2.5 ")
    assert not page.state("problem")


def test_case_comes_from_the_list_by_typing_part_of_its_name(page: Page) -> None:
    box = page.browser.find_element(By.CSS_SELECTOR, ".ifim-case input")
    box.click()
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys("phot")
    page.wait(lambda: page.item("c photograph")).click()
    page.wait(lambda: page.titles() == ["Photograph"])


def test_page_asks_no_other_place_and_reloads(page: Page, served: Served) -> None:
    page.browser.get_log("performance")
    page.browser.refresh()
    page.wait(lambda: len(page.titles()) == 3)
    page.wait(lambda: (page.picture("Axial") > 60).mean() > 0.2)
    messages = [json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    asked += [m["params"]["url"] for m in messages if m["method"] == "Network.webSocketCreated"]
    places = {urlsplit(url.removeprefix("blob:")).netloc for url in asked if not url.startswith("data:")}
    assert len(asked) > 10
    assert places == {f"127.0.0.1:{served.port}"}
    assert served.secret not in page.browser.current_url


def _get(served: Served, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.read()
    return response


def test_page_and_its_parts_are_closed_without_the_secret(served: Served) -> None:
    for path in (
        "/",
        "/index.html",
        "/index.html?secret=",
        "/index.html?secret=wslink-secret",
        "/index.html?token=" + served.secret,
    ):
        assert _get(served, path).status == 403
    for path in ("/vue.global.js", "/loading.tpl", "/ws", "/absent", "/../index.html"):
        assert _get(served, path).status == 403
        assert _get(served, f"{path}?secret={served.secret}").status == 403
    opened = _get(served, f"/index.html?secret={served.secret}")
    assert opened.status == 200
    assert "default-src 'self'" in opened.headers["Content-Security-Policy"]
    cookie = opened.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert served.secret not in cookie
    assert _get(served, "/vue.global.js", Cookie=cookie.partition(";")[0]).status == 200


def test_other_names_of_this_machine_are_closed(served: Served) -> None:
    """A page elsewhere may point its own name here (DNS rebinding)."""
    assert _get(served, f"/index.html?secret={served.secret}", Host=f"evil.example:{served.port}").status == 403
    assert _get(served, f"/index.html?secret={served.secret}", Host=f"localhost:{served.port}").status == 200
    with socket.socket() as elsewhere:
        elsewhere.settimeout(2)
        assert elsewhere.connect_ex(("127.0.0.2", served.port)) != 0  # as good as another machine's address: not listened at


def test_pictures_are_closed_without_cookie_origin_and_secret(served: Served, slicer_python: str) -> None:
    cookie = _get(served, f"/index.html?secret={served.secret}").headers["Set-Cookie"].partition(";")[0]
    own = f"http://127.0.0.1:{served.port}"

    def knock(cookie: str, secret: str, origin: str) -> dict[str, Any]:
        command = [slicer_python, str(Path(__file__).with_name("knock.py")), str(served.port), cookie, secret, origin]
        return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout))

    assert knock("", served.secret, own)["status"] == 403
    assert knock(cookie.split("=")[0] + "=wrong", served.secret, own)["status"] == 403
    assert knock(cookie, served.secret, "http://127.0.0.1:1")["status"] == 403
    for wrong in ("wslink-secret", served.secret[:-1]):
        refused = knock(cookie, wrong, own)
        assert refused["answers"] == {
            "wslink.hello": "Authentication failed",
            "trame.state.get": "Unauthorized: Skip message processing",
        }
        assert refused["pushed"] == 0
    assert knock(cookie, served.secret, own)["answers"] == {"wslink.hello": "served", "trame.state.get": "served"}


def test_secret_is_said_once(served: Served, page: Page) -> None:
    assert [path.read_text().count(served.secret) for path in served.said] == [1, 0]
    assert "Traceback" not in served.said[1].read_text()


def test_interrupt_ends_the_viewer_and_a_taken_port_is_named(
    run: Any, slicer_python: str, tmp_path: Path, served: Served
) -> None:
    with pytest.raises(AssertionError, match=f"port {served.port} is in use: choose another with --port"):
        _start(slicer_python, run.output, tmp_path, "--port", str(served.port))
    started = _start(slicer_python, run.output, tmp_path, "--case", "b sagittal")
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(PATIENCE) in (0, 130)
    assert "Traceback" not in started.said[1].read_text()
