"""Numbers of the pages that come from results: what stands between the marks is written by python -m docs.figures.

A page has `<!-- made: NAME -->`, the text, and `<!-- end -->`; NAME is a key of TEXTS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from docs.figures.catalogue import ROOT
from docs.figures.demo import read_results

MARKED = re.compile(r"(<!-- made: ([\w-]+) -->)(.*?)(<!-- end -->)", flags=re.DOTALL)
PAGES = ("README.md", "docs/*.md", "bundles/*/docs/README.md")
COMPARISON = ROOT / "benchmarks" / "results" / "compare-cpu.json"

Rows = list[dict[str, Any]]


def demo_sentences() -> str:
    """What the demo prints of each case, as a list."""
    return "\n" + "".join(f"- {case['sentence']}\n" for case in read_results()["cases"])


def hero_sentences() -> str:
    """Three sentences about the first picture, as a list."""
    from docs.figures.hero import sentences

    return "\n" + "".join(f"- {sentence}\n" for sentence in sentences(read_results()))


def scanner_ratios() -> str:
    """Seconds in scanner space over those of the passes, with and without a resolution."""
    rows = _compared("scanner")
    lines = [
        (
            "resampling to 1 mm, percentiles, padding, resizing, then a 3D DenseNet121 for 96 x 96 x 96 voxels",
            "DenseNet121",
        ),
        ("`lumpy_lesion_detection_3d`, a tiny network", "lumpy"),
    ]
    table = ["| pipeline | without a resolution | at the network's resolution |", "| --- | --- | --- |"]
    for words, case in lines:
        ratios = [_ratio(rows, what, case) for what in ("scanner space / passes", "at a resolution / passes")]
        table.append(f"| {words} | {' | '.join(ratios)} |")
    return "\n" + "\n".join(table) + "\n"


def _compared(section: str) -> Rows:
    """Rows of a section of the comparison on the CPU."""
    rows: Rows = json.loads(COMPARISON.read_text(encoding="utf-8"))["sections"][section]["rows"]
    return rows


def _ratio(rows: Rows, what: str, case: str) -> str:
    (value,) = [row["value"] for row in rows if row["what"] == what and row["case"].startswith(case)]
    return f"{value:.2f}"


TEXTS: dict[str, Callable[[], str]] = {
    "demo-sentences": demo_sentences,
    "hero-sentences": hero_sentences,
    "scanner-ratios": scanner_ratios,
}


def pages() -> list[Path]:
    """The pages that may quote results."""
    return sorted(page for pattern in PAGES for page in ROOT.glob(pattern))


def renewed(text: str) -> str:
    """A page with its marked numbers made again; raises KeyError for a name that TEXTS lacks."""
    return MARKED.sub(lambda found: f"{found[1]}{TEXTS[found[2]]()}{found[4]}", text)


def write_numbers() -> None:
    """Make the marked numbers of all pages again."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (new := renewed(text)) != text:
            page.write_text(new, encoding="utf-8")


def stale_pages() -> Iterator[str]:
    """A sentence for each page whose marked numbers are not those of the results."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if renewed(text) != text:
            yield f"{page.relative_to(ROOT)}: numbers are not those of the results; write them again: python -m docs.figures"
