"""Access to a DICOMweb server: its address, its certificate authorities and the user's credentials.

Credentials come from the environment or from netrc, never from a command line, and are sent only over TLS or to this machine.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from netrc import NetrcParseError
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth
from requests.utils import get_environ_proxies, get_netrc_auth

from monai_ifim.core.errors import IFIMError

USER, PASSWORD, TOKEN = "IFIM_PACS_USER", "IFIM_PACS_PASSWORD", "IFIM_PACS_TOKEN"
CA_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PLAIN_ADDRESS = re.compile(r"https?://[^\s\\@?#\x00-\x1f\x7f]+", flags=re.IGNORECASE)


class AccessError(IFIMError):
    """A server that must not be accessed as requested."""


@dataclass(frozen=True)
class Access:
    """Parameters of a session; made by `access_to`.

    server: host and port, for messages. trust: the file of certificate authorities, True for the system's; verification cannot
    be disabled. exposed: True if patients' data are sent without encryption.
    """

    url: str
    server: str
    auth: AuthBase | None = field(repr=False)
    trust: str | bool
    proxies: Mapping[str, str] = field(repr=False)
    exposed: bool

    @property
    def user(self) -> str | None:
        """Name of the user at the server; None without one, or with a token."""
        name = self.auth.username if isinstance(self.auth, HTTPBasicAuth) else None
        return name.decode("utf-8", "replace") if isinstance(name, bytes) else None


class BearerAuth(AuthBase):
    """A token in the Authorization header (RFC 6750)."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """The request with the token in it."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def access_to(url: str, ca_bundle: Path | None = None, environment: Mapping[str, str] | None = None) -> Access:
    """Access to the DICOMweb server at `url`, the address before /studies.

    ca_bundle: PEM file of the certificate authorities to accept. environment: by default that of the process.
    Raises AccessError, whose message never quotes a URL or a secret.
    """
    variables = os.environ if environment is None else environment
    address, host, encrypted = _checked_address(url)
    here = _is_this_machine(host)
    auth = _credentials(address, variables)
    if auth is not None and not (encrypted or here):
        raise AccessError(
            f"{host}: its address begins with http://, so the password or token would be sent unencrypted: use https://."
        )
    proxies = {} if here else get_environ_proxies(address)  # requests to this machine use no proxy
    server = urlsplit(address).netloc
    return Access(address, server, auth, _trusted(ca_bundle, variables), proxies, exposed=not (encrypted or here))


def _checked_address(url: str) -> tuple[str, str, bool]:
    """The URL as requests normalises it, its host, and whether it is encrypted."""
    if "@" in url:
        raise AccessError(
            f"--url holds an '@', as if a name or password were in it: leave them out, and set {USER} and {PASSWORD}, or {TOKEN}."
        )
    if not PLAIN_ADDRESS.fullmatch(url):
        raise AccessError("--url is not a plain web address: give one such as https://HOST/dicom-web, without '?' and '#'.")
    try:
        address = str(requests.Request("GET", url.rstrip("/")).prepare().url).rstrip("/")
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        raise AccessError("--url has no valid host: give an address such as https://HOST/dicom-web.")
    return address, host, parts.scheme == "https"


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _credentials(url: str, variables: Mapping[str, str]) -> AuthBase | None:
    """Credentials from the environment, else from netrc; None if there are none."""
    user, password, token = (variables.get(name, "").strip() for name in (USER, PASSWORD, TOKEN))
    if token and (user or password):
        raise AccessError(f"{TOKEN} is set, and {USER} or {PASSWORD} too: unset what does not belong to this server.")
    if bool(user) != bool(password):
        raise AccessError(f"{USER if user else PASSWORD} is set without {PASSWORD if user else USER}: set both.")
    if token:
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise AccessError(f"{TOKEN} holds spaces or signs that no token has: set it to the token alone.")
        return BearerAuth(token)
    if user:
        return _basic(user, password)
    broken = False
    try:
        entry = get_netrc_auth(url, raise_errors=True)
    except (NetrcParseError, OSError):
        broken = True
    if broken:  # raised here, without the parser's error, which quotes the file
        raise AccessError("the netrc file cannot be read: correct it, or name another one by the variable NETRC.")
    return None if entry is None else _basic(*entry)


def _basic(user: str, password: str) -> AuthBase:
    return HTTPBasicAuth(user.encode(), password.encode())  # RFC 7617: UTF-8; requests would use Latin-1


def _trusted(ca_bundle: Path | None, variables: Mapping[str, str]) -> str | bool:
    """The `verify` of requests: a file of authorities, a folder of hashed ones, or True for the system's."""
    named = {name: variables[name] for name in CA_BUNDLES if variables.get(name)}
    option, place = ("--ca-bundle", str(ca_bundle)) if ca_bundle is not None else next(iter(named.items()), ("", ""))
    if not place:
        return True
    if ca_bundle is None and Path(place).is_dir():
        return place
    try:
        ssl.create_default_context(cafile=place)
    except OSError as error:
        reason = "no certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise AccessError(f"{Path(place).name}: cannot be read as certificates in PEM ({reason}): see {option}.") from error
    return place
