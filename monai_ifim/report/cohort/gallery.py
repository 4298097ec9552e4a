"""The gallery of a run: of each case a thumbnail, the address where it opens, and a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_ifim.io.case_files import PAGES
from monai_ifim.report.cohort.cards import CaseCard
from monai_ifim.report.cohort.listing import CaseList
from monai_ifim.report.pages.texts import shortened
from monai_ifim.run.sentences import notable_sentence

__all__ = ["gallery_records", "own_page"]

THUMBNAILS_WEIGHT = 5_000_000  # characters of all thumbnails on a page


def own_page(card: CaseCard) -> str:
    """Name of the file of a case's own page, in the folder PAGES."""
    return f"{card.anchor}.html"


def gallery_records(listed: CaseList, cards: Sequence[CaseCard], thumbnails: Mapping[str, str]) -> dict[str, Any]:
    """Plain data for the script, each a list in the order of the run: thumbnails as data URIs, sentences, and addresses of the
    cases that have their own pages."""
    left = THUMBNAILS_WEIGHT
    shown = []
    for case in listed.cases:
        picture = thumbnails.get(case["case"], "")
        left -= len(picture)
        shown.append(picture if left >= 0 else "")
    own = [case["pictures"] == "own page" for case in listed.cases]
    pages = [f"{PAGES}/{own_page(card)}" if has else "" for has, card in zip(own, cards, strict=True)]
    return {"thumbnails": shown, "sentences": [shortened(notable_sentence(case)) for case in listed.cases], "pages": pages}
