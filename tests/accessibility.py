"""axe-core in Chromium: what a page does that WCAG 2.2 AA forbids."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")
RUN = """
const done = arguments[arguments.length - 1];
axe.run(document, { runOnly: { type: "tag", values: arguments[0] }, resultTypes: ["violations"] })
  .then((found) => done(JSON.stringify(found)), (error) => done(JSON.stringify({ error: String(error) })));
"""


@dataclass(frozen=True)
class AxeReport:
    """violations: "rule: selector (why)" of each element; passed: names of rules that applied and hold; version: of axe-core."""

    violations: list[str]
    passed: frozenset[str]
    version: str


class Axe:
    """A Chromium whose pages are judged by the axe-core that the package axe-playwright-python carries."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.source = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")

    def open(self, path: Path, anchor: str = "", scheme: str = "light", size: tuple[int, int] = (1280, 900)) -> Axe:
        """Open a page with a colour scheme in a window of this size."""
        command = self.driver.execute_cdp_cmd
        command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        width, height = size
        command("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
        self.driver.get("about:blank")
        self.driver.get(path.as_uri() + anchor)
        return self

    def run(self, script: str, *arguments: Any) -> Any:
        """The result of a script in the page."""
        return self.driver.execute_script(script, *arguments)

    def report(self) -> AxeReport:
        """Run axe-core on the page as it stands."""
        self.driver.execute_script(self.source)
        found = json.loads(self.driver.execute_async_script(RUN, list(RULES)))
        assert "error" not in found, found
        seen = [
            f"{violation['id']}: {' '.join(map(str, node['target']))} ({' '.join(node['failureSummary'].split())})"
            for violation in found["violations"]
            for node in violation["nodes"]
        ]
        return AxeReport(seen, frozenset(rule["id"] for rule in found["passes"]), found["testEngine"]["version"])

    def wider_than_window(self) -> list[str]:
        """Texts of elements that make the page scroll sideways."""
        script = (
            "if (document.scrollingElement.scrollWidth <= innerWidth) return [];"
            "return [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
            ".map((e) => `${e.tagName} ${e.className} ${e.textContent.slice(0, 40)}`);"
        )
        return list(self.run(script))

    def broken_names(self, selector: str, names: list[str]) -> list[str]:
        """Names that a line end cuts inside of a word: letters and digits of one word lie on two lines."""
        script = """
        const words = /[\\p{L}\\p{N}]+/gu, broken = [];
        for (const element of document.querySelectorAll(arguments[0])) {
          const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
          for (let node = walker.nextNode(); node; node = walker.nextNode()) {
            for (const found of node.data.matchAll(words)) {
              const range = document.createRange();
              range.setStart(node, found.index);
              range.setEnd(node, found.index + found[0].length);
              if (new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1) broken.push(found[0]);
            }
          }
        }
        return broken;
        """
        broken = self.run(script, selector)
        return [word for word in broken if any(word in name for name in names)]


def open_chromium(program: Path, driver: Path, webdriver: Any) -> Any:
    """A headless Chromium; it must be quit."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(program)
    for flag in ("--headless=new", "--no-sandbox", "--force-device-scale-factor=1"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(str(driver)))
