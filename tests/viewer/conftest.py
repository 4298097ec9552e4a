"""A run made with the package's own writer, the viewer that serves it, and a page of it in headless Chromium.

3D Slicer's libraries live in an environment of their own, whose Python the environment variable IFIM_SLICER_PYTHON names.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from monai_ifim.io.case import Companions, write_case
from monai_ifim.io.case_maps import CaseMaps
from monai_ifim.io.model import ModelIdentity
from monai_ifim.io.scan import Scan
from monai_ifim.io.sidecar import CaseFacts, InputIdentity
from monai_ifim.options import CONTENTS

Array = npt.NDArray[Any]
ROOT = Path(__file__).resolve().parents[2]
START = "import typer; from monai_ifim.cli.view import view; typer.run(view)"
SIZE = (1400, 900)
PATIENCE = 30  # seconds
ODD = "odd 100% & <b>"
EDGES = ("left", "right", "top", "bottom")


class Planted(NamedTuple):
    """A case of the run. blob: voxel of the only sensitivity, of value `peak`; opposite: voxel of the only negative part."""

    name: str
    shape: tuple[int, ...]
    affine: Array
    blob: tuple[int, int, int]
    opposite: tuple[int, int, int]
    peak: float
    reader: str


class Run(NamedTuple):
    """A folder of results and what was planted in its cases."""

    output: Path
    cases: dict[str, Planted]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, turned: Callable[..., Array]) -> Run:
    """Four cases; the last one's sensitivity is cut short."""
    output = tmp_path_factory.mktemp("viewed") / "results"
    tilted = turned((2.1, 1.7, 3.3), (0.12, -0.09, 0.15), flip=True)
    sagittal = np.array([[0, 0, 2.7, -9.0], [-1.1, 0, 0, 30.25], [0, -1.4, 0, -21.0], [0, 0, 0, 1]])
    photograph = np.diag([-1.0, -1.0, 1.0, 1.0])
    cases = [
        Planted("a tilted", (23, 29, 13), tilted, (6, 20, 4), (16, 8, 9), 2.5, "NibabelReader"),
        Planted("b sagittal", (31, 25, 1), sagittal, (9, 5, 0), (22, 18, 0), 0.75, "ITKReader"),
        Planted("c photograph", (27, 19), photograph, (20, 4, 0), (3, 12, 0), 1.5, "PILReader"),
        Planted(ODD, (11, 9, 7), tilted, (3, 4, 2), (8, 5, 5), 1.0, "NibabelReader"),
    ]
    for case in cases:
        _write(output, case)
    damaged = output / ODD / f"{ODD}_ifim_sensitivity.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    return Run(output, {case.name: case for case in cases})


def _write(output: Path, case: Planted) -> None:
    ramp = sum(np.arange(size).reshape(-1, *[1] * (len(case.shape) - 1 - axis)) for axis, size in enumerate(case.shape))
    ramp = (ramp / np.max(ramp)).astype(np.float32)
    flat = len(case.shape) == 2
    blob, opposite = (place[:2] if flat else place for place in (case.blob, case.opposite))
    sensitivity, signed = np.zeros_like(ramp), np.zeros_like(ramp)
    sensitivity[blob], signed[blob], signed[opposite] = case.peak, 0.5, -0.5
    maps = CaseMaps(case.affine, ramp[None], signed[None], (ramp - signed)[None], sensitivity[None], np.stack([signed[None]] * 2))
    source = InputIdentity("in.nii.gz", "0" * 64, case.shape, case.affine.tolist(), case.reader)
    model = ModelIdentity("Toy", "1.2", "ab" * 32, ("no lesion", "lesion", "motion"), "cd" * 32)
    record = {
        "head": "categorical",
        "probabilities": [0.125, 0.8125, 0.0625],
        "logits": [0.1, 1.9, -0.6],
        "eigenvalues": [0.75, 0.25],
        "rank": 2,
        "energy_kept": 0.8,
        "trace": 1.25,
        "locality_radius": [0.5, None],
        "method": "exact",
        "device": "cpu",
        "dtype": "float32",
        "seconds": 0.25,
    }
    scan = None if flat else Scan((1000 * ramp).astype(np.int16), case.affine, "Hounsfield units")
    write_case(output, case.name, maps, CONTENTS, CaseFacts(source, model, "native", record), Companions(scan))


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
def start_viewer(slicer_python: str) -> Callable[..., Served]:
    """Start a viewer of a folder in a process of its own, which prints into another folder; more: options."""
    return partial(_start, slicer_python)


@pytest.fixture(scope="module")
def served(run: Run, start_viewer: Callable[..., Served], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    started = start_viewer(run.output, tmp_path_factory.mktemp("said"))
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
def page(opened: Page, run: Run) -> Page:
    """The page at the first case, opened again whatever the last test did to it, with its pictures drawn."""
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
        return WebDriverWait(self.browser, PATIENCE, 0.1, ignored_exceptions=(Exception,)).until(lambda _: condition())

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
