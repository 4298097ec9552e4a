"""Pages of runs in headless Chromium."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
KEYS = {
    "Enter": "\ue007",
    "Escape": "\ue00c",
    "ArrowDown": "\ue015",
    "ArrowUp": "\ue013",
    "ArrowLeft": "\ue012",
    "ArrowRight": "\ue014",
    "PageUp": "\ue00e",
    "End": "\ue010",
    "Home": "\ue011",
    "PageDown": "\ue00f",
}


class Browser:
    """Chromium with one page."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, anchor: str = "", scheme: str = "light", scripts: bool = True) -> Browser:
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.command("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.driver.get("about:blank")
        self.logs()
        self.driver.get(path.as_uri() + anchor)
        return self

    def command(self, name: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, arguments)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def logs(self) -> tuple[list[str], list[str]]:
        """What went wrong, and the addresses that were asked for, since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [entry["message"] for entry in self.driver.get_log("browser")], asked

    def press(self, *keys: str) -> Browser:
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(KEYS.get(key, key)).perform()
        return self

    def until(self, script: str) -> Any:
        """The first true value of an expression, within ten seconds."""
        end = time.monotonic() + 10
        while not (found := self.run(f"return {script}")):
            assert time.monotonic() < end, script
            time.sleep(0.02)
        return found

    def table(self) -> Browser:
        """Show the list of cases as a table, if the page shows the gallery."""
        self.run("if (document.querySelector('#gallery li')) document.querySelector('#look').click()")
        return self

    def listed(self, column: int = 0) -> list[str]:
        return list(
            self.run("return [...document.querySelectorAll('#cases tbody tr')].map(r => r.cells[arguments[0]].innerText)", column)
        )

    def focused(self) -> str:
        return str(self.run("return document.activeElement.innerText || document.activeElement.id"))

    def settles(self, get: Callable[[], Any], wanted: Any) -> Any:
        """What `get` says once it is as wanted, or after ten seconds: cards are unpacked, and a dialog's close told, later than
        the click that asks for it."""
        end = time.monotonic() + 10
        while (found := get()) != wanted and time.monotonic() < end:
            time.sleep(0.02)
        return found

    def says(self, text: str, where: str = "#viewer") -> bool:
        """Whether the element comes to show a text."""
        script = "return (document.querySelector(arguments[0])?.innerText ?? '').includes(arguments[1])"
        return bool(self.settles(lambda: self.run(script, where, text), True))

    def opened(self) -> str | None:
        """Name of the case that the viewer shows."""
        found: str | None = self.run(
            "const v = document.querySelector('#viewer'); return v.open ? v.querySelector('h2').innerText : null"
        )
        return found

    def opens(self, name: str) -> bool:
        """Whether the viewer comes to show a case."""
        return bool(self.settles(self.opened, name) == name)

    def closes(self) -> bool:
        """Whether the viewer comes to be closed, and the page to know of it: the address no longer names a case."""
        return bool(self.settles(lambda: self.opened() is None and "#case-" not in self.run("return location.href"), True))

    def picture(self) -> Any:
        content = self.command("Page.captureScreenshot", format="png")["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")).astype(float)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium with a window of 1400 x 950; skips the test where it is not installed."""
    if not (CHROMIUM.is_file() and DRIVER.is_file()):
        pytest.skip("Debian's packages chromium and chromium-driver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver", reason="the package selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ("--headless=new", "--no-sandbox", "--window-size=1400,950", "--force-device-scale-factor=1"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
