"""Numbers of the pages that come from results: what stands between the marks is written by python -m docs.figures.

A page has `<!-- made: NAME -->`, the text, and `<!-- end -->`; NAME is a key of TEXTS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from docs.figures.catalogue import ROOT
from docs.figures.demo import read_results
from docs.figures.measurements import comparison_table, rivals_table, scanner_memory, scanner_ratios, segmentation_sentence

MARKED = re.compile(r"(<!-- made: ([\w-]+) -->)(.*?)(<!-- end -->)", flags=re.DOTALL)
PAGES = ("README.md", "docs/*.md", "bundles/*/docs/README.md")


def demo_sentences() -> str:
    """What the demo prints of each case, as a list."""
    return "\n" + "".join(f"- {case['sentence']}\n" for case in read_results()["cases"])


def hero_sentences() -> str:
    """Three sentences about the first picture, as a list."""
    from docs.figures.hero import sentences

    return "\n" + "".join(f"- {sentence}\n" for sentence in sentences(read_results()))


TEXTS: dict[str, Callable[[], str]] = {
    "demo-sentences": demo_sentences,
    "hero-sentences": hero_sentences,
    "comparison-table": comparison_table,
    "rivals-table": rivals_table,
    "scanner-memory": scanner_memory,
    "scanner-ratios": scanner_ratios,
    "segmentation-costs": segmentation_sentence,
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
