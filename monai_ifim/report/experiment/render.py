"""The report of an experiment as HTML and as Markdown."""

from __future__ import annotations

import re

from monai_ifim.report.pages.blocks import Page
from monai_ifim.report.pages.environment import html_environment, markdown_environment
from monai_ifim.version import __version__

__all__ = ["render_html", "render_markdown"]

ROOM = "monai_ifim.report.experiment"


def render_html(page: Page) -> str:
    """One file with all figures inside, without scripts or links to other places."""
    return html_environment(ROOM).get_template("report.html.j2").render(page=page, version=__version__)


def render_markdown(page: Page) -> str:
    """GitHub's Markdown, with figures as links to their files."""
    text = markdown_environment(ROOM).get_template("report.md.j2").render(page=page, version=__version__)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
