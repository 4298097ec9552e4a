"""Who is kept out of the viewer, and what the page asks for."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from monai_ifim.viewer.gate import HEADERS, PAGE, Gate

Page = Served = Any  # conftest's
PATIENCE = 30  # seconds


async def _answers(page: Path, requests: list[tuple[str, dict[str, str]]]) -> tuple[list[int], dict[str, str]]:
    """Statuses of requests (path, headers) to a small application behind a gate, and headers of the opened page.

    {secret}, {cookie} and {own} in them stand for the gate's secret, the cookie set with the page, and the page's origin.
    """
    from aiohttp import DummyCookieJar, web
    from aiohttp.test_utils import TestClient, TestServer

    gate, application = Gate(), web.Application()

    async def part(_: web.Request) -> web.Response:
        return web.Response(text="part")

    application.router.add_get("/part.js", part)
    gate.guard(application, page)
    async with TestClient(TestServer(application, host="127.0.0.1"), cookie_jar=DummyCookieJar()) as client:
        opened = await client.get(f"{PAGE}?secret={gate.secret}")
        names = {
            "secret": gate.secret,
            "cookie": opened.headers["Set-Cookie"].partition(";")[0],
            "own": f"http://127.0.0.1:{client.port}",
        }
        found = []
        for path, headers in requests:
            filled = {name: value.format(**names) for name, value in headers.items()}
            async with client.get(path.format(**names), headers=filled) as response:
                found.append(response.status)
        return found, dict(opened.headers)


def test_each_lock_of_the_gate_holds_by_itself(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text("<html><head></head></html>")
    cookie = {"Cookie": "{cookie}"}
    asked = {
        ("/index.html?secret={secret}", ()): 200,
        ("/index.html?secret={secret}x", ()): 403,
        ("/index.html", ()): 403,
        ("/index.html", (("Cookie", "{cookie}"),)): 403,
        ("/index.html?secret={secret}", (("Host", "evil.example"),)): 403,
        ("/part.js", ()): 403,
        ("/part.js?secret={secret}", ()): 403,
        ("/part.js", tuple(cookie.items())): 200,
        ("/part.js", (("Cookie", "{cookie}x"),)): 403,
        ("/part.js", (*cookie.items(), ("Origin", "{own}"))): 200,
        ("/part.js", (*cookie.items(), ("Origin", "http://127.0.0.1:1"))): 403,
        ("/part.js", (*cookie.items(), ("Origin", "https://evil.example"))): 403,
        ("/part.js", (*cookie.items(), ("Host", "evil.example"))): 403,
        ("/absent.js", tuple(cookie.items())): 404,
    }
    found, headers = asyncio.run(_answers(page, [(path, dict(more)) for path, more in asked]))
    assert dict(zip(asked, found, strict=True)) == asked
    assert {name: headers[name] for name in HEADERS} == HEADERS


def test_secrets_are_new_at_each_start_and_no_numbers() -> None:
    secrets = [Gate().secret for _ in range(20)]
    assert len(set(secrets)) == 20
    assert all(secret[0].isalpha() and len(secret) > 40 for secret in secrets)
    assert Gate().address(8080).startswith("http://127.0.0.1:8080/index.html?secret=s")


def test_page_asks_no_other_place_and_reloads(page: Page, served: Served) -> None:
    page.browser.get_log("performance")
    page.browser.refresh()
    page.wait(lambda: len(page.titles()) == 3)
    page.wait(lambda: (page.picture("Axial") > 60).mean() > 0.2)
    messages = [json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    asked += [m["params"]["url"] for m in messages if m["method"] == "Network.webSocketCreated"]
    places = {urlsplit(url.removeprefix("blob:")).netloc for url in asked if not url.startswith("data:")}
    assert len(asked) > 10
    assert places == {f"127.0.0.1:{served.port}"}
    assert served.secret not in page.browser.current_url


def _get(served: Served, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.read()
    return response


def test_page_and_its_parts_are_closed_without_the_secret(served: Served) -> None:
    for path in (
        "/",
        "/index.html",
        "/index.html?secret=",
        "/index.html?secret=wslink-secret",
        "/index.html?token=" + served.secret,
    ):
        assert _get(served, path).status == 403
    for path in ("/vue.global.js", "/loading.tpl", "/ws", "/absent", "/../index.html"):
        assert _get(served, path).status == 403
        assert _get(served, f"{path}?secret={served.secret}").status == 403
    opened = _get(served, f"/index.html?secret={served.secret}")
    assert opened.status == 200
    assert "default-src 'self'" in opened.headers["Content-Security-Policy"]
    cookie = opened.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert served.secret not in cookie
    assert _get(served, "/vue.global.js", Cookie=cookie.partition(";")[0]).status == 200


def test_other_names_of_this_machine_are_closed(served: Served) -> None:
    """A page elsewhere may point its own name here (DNS rebinding)."""
    assert _get(served, f"/index.html?secret={served.secret}", Host=f"evil.example:{served.port}").status == 403
    assert _get(served, f"/index.html?secret={served.secret}", Host=f"localhost:{served.port}").status == 200
    with socket.socket() as elsewhere:
        elsewhere.settimeout(2)
        assert elsewhere.connect_ex(("127.0.0.2", served.port)) != 0  # as good as another machine's address: not listened at


def test_pictures_are_closed_without_cookie_origin_and_secret(served: Served, slicer_python: str) -> None:
    cookie = _get(served, f"/index.html?secret={served.secret}").headers["Set-Cookie"].partition(";")[0]
    own = f"http://127.0.0.1:{served.port}"

    def knock(cookie: str, secret: str, origin: str) -> dict[str, Any]:
        command = [slicer_python, str(Path(__file__).with_name("knock.py")), str(served.port), cookie, secret, origin]
        return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout))

    assert knock("", served.secret, own)["status"] == 403
    assert knock(cookie.split("=")[0] + "=wrong", served.secret, own)["status"] == 403
    assert knock(cookie, served.secret, "http://127.0.0.1:1")["status"] == 403
    for wrong in ("wslink-secret", served.secret[:-1]):
        refused = knock(cookie, wrong, own)
        assert refused["answers"] == {
            "wslink.hello": "Authentication failed",
            "trame.state.get": "Unauthorized: Skip message processing",
        }
        assert refused["pushed"] == 0
    assert knock(cookie, served.secret, own)["answers"] == {"wslink.hello": "served", "trame.state.get": "served"}


def test_secret_is_said_once(served: Served, page: Page) -> None:
    assert [path.read_text().count(served.secret) for path in served.said] == [1, 0]
    assert "Traceback" not in served.said[1].read_text()


@pytest.mark.soak
def test_interrupt_ends_the_viewer_and_a_taken_port_is_named(
    run: Any, start_viewer: Callable[..., Served], tmp_path: Path, served: Served
) -> None:
    with pytest.raises(AssertionError, match=f"port {served.port} is in use: choose another with --port"):
        start_viewer(run.output, tmp_path, "--port", str(served.port))
    started = start_viewer(run.output, tmp_path, "--case", "b sagittal")
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(PATIENCE) in (0, 130)
    assert "Traceback" not in started.said[1].read_text()
