"""The site builds without a warning; its links resolve and its reference is complete."""

from __future__ import annotations

import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("sphinx", reason="needs the extra docs: pip install '.[docs]'")
pytest.importorskip("myst_parser", reason="needs the extra docs: pip install '.[docs]'")
pytest.importorskip("furo", reason="needs the extra docs: pip install '.[docs]'")

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(page.relative_to(DOCS).with_suffix("") for page in DOCS.rglob("*.md"))


class Page(HTMLParser):
    """Links of a page, the files that it loads, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = {""}
        self.formulas = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.places |= {values[name] for name in ("id", "name") if name in values}
        self.formulas += tag == "math"
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in ("img", "script", "source", "iframe") and "src" in values:
            self.loaded.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(folder / "trees")]
    built = subprocess.run([*command, str(DOCS), str(folder / "html")], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def parsed(site: Path) -> dict[Path, Page]:
    """The parsed pages by their files."""
    return {file: Page(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}


def test_every_page_is_in_a_toctree(site: Path, parsed: dict[Path, Page]) -> None:
    listed = {(site / urlsplit(link).path).resolve() for link in parsed[site / "index.html"].links if not urlsplit(link).scheme}
    wanted = {(site / page).with_suffix(".html") for page in PAGES}
    assert len(wanted) >= 20
    assert wanted <= listed | {site / "index.html"}


def test_every_link_leads_to_a_place_that_is_there(parsed: dict[Path, Page]) -> None:
    broken = []
    for file, page in parsed.items():
        for link in [*page.links, *page.loaded]:
            target = urlsplit(link)
            if target.scheme or target.netloc:
                continue
            other = (file.parent / unquote(target.path)).resolve() if target.path else file
            places = parsed[other].places if other in parsed else {""}
            if not other.exists() or (other in parsed and unquote(target.fragment) not in places):
                broken.append(f"{file.name}: {link}")
    assert broken == []


def test_pages_load_nothing_from_elsewhere(parsed: dict[Path, Page]) -> None:
    assert [link for page in parsed.values() for link in page.loaded if urlsplit(link).scheme or urlsplit(link).netloc] == []


def test_formulas_are_drawn_by_the_browser(site: Path, parsed: dict[Path, Page]) -> None:
    theory = (DOCS / "theory.md").read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", "", theory, flags=re.MULTILINE | re.DOTALL)
    assert parsed[site / "theory.html"].formulas == len(re.findall(r"\$\$.*?\$\$|\$[^$]+\$", prose, flags=re.DOTALL)) > 50
    # TeX takes \frac12 for one half, docutils' converter for twelve over what follows.
    assert [page for page in PAGES if re.search(r"\\[td]?frac\d", (DOCS / page).with_suffix(".md").read_text())] == []


@pytest.mark.parametrize("module", ["monai_ifim", "monai_ifim.core", "monai_ifim.adapt", "monai_ifim.io"])
def test_every_public_name_is_in_the_reference(site: Path, module: str) -> None:
    content = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    documented = {line.split()[0] for line in zlib.decompress(content).decode("utf-8").splitlines()}
    public = {name: getattr(import_module(module), name) for name in import_module(module).__all__ if name != "__version__"}
    names = [name for name, value in public.items() if getattr(value, "__name__", name) == name]  # MONAI's D and Dict are aliases
    assert len(names) >= len(public) - 4 > 0
    homes = ("core", "adapt", "run.cohort", "report.cohort.results_page")
    floors = tuple(f"monai_ifim.{home}" for home in homes) if module == "monai_ifim" else (module,)
    assert [name for name in names if not any(f"{floor}.{name}" in documented for floor in floors)] == []


def test_links_of_the_readme_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert [link for link in links if not urlsplit(link).scheme and not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", ["theory", "limits"])
def test_numbers_quoted_from_the_experiments_are_theirs(page: str) -> None:
    found = (DOCS / "results" / "README.md").read_text(encoding="utf-8")
    text = " ".join((DOCS / page).with_suffix(".md").read_text(encoding="utf-8").split())
    quoted = [number for number in ("0.0001 to 0.0089", "0.004 to 0.215", "0.060", "0.013", "0.46 to 1.00") if number in text]
    assert len(quoted) >= 4
    assert [number for number in quoted if number not in found] == []
