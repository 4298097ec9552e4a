"""A page as HTML and as Markdown; every word that comes from outside is escaped."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from monai_ifim.report.pages.blocks import Page
from monai_ifim.version import __version__

__all__ = ["render_html", "render_markdown"]


def render_html(page: Page) -> str:
    """One file with all figures inside, without scripts or links to other places."""
    environment = _environment(autoescape=True)
    return environment.get_template("report.html.j2").render(page=page, version=__version__)


def render_markdown(page: Page) -> str:
    """GitHub's Markdown, with figures as links to their files."""
    environment = _environment(finalize=_markdown_text)
    environment.filters["alt"] = _markdown_alt
    environment.filters["fence"] = _markdown_fence
    text = environment.get_template("report.md.j2").render(page=page, version=__version__)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _environment(**options: Any) -> Environment:
    return Environment(  # nosec B701 # HTML asks for autoescape; Markdown's own escaping is `_markdown_text`
        loader=PackageLoader("monai_ifim.report", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )


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
