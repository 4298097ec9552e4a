"""Client of a DICOMweb server (PS3.18): find series (QIDO), fetch instances (WADO), store maps (STOW).

dicomweb-client makes the requests; this module adds credentials, retries and checks of the answers. No message and no log line
holds a secret, a name or a date.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from io import BytesIO
from typing import Any, Self, TypeVar

import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset
from pydicom.uid import UID

from monai_ifim.core.errors import IFIMError
from monai_ifim.io.dicom.forms import LONGEST_UID, MODALITY_FORM, UID_FORM
from monai_ifim.io.dicomweb.access import Access
from monai_ifim.io.dicomweb.transfer import LARGEST_TEXT, CountingAdapter, TransferError, Watch
from monai_ifim.options import LIMITS, TRANSFER

Answer = TypeVar("Answer")

PASSING = frozenset({408, 429, 502, 503, 504})  # HTTP status codes after which a request is repeated
TIMEOUT = (10.0, 120.0)  # seconds to connect, and to wait for data
PATIENCE = 120.0  # seconds for an answer to begin, and for each part of it
AROUND_PIXELS = 2**26  # bytes of an image that are not its pixels
MOST_PAGES, MOST_RESULTS = 2000, 100_000  # of one search
LONGEST_WAIT = 60.0  # seconds between two tries at most, whatever the server asks for
CHECK_URL = "Is --url the address before /studies, such as https://HOST/dicom-web?"
WHOLE_BODY = 1 << 62  # bytes; a body sent in chunks could not be repeated
SERIES_UID, SERIES_NUMBER, MODALITY = "0020000E", "00200011", "00080060"
INSTANCE_UID, CLASS_UID, ROWS, COLUMNS = "00080018", "00080016", "00280010", "00280011"


class ServerError(IFIMError):
    """A DICOMweb server that refuses a request or answers it wrongly."""


class UnreachableError(ServerError):
    """A DICOMweb server that did not answer in all tries."""


class MissingError(ServerError):
    """The requested object does not exist on the server."""


@dataclass(frozen=True)
class RemoteSeries:
    """A series of images on the server. instances: SOP Instance UIDs; size: columns and rows; None if not stated."""

    uid: str
    modality: str
    number: int | None
    size: tuple[int, int] | None
    instances: tuple[str, ...]

    @property
    def label(self) -> str:
        """A short name for files, the same in every run: modality, number, and a digest of the UID."""
        digest = hashlib.sha256(self.uid.encode()).hexdigest()[:8]
        parts = (self.modality.replace(" ", "") or "series", None if self.number is None else str(self.number), digest)
        return "-".join(part for part in parts if part is not None)

    def facts(self) -> str:
        """Modality, number, size, count and UID: enough to tell series apart, and nothing personal."""
        number = "" if self.number is None else f"series {self.number}, "
        size = "" if self.size is None else f"{self.size[0]} x {self.size[1]}, "
        count = f"{len(self.instances)} image{'' if len(self.instances) == 1 else 's'}"
        return f"{self.modality or 'no modality'}, {number}{size}{count}: {self.uid}"


def checked_uid(uid: Any, name: str = "a text that stands for a UID") -> str:
    """The text, if it is a UID, which is safe as a part of a path; raises ServerError, which does not repeat it, otherwise.

    name: what it is, for the error.
    """
    text = uid.strip(" \0") if isinstance(uid, str) else ""
    if len(text) > LONGEST_UID or not UID_FORM.fullmatch(text):
        raise ServerError(f"{name} is not a DICOM UID: a UID has digits and single dots, {LONGEST_UID} characters at most.")
    return text


class DicomWeb:
    """Session with one server; a context manager.

    retries: further tries if the server is unreachable or busy or a transfer breaks off; first_wait: seconds before the first
    retry, doubled for each further one. Every request may be repeated: a second STOW of a SOP Instance UID changes nothing.
    largest: bytes of an image at most. seconds: for all requests together. 0: no limit.
    """

    def __init__(
        self,
        access: Access,
        retries: int = 5,
        first_wait: float = 1.0,
        largest: int = LIMITS["max_bytes"].default,
        seconds: float = TRANSFER["max_transfer_seconds"].default,
    ) -> None:
        self.name = access.server
        self.largest, self.seconds = largest, seconds
        self._watch = Watch(PATIENCE, seconds or None)
        self.retries, self.first_wait = retries, first_wait
        self._session = requests.Session()
        self._session.trust_env = False  # `Access` has read the environment already
        self._session.max_redirects = 0  # credentials and patients' data are not sent to other addresses
        self._session.auth, self._session.verify, self._session.proxies = access.auth, access.trust, dict(access.proxies)
        self._session.headers["Accept"] = "application/dicom+json"
        self._adapter = CountingAdapter(self._watch)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter)
        self._client = DICOMwebClient(
            access.url, self._session, callback=_refuse_broken_off, chunk_size=WHOLE_BODY, timeout=TIMEOUT
        )
        self._client.set_http_retry_params(retry=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()
        self._watch.close()

    def series_of(self, study: str) -> list[RemoteSeries]:
        """The series of images of a study, sorted by UID; none if the study is unknown. Raises ServerError."""
        found = []
        for uid, entry in self._search(lambda offset: self._client.search_for_series(study, offset=offset), SERIES_UID).items():
            images = [instance for instance in self._instances(study, uid) if _is_image(instance)]
            if images:
                names = tuple(sorted(checked_uid(_value(image, INSTANCE_UID)) for image in images))
                found.append(RemoteSeries(uid, _modality(entry), _number(entry), _size(images[0]), names))
        return sorted(found, key=lambda series: series.uid)

    def retrieve(self, study: str, series: str, instance: str) -> bytes:
        """An instance as the content of a DICOM file. Raises ServerError."""
        largest = self.largest + AROUND_PIXELS if self.largest else 0
        found = self._ask(lambda: self._client.retrieve_instance(study, series, instance), largest)
        stated = tuple(found.get(name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
        if stated != (study, series, instance):
            raise ServerError(f"{self.name}: sent another object than {instance}: tell the server's administrator.")
        with BytesIO() as file:
            found.save_as(file)
            return file.getvalue()

    def holds(self, study: str, series: str, instance: str) -> bool:
        """True if an instance is in the study. Raises ServerError."""
        return any(_value(entry, INSTANCE_UID) == instance for entry in self._instances(study, series, instance))

    def store(self, study: str, content: Dataset) -> None:
        """Store an instance in its study. Raises ServerError if the server does not list it afterwards."""
        answer = self._ask(lambda: self._client.store_instances([content], study))
        refused = _failure(answer)
        if refused:
            raise ServerError(f"{self.name}: does not store it ({refused}): ask the server's administrator.")
        confirmed = {item.get("ReferencedSOPInstanceUID") for item in answer.get("ReferencedSOPSequence") or ()}
        instance = str(content.SOPInstanceUID)
        if instance not in confirmed and not self.holds(study, str(content.SeriesInstanceUID), instance):
            raise ServerError(f"{self.name}: took it, but does not list it: run the command again later; what is there is kept.")

    def _instances(self, study: str, series: str, instance: str | None = None) -> list[Mapping[str, Any]]:
        only = None if instance is None else {"SOPInstanceUID": instance}
        found = self._search(
            lambda offset: self._client.search_for_instances(study, series, offset=offset, search_filters=only), INSTANCE_UID
        )
        return list(found.values())

    def _search(self, page: Callable[[int], list[Any]], key: str) -> dict[str, Mapping[str, Any]]:
        """All results of a QIDO search by UID; servers return pages, or ignore the offset and return all again."""
        found: dict[str, Mapping[str, Any]] = {}
        pages = 0
        while True:
            before = len(found)
            try:
                entries = self._ask(lambda: list(_by_uid(page(len(found)), key)))
            except MissingError:
                entries = []
            found.update(entry for entry in entries if entry[0] not in found)
            pages += 1
            if len(found) == before:
                return found
            if pages == MOST_PAGES or len(found) > MOST_RESULTS:
                raise ServerError(
                    f"{self.name}: a list of {len(found)} results on {pages} pages does not end: tell the server's administrator."
                )

    def _ask(self, question: Callable[[], Answer], largest: int | None = None) -> Answer:
        """The answer, after retries if they may help; raises ServerError with the cure. largest: bytes of it, 0 for no limit; by
        default those of a list.

        urllib3's own retries do not cover a transfer that breaks off, because requests reads bodies later.
        """
        attempt = 0
        while True:
            if self._watch.used_up:
                raise self._too_long()
            self._adapter.largest = LARGEST_TEXT if largest is None else largest
            try:
                return question()
            except TransferError as error:
                raise ServerError(f"{self.name}: {error}: {self._cure(largest)}.") from None
            except requests.RequestException as error:
                if self._watch.used_up:
                    raise self._too_long() from error
                if not _passes(error):
                    raise self._refusal(error) from error
                if attempt == self.retries:
                    raise self._exhausted(error) from error
                time.sleep(self._wait(error, attempt))
                attempt += 1
            except IFIMError:
                raise
            except Exception as error:  # the reader raises anything for an answer that is not DICOM
                kind = type(error).__name__
                raise ServerError(f"{self.name}: sent an answer that is not DICOM ({kind}). {CHECK_URL}") from None

    def _cure(self, largest: int | None) -> str:
        """What to do about an answer that is too large, or none."""
        if largest is None:
            return "see that --url names a DICOMweb server, and tell its administrator"
        return "if the study holds such images, give a larger --max-bytes (or 0 for no limit)"

    def _too_long(self) -> UnreachableError:
        return UnreachableError(
            f"{self.name}: its answers took more than the limit of {self.seconds:g} s in all: run the same command again, which "
            "goes on where this one stopped, or give a larger --max-transfer-seconds (or 0 for no limit)."
        )

    def _wait(self, error: requests.RequestException, attempt: int) -> float:
        stated = "" if error.response is None else error.response.headers.get("Retry-After", "")
        seconds = float(stated) if re.fullmatch("[0-9]{1,6}", stated) else self.first_wait * 2**attempt
        return min(seconds, LONGEST_WAIT)

    def _exhausted(self, error: requests.RequestException) -> UnreachableError:
        if error.response is not None:
            reason = f"HTTP {error.response.status_code}"
        elif isinstance(error, requests.Timeout):
            reason = "no answer in time"
        elif isinstance(error, requests.exceptions.ChunkedEncodingError):
            reason = "its answers break off"
        else:
            reason = "no connection"
        tries = f"{self.retries + 1} {'try' if self.retries == 0 else 'tries'}"
        return UnreachableError(
            f"{self.name}: {reason} in {tries}: see that the server runs and that --url names it; the same command then goes on "
            "where this one stopped."
        )

    def _refusal(self, error: requests.RequestException) -> ServerError:
        status = None if error.response is None else error.response.status_code
        if isinstance(error, requests.exceptions.SSLError):
            return ServerError(f"{self.name}: {_tls_failure(error)}")
        if isinstance(error, requests.TooManyRedirects):
            return ServerError(f"{self.name}: redirects to another address, which is not followed: give that address as --url.")
        if isinstance(error, requests.exceptions.InvalidJSONError):
            return ServerError(f"{self.name}: answers, but not as a DICOMweb server. {CHECK_URL}")
        if status == 401:
            return ServerError(
                f"{self.name}: asks for a login (HTTP 401): set IFIM_PACS_USER and IFIM_PACS_PASSWORD, or "
                "IFIM_PACS_TOKEN, or an entry for this host in ~/.netrc."
            )
        if status == 403:
            return ServerError(f"{self.name}: does not allow this (HTTP 403): ask the server's administrator for permission.")
        if status == 404:
            return MissingError(f"{self.name}: does not have the requested object (HTTP 404). {CHECK_URL}")
        if error.response is not None:
            refused = _stated_failure(error.response)
            return ServerError(f"{self.name}: refuses (HTTP {status}{refused}): ask the server's administrator.")
        return ServerError(f"{self.name}: cannot be asked ({type(error).__name__}). {CHECK_URL}")


def _refuse_broken_off(response: requests.Response, *_: Any, **__: Any) -> None:
    """Raise for a multipart body without its closing delimiter (RFC 2046, 5.1.1), which would be a truncated image."""
    header = Message()
    header["Content-Type"] = response.headers.get("Content-Type", "")
    boundary = header.get_boundary()
    if not response.ok or boundary is None or header.get_content_maintype() != "multipart":
        return
    if f"--{boundary}--".encode() not in response.content[-len(boundary) - 64 :]:
        raise requests.exceptions.ChunkedEncodingError("the body lacks its closing delimiter")


def _passes(error: requests.RequestException) -> bool:
    """True if the same request may succeed later."""
    if error.response is not None:
        return error.response.status_code in PASSING
    broken = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, broken) and not isinstance(error, requests.exceptions.SSLError)


def _tls_failure(error: requests.exceptions.SSLError) -> str:
    said = str(error)
    if "mismatch" in said or "doesn't match" in said:
        return "its certificate is made out to another name: give that name in --url."
    if "expired" in said:
        return "its certificate has expired: ask those who run it for a new one."
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "its certificate is not trusted: name the file of the authority that signed it with --ca-bundle FILE."
    return "no TLS connection with it: is it a server for https, at this port?"


def _stated_failure(response: requests.Response) -> str:
    try:
        failure = _failure(Dataset.from_json(response.json()))
    except Exception:  # the body of a refusal may be anything
        return ""
    return f", {failure}" if failure else ""


def _failure(answer: Dataset) -> str:
    """The reason why STOW did not store an instance (PS3.18, 10.5.3.2); empty if it states none."""
    for item in answer.get("FailedSOPSequence") or ():
        reason = item.get("FailureReason")
        return "failure reason not stated" if reason is None else f"failure reason 0x{int(reason):04X}"
    return ""


def _by_uid(entries: list[Any], key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for entry in entries:
        yield checked_uid(_value(entry, key)), entry


def _value(entry: Mapping[str, Any], tag: str) -> Any:
    """The first value of an attribute in DICOM JSON (PS3.18, F.2), None if it has none."""
    attribute = entry.get(tag)
    values = attribute.get("Value") if isinstance(attribute, Mapping) else None
    return values[0] if isinstance(values, list) and values else None


def _modality(entry: Mapping[str, Any]) -> str:
    text = str(_value(entry, MODALITY) or "")
    return text if MODALITY_FORM.fullmatch(text) else ""


def _number(entry: Mapping[str, Any]) -> int | None:
    text = str(_value(entry, SERIES_NUMBER))
    return int(text) if re.fullmatch("[0-9]{1,10}", text) else None


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    columns, rows = _value(entry, COLUMNS), _value(entry, ROWS)
    return (columns, rows) if isinstance(columns, int) and isinstance(rows, int) else None


def _is_image(entry: Mapping[str, Any]) -> bool:
    """True if an instance is an acquired image: not a report, a segmentation, a dose or a derived map."""
    stated = str(_value(entry, CLASS_UID))
    name = UID(stated).keyword if UID_FORM.fullmatch(stated) else ""
    if not name:  # a private class, or none stated
        return _size(entry) is not None
    return "ImageStorage" in name or name == "EnhancedUSVolumeStorage"
