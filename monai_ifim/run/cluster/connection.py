"""Connection to a Ray cluster: an existing one, or one on this machine alone that ends with the run."""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from monai_ifim.core import IFIMError
from monai_ifim.core.memory.scratch import ScratchFolder
from monai_ifim.io.model import weights_path

SMALLEST_STORE = 2**27  # bytes of a local cluster's object store, besides the weights
NEWER_RAY = 'pip install "monai-ifim[ray]", in a clone pip install ".[ray]", for a newer one'
LONGEST_PLACE = 16  # characters of the folder for Ray's own: the paths of its sockets below must not exceed 107
REPLACED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def connected(root: Path) -> Iterator[Any]:
    """The ray module, connected. A cluster started here is stopped at the end; an existing one is left running.

    The cluster started here listens on loopback only, asks for a token that is drawn for this run, and keeps its files in a
    folder that only this user can enter. Raises IFIMError if Ray is missing, cannot be reached or started, or cannot be closed
    to others in this way; InterruptedError if SIGTERM arrives while Ray starts, after its handler was called.
    """
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS")
    if address and address != "local":
        _initialise(ray, address, {})
        try:
            yield ray
        finally:
            ray.shutdown()
        return
    with ScratchFolder(_short_place()) as folder, _closed_to_others(ray) as environment, _environment(environment):
        weights = weights_path(root)
        store = SMALLEST_STORE + (2 * weights.stat().st_size if weights is not None else 0)
        options = {"include_dashboard": False, "object_store_memory": store, "_temp_dir": str(folder / "ray")}
        try:
            _initialise(ray, "local", options)
            _check_closed(ray)
            yield ray
        finally:
            ray.shutdown()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise IFIMError('--engine ray needs Ray: pip install "monai-ifim[ray]", in a clone pip install ".[ray]".') from error
    return ray


def _initialise(ray: Any, address: str, options: Mapping[str, Any]) -> None:
    with _handlers_kept():
        try:
            ray.init(address=address, logging_level="ERROR", log_to_driver=False, **options)
        except Exception as error:  # Ray tells by a bare one that it did not start in time
            raise _not_connected(address, error) from error


def _not_connected(address: str, error: Exception) -> IFIMError:
    why = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    if address == "local":
        cure = "start again when this machine is less busy, or leave out --engine ray"
        return IFIMError(f"a local Ray cluster cannot be started ({why}): {cure}.")
    cure = "start one with `ray start --head`, or unset RAY_ADDRESS for one that lasts as long as the run"
    return IFIMError(f"no Ray cluster at RAY_ADDRESS={address} ({why}): {cure}.")


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Put the signal handlers back that Ray replaces with its own, which exit at once.

    SIGTERM that arrived in between goes to the handler from before, and InterruptedError is raised; without one, Ray's exit.
    """
    before = {number: signal.getsignal(number) for number in REPLACED}
    try:
        yield
    except SystemExit as end:
        handler = before[signal.SIGTERM]
        if end.code != signal.SIGTERM or not callable(handler):
            raise
        handler(signal.SIGTERM, None)
        raise InterruptedError("stopped by SIGTERM while Ray started.") from end
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, previous in before.items():
                if previous is not None:  # one that was not set from Python
                    signal.signal(number, previous)


@contextmanager
def _closed_to_others(ray: Any) -> Iterator[dict[str, str | None]]:
    """The environment in which Ray starts a cluster on loopback with a token of its own.

    Ray takes the loopback address on Windows and macOS, and elsewhere where this variable says so; it reads it when it is
    imported, which may have been earlier. It turns authentication on by itself unless RAY_AUTH_MODE says otherwise.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    _forget_token(ray)
    try:
        yield {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_AUTH_MODE": None,
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": os.environ.get("RAY_USAGE_STATS_ENABLED", "0"),  # else Ray reports usage to its vendor
        }
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        _forget_token(ray)


def _forget_token(ray: Any) -> None:
    """Let Ray look for the token again: it keeps the one of an earlier cluster of this process."""
    with suppress(AttributeError):  # a version without authentication, which `_check_closed` refuses
        ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


def _check_closed(ray: Any) -> None:
    """Raise IFIMError if the cluster that was started asks for no token, or listens beyond this machine."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise IFIMError(f"Ray {ray.__version__} starts clusters that ask for no token, so that others may use them: {NEWER_RAY}.")
    addresses = {node["NodeManagerAddress"] for node in ray.nodes()}
    if not all(ip_address(one).is_loopback for one in addresses):
        raise IFIMError(
            f"Ray {ray.__version__} listens at {', '.join(sorted(addresses))}, not on loopback alone: install the version of "
            "constraints.txt, or start a cluster yourself (`ray start --head`) and name it by RAY_ADDRESS."
        )


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Environment variables inside the block; None for one that is not set there."""
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _short_place() -> Path:
    """The folder for temporary files, or /tmp where its path is too long for the sockets below it."""
    usual = gettempdir()
    return Path(usual if len(usual) <= LONGEST_PLACE else "/tmp")  # nosec B108 # only a private folder is made in it
