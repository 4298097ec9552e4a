"""Measured numbers of the pages stand between the marks that python -m docs.figures fills, or are quoted from results."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from docs.figures.catalogue import ROOT
from docs.figures.numbers import MARKED

# A number with a unit of cost, size or share, and a range of decimals.
UNIT = r"(?:%|s|ms|seconds?|minutes?|hours?|[KMG]i?B|times|passes|products)(?![\w/])"
MEASURED = re.compile(rf"\d[\d.,]*\s?{UNIT}|\d\.\d+ to \d+\.\d+")
UNSEEN = (MARKED, re.compile(r"^```.*?^```$", flags=re.MULTILINE | re.DOTALL), re.compile(r"`[^`\n]*`"))

# Pages that a command of their own writes.
WHOLE_PAGES = {
    "docs/fuzzing.md": "the last run of tests/fuzz",
    "docs/geometry.md": "python -m benchmarks.geometry",
    "docs/zoo.md": "python -m zoo, which tests/zoo compares",
}
EXPERIMENTS = "docs/results/README.md"
# Texts that the pages quote from there.
QUOTED = {
    "docs/limits.md": ("0.0001 to 0.0089", "0.46 to 1.00", "input noise of 1 %"),
    "docs/theory.md": ("0.0001 to 0.0089", "2.2 to 506 times", "0.004 to 0.215", "0.50 to 0.84", "0.09 to 0.11"),
}
# Not measured: limits, defaults and thresholds of the code, definitions, conditions of a test, and examples of input.
STATED = {
    "README.md": ("12 minutes on two idle cores",),
    "docs/cohorts.md": (
        "33 KB together",
        "5.0 MB, compressed and in base64 2.1 MB",
        "at least 60 % of the window",
        "at most 20 MB",
        "1.2533 times the mean",
    ),
    "docs/command_line.md": ("more than 1 % of the values", "2^32 = 4 GiB", "21600 = 6 hours"),
    "docs/coordinates.md": ("costs more than 1 % of gain",),
    "docs/dicom.md": ("within 1 % of unit vectors", "up to 1 MiB", "within 0.1 %"),
    "docs/engine.md": (
        "C - 1 products",
        '"5 %"',
        "40 times as large",
        "1000 times in float64",
        "more than 5 %, three",
        "more than 10 %, the",
        "tolerance: 10 %",
        "above 64 MiB",
        "99 % of the trace",
        "8 MiB per copy",
    ),
    "docs/evaluation.md": ("99 % of the trace", "5 % of pixels", "95 % bootstrap", "input noise (1 % of", "AUROC with a 95 %"),
    "docs/faults.md": ("100 times at random",),
    "docs/glossary.md": ("within 10 %",),
    "docs/limits.md": ("99 % kept", "99 % of the trace"),
    "docs/notebook.md": ("below 300 KB", "128 MB for 256 x 256 x 256 voxels", "below 100 %", "above 1 % of the largest"),
    "docs/pacs.md": ("64 MiB for a", "64 MiB) for an", "minutes for 256 KiB", "6 hours; 0", "8 and 16 seconds"),
    "docs/reproducibility.md": ("less than 1 % of",),
    "docs/scanner_space.md": ("within the 10 % that", "holds to 10 %", "exceeds 10 %"),
    "docs/segmentation.md": ("5 % of each volume", "that 5 % of it"),
    "docs/theory.md": ("At 99 % confidence", "92 to 99 % of the voxels"),
    "docs/tutorial.md": ("step of 1 % of",),
}


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def unmarked(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """(line, text, measured-looking numbers) outside of marks, blocks of code and `code`."""
    for pattern in UNSEEN:
        text = pattern.sub(lambda found: "\n" * found[0].count("\n"), text)
    for place, line in enumerate(text.splitlines(), 1):
        if found := MEASURED.findall(line):
            yield place, line, found


def pages() -> list[str]:
    return ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("page", [page for page in pages() if page not in WHOLE_PAGES])
def test_numbers_that_look_measured_are_made_quoted_or_listed_as_stated(page: str) -> None:
    known = [*STATED.get(page, ()), *QUOTED.get(page, ())]
    text = text_of(page)
    assert [words for words in known if words not in text] == [], "no longer on the page: take it from the list"
    for place, line, _ in unmarked(text):
        for words in known:
            line = line.replace(words, "")
        left = MEASURED.findall(line)
        assert left == [], f"{page}:{place}: bring {left} between marks (docs/figures/numbers.py), or list it above"


def test_quoted_numbers_stand_in_the_results() -> None:
    results = text_of(EXPERIMENTS)
    missing = [(page, words) for page, quotes in QUOTED.items() for words in quotes if words not in results]
    assert missing == []


def test_pages_of_their_own_commands_exist() -> None:
    assert [page for page in WHOLE_PAGES if not (ROOT / page).exists()] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("it takes 18 minutes", ["18 minutes"]),
        ("peaks at 3.7 GiB, 2.2 to 5.6 times as much", ["3.7 GiB", "2.2 to 5.6"]),
        ("<!-- made: x -->1.7 times\n2 GiB<!-- end --> and 5 %", ["5 %"]),
        ("```\n3 s\n```\nof `4 GiB` and 64 x 64", []),
        ("1 mm, 20 HU, 3D, 5 sets", []),
    ],
)
def test_what_looks_measured(text: str, found: list[str]) -> None:
    assert [number for _, _, numbers in unmarked(text) for number in numbers] == found
