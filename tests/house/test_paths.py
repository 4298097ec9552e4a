"""Python files that pages, docstrings and comments name exist: a file that was moved is named by its new place."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("monai_ifim", "tests", "docs", "benchmarks", "configs", "bundles")
FLOORS = ("core", "io", "display", "adapt", "run", "evaluation", "report", "viewer", "cli")
NAMED = re.compile(rf"(?<![\w/.-])((?:{'|'.join((*FOLDERS, *FLOORS))})/[\w/.-]+\.py)\b")
MADE = {"CONTRIBUTING.md"}  # its recipes make files
TEXTS = {".md", ".py", ".toml", ".yaml", ".yml"}


def missing(text: str) -> list[str]:
    """The paths in a text that lead to no file from the top of the repository, nor from the package."""
    return [name for name in NAMED.findall(text) if not any((folder / name).exists() for folder in (ROOT, ROOT / "monai_ifim"))]


def test_files_that_are_named_are_there() -> None:
    pages = [path for path in ROOT.glob("*.md") if path.name not in MADE | {"CHANGELOG.md"}]
    others = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in TEXTS]
    found = {str(path.relative_to(ROOT)): missing(path.read_text(encoding="utf-8")) for path in [*pages, *others]}
    assert len(found) > 400
    assert {path: names for path, names in found.items() if names} == {}


def test_a_file_that_is_not_there_is_found() -> None:
    gone = "core/" + "tail.py"
    assert missing(f"see `{gone}` and `core/dense.py`, https://example.org/core/no.py") == [gone]
