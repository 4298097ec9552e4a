"""The template environment of all pages: HTML, where every text is escaped, and Markdown."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from monai_ifim.display import numbers, vocabulary
from monai_ifim.report.pages.texts import breakable, explained

__all__ = ["html_environment", "markdown_environment"]

SHARED = "monai_ifim.report.pages"


@cache
def html_environment(room: str) -> Environment:
    """Templates of a room, given by its module's name, and the shared ones, for HTML: every text is escaped.

    One object a room and process, so that each template is compiled once.
    """
    return _environment(room, autoescape=True)


@cache
def markdown_environment(room: str) -> Environment:
    """The same for GitHub's Markdown: what Markdown would read as markup is escaped."""
    environment = _environment(room, finalize=_markdown_text)
    environment.filters.update(alt=_markdown_alt, fence=_markdown_fence)
    return environment


def _environment(room: str, **options: Any) -> Environment:
    environment = Environment(  # nosec B701 # HTML asks for autoescape; Markdown's own escaping is `_markdown_text`
        loader=ChoiceLoader([PackageLoader(room, "templates"), PackageLoader(SHARED, "templates")]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    environment.filters.update(
        count=numbers.count, counted=numbers.counted, sizes=numbers.sizes, breakable=breakable, explained=explained
    )
    environment.globals.update({name: getattr(vocabulary, name) for name in vocabulary.__all__})
    return environment


def _markdown_text(value: object) -> object:
    """Text on one line, with whatever Markdown would read as markup escaped."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = re.sub(r"[ \t\r\n\f\v]+", " ", value).strip(" ")  # a no-break space stays
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|~#$])", r"\\\1", text)
    text = re.sub(r"\](?=[(\[:])", r"\]", text)  # brackets alone are no link
    text = re.sub(r"^([+-]|\d+[.)])(?=\s)", lambda found: f"{found[0][:-1]}\\{found[0][-1]}", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def _markdown_alt(value: str) -> Markup:
    """Text inside square brackets."""
    escaped = re.sub(r"(?<!\\)([\[\]])", r"\\\1", str(_markdown_text(value)))
    return Markup(escaped)  # nosec B704


def _markdown_fence(value: str) -> Markup:
    """Text as it is, between fences longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", value)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}\n{value}\n{fence}")  # nosec B704 # nothing inside such a fence can end it
