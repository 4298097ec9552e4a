"""Opens the user's browser without showing the secret to other users of the machine."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

REDIRECT = '<!doctype html><meta charset="utf-8"><title>monai-ifim view</title><meta http-equiv="refresh" content="0; url={}">\n'


def has_screen() -> bool:
    """Whether a browser would have a window to show a page in."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


@contextmanager
def opened_browser(wanted: bool = True) -> Iterator[Callable[[str], None]]:
    """Yields a function that opens an address in the default browser, if wanted and if there is a screen.

    Every user of a machine can see the command lines of all processes. The browser's therefore names a private page, which
    redirects to the address.
    """
    if not (wanted and has_screen()):
        yield lambda _: None
        return
    with TemporaryDirectory(prefix="monai-ifim-") as folder:
        page = Path(folder) / "view.html"

        def open_address(address: str) -> None:
            page.write_text(REDIRECT.format(escape(address)), encoding="utf-8")
            webbrowser.open(page.as_uri())

        yield open_address
