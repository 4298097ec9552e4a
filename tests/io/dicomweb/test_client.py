"""Questions to a DICOMweb server that is away, busy, wrong, or not to be trusted."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import time
import traceback
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom import Dataset, uid
from pydicom.config import disable_value_validation
from pydicom.uid import generate_uid

from fake_pacs import PASSWORD, USER, Exchange, FakePacs, breaks_off_before, hangs_up, refuses, write_certificate
from monai_ifim.io.dicomweb.access import access_to
from monai_ifim.io.dicomweb.client import DicomWeb, MissingError, RemoteSeries, ServerError, UnreachableError, checked_uid
from synthetic_series import ORIENTATIONS, Series

SIGNED_IN = {"IFIM_PACS_USER": USER, "IFIM_PACS_PASSWORD": PASSWORD}


@pytest.fixture(autouse=True)
def no_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited for; nobody waits."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def images() -> list[Dataset]:
    return Series(ORIENTATIONS["axial"], slices=3).slices()


def client(pacs: FakePacs | str, who: dict[str, str] | None = None, ca_bundle: Path | None = None, **how: Any) -> DicomWeb:
    url = pacs if isinstance(pacs, str) else pacs.url
    return DicomWeb(access_to(url, ca_bundle, who or {}), **how)


def place(image: Dataset) -> tuple[str, str, str]:
    return str(image.StudyInstanceUID), str(image.SeriesInstanceUID), str(image.SOPInstanceUID)


def encoded(image: Dataset) -> bytes:
    with BytesIO() as file:
        image.save_as(file)
        return file.getvalue()


def test_series_are_found_with_modality_size_and_count(images: list[Dataset]) -> None:
    with FakePacs(images) as pacs, client(pacs) as server:
        [series] = server.series_of(images[0].StudyInstanceUID)
        assert series.instances == tuple(sorted(str(image.SOPInstanceUID) for image in images))
        assert series.facts() == f"CT, series 1, 7 x 5, 3 images: {images[0].SeriesInstanceUID}"
        assert server.series_of("1.2.3") == []


def test_what_is_no_picture_of_the_patient_is_no_series(images: list[Dataset]) -> None:
    kinds = ("ParametricMap", "Segmentation", "RTDose", "BasicTextSR", "EnhancedUSVolume")
    others, study = Series(ORIENTATIONS["axial"], slices=5).slices(), images[0].StudyInstanceUID
    for image, kind in zip(others, kinds, strict=True):
        image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPClassUID = study, generate_uid(), getattr(uid, f"{kind}Storage")
    with FakePacs([*images, *others]) as pacs, client(pacs) as server:
        found = {series.uid for series in server.series_of(study)}
    assert found == {images[0].SeriesInstanceUID, others[-1].SeriesInstanceUID}


@pytest.mark.parametrize("ignores_offset", [False, True])
def test_pages_are_read_to_the_end(images: list[Dataset], ignores_offset: bool) -> None:
    with FakePacs(images, page=None if ignores_offset else 2) as pacs, client(pacs) as server:
        pacs.ignores_offset = ignores_offset
        [series] = server.series_of(images[0].StudyInstanceUID)
    assert len(series.instances) == 3


def test_instance_comes_byte_by_byte_as_it_is_kept(images: list[Dataset]) -> None:
    with FakePacs(images) as pacs, client(pacs) as server:
        assert server.retrieve(*place(images[1])) == encoded(images[1])
        assert "transfer-syntax=*" in pacs.headers[-1]["Accept"]  # uncompressing is left to who reads it
        assert pacs.headers[-1]["Host"] == server.name
        with pytest.raises(MissingError, match="HTTP 404"):
            server.retrieve(*place(images[1])[:2], "1.2.3")


def test_stored_instance_is_held_and_equal(images: list[Dataset]) -> None:
    with FakePacs(images[:1]) as pacs, client(pacs) as server:
        assert [server.holds(*place(image)) for image in images[:2]] == [True, False]
        server.store(images[1].StudyInstanceUID, images[1])
        assert server.holds(*place(images[1]))
        assert encoded(pacs.content[images[1].SOPInstanceUID]) == encoded(images[1])


def test_busy_server_is_asked_again_for_reading_and_for_storing(images: list[Dataset], waits: list[float]) -> None:
    with FakePacs(images[:1]) as pacs, client(pacs, first_wait=0.5) as server:
        pacs.faults = [refuses(503), refuses(503)]
        assert server.retrieve(*place(images[0])) == encoded(images[0])
        pacs.faults = [refuses(429), hangs_up]
        server.store(images[1].StudyInstanceUID, images[1])
        assert encoded(pacs.content[images[1].SOPInstanceUID]) == encoded(images[1])
    assert waits == [0.5, 1.0, 0.5, 1.0]


@pytest.mark.parametrize(("stated", "waited"), [("7", 7.0), ("86400", 60.0), ("soon", 1.0), ("9" * 400, 1.0)])
def test_server_may_say_how_long_to_wait_within_reason(
    images: list[Dataset], waits: list[float], stated: str, waited: float
) -> None:
    with FakePacs(images, [refuses(503, Retry_After=stated)]) as pacs, client(pacs) as server:
        server.retrieve(*place(images[0]))
    assert waits == [waited]


@pytest.mark.parametrize("status", [500, 400, 403])
def test_other_refusals_are_final(images: list[Dataset], waits: list[float], status: int) -> None:
    with FakePacs(images, [refuses(status)]) as pacs, client(pacs) as server, pytest.raises(ServerError, match=f"HTTP {status}"):
        server.retrieve(*place(images[0]))
    assert waits == []


def test_server_that_stays_busy_is_given_up(images: list[Dataset], waits: list[float]) -> None:
    with FakePacs(images, [refuses(503)] * 9) as pacs, client(pacs, retries=3) as server:
        with pytest.raises(UnreachableError, match="HTTP 503 in 4 tries"):
            server.retrieve(*place(images[0]))
        assert len(pacs.asked) == 4
    assert waits == [1.0, 2.0, 4.0]


def test_server_that_is_down_is_tried_and_then_named(waits: list[float]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with client(f"http://127.0.0.1:{port}/dicom-web", SIGNED_IN) as server, pytest.raises(UnreachableError) as caught:
        server.series_of("1.2.3")
    assert str(caught.value).startswith(f"127.0.0.1:{port}: no connection in 6 tries: see that the server runs")
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0]


def test_study_that_is_not_there_holds_no_series(images: list[Dataset]) -> None:
    """Some servers answer 404 where the standard wants an empty list."""
    with FakePacs(images, [refuses(404)]) as pacs, client(pacs) as server:
        assert server.series_of(images[0].StudyInstanceUID) == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (requests.ReadTimeout("slow"), "no answer in time in 6 tries"),
        (requests.exceptions.ContentDecodingError("spoilt"), r"cannot be asked \(ContentDecodingError\)"),
        (
            requests.exceptions.SSLError("CERTIFICATE_VERIFY_FAILED: certificate has expired"),
            "has expired: ask those",
        ),
        (requests.exceptions.SSLError("unexpected eof"), "127.0.0.1:9"),
    ],
)
def test_every_way_to_fail_is_told_in_one_line(
    error: Exception, words: str, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(requests.Session, "send", send)
    with client("http://127.0.0.1:9/dicom-web") as server, pytest.raises(ServerError, match=words) as caught:
        server.series_of("1.2.3")
    assert "\n" not in str(caught.value)
    assert len(waits) == (5 if isinstance(error, requests.Timeout) else 0)


def test_series_is_called_by_modality_number_and_what_tells_it_apart() -> None:
    def label(uid: str, modality: str, number: int | None) -> str:
        return RemoteSeries(uid, modality, number, None, ()).label

    assert label("1.2.3", "CT", 4) == f"CT-4-{hashlib.sha256(b'1.2.3').hexdigest()[:8]}"
    assert label("1.2.3", "", None) == f"series-{hashlib.sha256(b'1.2.3').hexdigest()[:8]}"
    assert label("1.2.3", "CT", 4) != label("1.2.33", "CT", 4)


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("ending", [b"\r\n--sep", b"DICM"])
def test_instance_that_breaks_off_is_fetched_again(
    images: list[Dataset], waits: list[float], stated: bool, ending: bytes
) -> None:
    with FakePacs(images, [breaks_off_before(ending, stated)]) as pacs, client(pacs) as server:
        assert server.retrieve(*place(images[0])) == encoded(images[0])
        pacs.faults = [breaks_off_before(ending, stated)] * 9
        with pytest.raises(UnreachableError, match="in 6 tries"):
            server.retrieve(*place(images[0]))
    assert len(waits) == 6


def test_wrong_password_is_one_clear_line_without_it(images: list[Dataset], waits: list[float]) -> None:
    wrong = {"IFIM_PACS_USER": USER, "IFIM_PACS_PASSWORD": "wr0ng"}
    with FakePacs(images, guarded=True) as pacs:
        for environment in (wrong, {}, {"IFIM_PACS_TOKEN": "wr0ng"}):
            with client(pacs, environment) as server, pytest.raises(ServerError, match="HTTP 401") as caught:
                server.series_of(images[0].StudyInstanceUID)
            assert "IFIM_PACS_PASSWORD" in str(caught.value)
            assert "wr0ng" not in "".join(traceback.format_exception(caught.value))
            assert "\n" not in str(caught.value)
        with client(pacs, SIGNED_IN) as server:
            assert server.retrieve(*place(images[0])) == encoded(images[0])
    assert waits == []


def test_netrc_does_not_overrule_the_environment(images: list[Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with FakePacs(images) as pacs, client(pacs, {"IFIM_PACS_TOKEN": "abc"}) as server:
        server.series_of(images[0].StudyInstanceUID)
        assert {headers["Authorization"] for headers in pacs.headers} == {"Bearer abc"}


def test_no_secret_and_no_name_reaches_a_log_or_a_warning(
    images: list[Dataset],
    waits: list[float],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    caplog.set_level(logging.DEBUG)
    with disable_value_validation():
        images[0].PatientName, images[0].PatientID = "Doe^Jane", "Jane" * 20  # longer than an identifier may be
    with FakePacs(images, [refuses(503)], guarded=True) as pacs, client(pacs, SIGNED_IN) as server:
        server.series_of(images[0].StudyInstanceUID)
        server.retrieve(*place(images[0]))
        server.store(images[0].StudyInstanceUID, images[0])
        pacs.faults = [refuses(500)]
        with pytest.raises(ServerError) as caught:
            server.store(images[0].StudyInstanceUID, images[0])
        sent = pacs.headers[0]["Authorization"]
    written = caplog.text + "".join(capfd.readouterr()) + "".join(traceback.format_exception(caught.value))
    written += "".join(str(warning.message) for warning in recwarn)
    assert "dicom-web" in written
    assert not any(secret in written for secret in (PASSWORD, sent, sent.split()[1], "Doe", "Jane"))


def test_redirect_is_not_followed(images: list[Dataset]) -> None:
    with FakePacs(images) as other:
        for status in (302, 307, 308):
            away = refuses(status, Location=f"{other.url}/studies")
            with FakePacs(images, [away] * 2) as pacs, client(pacs, SIGNED_IN) as server:
                with pytest.raises(ServerError, match="redirects to another address, which is not followed"):
                    server.store(images[0].StudyInstanceUID, images[0])
                with pytest.raises(ServerError, match="redirects to another address"):
                    server.series_of(images[0].StudyInstanceUID)
        assert other.asked == []


def test_web_page_instead_of_dicom_is_said_to_be_none() -> None:
    def page(exchange: Exchange) -> None:
        exchange.answer(200, "text/html", b"<html>Log in</html>")

    with FakePacs([], [page, page]) as pacs, client(pacs) as server:
        with pytest.raises(ServerError, match="not as a DICOMweb server. Is --url the address before /studies"):
            server.series_of("1.2.3")
        with pytest.raises(ServerError, match="sent an answer that is not DICOM"):
            server.retrieve("1.2.3", "1.2.4", "1.2.5")


def test_another_object_than_asked_for_is_refused(images: list[Dataset]) -> None:
    with FakePacs(images) as pacs, client(pacs) as server:
        pacs.content[str(images[0].SOPInstanceUID)] = images[1]
        with pytest.raises(ServerError, match="sent another object"):
            server.retrieve(*place(images[0]))


ODD_UIDS = ["", ".", "..", "../../etc", "1.2/../3", "1..2", ".1", "1.", "1.2\n", "1.2\x1b[2J", "1" * 65, "\u0661.2", "a.b"]


@pytest.mark.parametrize("text", [*ODD_UIDS, None, 12, ["1.2"]])
def test_uid_that_could_be_a_path_is_refused(text: Any, images: list[Dataset]) -> None:
    with pytest.raises(ServerError, match="is no DICOM UID") as caught:
        checked_uid(text)
    assert str(caught.value).isprintable()
    entry = images[0].to_json_dict()
    for level, tag in (("series", "0020000E"), ("instances", "00080018")):
        bad = [{**{name: entry[name] for name in ("00080016", "0020000E", "00080018")}, tag: {"vr": "UI", "Value": [text]}}]
        with FakePacs(images, overrides={level: bad}) as pacs, client(pacs) as server, pytest.raises(ServerError):
            server.series_of(images[0].StudyInstanceUID)


def test_modality_of_other_signs_is_not_shown(images: list[Dataset]) -> None:
    odd = {"vr": "CS", "Value": ["\x1b[2J Jane"]}
    series = [{"0020000E": {"vr": "UI", "Value": [images[0].SeriesInstanceUID]}, "00080060": odd}]
    with FakePacs(images, overrides={"series": series}) as pacs, client(pacs) as server:
        [found] = server.series_of(images[0].StudyInstanceUID)
    assert found.facts().startswith("no modality, 7 x 5")


@pytest.mark.parametrize("odd", ["text", [], {}, {"Value": "7"}, {"Value": []}, {"Value": [{}]}, {"Value": ["<script>"]}, None])
def test_odd_attributes_are_not_believed(images: list[Dataset], odd: Any) -> None:
    entry = images[0].to_json_dict()
    series = {"0020000E": entry["0020000E"], "00080060": odd, "00200011": odd}
    instance = {"00080018": entry["00080018"], "00080016": entry["00080016"], "00280010": odd, "00280011": odd}
    with FakePacs(images, overrides={"series": [series], "instances": [instance]}) as pacs, client(pacs) as server:
        [found] = server.series_of(images[0].StudyInstanceUID)
        assert (found.modality, found.number, found.size, len(found.instances)) == ("", None, None, 1)
        pacs.overrides["instances"] = [instance | {"00080016": odd}]
        assert server.series_of(images[0].StudyInstanceUID) == []


@pytest.mark.parametrize("status", [202, 409])
def test_refused_map_is_told_by_its_reason(images: list[Dataset], status: int) -> None:
    failed = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [272]}}]}}
    with FakePacs(images, overrides={"stow": failed}) as pacs, client(pacs) as server:
        pacs.stow_status = status
        with pytest.raises(ServerError, match="failure reason 0x0110"):
            server.store(images[0].StudyInstanceUID, images[0])


def test_map_that_was_taken_without_a_word_must_be_listed(images: list[Dataset]) -> None:
    with FakePacs([], overrides={"stow": {}}) as pacs, client(pacs) as server:
        server.store(images[0].StudyInstanceUID, images[0])
        pacs.overrides["instances"] = []
        with pytest.raises(ServerError, match="does not list it"):
            server.store(images[0].StudyInstanceUID, images[0])


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate of 127.0.0.1 in one PEM file."""
    return write_certificate(tmp_path_factory.mktemp("tls"))


def test_unknown_certificate_is_refused_at_once_and_accepted_where_named(
    certificate: Path, images: list[Dataset], waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakePacs(images, certificate=certificate) as pacs:
        with client(pacs) as server, pytest.raises(ServerError, match="is not trusted: name the file .* --ca-bundle FILE"):
            server.retrieve(*place(images[0]))
        assert waits == []
        assert pacs.asked == []
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests alone would let them overrule
            monkeypatch.setenv(name, str(Path(os.__file__).parent))
        with client(pacs, ca_bundle=certificate.with_name("ca.pem")) as server:
            assert server.retrieve(*place(images[0])) == encoded(images[0])


def test_certificate_of_another_host_is_refused(certificate: Path, images: list[Dataset]) -> None:
    with FakePacs(images, certificate=certificate) as pacs:
        url = pacs.url.replace("127.0.0.1", "localhost")
        with client(url, ca_bundle=certificate.with_name("ca.pem")) as server, pytest.raises(ServerError, match="another name"):
            server.retrieve(*place(images[0]))


def test_server_without_tls_at_an_https_address_is_told(images: list[Dataset], waits: list[float]) -> None:
    with FakePacs(images) as pacs, client(pacs.url.replace("http", "https")) as server, pytest.raises(ServerError, match="https"):
        server.retrieve(*place(images[0]))
    assert waits == []
