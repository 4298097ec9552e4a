"""Turns links to repository files outside of the site, such as `../benchmarks/results/README.md`, into downloads.

On a code host the same link opens the file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<path>\.\./[^)#\s]+)(?:#[^)]*)?\)")


def with_downloads(text: str, page: Path, site: Path) -> str:
    """Markdown of a page with such links replaced by Sphinx's download role, which warns if a file is missing.

    page: file of the page; site: folder of all pages.
    """

    def changed(link: re.Match[str]) -> str:
        inside = (page.parent / link["path"]).resolve().is_relative_to(site.resolve())
        return link[0] if inside else f"{{download}}`{link['text']} <{link['path']}>`"

    return LINK.sub(changed, text)


def _source_read(app: Sphinx, name: str, source: list[str]) -> None:
    source[0] = with_downloads(source[0], Path(app.env.doc2path(name)), Path(app.srcdir))


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to the reading of each page."""
    app.connect("source-read", _source_read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
