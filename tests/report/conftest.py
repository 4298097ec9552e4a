"""Pages taken apart by the standard library's parser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

from accessibility import Axe, open_chromium

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")


@dataclass
class HtmlTable:
    """A table as a browser builds it: heads of columns, and rows in which a head that spans several rows stands in each."""

    caption: str = ""
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


class HtmlPage(HTMLParser):
    """Tables, images, tags and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[HtmlTable] = []
        self.images: list[dict[str, str]] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._texts: list[str] = []
        self._spans: dict[int, tuple[int, str]] = {}
        self._row: list[str] = []
        self._into: str | None = None
        self._field = ""
        self._rowspan = 1
        self.feed(text)
        self.text = "".join(self._texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag == "img":
            self.images.append(attributes)
        elif tag == "table":
            self.tables.append(HtmlTable())
        elif tag == "tr":
            self._row = []
            self._carry()
        elif tag in ("caption", "th", "td"):
            self._into, self._field, self._rowspan = tag, "", int(attributes.get("rowspan", "1"))
            self._is_column = attributes.get("scope") == "col"

    def _carry(self) -> None:
        """Put in what a row above spans into this place."""
        while len(self._row) in self._spans:
            place = len(self._row)
            left, text = self._spans.pop(place)
            self._row.append(text)
            if left > 1:
                self._spans[place] = (left - 1, text)
                break

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr" and self._row:
            self.tables[-1].rows.append(self._row)
        elif tag == self._into:
            text = " ".join(self._field.split())
            if tag == "caption":
                self.tables[-1].caption = text
            elif self._is_column:
                self.tables[-1].columns.append(text)
            else:
                if self._rowspan > 1:
                    self._spans[len(self._row)] = (self._rowspan - 1, text)
                self._row.append(text)
            self._into = None

    def handle_data(self, data: str) -> None:
        self._texts.append(data)
        if self._into:
            self._field += data

    def table(self, words: str) -> HtmlTable:
        """The one table whose caption holds these words."""
        (found,) = [table for table in self.tables if words in table.caption]
        return found


@pytest.fixture(scope="session")
def parse_html() -> type[HtmlPage]:
    """A page taken apart by the standard library's parser."""
    return HtmlPage


@pytest.fixture(scope="module")
def axe() -> Iterator[Axe]:
    """Chromium with axe-core."""
    if not (CHROMIUM.is_file() and DRIVER.is_file()):
        pytest.skip("Debian's packages chromium and chromium-driver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver", reason="the package selenium is not installed")
    pytest.importorskip("axe_playwright_python", reason="the package axe-playwright-python is not installed")
    driver = open_chromium(CHROMIUM, DRIVER, webdriver)
    yield Axe(driver)
    driver.quit()
