"""Serves the interactive slice viewer of a run to the browser of this machine."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

from monai_ifim.viewer.cases import ViewerError, viewable_cases
from monai_ifim.viewer.gate import Gate
from monai_ifim.viewer.graphics import choose_graphics, require_libraries

__all__ = ["ViewerError", "serve_viewer"]

LOOPBACK = "127.0.0.1"


def serve_viewer(output: Path, on_ready: Callable[[str, int], None], port: int = 0, case: str | None = None) -> None:
    """Serve the cases of OUT on loopback until interrupted.

    on_ready: called with the address to open, which contains the secret, and the number of cases. port: 0 for any free one.
    case: the first one shown. Raises ViewerError if there is no such case, or if a library or OpenGL is missing.
    """
    names = viewable_cases(output)
    if case is not None and case not in names:
        raise ViewerError(
            f"{output}: holds no case {case!r}; it holds {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}."
        )
    require_libraries()
    choose_graphics()
    from trame_client.module import vue3

    from monai_ifim.viewer.app import Viewer

    gate, viewer = Gate(), Viewer(output, names, case or names[0])
    logging.getLogger("aiohttp.access").disabled = True  # its lines would contain the secret
    os.environ["TRAME_ARGS"] = ""  # otherwise trame parses options such as --host from here or the command line
    server = viewer.server

    def close_to_others(bound: object) -> None:
        if bound.host != LOOPBACK:  # type: ignore[attr-defined]
            raise ViewerError(f"the server would listen at {bound.host}, not on loopback alone.")  # type: ignore[attr-defined]
        server.protocol.updateSecret(gate.secret)
        gate.guard(bound.app, Path(vue3.www) / "index.html")  # type: ignore[attr-defined]

    server.controller.on_server_bind.add(close_to_others)
    server.controller.on_server_ready.add(lambda **_: on_ready(gate.address(server.port), len(names)))
    try:
        server.start(
            port=port,
            host=LOOPBACK,
            open_browser=False,
            show_connection_info=False,
            disable_logging=True,
            timeout=0,
            backend="aiohttp",
        )
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise ViewerError(f"port {port} is in use: choose another with --port, or leave it out for any free one.") from error
