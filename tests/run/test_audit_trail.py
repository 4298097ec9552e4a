"""The audit trail of `pacs`: each step has its lines, which are only added, flushed, closed to others and free of secrets."""

from __future__ import annotations

import base64
import json
import os
import pwd
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from pydicom import Dataset
from typer.testing import CliRunner

from fake_pacs import PASSWORD, USER, FakePacs, refuses
from monai_ifim.cli.main import app
from monai_ifim.core import IFIMError
from monai_ifim.io import InputError, OutputError, identify_bundle
from monai_ifim.io.dicomweb import client
from monai_ifim.run.audit_trail import UNRECORDED, AuditTrail
from synthetic_series import ORIENTATIONS, Series

Lines = list[dict[str, Any]]
NAME = "Wolkenstein^Oswald"


def lines_of(path: Path) -> Lines:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def steps(lines: Lines) -> list[tuple[str, str]]:
    return [(line["step"], line["outcome"]) for line in lines]


# --- the file


def test_lines_are_added_and_each_names_who_where_and_when(tmp_path: Path) -> None:
    path = tmp_path / "made" / "log.jsonl"
    for _ in range(2):
        trail = AuditTrail(path)
        trail.about |= {"study": "1.2.3"}
        trail.record("pull", "done", series="1.2.4")
    first, second = lines_of(path)
    assert first["run"] != second["run"]
    for line in (first, second):
        assert (line["user"], line["user_id"]) == (pwd.getpwuid(os.getuid()).pw_name, os.getuid())
        assert (line["host"], line["process"]) == (os.uname().nodename, os.getpid())
        assert (line["study"], line["series"], line["outcome"]) == ("1.2.3", "1.2.4", "done")
        assert abs(datetime.fromisoformat(line["time"]) - datetime.now(UTC)) < timedelta(minutes=5)
        assert line["time"].endswith("Z")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_user_is_the_account_of_the_process_whatever_variables_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    AuditTrail(tmp_path / "log").record("run", "begun")
    assert "somebody-else" not in (tmp_path / "log").read_text()


def test_a_line_is_one_line_whatever_is_in_it(tmp_path: Path) -> None:
    AuditTrail(tmp_path / "log").record("run", "failed", reason='a\nb\r\u2028{"step": "x"}\x00')
    [line] = (tmp_path / "log").read_bytes().splitlines()
    assert json.loads(line)["reason"].startswith("a\nb")


def test_file_is_closed_to_others_and_only_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    path.write_text('{"earlier": 1}\n{"torn": ')
    path.chmod(0o666)
    flushed: list[int] = []
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (flushed.append(descriptor), flush(descriptor)))
    AuditTrail(path).record("run", "begun")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    earlier, torn, added = path.read_text().splitlines()
    assert (earlier, torn) == ('{"earlier": 1}', '{"torn": ')
    assert json.loads(added)["step"] == "run"
    assert len(flushed) == 1


def _link(path: Path) -> None:
    (path.parent / "victim").write_text("")
    path.symlink_to(path.parent / "victim")


def _hard_link(path: Path) -> None:
    (path.parent / "victim").write_text("")
    os.link(path.parent / "victim", path)


@pytest.mark.parametrize("make", [_link, _hard_link, os.mkfifo, Path.mkdir], ids=["link", "hard link", "pipe", "folder"])
def test_what_is_no_file_of_its_own_is_refused(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "log")
    with pytest.raises(OutputError, match="audit log .* nothing is pulled or stored without .* --audit-log"):
        AuditTrail(tmp_path / "log").record("run", "begun")
    victim = tmp_path / "victim"
    assert not victim.exists() or victim.read_text() == ""


def test_step_that_cannot_be_announced_does_not_take_place(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(OutputError, match="audit log"), AuditTrail(tmp_path / "log").step("pull"):
        raise AssertionError("took place")


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (KeyboardInterrupt(), "interrupted", "SIGINT"),
        (SystemExit(143), "interrupted", "SIGTERM"),
        (typer.Exit(130), "interrupted", "SIGINT"),
        (typer.Exit(3), "failed", "exit status 3"),
        (InputError("no such series"), "refused", "no such series"),
        (IFIMError("another bundle"), "refused", "another bundle"),
        (client.UnreachableError("away"), "failed", "away"),
        (OutputError("full"), "failed", "full"),
        (ValueError(NAME), "failed", "ValueError"),
    ],
)
def test_every_way_to_end_has_its_outcome(error: BaseException, outcome: str, reason: str, tmp_path: Path) -> None:
    def pull() -> None:
        with AuditTrail(tmp_path / "log").step("pull", series="1.2") as found:
            found["fetched"] = 3
            raise error

    with pytest.raises(type(error)):
        pull()
    begun, ended = lines_of(tmp_path / "log")
    assert (begun["step"], begun["outcome"], begun["series"]) == ("pull", "begun", "1.2")
    assert "fetched" not in begun
    assert (ended["outcome"], ended["reason"], ended["series"], ended["fetched"]) == (outcome, reason, "1.2", 3)


def test_without_a_file_nothing_is_recorded() -> None:
    with UNRECORDED.step("pull"):
        pass


# --- runs of the command line


@pytest.fixture
def images() -> list[Dataset]:
    found = Series(ORIENTATIONS["axial"], slices=4).slices()
    for image in found:
        image.PatientName, image.SeriesNumber = NAME, 7
    return found


@pytest.fixture
def run(
    tmp_path: Path, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, blank_figure: None
) -> Callable[..., Any]:
    bundle = make_bundle(tmp_path / "bundle")
    for name in ("IFIM_PACS_USER", "IFIM_PACS_PASSWORD", "IFIM_PACS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setattr("time.sleep", lambda _: None)

    def start(url: str, study: str, *words: str) -> Any:
        fixed = ["--bundle", bundle, "-o", tmp_path / "out", "--rank", 1, "--save", "high", "--no-locality"]
        return CliRunner().invoke(app, ["pacs", "--url", url, "--study", study, *map(str, fixed), *words])

    return start


@pytest.mark.slow
def test_whole_run_is_recorded_with_user_bundle_series_and_instances(
    run: Callable[..., Any], images: list[Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IFIM_PACS_USER", USER)
    monkeypatch.setenv("IFIM_PACS_PASSWORD", PASSWORD)
    study, series = str(images[0].StudyInstanceUID), str(images[0].SeriesInstanceUID)
    with FakePacs(images, guarded=True) as pacs:
        assert run(pacs.url, study).exit_code == 0
        stored = set(pacs.content) - {str(image.SOPInstanceUID) for image in images}
        sent = pacs.headers[0]["Authorization"].split()[1]
        first = lines_of(tmp_path / "out" / "pacs-audit.jsonl")
        assert run(pacs.url, study).exit_code == 0
    path = tmp_path / "out" / "pacs-audit.jsonl"
    lines = lines_of(path)
    assert lines[: len(first)] == first
    again = lines[len(first) :]
    made = [(step, outcome) for step in ("list", "pull", "decompose", "store") for outcome in ("begun", "done")]
    expected = [("run", "begun"), *made[:-1], ("store", "stored"), ("run", "done")]
    assert steps(first) == expected
    assert steps(again) == [(step, "kept" if outcome == "stored" else outcome) for step, outcome in expected]
    assert len({line["run"] for line in first}) == len({line["run"] for line in again}) == 1
    identity = identify_bundle(tmp_path / "bundle")
    for line in first[1:]:
        assert (line["study"], line["server"], line["server_user"]) == (study, pacs.url.split("/")[2], USER)
        assert (line["bundle_sha256"], line["weights_sha256"]) == (identity.bundle_sha256, identity.weights_sha256)
    assert first[2]["series"] == [series]
    assert (first[4]["series"], first[4]["images"], first[4]["fetched"], again[4]["fetched"]) == (series, 4, 4, 0)
    assert (first[6]["done"], again[6]["kept"]) == (1, 1)
    assert {line["map_instance"] for line in first if line["step"] == "store"} == stored
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    secret = base64.b64encode(PASSWORD.encode()).decode()
    assert not any(said in text for said in (PASSWORD, json.dumps(PASSWORD)[1:-1], secret, sent, "Wolkenstein", "Oswald"))


def test_run_that_cannot_be_recorded_asks_for_nothing(run: Callable[..., Any], images: list[Dataset], tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with FakePacs(images) as pacs:
        result = run(pacs.url, str(images[0].StudyInstanceUID), "--audit-log", str(tmp_path / "log"))
        assert pacs.asked == []
    assert result.exit_code != 0
    assert "audit log" in str(result.exception)


def test_refused_and_failed_runs_are_recorded(run: Callable[..., Any], images: list[Dataset], tmp_path: Path) -> None:
    study = str(images[0].StudyInstanceUID)
    log = tmp_path / "logs" / "site.jsonl"
    where = ("--audit-log", str(log))
    with FakePacs(images) as pacs:
        run(f"http://user:s3cret@{pacs.url.split('/')[2]}", study, *where)
        run(pacs.url, "Wolkenstein", *where)
        run(pacs.url, study, "--expect-sha256", "0" * 64, *where)
        run(pacs.url, study, "--series", "Oswald", *where)
        assert pacs.asked == []
        run(pacs.url, "1.2.3", *where)
        pacs.faults = [refuses(403)]
        run(pacs.url, study, *where)
    lines = lines_of(log)
    ended = [line for line in lines if line["step"] == "run" and line["outcome"] != "begun"]
    assert [line["outcome"] for line in ended] == ["refused", "failed", "refused", "failed", "refused", "failed"]
    assert "bundle_sha256" in ended[2]
    assert ended[5]["reason"].endswith("ask the server's administrator for permission.")
    assert steps(lines)[-4:] == [("run", "begun"), ("list", "begun"), ("list", "failed"), ("run", "failed")]
    assert not any(said in log.read_text() for said in ("s3cret", "Wolkenstein", "Oswald"))
    assert not (tmp_path / "out" / "pacs-audit.jsonl").exists()
