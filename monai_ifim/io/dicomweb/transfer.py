"""Transfers from a server that may be hostile: bodies are counted while they are received and unpacked, and time is limited."""

from __future__ import annotations

import socket
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.message import Message
from io import BytesIO
from typing import Any
from weakref import WeakSet

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ReadTimeoutError, SSLError

from monai_ifim.core.errors import IFIMError
from monai_ifim.io.dicom.deflated import DEFLATED, inflated_size

CHUNK = 2**18  # bytes; a transfer that takes longer than `patience` for so many is given up
PACKINGS = ("gzip", "x-gzip", "deflate")
PLAIN = ("", "identity")
EITHER_HEADER = 32 + zlib.MAX_WBITS  # zlib finds out whether it is gzip or zlib
LARGEST_TEXT = 2**26  # bytes of an answer that holds no DICOM object; ten thousand images are listed in a fifth of that
PREFIX = b"DICM"  # after 128 bytes (PS3.10, 7.1)


class TransferError(IFIMError):
    """An answer that is larger than allowed, or packed in a way that was not asked for; says what, without the server's name."""


class Watch:
    """Closes the connections of a transfer that takes too long, from a thread of its own.

    patience: seconds for a connection, an answer's header, and each CHUNK of its body. left: seconds left for all transfers
    together, None for no limit; time between transfers does not count.
    """

    def __init__(self, patience: float, left: float | None) -> None:
        self.patience, self.left = patience, left
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._ends: float | None = None  # of the transfer in hand, by the monotonic clock
        self._changed = threading.Condition()
        self._late = self._closed = False
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def used_up(self) -> bool:
        """True once all transfers together have taken their time."""
        return self.left is not None and self.left <= 0

    @contextmanager
    def transfer(self) -> Iterator[None]:
        """A transfer; raises requests.Timeout if it was too slow."""
        began = time.monotonic()
        self._late = False
        self.proceed()
        try:
            yield
            if self._late:  # a body without a stated length seems to end where its connection is closed
                raise requests.ReadTimeout("too slow")
        except Exception as error:  # what a connection raises that is closed while it is read
            if self._late:
                raise requests.ReadTimeout("too slow") from error
            raise
        finally:
            self._end()
            if self.left is not None:
                self.left -= time.monotonic() - began

    def proceed(self) -> None:
        """The transfer goes on: the next part of it may take `patience` seconds again."""
        now = time.monotonic()
        self._set(now + (self.patience if self.left is None else min(self.patience, max(0.0, self.left))))

    def add(self, connection: socket.socket) -> None:
        """A connection to close if a transfer takes too long."""
        self._sockets.add(connection)

    def _expired(self) -> bool:
        return self._ends is not None and time.monotonic() >= self._ends

    def _end(self) -> None:
        self._set(None)

    def _set(self, ends: float | None) -> None:
        with self._changed:
            self._ends = ends
            self._changed.notify()

    def _wait(self) -> None:
        with self._changed:
            while not self._closed:
                if self._expired():
                    self._late = True
                    self._cut()
                    self._changed.wait(0.05)  # a connection may be made just now
                else:
                    self._changed.wait(None if self._ends is None else self._ends - time.monotonic())

    def _cut(self) -> None:
        for one in list(self._sockets):
            with suppress(OSError):  # closed already
                socket.socket.shutdown(one, socket.SHUT_RDWR)  # that of TLS would take the state from under the reading thread


class CountingAdapter(HTTPAdapter):
    """Sends requests and receives each answer whole, up to `largest` bytes when unpacked (0: no limit).

    Raises TransferError for a larger one. dicomweb-client's Host header is removed: it lacks the port and breaks IPv6 addresses.
    """

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch, self.largest = watch, 0
        self.poolmanager.pool_classes_by_scheme = _pools(watch)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """The manager of a proxy's connections, which are watched too."""
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = self.poolmanager.pool_classes_by_scheme
        return manager

    def add_headers(self, request: requests.PreparedRequest, **_: Any) -> None:
        """See the class; nor is a packed body asked for, as its size is not known before."""
        request.headers.pop("Host", None)
        request.headers["Accept-Encoding"] = "identity"

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        """The answer with its body; raises TransferError and requests' errors."""
        with self.watch.transfer():
            response: requests.Response = super().send(request, *arguments, **(options | {"stream": True}))
            try:
                body = self._body(response)
            except BaseException:
                response.close()
                raise
        response._content, response._content_consumed = body, True
        self._check_deflated(body)
        return response

    def _body(self, response: requests.Response) -> bytes:
        largest = _smaller(self.largest, LARGEST_TEXT) if _boundary(response) is None else self.largest
        _check(_stated_length(response.headers), largest)
        body = BytesIO()
        try:
            for chunk in _unpacked(self._received(response), response.headers.get("Content-Encoding", "").strip().lower()):
                if not body.tell():
                    _check_beginning(response, chunk)
                body.write(chunk)
                _check(body.tell(), largest)
        except zlib.error as error:
            raise requests.exceptions.ContentDecodingError(error) from error
        response.raw.release_conn()
        return body.getvalue()

    def _received(self, response: requests.Response) -> Iterator[bytes]:
        try:
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                self.watch.proceed()
                yield chunk
        except ReadTimeoutError as error:
            raise requests.ReadTimeout(error) from error
        except SSLError as error:
            raise requests.exceptions.SSLError(error) from error
        except HTTPError as error:
            raise requests.exceptions.ChunkedEncodingError(error) from error

    def _check_deflated(self, body: bytes) -> None:
        """Raise TransferError for a deflated object that unpacks to more bytes than an answer may have."""
        if not self.largest or DEFLATED.encode() not in body:
            return
        start = body.find(PREFIX)
        while start >= 0:
            if start >= 128:
                _check(inflated_size(BytesIO(body[start - 128 :]), self.largest), self.largest)
            start = body.find(PREFIX, start + 1)


def _check(size: int, largest: int) -> None:
    if largest and size > largest:
        raise TransferError(f"its answer has more than {largest} bytes")


def _smaller(limit: int, other: int) -> int:
    """The smaller of two limits, of which 0 is none."""
    return min(limit, other) if limit else other


def _boundary(response: requests.Response) -> bytes | None:
    """What delimits the parts of a multipart body (RFC 2046, 5.1.1); empty for a bare DICOM object; None for other bodies."""
    header = Message()
    header["Content-Type"] = response.headers.get("Content-Type", "")
    if header.get_content_type() == "application/dicom":
        return b""
    boundary = header.get_boundary() if header.get_content_maintype() == "multipart" else None
    return None if boundary is None else f"--{boundary}".encode("latin-1", "replace")


def _check_beginning(response: requests.Response, beginning: bytes) -> None:
    """Raise TransferError for a long body whose beginning is not that of DICOM objects, before the rest is received."""
    boundary = _boundary(response)
    if boundary is not None and len(beginning) >= CHUNK and (boundary or PREFIX) not in beginning:
        raise TransferError("its answer does not hold the DICOM object that it announces")


def _stated_length(headers: Mapping[str, str]) -> int:
    stated = headers.get("Content-Length", "")
    return int(stated) if stated.isdecimal() and len(stated) < 20 else 0


def _unpacked(chunks: Iterator[bytes], packing: str) -> Iterator[bytes]:
    """The chunks as they are, or unpacked in parts of CHUNK bytes; raises TransferError for packings within each other."""
    if packing in PLAIN:
        yield from chunks
        return
    if packing not in PACKINGS:
        raise TransferError("its answer is packed in a way that was not asked for (Content-Encoding)")
    unpacking = zlib.decompressobj(EITHER_HEADER)
    for chunk in chunks:
        rest = chunk
        while rest:
            yield unpacking.decompress(rest, CHUNK)
            rest = unpacking.unconsumed_tail
            if unpacking.eof:
                rest, unpacking = unpacking.unused_data, zlib.decompressobj(EITHER_HEADER)


def _pools(watch: Watch) -> dict[str, type[HTTPConnectionPool]]:
    """Pools of connections that tell the watch when they connect."""

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            watch.add(self.sock)

    class Encrypted(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            watch.add(self.sock)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}
