"""The page of a run as one self-contained HTML file that makes no requests. All texts from outside are escaped.

Cards are in <noscript> elements: a browser without JavaScript shows them, one with JavaScript keeps them as text until the case
is opened. The cards of further cases of a large run are compressed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from importlib.resources import files
from typing import Any

from jinja2 import Template
from markupsafe import Markup

from monai_ifim.report.cohort.cards import CaseCard
from monai_ifim.report.cohort.colors import COLORS, color_stops
from monai_ifim.report.cohort.slices import color_tables
from monai_ifim.report.pages.blocks import Page
from monai_ifim.report.pages.environment import html_environment
from monai_ifim.version import __version__

__all__ = ["render_case", "render_cohort"]

ROOM = "monai_ifim.report.cohort"
PACK = 100  # cards that are decompressed at a time
MOST_LINKS = 2000  # to pages of single cases, for browsers without JavaScript


def render_cohort(page: Page, cards: Sequence[CaseCard], still: Set[int], records: Mapping[str, Any], pictures: str) -> str:
    """The page as HTML. still: indices of the cards that need no JavaScript; records: the list of cases for the script;
    pictures: a text about cases without pictures."""
    environment = html_environment(ROOM)
    template = environment.get_template("case.html.j2")
    addresses = records["pages"]
    rest = [_markup(template, card) for i, card in enumerate(cards) if i not in still and not addresses[i]]
    shown = [i for i in sorted(still) if not addresses[i]]
    content = {**records, "still": shown, "pack": PACK, "tables": color_tables(), "packs": _packed(rest)}
    return environment.get_template("index.html.j2").render(
        page=page,
        cards=[cards[i] for i in shown],
        own=[(card, address) for card, address in zip(cards, addresses, strict=True) if address][:MOST_LINKS],
        left=len(rest),
        card_of=lambda card: _markup(template, card),
        pictures=pictures,
        records=_json(content),
        **_look("slices.js", "cohort.js"),
    )


def render_case(card: CaseCard, steps: tuple[str, str], index: str, no_pictures: str = "") -> str:
    """The page of one case. steps: addresses of the case before and after, empty where there is none; index: of the page of the
    run; no_pictures: the reason where there are none."""
    environment = html_environment(ROOM)
    chosen = replace(card, no_pictures=no_pictures or card.no_pictures)
    content = _markup(environment.get_template("case.html.j2"), chosen, index)
    records = _json({"tables": color_tables()})
    look = _look("slices.js", "case_page.js")
    page = environment.get_template("case_page.html.j2")
    return page.render(card=chosen, content=content, steps=steps, index=index, records=records, **look)


def _look(*scripts: str) -> dict[str, Any]:
    """What every page has: version, colours of the bars, script and its hash."""
    script = "".join((files(ROOM) / "templates" / name).read_text(encoding="utf-8") for name in scripts)
    stops = {
        colors: Markup(text)  # nosec B704 # numbers and colours of our own
        for colors, text in ((colors, color_stops(colors)) for colors in COLORS)
    }
    return {
        "version": __version__,
        "gradients": stops,
        "script": Markup(script),  # nosec B704 # the package's own files
        "script_hash": base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    }


def _markup(template: Template, card: CaseCard, index: str = "") -> Markup:
    text = template.render(card=card, index=index)
    return Markup(text)  # nosec B704 # the template escapes


def _packed(cards: Sequence[str]) -> list[str]:
    """Lists of PACK cards as JSON, compressed by zlib, in base64."""
    packs = [json.dumps(cards[start : start + PACK]) for start in range(0, len(cards), PACK)]
    return [base64.b64encode(zlib.compress(text.encode("ascii"), 9)).decode("ascii") for text in packs]


def _json(content: Mapping[str, Any]) -> Markup:
    """JSON for a script element: it holds no character that could end the element."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    safe = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return Markup(safe)  # nosec B704
