"""A cluster of one run on this machine: closed to others, gone with the run, and its signals are the run's."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import psutil
import pytest

from monai_ifim.core import IFIMError
from monai_ifim.core.memory.scratch import PREFIX
from monai_ifim.run.cluster import connection
from monai_ifim.run.cluster.connection import _check_closed, _environment, _handlers_kept, _short_place
from started_run import Started, in_table, is_clean, slow_steps, whole

CASES = 60  # more than are done while the run is looked at
ATTACK = """
import sys
from ray._raylet import GcsClient
try:
    print(GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, timeout=10))
except Exception as error:
    print(type(error).__name__)
"""


@pytest.fixture
def started(tmp_path: Path, make_bundle: Callable[..., Path], write_cohort: Callable[..., Path]) -> Started:
    """A run on Ray of slow cases, whose home is a folder of its own."""
    bundle = make_bundle(tmp_path / "bundle", steps=slow_steps(0.4))
    scans = write_cohort(tmp_path / "in", CASES)
    words = ("--bundle", bundle, "--head", "categorical", "--save", "low", "--engine", "ray", "--workers", "2")
    (tmp_path / "home").mkdir()
    variables = {"HOME": str(tmp_path / "home"), "MPLCONFIGDIR": matplotlib.get_cachedir(), "RAY_AUTH_MODE": "disabled"}
    return Started("decompose", scans, *words, "-o", tmp_path / "out", **variables)


def family(started: Started) -> list[psutil.Process]:
    """The run's process and all that it started."""
    run = psutil.Process(started.process.pid)
    return [run, *run.children(recursive=True)]


def listening(processes: list[psutil.Process]) -> dict[int, Any]:
    """Addresses by port at which the processes listen."""
    connections = [one for process in processes for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    return {one.laddr.port: ip_address(one.laddr.ip) for one in connections}


def folders_of_ray(processes: list[psutil.Process]) -> set[Path]:
    """Folders of Ray's sessions that command lines name."""
    words = " ".join(word for process in processes for word in process.cmdline())
    return {Path(found) for found in re.findall(r"([^\s=:,\"']+)/session_\d", words)}


def answers_to_strangers(port: int) -> list[str]:
    """What the cluster answers on loopback to a client without its token, and to one with another."""
    asked = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    words = [sys.executable, "-c", ATTACK, f"127.0.0.1:{port}"]
    given = [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}]
    clients = [subprocess.Popen(words, env=asked | each, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for each in given]
    return [client.communicate(timeout=60)[0].decode().strip() for client in clients]


@pytest.mark.soak
def test_run_on_ray_is_closed_to_others_and_ends_by_a_signal_with_its_tables(started: Started, tmp_path: Path) -> None:
    out = tmp_path / "out"
    started.wait_for(lambda: len(whole(out)) >= 2)
    processes = family(started)
    (server,) = [process for process in processes if process.name() == "gcs_server"]
    ports, own_ports, folders = listening(processes), listening([server]), folders_of_ray(processes)
    assert len(ports) >= 4
    loopback = [one.ipv4_mapped or one if isinstance(one, IPv6Address) else one for one in ports.values()]
    assert all(one.is_loopback for one in loopback), ports
    (ray_folder,) = folders
    private = ray_folder.parent
    assert private.name.startswith(PREFIX)
    assert private.stat().st_mode & 0o077 == 0
    assert answers_to_strangers(next(iter(own_ports))) == ["AuthenticationError"] * 2
    assert not (tmp_path / "home" / ".ray").exists()  # where Ray leaves a token that others may read
    os.kill(started.process.pid, signal.SIGTERM)
    status, said, err = started.ended()
    assert status == 143
    assert err.strip() == "stopping once the cases in hand are done; once more to stop at once"
    done = whole(out)
    assert 2 <= len(done) < CASES
    assert in_table(out) == done
    assert is_clean(out)
    assert f"stopped by SIGTERM: {CASES - len(done)} of {CASES} cases left. To go on: " in said.splitlines()[-1]
    assert not private.exists()
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_all_processes_of_a_run_on_ray_leaves_a_table_of_what_is_written(
    number: signal.Signals, started: Started, tmp_path: Path
) -> None:
    """As a terminal and a service manager send it: SIGTERM ends Ray's own processes too."""
    started.wait_for(lambda: len(whole(tmp_path / "out")) >= 2)
    started.send(number)
    status, _, _ = started.ended()
    assert status == 128 + number
    assert in_table(tmp_path / "out") == whole(tmp_path / "out")


@pytest.mark.soak
def test_signal_while_ray_starts_ends_the_run_as_one_without_finished_cases(started: Started, tmp_path: Path) -> None:
    started.wait_for(lambda: any(process.name() == "gcs_server" for process in family(started)))
    os.kill(started.process.pid, signal.SIGTERM)
    status, said, _ = started.ended()
    assert status == 143
    assert f"{CASES} of {CASES} cases left. To go on: " in said
    assert in_table(tmp_path / "out") == []


def exit_by_a_signal_as_ray_does() -> None:
    with _handlers_kept():
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        os.kill(os.getpid(), signal.SIGTERM)


def test_handlers_are_put_back_and_get_the_signal_that_came_in_between() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    mine = signal.getsignal(signal.SIGTERM)
    try:
        with _handlers_kept():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        assert signal.getsignal(signal.SIGTERM) is mine
        with pytest.raises(InterruptedError):
            exit_by_a_signal_as_ray_does()
        assert seen == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is mine
        with pytest.raises(SystemExit), _handlers_kept():
            sys.exit(1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with pytest.raises(SystemExit), _handlers_kept():
            sys.exit(signal.SIGTERM)  # nobody else to tell
    finally:
        signal.signal(signal.SIGTERM, before)


def test_threads_leave_handlers_alone() -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with _handlers_kept():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert errors == []


@pytest.mark.parametrize(
    ("mode", "addresses", "refusal"),
    [
        ("token", ["127.0.0.1"], None),
        (None, ["127.0.0.1"], "ask for no token"),
        ("disabled", ["127.0.0.1"], "ask for no token"),
        ("token", ["127.0.0.1", "192.0.2.7"], "listens at 127.0.0.1, 192.0.2.7"),
    ],
)
def test_cluster_that_others_can_use_is_refused(mode: str | None, addresses: list[str], refusal: str | None) -> None:
    ray = SimpleNamespace(__version__="2.40", nodes=lambda: [{"NodeManagerAddress": one} for one in addresses])
    with _environment({"RAY_AUTH_MODE": mode}):
        if refusal is None:
            _check_closed(ray)
            return
        with pytest.raises(IFIMError, match=refusal):
            _check_closed(ray)


@pytest.mark.parametrize(
    ("address", "said", "told"),
    [
        (
            "local",
            "The current node timed out during startup. This\nand that",
            r"timed out during startup. This\): start again when",
        ),
        ("local", "", r"\(Exception\): start again when this machine is less busy, or leave out --engine ray\."),
        ("10.0.0.1:6379", "Failed to connect.", r"RAY_ADDRESS=10.0.0.1:6379 \(Failed to connect\): start one with `ray start"),
    ],
)
def test_ray_that_does_not_start_is_told_with_the_cure(address: str, said: str, told: str) -> None:
    def refuse(**_: Any) -> None:
        raise Exception(said)

    with pytest.raises(IFIMError, match=told):
        connection._initialise(SimpleNamespace(init=refuse), address, {})


def test_environment_is_afterwards_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IFIM_TEST_SET", "before")
    with _environment({"IFIM_TEST_SET": None, "IFIM_TEST_NEW": "inside"}):
        assert "IFIM_TEST_SET" not in os.environ
        assert os.environ["IFIM_TEST_NEW"] == "inside"
    assert os.environ["IFIM_TEST_SET"] == "before"
    assert "IFIM_TEST_NEW" not in os.environ


def test_folder_is_short_enough_for_the_sockets_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "gettempdir", lambda: "/" + "t" * 90)
    assert _short_place() == Path("/tmp")
    monkeypatch.setattr(connection, "gettempdir", lambda: "/var/tmp")
    assert _short_place() == Path("/var/tmp")
