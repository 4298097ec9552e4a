"""A reader that dies takes its case with it, not the run: at this resume and at every later one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.io import InputError, Source
from monai_ifim.io.limits import Limits
from monai_ifim.run import trial
from monai_ifim.run.cases import Case, find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.reading_journal import MARK, ReadingJournal
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import CaseRow

OPTIONS = CaseSettings("categorical", rank=1, verify="never")
READER = """
import faulthandler, os
from pathlib import Path
import numpy as np

class Deadly:
    def __call__(self, data):
        if "s001" in str(data["image"]):
            HOW
        return data
"""
HOW = {
    "segfault": "faulthandler._sigsegv()",
    "exit": "os._exit(9)",
    "memory": "held = [np.ones(2**24) for _ in range(10**6)]",
}
DIE = """
import sys
from pathlib import Path
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
bundle, scans, output = map(Path, sys.argv[1:])
settings = RunSettings(output, CaseSettings("categorical", rank=1, verify="never"))
run_cases(load_bundle(bundle), find_cases([scans]), settings, lambda row: None)
"""


@pytest.fixture
def scans(tmp_path: Path, write_cohort: Callable[..., Path]) -> Path:
    return write_cohort(tmp_path / "in", 3)


def deadly_bundle(make_bundle: Callable[..., Path], root: Path, how: str) -> Path:
    steps = [
        {"_target_": "scripts.deadly.Deadly"},
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "ResizeWithPadOrCropd", "keys": "image", "spatial_size": [9, 8, 7]},
    ]
    made = make_bundle(root, steps=steps)
    (made / "scripts").mkdir()
    (made / "scripts" / "__init__.py").touch()
    (made / "scripts" / "deadly.py").write_text(READER.replace("HOW", HOW[how]))
    return made


def marks(output: Path) -> list[Path]:
    return sorted(output.glob(f"{MARK}*"))


def answering(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that runs this code instead of reading."""
    monkeypatch.setattr(trial, "PROGRAM", (sys.executable, "-S", "-c", code))


HEALTHY = "print('{\"reason\": null}')"


# --- the whole


@pytest.mark.soak
def test_reader_that_kills_the_process_costs_its_case_alone_at_every_resume(
    tmp_path: Path, make_bundle: Callable[..., Path], scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, output = deadly_bundle(make_bundle, tmp_path / "bundle", "segfault"), tmp_path / "out"
    died = subprocess.run([sys.executable, "-c", DIE, root, scans, output], capture_output=True, check=False)
    assert died.returncode == -signal.SIGSEGV
    assert len(marks(output)) == 1
    bundle = load_bundle(root)  # reads nothing
    settings = RunSettings(output, OPTIONS)
    rows = run_cases(bundle, find_cases([scans]), settings, lambda row: None)
    assert [row.status for row in rows] == ["done" if row.case != "s001" else "failed" for row in rows]
    said = (
        r"s001\.nii\.gz: an earlier run died while it read this image, and a process of its own with \d+\.\d GiB of memory dies "
        r"of it too \(SIGSEGV\): leave it out, or convert it with another program\."
    )
    assert re.fullmatch(said, rows[1].reason)
    answering(HEALTHY, monkeypatch)  # as if the image had been mended, which an ordinary reader takes
    plain = replace(bundle, steps=replace(bundle.steps, compose=type(bundle.preprocessing)(bundle.preprocessing.transforms[1:])))
    rows = run_cases(plain, find_cases([scans]), settings, lambda row: None)
    assert [row.status for row in rows] == ["kept", "done", "kept"]
    assert marks(output) == []


@pytest.mark.soak
def test_reader_that_swallows_all_memory_fails_within_the_bound(
    tmp_path: Path, make_bundle: Callable[..., Path], scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = deadly_bundle(make_bundle, tmp_path / "bundle", "memory")
    monkeypatch.setattr(trial, "available_memory", lambda: 3 * 2**30)
    [_, case, _] = find_cases([scans])
    said = trial.refusal(root, case, RunSettings(tmp_path / "out", OPTIONS))
    assert said is not None
    assert re.search(r"not enough memory|with 2\.4 GiB of memory dies of it too \(SIG(SEGV|ABRT)\)", said)
    assert trial.refusal(root, find_cases([scans])[0], RunSettings(tmp_path / "out", OPTIONS)) is None


# --- what the process says


@pytest.fixture
def case(scans: Path) -> Case:
    return find_cases([scans])[1]


ANSWERS = {
    "import os; os._exit(9)": "ends with status 9: leave it out, or convert it with another program.",
    "import os; os.kill(os.getpid(), 9)": "dies of it too (SIGKILL): leave it out",
    "print('no answer')": "gives no answer",
    "print('[]')": "gives no answer",
    'print(\'{"reason": "scan: too long"}\')': "scan: too long",
}


@pytest.mark.parametrize("code", ANSWERS)
def test_each_end_of_the_process_is_told(code: str, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(code, monkeypatch)
    said = trial.refusal(tmp_path, case, RunSettings(tmp_path, OPTIONS))
    assert said is not None
    assert ANSWERS[code] in said
    answering(HEALTHY, monkeypatch)
    assert trial.refusal(tmp_path, case, RunSettings(tmp_path, OPTIONS)) is None


def test_process_that_hangs_is_ended_at_the_limit_of_time(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "STARTING", 0)
    answering(f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)", monkeypatch)
    said = trial.refusal(tmp_path, case, RunSettings(tmp_path, OPTIONS, limits=Limits(seconds=1.0)))
    assert said is not None
    assert "takes longer than the limit of 1 s" in said
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


# --- the journal


def journal(output: Path, says: str | None = None) -> tuple[ReadingJournal, list[Case]]:
    tried: list[Case] = []
    output.mkdir(exist_ok=True)

    def attempt(case: Case) -> str | None:
        tried.append(case)
        return says

    return ReadingJournal(output, attempt), tried


def leave_behind(output: Path, case: Case) -> None:
    """What a process leaves that dies while it reads the case."""
    held, _ = journal(output)
    held.begin(case)
    [mark] = marks(output)
    held.end(case)
    mark.touch()


def test_mark_lies_in_out_while_a_case_is_read_and_tells_nothing(tmp_path: Path) -> None:
    case = Case("Wolkenstein", Source(tmp_path / "Wolkenstein.nii", beside=(("age", [70]),)))
    held, tried = journal(tmp_path / "out")
    other, _ = journal(tmp_path / "out")
    held.begin(case)
    [mark] = marks(tmp_path / "out")
    assert "Wolkenstein" not in mark.name
    assert mark.read_bytes() == b""
    assert list(other.suspects_last([case])) == [case]
    other.forget(case)  # of a living process
    assert marks(tmp_path / "out") == [mark]
    held.end(case)
    held.end(case)
    assert marks(tmp_path / "out") == tried == []


def test_suspects_come_last_and_are_tried_once(tmp_path: Path) -> None:
    cases = [Case(str(i), Source(tmp_path / f"{i}.nii")) for i in range(4)]
    leave_behind(tmp_path / "out", cases[1])
    found, tried = journal(tmp_path / "out")
    assert list(found.suspects_last(iter(cases))) == [cases[0], cases[2], cases[3], cases[1]]
    for case in cases:
        found.begin(case)
        found.end(case)
    assert tried == [cases[1]]
    assert marks(tmp_path / "out") == []


def test_case_whose_trial_fails_stays_a_suspect(tmp_path: Path) -> None:
    case = Case("a", Source(tmp_path / "a.nii"))
    leave_behind(tmp_path / "out", case)
    for _ in range(2):
        found, tried = journal(tmp_path / "out", "it dies")
        with pytest.raises(InputError, match="it dies"):
            found.begin(case)
        found.end(case)
        assert tried == [case]
    assert len(marks(tmp_path / "out")) == 1
    found.forget(case)
    assert marks(tmp_path / "out") == []


def test_frames_and_series_of_a_file_are_cases_of_their_own(tmp_path: Path) -> None:
    sources = [Source(tmp_path / "a.nii"), Source(tmp_path / "a.nii", frame=1), Source(tmp_path / "a.nii", series="1.2")]
    leave_behind(tmp_path / "out", Case("a", sources[1]))
    found, _ = journal(tmp_path / "out")
    cases = [Case(str(i), source) for i, source in enumerate(sources)]
    assert list(found.suspects_last(cases)) == [cases[0], cases[2], cases[1]]


def test_link_of_the_name_of_a_mark_is_not_followed(tmp_path: Path) -> None:
    case = Case("a", Source(tmp_path / "a.nii"))
    leave_behind(tmp_path / "out", case)
    [mark] = marks(tmp_path / "out")
    mark.unlink()
    (tmp_path / "victim").write_text("kept")
    mark.symlink_to(tmp_path / "victim")
    found, tried = journal(tmp_path / "out")
    assert list(found.suspects_last([case])) == [case]
    found.begin(case)
    found.end(case)
    assert tried == []
    assert (tmp_path / "victim").read_text() == "kept"


def test_run_that_was_killed_while_it_read_a_sound_image_goes_on(
    tmp_path: Path, make_bundle: Callable[..., Path], scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, cases = load_bundle(make_bundle(tmp_path / "bundle")), find_cases([scans])
    answering(HEALTHY, monkeypatch)
    leave_behind(tmp_path / "out", cases[0])
    seen: list[CaseRow] = []
    rows = run_cases(bundle, cases, RunSettings(tmp_path / "out", OPTIONS), seen.append)
    assert [row.status for row in rows] == ["done"] * 3
    assert seen[-1].case == "s000"
    assert marks(tmp_path / "out") == []
    leave_behind(tmp_path / "out", cases[0])
    assert {row.status for row in run_cases(bundle, cases, RunSettings(tmp_path / "out", OPTIONS), seen.append)} == {"kept"}
    assert marks(tmp_path / "out") == []


def test_failing_reader_leaves_no_mark(tmp_path: Path, make_bundle: Callable[..., Path], scans: Path) -> None:
    (scans / "s001.nii.gz").write_bytes(b"damaged")
    bundle: Bundle = load_bundle(make_bundle(tmp_path / "bundle"))
    rows: list[Any] = run_cases(bundle, find_cases([scans]), RunSettings(tmp_path / "out", OPTIONS), lambda row: None)
    assert [row.status for row in rows] == ["done", "failed", "done"]
    assert marks(tmp_path / "out") == []
