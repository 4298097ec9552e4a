"""Access control of the viewer: a new secret at each start is needed to see anything.

The page is served for the secret in its address. Its scripts and fonts, which are public, are served for the cookie set with the
page. Pictures are sent through a WebSocket, which needs the cookie, the page's origin and the secret: the cookie alone is not
enough, since browsers send cookies to every port of a machine.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PAGE = "/index.html"
OWN_NAMES = ("127.0.0.1", "localhost")
# Blocks requests to other hosts by any library of the page. Vue compiles its templates by eval.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'self'",
        "form-action 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# The client removes the secret from the address once the page is open. A reload in the same tab reads it from this store, which
# is separate for each port, unlike cookies.
REMEMBER = "<script>sessionStorage.setItem('monai-ifim', new URLSearchParams(location.search).get('secret'))</script>"
REFUSED = """<!doctype html><html lang="en"><meta charset="utf-8"><title>monai-ifim view</title>
<script>
const secret = sessionStorage.getItem('monai-ifim');
if (secret && !new URLSearchParams(location.search).has('secret')) location.replace('/index.html?secret=' + secret);
</script>
<body style="font-family: sans-serif; margin: 4em"><h1>Not open to this address</h1>
<p>Open the whole address that <code>monai-ifim view</code> printed. It is a new one at each start.</p></body></html>
"""


class Gate:
    """Secret and cookie of one run of the server."""

    def __init__(self) -> None:
        self.secret = f"s{secrets.token_urlsafe(32)}"  # starts with a letter: the client would convert digits to a number
        self._cookie = secrets.token_urlsafe(32)

    def address(self, port: int) -> str:
        """The address that the user opens."""
        return f"http://127.0.0.1:{port}{PAGE}?secret={self.secret}"

    def guard(self, application: web.Application, page: Path) -> None:
        """Check each request to an aiohttp application, and serve `page` at PAGE."""
        from aiohttp import web

        async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
            response = self._refusal(request) or await handler(request)
            if not response.prepared:
                response.headers.update(HEADERS)
            return response

        async def first_page(request: web.Request) -> web.Response:
            text = page.read_text(encoding="utf-8").replace("<head>", f"<head>{REMEMBER}", 1)
            response = web.Response(text=text, content_type="text/html")
            name = _cookie_name(request)
            response.set_cookie(name, self._cookie, httponly=True, samesite="Strict", path="/")
            return response

        application.middlewares.append(web.middleware(checked))
        application.router.add_get(PAGE, first_page)

    def _refusal(self, request: web.Request) -> web.Response | None:
        """The response to a request that is refused; None if it is allowed."""
        from aiohttp import web

        if request.url.host not in OWN_NAMES:  # a foreign name that resolves to this machine (DNS rebinding)
            return web.Response(status=403, text="not served under this name\n")
        if request.path in (PAGE, "/"):
            may_enter = _same(request.query.get("secret"), self.secret)
            return None if may_enter else web.Response(status=403, text=REFUSED, content_type="text/html")
        if not _same(request.cookies.get(_cookie_name(request)), self._cookie):
            return web.Response(status=403, text="closed\n")
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"http://{request.host}":
            return web.Response(status=403, text="closed to pages from elsewhere\n")
        return None


def _cookie_name(request: Any) -> str:
    """Name of the cookie, different for each port, so that two viewers do not share it."""
    return f"monai-ifim-{request.url.port}"


def _same(given: str | None, wanted: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(errors="replace"), wanted.encode())
