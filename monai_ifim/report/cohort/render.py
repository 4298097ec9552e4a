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

__all__ = ["render_cohort"]

ROOM = "monai_ifim.report.cohort"
SCRIPTS = ("slices.js", "cohort.js")
PACK = 100  # cards that are decompressed at a time


def render_cohort(page: Page, cards: Sequence[CaseCard], beside: Set[int], records: Mapping[str, Any], pictures: str) -> str:
    """The page as HTML. beside: indices of the cards that need no JavaScript; records: the list of cases for the script;
    pictures: a text about cases without pictures."""
    environment = html_environment(ROOM)
    template = environment.get_template("case.html.j2")
    script = "".join((files(ROOM) / "templates" / name).read_text(encoding="utf-8") for name in SCRIPTS)
    rest = [template.render(card=card, index="") for i, card in enumerate(cards) if i not in beside]
    content = {**records, "beside": sorted(beside), "pack": PACK, "tables": color_tables(), "packs": _packed(rest)}
    text = _json(content)
    listed = Markup(text)  # nosec B704 # `_json` leaves no sign in it that could end the script
    own_script = Markup(script)  # nosec B704 # the package's own file
    gradients = {
        colors: Markup(stops)  # nosec B704 # numbers and colours of our own
        for colors, stops in ((colors, color_stops(colors)) for colors in COLORS)
    }
    return environment.get_template("index.html.j2").render(
        page=page,
        version=__version__,
        cards=[cards[i] for i in sorted(beside)],
        left=len(rest),
        card_of=lambda card: _markup(template, card),
        pictures=pictures,
        gradients=gradients,
        records=listed,
        script=own_script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    )


def _markup(template: Template, card: CaseCard) -> Markup:
    text = template.render(card=card, index="")
    return Markup(text)  # nosec B704 # the template escapes


def _packed(cards: Sequence[str]) -> list[str]:
    """Lists of PACK cards as JSON, compressed by zlib, in base64."""
    packs = [json.dumps(cards[start : start + PACK]) for start in range(0, len(cards), PACK)]
    return [base64.b64encode(zlib.compress(text.encode("ascii"), 9)).decode("ascii") for text in packs]


def _json(content: Mapping[str, Any]) -> str:
    """JSON for a script element: it holds no character that could end the element."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
