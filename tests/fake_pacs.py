"""A small DICOMweb server in a thread, on loopback, that misbehaves as it is told."""

from __future__ import annotations

import base64
import json
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import pydicom
import pytest
from pydicom import Dataset

ROOT, BOUNDARY = "/dicom-web", "sep-a-ra-tor"
QIDO_TAGS = ("SOPClassUID", "SOPInstanceUID", "Modality", "SeriesInstanceUID", "SeriesNumber", "PatientName", "Rows", "Columns")
USER, PASSWORD = "reader", "s3cr3t-Wört"

Fault = Callable[["Exchange"], None]


class FakePacs:
    """Serves data sets by QIDO, WADO and STOW. A context manager; `url` is its address.

    faults: each used up by one request, instead of an answer. asked: "METHOD path" of all requests; headers: theirs.
    page: the most entries that QIDO gives at once. overrides: JSON that QIDO or STOW give whatever is there, by the last part
    of the path.
    """

    def __init__(
        self,
        content: Iterable[Dataset] = (),
        faults: Iterable[Fault] = (),
        guarded: bool = False,
        page: int | None = None,
        overrides: Mapping[str, Any] | None = None,
        certificate: Path | None = None,
    ) -> None:
        self.content = {str(one.SOPInstanceUID): one for one in content}
        self.faults, self.guarded, self.page, self.overrides = list(faults), guarded, page, dict(overrides or {})
        self.ignores_offset, self.stow_status = False, 200
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Exchange)
        self._server.pacs = self  # type: ignore[attr-defined]
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self._server.server_address[1]}{ROOT}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fetched(self) -> list[str]:
        """SOP Instance UIDs that WADO was asked for, in order."""
        paths = [line.removeprefix("GET ") for line in self.asked]
        return [path.rpartition("/")[2] for path in paths if path.count("/") == 7]


class Exchange(BaseHTTPRequestHandler):
    """One connection with the server."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if not self._begin():
            return
        path = urlsplit(self.path).path.removeprefix(ROOT).strip("/").split("/")
        match path:
            case ["studies", study, "series"]:
                series = {str(one.SeriesInstanceUID): one for one in self._in_study(study)}
                self._search(path[-1], list(series.values()))
            case ["studies", study, "series", series, "instances"]:
                self._search(path[-1], [one for one in self._in_study(study) if one.SeriesInstanceUID == series])
            case ["studies", study, "series", series, "instances", instance] if instance in self.pacs.content:
                self.answer(200, f'multipart/related; type="application/dicom"; boundary={BOUNDARY}', self.multipart(instance))
            case _:
                self.answer(404, "text/plain", b"no such thing")

    def do_POST(self) -> None:
        body = self._body()
        if not self._begin():
            return
        boundary = self.headers["Content-Type"].partition('boundary="')[2].rstrip('"').encode()
        part = body.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n--" + boundary + b"--")
        stored = pydicom.dcmread(BytesIO(part))
        self.pacs.content[str(stored.SOPInstanceUID)] = stored
        referenced = {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [str(stored.SOPInstanceUID)]}}]}
        self.json(self.pacs.overrides.get("stow", {"00081199": referenced}), self.pacs.stow_status)

    @property
    def pacs(self) -> FakePacs:
        return self.server.pacs  # type: ignore[attr-defined, no-any-return]

    def multipart(self, instance: str) -> bytes:
        with BytesIO() as file:
            self.pacs.content[instance].save_as(file)
            head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
            return head + file.getvalue() + f"\r\n--{BOUNDARY}--\r\n".encode()

    def answer(self, status: int, kind: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def json(self, content: Any, status: int = 200) -> None:
        self.answer(status, "application/dicom+json", json.dumps(content).encode())

    def _begin(self) -> bool:
        """Note the request; False where a fault has answered it, or one who may not ask is turned away."""
        self.pacs.asked.append(f"{self.command} {urlsplit(self.path).path}")
        self.pacs.headers.append(dict(self.headers))
        if self.pacs.faults:
            self.pacs.faults.pop(0)(self)
            return False
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.pacs.guarded and self.headers["Authorization"] != expected:
            self.answer(401, "text/plain", b"who are you?")
            return False
        return True

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _in_study(self, study: str) -> list[Dataset]:
        return [one for one in self.pacs.content.values() if one.StudyInstanceUID == study]

    def _search(self, level: str, entries: list[Dataset]) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if level in self.pacs.overrides:
            entries = []
            self.json(self.pacs.overrides[level])
            return
        wanted = query.get("SOPInstanceUID")
        entries = [one for one in entries if wanted is None or one.SOPInstanceUID == wanted[0]]
        first = 0 if self.pacs.ignores_offset else int(query.get("offset", ["0"])[0])
        chosen = entries[first:][: self.pacs.page]
        found = []
        for one in chosen:
            shown = Dataset()
            for tag in QIDO_TAGS:
                if tag in one:
                    shown[tag] = one[tag]
            found.append(shown.to_json_dict())
        self.json(found)

    def log_message(self, *_: Any) -> None:
        """Tests read `asked` instead."""


def write_certificate(folder: Path) -> Path:
    """A key and its self-signed certificate of 127.0.0.1 in one PEM file, server.pem; beside it the certificate, ca.pem."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the command openssl")
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    key, certificate, both = (folder / name for name in ("key.pem", "ca.pem", "server.pem"))
    subprocess.run([*words.split(" "), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    both.write_text(key.read_text() + certificate.read_text())
    return both


def refuses(status: int, **headers: str) -> Fault:
    """An answer of this HTTP status."""
    return lambda exchange: exchange.answer(
        status, "text/plain", b"not now", {name.replace("_", "-"): value for name, value in headers.items()}
    )


def hangs_up(exchange: Exchange) -> None:
    """The connection closed without an answer."""
    exchange.close_connection = True


def breaks_off_before(ending: bytes, stated: bool) -> Fault:
    """An instance cut before `ending`, of a stated length that is not reached, or of no stated length."""

    def answer(exchange: Exchange) -> None:
        body = exchange.multipart(urlsplit(exchange.path).path.rpartition("/")[2])
        exchange.send_response(200)
        exchange.send_header("Content-Type", f'multipart/related; type="application/dicom"; boundary={BOUNDARY}')
        if stated:
            exchange.send_header("Content-Length", str(len(body)))
        exchange.send_header("Connection", "close")
        exchange.end_headers()
        exchange.wfile.write(body[: body.rindex(ending) - 20])
        exchange.close_connection = True

    return answer
