"""Orthanc with its DICOMweb plugin on loopback, behind TLS and a password."""

from __future__ import annotations

import json
import shutil
import socket
import socketserver
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any, Self

import pytest
import requests
from pydicom import Dataset

from fake_pacs import PASSWORD, USER, write_certificate

PLUGIN = "libOrthancDicomWeb.so"
PLACES = ("/usr/share/orthanc/plugins", "/usr/local/share/orthanc/plugins")
SECONDS_TO_START = 30


@dataclass(frozen=True)
class Orthanc:
    """A running server behind TLS. Tests ask it through its own REST interface, with requests alone."""

    url: str
    certificate: Path

    @property
    def dicom_web(self) -> str:
        return f"{self.url}/dicom-web"

    def ask(self, path: str, body: bytes | str | None = None) -> requests.Response:
        session = requests.Session()
        session.trust_env = False
        how: dict[str, Any] = {"auth": (USER.encode(), PASSWORD.encode()), "verify": str(self.certificate), "timeout": 30}
        answer = session.get(self.url + path, **how) if body is None else session.post(self.url + path, data=body, **how)
        answer.raise_for_status()
        return answer

    def take(self, image: Dataset) -> None:
        """Store an image."""
        with BytesIO() as file:
            image.save_as(file)
            self.ask("/instances", file.getvalue())

    def instances(self, **query: str) -> list[dict[str, Any]]:
        """Instances with these attributes."""
        found = self.ask("/tools/find", json.dumps({"Level": "Instance", "Query": query, "Expand": True}))
        return list(found.json())


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """The server, empty at first, shared by all tests of this folder."""
    program, plugin = shutil.which("Orthanc"), _plugin()
    if program is None or plugin is None:
        pytest.skip("needs Orthanc and its DICOMweb plugin (Debian: orthanc, orthanc-dicomweb)")
    folder = tmp_path_factory.mktemp("orthanc")
    certificate = write_certificate(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(plugin)],
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomServerEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, folder / "settings.json"], stdout=log, stderr=log, cwd=folder)
    try:
        _wait_for(port, process, folder / "log")
        with TlsRelay(port, certificate) as relay:
            yield Orthanc(f"https://127.0.0.1:{relay.server_address[1]}", certificate.with_name("ca.pem"))
    finally:
        process.terminate()
        process.wait(SECONDS_TO_START)


class TlsRelay(socketserver.ThreadingTCPServer):
    """Takes TLS off and passes the rest on, as the web server before a PACS does; Debian 12's Orthanc crashes at its own TLS."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, certificate: Path) -> None:
        self.port = port
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        super().__init__(("127.0.0.1", 0), _Relayed)

    def __enter__(self) -> Self:
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Relayed(socketserver.BaseRequestHandler):
    server: TlsRelay

    def handle(self) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.server.port)) as inner:
            outer = self.server.context.wrap_socket(self.request, server_side=True)
            Thread(target=_copy, args=(inner, outer), daemon=True).start()
            _copy(outer, inner)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


def _plugin() -> Path | None:
    found = [Path(place) / PLUGIN for place in PLACES]
    if shutil.which("dpkg"):
        listed = subprocess.run(["dpkg", "-L", "orthanc-dicomweb"], capture_output=True, text=True, check=False).stdout
        found += [Path(line) for line in listed.splitlines() if PLUGIN in line]
    return next((path for path in found if path.exists()), None)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise RuntimeError(f"Orthanc did not start: {log.read_text()[-2000:]}")
