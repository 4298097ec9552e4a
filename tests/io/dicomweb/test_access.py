"""Who may be asked with which secret; what is refused, in words that repeat no secret."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import requests

from fake_pacs import write_certificate
from monai_ifim.io.dicomweb.access import AccessError, access_to

SECRET = "geh€im"
WITH_PASSWORD = {"IFIM_PACS_USER": "reader", "IFIM_PACS_PASSWORD": SECRET}
WITH_TOKEN = {"IFIM_PACS_TOKEN": "t0ken-value"}
PACS = "https://pacs.example/dicom-web"


@pytest.fixture(autouse=True)
def no_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


def sent(url: str, environment: dict[str, str]) -> str | None:
    """The Authorization header that a request would carry."""
    request = requests.Request("GET", url, auth=access_to(url, environment=environment).auth).prepare()
    return request.headers.get("Authorization")


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "url",
    [
        f"https://reader:{SECRET}@pacs.example/dicom-web",
        f"https://{SECRET}@pacs.example/dicom-web",
        f"https://pacs.example/dicom-web?token={SECRET}",
        f"https://pacs.example/dicom-web#{SECRET}",
        f"https://pacs.example\\{SECRET}",
        f"https://pacs.example:{SECRET}/dicom-web",
        f"https://pacs.example/dicom web/{SECRET}",
        f"https://[{SECRET}/dicom-web",
        f"ftp://pacs.example/{SECRET}",
        f"pacs.example/{SECRET}",
        f"file:///{SECRET}",
        "https://",
        "https:///dicom-web",
        "",
    ],
)
def test_an_address_that_is_no_plain_one_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(AccessError, match="--url") as caught:
        access_to(url, environment={})
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_environment_gives_user_and_password_in_utf8_or_a_token() -> None:
    assert sent(PACS, WITH_PASSWORD) == basic("reader", SECRET)
    assert sent(PACS, WITH_TOKEN) == "Bearer t0ken-value"
    assert sent(PACS, {}) is None


@pytest.mark.parametrize("missing", ["IFIM_PACS_USER", "IFIM_PACS_PASSWORD"])
def test_half_of_a_pair_is_refused(missing: str) -> None:
    half = {name: value for name, value in WITH_PASSWORD.items() if name != missing}
    with pytest.raises(AccessError, match=f"without {missing}") as caught:
        access_to(PACS, environment=half)
    assert SECRET not in str(caught.value)


def test_token_beside_a_password_is_refused() -> None:
    with pytest.raises(AccessError, match="IFIM_PACS_TOKEN is set, and IFIM_PACS_USER"):
        access_to(PACS, environment=WITH_PASSWORD | WITH_TOKEN)


@pytest.mark.parametrize("token", ["abc\r\nX-Other: 1", "two words", "tökén"])
def test_token_that_would_break_its_header_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(AccessError) as caught:
        access_to(PACS, environment={"IFIM_PACS_TOKEN": token})
    assert token not in str(caught.value)
    assert sent(PACS, {"IFIM_PACS_TOKEN": "abc\n"}) == "Bearer abc"


def test_netrc_is_used_where_the_environment_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text(f"machine pacs.example login nora password {SECRET}\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert sent(PACS, {}) == basic("nora", SECRET)
    assert sent("https://other.example/dicom-web", {}) is None
    assert sent(PACS, WITH_TOKEN) == "Bearer t0ken-value"


def test_broken_netrc_is_refused_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text(f"machine pacs.example login nora {SECRET}\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(AccessError, match="netrc") as caught:
        access_to(PACS, environment={})
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("environment", [WITH_PASSWORD, WITH_TOKEN])
def test_secrets_go_over_tls_or_to_this_machine_alone(environment: dict[str, str]) -> None:
    for url in ("http://pacs.example/dicom-web", "http://10.0.0.7:8042", "http://127.0.0.1.example", "HTTP://localhost.example"):
        with pytest.raises(AccessError, match="unencrypted: use https://"):
            access_to(url, environment=environment)
    for url in ("http://127.0.0.1:8042/dicom-web", "http://[::1]:8042/dicom-web", "http://localhost/dicom-web", PACS):
        access = access_to(url, environment=environment)
        assert access.auth is not None
        assert not access.exposed


def test_secret_of_netrc_does_not_go_in_the_clear_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text(f"default login nora password {SECRET}\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(AccessError, match="use https://"):
        access_to("http://pacs.example/dicom-web", environment={})


def test_address_without_tls_and_secrets_is_taken_and_said_to_expose() -> None:
    access = access_to("http://pacs.example:8042/dicom-web/", environment={})
    assert (access.url, access.server, access.exposed) == ("http://pacs.example:8042/dicom-web", "pacs.example:8042", True)


def test_nothing_turns_verification_off() -> None:
    for environment in ({}, {"REQUESTS_CA_BUNDLE": ""}, {"CURL_CA_BUNDLE": ""}):
        assert access_to(PACS, environment=environment).trust is True


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_authorities_that_cannot_be_read_are_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AccessError, match=r"^ca\.pem: cannot be read as certificates in PEM \(.+\): see --ca-bundle\.$"):
        access_to(PACS, path, {})
    with pytest.raises(AccessError, match=r"see REQUESTS_CA_BUNDLE\.$"):
        access_to(PACS, environment={"REQUESTS_CA_BUNDLE": str(path)})


def test_authorities_are_those_named_by_the_option_before_those_of_the_environment(tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path).with_name("ca.pem")
    site = {"REQUESTS_CA_BUNDLE": str(tmp_path)}
    assert access_to(PACS, environment=site).trust == str(tmp_path)
    assert access_to(PACS, certificate, site).trust == str(certificate)


def test_what_is_shown_of_an_access_holds_no_secret() -> None:
    for environment in (WITH_PASSWORD, WITH_TOKEN):
        access = access_to(PACS, environment=environment)
        shown = f"{access!r} {access} {access.auth!r}"
        assert not any(value in shown for value in (SECRET, "t0ken-value", basic("reader", SECRET)))


def test_requests_to_this_machine_take_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert access_to("http://127.0.0.1:8042", environment=WITH_PASSWORD).proxies == {}
    assert access_to(PACS, environment=WITH_PASSWORD).proxies["https"] == "http://proxy.example:3128"
