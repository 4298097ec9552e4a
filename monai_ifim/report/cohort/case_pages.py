"""Pages of single cases beside the page of a run, for cases whose pictures would make that too heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_ifim.io.atomic import remove_files, write_bytes
from monai_ifim.io.case_files import OWN_PAGE, PAGES
from monai_ifim.report.cohort.cards import CaseCard, with_pictures
from monai_ifim.report.cohort.gallery import own_page
from monai_ifim.report.cohort.pictures import draw_beside
from monai_ifim.report.cohort.render import render_case

__all__ = ["write_case_pages"]

INDEX = "../index.html"


def write_case_pages(output: Path, cards: Mapping[str, CaseCard], beside: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Write OUT/pages/case-N.html of each case in `beside` and remove those of an earlier page; returns thumbnails by case, and
    the SHA-256 of each page by its path in OUT.

    cards: of all cases by name, in the order of the run. Each page is self-contained, as the page of the run is. Raises OSError.
    """
    own = {name: own_page(cards[name]) for name in beside}
    remove_files(output / PAGES, lambda file: bool(OWN_PAGE.fullmatch(file)) and file not in own.values(), root=output)
    order = list(cards)
    places = {name: place for place, name in enumerate(order)}
    thumbnails: dict[str, str] = {}
    written: dict[str, str] = {}
    for name, drawn in draw_beside(output, beside):
        place = places[name]
        steps = [_address(cards, order, own, place + by) for by in (-1, 1)]
        if isinstance(drawn, str):
            text = render_case(cards[name], (steps[0], steps[1]), INDEX, drawn)
        else:
            thumbnails[name] = drawn.thumbnail
            card = with_pictures(cards[name], output, name, drawn, "../")
            text = render_case(card, (steps[0], steps[1]), INDEX)
        path = f"{PAGES}/{own[name]}"
        written[path] = write_bytes(output / path, text.encode("utf-8", "backslashreplace"), root=output)
    return thumbnails, written


def _address(cards: Mapping[str, CaseCard], order: Sequence[str], own: Mapping[str, str], place: int) -> str:
    """Where a neighbour opens; empty beyond the first and the last case."""
    if not 0 <= place < len(order):
        return ""
    name = order[place]
    return own.get(name, f"{INDEX}#{cards[name].anchor}")
