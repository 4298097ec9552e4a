"""--quiet and --json: what is said on which stream."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from fake_pacs import FakePacs
from monai_ifim import read_cases
from monai_ifim.cli.main import app
from monai_ifim.cli.voice import JSON_VERSION, Voice, only_on_standard_error
from monai_ifim.core.errors import IFIMError
from monai_ifim.run.table import SCHEMA, CaseRow
from synthetic_series import ORIENTATIONS, Series

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "command_line.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.usefixtures("blank_figure")


def invoke(*words: Any) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def run(
    tmp_path: Path, make_bundle: Callable[..., Path], write_scan: Callable[..., Path], oblique: npt.NDArray[Any]
) -> tuple[Any, ...]:
    """A command for a scan and a file that is empty."""
    scan = write_scan(tmp_path / "in" / "scan.nii.gz", (9, 7, 11), oblique)
    (scan.parent / "bad.nii.gz").write_bytes(b"")
    (scan.parent / "more.zip").write_bytes(b"PK\3\4")
    return ("decompose", scan.parent, "--bundle", make_bundle(tmp_path / "bundle"), "-o", tmp_path / "out", "--rank", 1)


def test_json_is_all_of_standard_output_and_holds_the_columns_of_the_table(run: tuple[Any, ...], tmp_path: Path) -> None:
    result = invoke(*run, "--json")
    content = json.loads(result.stdout)
    assert (result.exit_code, content["exit_status"], content["error"]) == (3, 3, None)
    assert (content["schema_version"], content["command"]) == (JSON_VERSION, "decompose")
    assert content["output"] == str(tmp_path / "out")
    assert content["page"] == str(tmp_path / "out" / "index.html")
    assert content["counts"] == {"done": 1, "kept": 0, "failed": 1, "left": 0}
    assert content["unread"] == {".zip": 1}
    assert content["profile"] == json.loads((tmp_path / "out" / "run.json").read_text())["profile"]
    assert set(content["profile"]["seconds"]) == set(content["profile"]["shares"]) == {"reading", "computing", "writing", "page"}
    cases = {case["case"]: case for case in content["cases"]}
    assert list(cases["scan"]) == [*SCHEMA.names, "sentence"]
    frame = read_cases(tmp_path / "out").set_index("case")
    assert cases["scan"]["trace"] == frame.loc["scan", "trace"]
    assert cases["scan"]["probabilities"] == frame.loc["scan", "probabilities"].tolist()
    assert cases["bad"]["trace"] is None
    assert cases["bad"]["reason"] == frame.loc["bad", "reason"]
    assert cases["scan"]["sentence"].startswith("scan: ")
    assert "1 done, 1 failed" in result.stderr


def test_json_of_an_error_states_it_and_the_exit_status(tmp_path: Path) -> None:
    result = invoke("decompose", tmp_path, "--bundle", "no_such", "-o", tmp_path / "out", "--json")
    content = json.loads(result.stdout)
    assert isinstance(result.exception, IFIMError)
    assert (result.exit_code, content["exit_status"]) == (1, 1)
    assert content["error"] == str(result.exception)
    assert (content["cases"], content["page"], content["profile"]) == ([], None, None)


def stop_after_one_case(voice: Voice) -> None:
    with voice.document("decompose") as told:
        told.rows, told.left = [CaseRow("a", "done")], 4
        raise typer.Exit(128 + signal.SIGINT)


def test_json_of_a_stopped_run_says_how_many_cases_are_left(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        stop_after_one_case(Voice.of(quiet=False, as_json=True))
    content = json.loads(capsys.readouterr().out)
    assert (content["exit_status"], content["counts"]["left"]) == (130, 4)


def test_json_of_a_run_that_is_interrupted_before_its_cases(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), Voice.of(quiet=False, as_json=True).document("decompose"):
        raise KeyboardInterrupt
    content = json.loads(capsys.readouterr().out)
    assert (content["exit_status"], content["error"]) == (130, "stopped by Ctrl-C before a case was begun")


def test_json_is_strict_about_numbers_that_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    """`row_from_sidecar` gives None for them; a row made otherwise is refused rather than printed as NaN, which is not JSON."""
    with pytest.raises(ValueError, match="JSON"), Voice.of(quiet=False, as_json=True).document("decompose") as told:
        told.rows = [CaseRow("a", "done", trace=math.nan)]
    assert "NaN" not in capsys.readouterr().out


def test_quiet_says_nothing_but_failures(run: tuple[Any, ...], tmp_path: Path) -> None:
    result = invoke(*run, "--quiet")
    assert (result.exit_code, result.stdout) == (3, "")
    assert [line for line in result.stderr.splitlines() if line] == ["FAILED  bad: bad.nii.gz: the file is empty."]
    (tmp_path / "in" / "bad.nii.gz").unlink()
    again = invoke(*run, "--quiet")
    assert (again.exit_code, again.output) == (0, "")


def test_quiet_and_json_together_print_json_and_failures(run: tuple[Any, ...]) -> None:
    result = invoke(*run, "-q", "--json")
    assert json.loads(result.stdout)["exit_status"] == 3
    assert "FAILED  bad" in result.stderr
    assert "bundle:" not in result.stderr


def test_the_status_of_a_verb_that_a_signal_ends_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), Voice.of(quiet=False, as_json=True).document("pacs"):
        raise SystemExit(143)
    assert json.loads(capsys.readouterr().out)["exit_status"] == 143


def test_pacs_tells_programs_of_cases_and_maps_and_people_of_what_failed(
    tmp_path: Path, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """First all is stored; then a map is lost by the server, which takes no other."""
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    images = Series(ORIENTATIONS["axial"], slices=4).slices()
    with FakePacs(images) as server:
        words = ("pacs", "--url", server.url, "--study", images[0].StudyInstanceUID, "--bundle", make_bundle(tmp_path / "bundle"))
        words = (*words, "-o", tmp_path / "out", "--rank", 1, "--save", "high,low")
        result = invoke(*words, "--json")
        content = json.loads(result.stdout)
        assert (result.exit_code, content["exit_status"], content["command"]) == (0, 0, "pacs")
        assert [case["status"] for case in content["cases"]] == ["done"]
        assert content["page"] == str(tmp_path / "out" / "index.html")
        assert [(one["status"], one["reason"]) for one in content["maps"]] == [("stored", None)] * 2
        assert "2 stored in the study" in result.stderr
        assert invoke(*words, "--quiet").output == ""
        for uid in set(server.content) - {str(image.SOPInstanceUID) for image in images}:
            del server.content[uid]
        server.stow_status = 409
        failed = invoke(*words, "--quiet")
    assert (failed.exit_code, failed.stdout) == (3, "")
    assert all(line.startswith("FAILED  ") and ".dcm: " in line for line in failed.stderr.splitlines())
    assert len(failed.stderr.splitlines()) == 2


def test_what_others_write_to_standard_output_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """A child process and compiled code write to the descriptor, Python's print to the stream."""
    with only_on_standard_error():
        print("by Python", flush=True)  # noqa: T201
        os.write(1, b"by a library\n")
        os.system("echo by a child")
    os.write(1, b"afterwards\n")
    captured = capfd.readouterr()
    assert captured.out == "afterwards\n"
    assert all(f"by {who}" in captured.err for who in ("Python", "a library", "a child"))


def test_one_process_of_many_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    silent = Voice.of(quiet=True, as_json=True, speaks=False)
    with silent.document("decompose") as told:
        silent.console.print("something")
        told.rows = [CaseRow("a", "failed", "why")]
    assert (capsys.readouterr()) == ("", "")
    assert not Voice.of(quiet=False, as_json=False).console.quiet
    assert isinstance(silent.console, Console)


def test_the_page_describes_every_entry() -> None:
    described = PAGE.split("## For programs")[1].split("\n## ")[0]
    content = invoke("decompose", "gone.nii", "--bundle", "no_such", "-o", "out", "--json").stdout
    assert all(f"`{name}`" in described for name in json.loads(content))
    assert f"`{JSON_VERSION}`" in described
