"""A server that sends without end, packs bombs, drips, redirects or answers with something else: each ends in one line."""

from __future__ import annotations

import gzip
import json
import re
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

from fake_pacs import BOUNDARY, Exchange, FakePacs, Fault, refuses, write_certificate
from monai_ifim.io.dicomweb import client as client_module
from monai_ifim.io.dicomweb import transfer
from monai_ifim.io.dicomweb.access import access_to
from monai_ifim.io.dicomweb.client import DicomWeb, ServerError, UnreachableError
from python_memory import peak_of
from synthetic_series import ORIENTATIONS, Series

MEBIBYTE = 2**20
MULTIPART = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
JSON = "application/dicom+json"


class Always(list[Fault]):
    """Faults that are never used up."""

    def pop(self, index: Any = -1) -> Fault:
        return self[index]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    for module in (transfer, client_module):
        monkeypatch.setattr(module, "LARGEST_TEXT", MEBIBYTE)
    monkeypatch.setattr(client_module, "AROUND_PIXELS", MEBIBYTE)
    monkeypatch.setattr(client_module, "PATIENCE", 60.0)


@pytest.fixture
def image() -> Dataset:
    return Series(ORIENTATIONS["axial"], slices=1).slices()[0]


class Answer:
    """A fault that sends chunks until the client closes the connection; `sent`: bytes."""

    def __init__(self, kind: str, chunks: Callable[[], Iterator[bytes]], **headers: str) -> None:
        self.kind, self.chunks, self.headers, self.sent = kind, chunks, headers, 0

    def __call__(self, exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.send_header("Content-Type", self.kind)
        for name, value in self.headers.items():
            exchange.send_header(name.replace("_", "-"), value)
        exchange.send_header("Connection", "close")
        exchange.end_headers()
        exchange.close_connection = True
        with suppress(OSError):
            for chunk in self.chunks():
                exchange.wfile.write(chunk)
                self.sent += len(chunk)


def blank() -> Iterator[bytes]:
    while True:
        yield bytes(2**16)


def ask(fault: Fault, question: Callable[[DicomWeb], object], **how: Any) -> str:
    """The one line that a question ends in, if the server always answers like this."""
    with FakePacs() as pacs, DicomWeb(access_to(pacs.url, environment={}), **how) as server:
        pacs.faults = Always([fault])
        with pytest.raises(ServerError) as caught:
            question(server)
        said = str(caught.value)
        assert said.startswith(f"{server.name}: ")
        assert "\n" not in said
        return said


def search(server: DicomWeb) -> object:
    return server.series_of("1.2.3")


def retrieve(server: DicomWeb) -> object:
    return server.retrieve("1.2.3", "1.2.4", "1.2.5")


# --- without end


def page_of(count: int) -> Fault:
    def page(exchange: Exchange) -> None:
        exchange.json([{"0020000E": {"vr": "UI", "Value": [generate_uid()]}} for _ in range(count)])

    return page


def test_pages_without_end_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MOST_PAGES", 30)
    said = ask(page_of(1), search)
    assert "a list of 30 results on 30 pages does not end: tell the server's administrator" in said
    monkeypatch.setattr(client_module, "MOST_RESULTS", 99)
    assert "a list of 120 results on 3 pages does not end" in ask(page_of(40), search)


@pytest.mark.parametrize("question", [search, retrieve])
def test_body_without_end_is_given_up(question: Callable[[DicomWeb], object]) -> None:
    for kind in (JSON, "text/html", "application/octet-stream"):
        answer = Answer(kind, blank)
        said = ask(answer, question)
        assert "its answer has more than 1048576 bytes" in said
        assert answer.sent < 16 * MEBIBYTE


def test_blank_body_of_many_gigabytes_is_not_received() -> None:
    for kind in (JSON, MULTIPART):
        answer = Answer(kind, lambda: iter([bytes(1000)]), Content_Length=str(67 * 10**8))
        assert "its answer has more than" in ask(answer, retrieve)


@pytest.mark.parametrize("kind", [MULTIPART, "application/dicom"])
def test_blank_instead_of_an_image_is_given_up_at_its_beginning(kind: str) -> None:
    answer = Answer(kind, blank)
    assert "does not hold the DICOM object that it announces" in ask(answer, retrieve, largest=0)
    assert answer.sent < 16 * MEBIBYTE


def test_image_without_end_is_given_up_at_the_limit_of_bytes() -> None:
    def body() -> Iterator[bytes]:
        yield f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + bytes(128) + b"DICM"
        yield from blank()

    answer = Answer(MULTIPART, body)
    said = ask(answer, retrieve, largest=3 * MEBIBYTE)
    assert f"its answer has more than {4 * MEBIBYTE} bytes: if the study holds such images, give a larger --max-bytes" in said
    assert answer.sent < 24 * MEBIBYTE


def test_named_option_lets_a_large_image_through(image: Dataset) -> None:
    image.Rows, image.Columns, image.PixelData = 1024, 1024, bytes(2 * MEBIBYTE)
    place = (str(image.StudyInstanceUID), str(image.SeriesInstanceUID), str(image.SOPInstanceUID))
    with FakePacs([image]) as pacs:
        small = DicomWeb(access_to(pacs.url, environment={}), largest=MEBIBYTE // 2)
        with small as server, pytest.raises(ServerError, match="--max-bytes"):
            server.retrieve(*place)
        for largest in (0, 2 * MEBIBYTE):
            with DicomWeb(access_to(pacs.url, environment={}), largest=largest) as server:
                assert len(server.retrieve(*place)) > 2 * MEBIBYTE


# --- bombs


@pytest.mark.parametrize("times", [1, 2])
def test_packed_bomb_is_not_unpacked(times: int) -> None:
    body = b"[" + b" " * 64 * MEBIBYTE + b"]"
    for _ in range(times):
        body = gzip.compress(body, 9)
    packed = Answer(JSON, lambda: iter([body]), Content_Encoding=", ".join(["gzip"] * times))
    said: list[str] = []
    assert peak_of(lambda: said.append(ask(packed, search))) < 12 * MEBIBYTE
    assert ("more than 1048576 bytes" if times == 1 else "packed in a way that was not asked for") in said[0]


@pytest.mark.parametrize("packing", ["br", "zstd", "compress", "gzip\tgzip"])
def test_packing_that_was_not_asked_for_is_refused(packing: str) -> None:
    assert "packed in a way that was not asked for" in ask(Answer(JSON, lambda: iter([b"[]"]), Content_Encoding=packing), search)


@pytest.mark.parametrize(("packing", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP", gzip.compress)])
def test_packed_list_is_read_though_none_was_asked_for(packing: str, pack: Callable[[bytes], bytes], image: Dataset) -> None:
    def packed(exchange: Exchange) -> None:
        entry = {"0020000E": {"vr": "UI", "Value": [str(image.SeriesInstanceUID)]}}
        body = pack(json.dumps([entry]).encode())
        exchange.answer(200, JSON, body, {"Content-Encoding": packing})

    with FakePacs([image], faults=[packed]) as pacs, DicomWeb(access_to(pacs.url, environment={})) as server:
        assert [series.uid for series in server.series_of(image.StudyInstanceUID)] == [image.SeriesInstanceUID]
        assert {headers["Accept-Encoding"] for headers in pacs.headers} == {"identity"}


def test_damaged_packing_is_told() -> None:
    said = ask(Answer(JSON, lambda: iter([b"no gzip"]), Content_Encoding="gzip"), search)
    assert "cannot be asked (ContentDecodingError)" in said


@pytest.mark.parametrize("bare", [True, False])
def test_deflated_object_that_is_a_bomb_is_not_unpacked(image: Dataset, bare: bool) -> None:
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    with BytesIO() as file:
        image.save_as(file)
        content = file.getvalue()
    start = next(at for at in range(200, 1000) if content[132:at].count(b"1.2.840.10008.1.2.1.99") and _inflates(content[at:]))
    packing = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    more = struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, 64 * MEBIBYTE) + bytes(64 * MEBIBYTE)
    bomb = content[:start] + packing.compress(zlib.decompress(content[start:], -zlib.MAX_WBITS) + more) + packing.flush()
    parts = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode(), f"\r\n--{BOUNDARY}--\r\n".encode()
    answer = Answer("application/dicom" if bare else MULTIPART, lambda: iter([bomb if bare else bomb.join(parts)]))
    said: list[str] = []
    assert peak_of(lambda: said.append(ask(answer, retrieve, largest=MEBIBYTE))) < 16 * MEBIBYTE
    assert "its answer has more than 2097152 bytes" in said[0]


def _inflates(content: bytes) -> bool:
    try:
        return zlib.decompress(content, -zlib.MAX_WBITS)[:2] == b"\x08\x00"
    except zlib.error:
        return False


# --- slowness


REAL_SLEEP = time.sleep


def drip() -> Iterator[bytes]:
    while True:
        REAL_SLEEP(0.05)
        yield b" "


def dripping_header(exchange: Exchange) -> None:
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\n")
    exchange.close_connection = True
    with suppress(OSError):
        for number in range(10**6):
            REAL_SLEEP(0.05)
            exchange.wfile.write(b"X" if number else b"X-")


def silence(exchange: Exchange) -> None:
    exchange.close_connection = True
    exchange.rfile.read(1)  # until the client has gone


CHUNKED = {"Transfer_Encoding": "chunked"}
SLOW: dict[str, Fault] = {
    "list": Answer(JSON, drip),
    "image of a stated length": Answer(MULTIPART, drip, Content_Length="100000"),
    "header": dripping_header,
    "silence": silence,
}


@pytest.mark.parametrize("name", SLOW)
def test_slow_answer_is_given_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PATIENCE", 0.3)
    assert "no answer in time in 2 tries" in ask(SLOW[name], retrieve, retries=1)


@pytest.mark.parametrize("name", ["list", "header"])
def test_slow_answer_over_tls_is_given_up(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PATIENCE", 0.4)
    certificate = write_certificate(tmp_path)
    with FakePacs(certificate=certificate) as pacs:
        pacs.faults = Always([SLOW[name]])
        access = access_to(pacs.url, certificate.with_name("ca.pem"), {})
        with DicomWeb(access, retries=1) as server, pytest.raises(UnreachableError, match="no answer in time in 2 tries"):
            retrieve(server)


@pytest.mark.parametrize("name", SLOW)
def test_time_of_all_answers_is_limited(name: str) -> None:
    with FakePacs() as pacs, DicomWeb(access_to(pacs.url, environment={}), seconds=0.4) as server:
        pacs.faults = Always([SLOW[name]])
        for _ in range(2):
            with pytest.raises(UnreachableError, match="limit of 0.4 s in all: .* --max-transfer-seconds") as caught:
                retrieve(server)
            assert "\n" not in str(caught.value)
        assert len(pacs.asked) == 1  # nor is it asked again


def test_answers_in_time_use_the_time_up_together(image: Dataset) -> None:
    with FakePacs([image]) as pacs, DicomWeb(access_to(pacs.url, environment={}), seconds=30) as server:
        left = [server._watch.left]
        for _ in range(3):
            server.series_of(image.StudyInstanceUID)
            left.append(server._watch.left)
        assert left == sorted(set(left), reverse=True)  # type: ignore[type-var]
        assert server._watch.left is not None
        server._watch.left = 0
        with pytest.raises(UnreachableError, match="--max-transfer-seconds"):
            server.series_of(image.StudyInstanceUID)


# --- something else


def test_redirects_without_end_are_not_followed() -> None:
    with FakePacs() as pacs:
        pacs.faults = Always([refuses(307, Location=f"{pacs.url}/studies/1.2.3/series")])
        with DicomWeb(access_to(pacs.url, environment={})) as server, pytest.raises(ServerError, match="redirects to another"):
            search(server)
        assert len(pacs.asked) == 1


@pytest.mark.parametrize("kind", ["image/png", "application/zip", "text/plain", "multipart/mixed; boundary=x", ""])
def test_image_of_another_kind_is_refused(kind: str, image: Dataset) -> None:
    with BytesIO() as file:
        image.save_as(file)
        body = file.getvalue()
    said = ask(lambda exchange: exchange.answer(200, kind, body), retrieve, retries=0)
    assert re.search("not DICOM|break off", said)


@pytest.mark.parametrize("element", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_object_of_another_place_than_asked_for_is_refused(element: str, image: Dataset) -> None:
    place = (str(image.StudyInstanceUID), str(image.SeriesInstanceUID), str(image.SOPInstanceUID))
    with FakePacs([image]) as pacs, DicomWeb(access_to(pacs.url, environment={})) as server:
        assert server.retrieve(*place)
        setattr(image, element, generate_uid())
        with pytest.raises(ServerError, match="sent another object than"):
            server.retrieve(*place)
