"""OUT while a run writes into it: locked, and closed to others if wanted; its results never replace an input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.cli.main import app
from monai_ifim.io import InputError, OutputError, Source, identify_bundle
from monai_ifim.io.output_lock import LOCK
from monai_ifim.report.cohort import page
from monai_ifim.run.cases import Case, find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.output_folder import held_output, prepared_folder, refuse_replaced_inputs
from monai_ifim.run.ranks import Rank, run_shard
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import CaseRow

pytestmark = pytest.mark.usefixtures("blank_figure")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def bundle(root: Path) -> Bundle:
    return load_bundle(root)


@pytest.fixture
def scans(tmp_path: Path, write_cohort: Callable[..., Path]) -> Path:
    return write_cohort(tmp_path / "scans", 2)


def settings_for(out: Path, **others: Any) -> RunSettings:
    return RunSettings(out, CaseSettings("categorical", rank=1), **others)


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): oct(stat.S_IMODE(path.lstat().st_mode)) for path in [folder, *folder.rglob("*")]}


def test_two_runs_at_once_in_one_process(bundle: Bundle, scans: Path, tmp_path: Path) -> None:
    """The second, started while the first is between two cases, is told; the first ends as it would have alone."""
    cases, told = find_cases([scans]), []

    def start_another(row: CaseRow) -> None:
        def run() -> None:
            with pytest.raises(OutputError, match=rf"another run is writing into it \(process {os.getpid()} on") as refused:
                run_cases(bundle, cases, settings_for(tmp_path / "out", overwrite=True), lambda _: None)
            told.append(str(refused.value))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    rows = run_cases(bundle, cases, settings_for(tmp_path / "out"), start_another)
    assert [row.status for row in rows] == ["done", "done"]
    assert len(told) == 2
    assert not (tmp_path / "out" / LOCK).exists()
    again = run_cases(bundle, cases, settings_for(tmp_path / "out"), lambda _: None)
    assert [row.status for row in again] == ["kept", "kept"]


def test_the_first_rank_holds_out_for_all(bundle: Bundle, scans: Path, tmp_path: Path) -> None:
    cases = find_cases([scans])
    with held_output(tmp_path / "out"), pytest.raises(OutputError, match="another run"):
        run_shard(bundle, cases, settings_for(tmp_path / "out"), lambda _: None, Rank())
    assert len(run_shard(bundle, cases, settings_for(tmp_path / "out"), lambda _: None, Rank())) == 2


def test_no_worker_is_started_for_an_out_in_use(root: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from monai_ifim.run.cluster import driver

    cluster = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"CPU": 2}}])
    monkeypatch.setattr(driver, "connected", lambda *_: nullcontext(cluster))
    monkeypatch.setattr(driver, "_WorkerPool", lambda *_: pytest.fail("workers were started"))
    with held_output(tmp_path / "out"), pytest.raises(OutputError, match="another run"):
        driver.run_on_ray(root, identify_bundle(root), find_cases([scans]), settings_for(tmp_path / "out"), lambda _: None)


def test_a_run_that_fails_gives_out_free(bundle: Bundle, scans: Path, tmp_path: Path) -> None:
    def fail(_: CaseRow) -> None:
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            run_cases(bundle, find_cases([scans]), settings_for(tmp_path / "out"), fail)
    assert not (tmp_path / "out" / LOCK).exists()


@pytest.mark.usefixtures("open_umask")
def test_a_private_run_closes_all_that_it_writes(bundle: Bundle, scans: Path, tmp_path: Path) -> None:
    out, during = tmp_path / "out", []

    def look(_: CaseRow) -> None:
        during.append(modes(out))

    run_cases(bundle, find_cases([scans]), settings_for(out, private=True), look)
    page.write_cohort(out)
    during.append(modes(out))
    for found in during:
        assert {mode for name, mode in found.items() if (out / name).is_dir()} == {"0o700"}
        assert {mode for name, mode in found.items() if not (out / name).is_dir()} == {"0o600"}
    assert LOCK in during[0]
    assert {"index.html", "cases.csv", "cases.parquet", "run.json"} <= set(during[-1])


@pytest.mark.usefixtures("open_umask")
def test_without_the_option_the_umask_decides_and_with_it_earlier_results_are_closed(
    bundle: Bundle, scans: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    run_cases(bundle, find_cases([scans]), settings_for(out), lambda _: None)
    assert set(modes(out).values()) == {"0o777", "0o666"}
    rows = run_cases(bundle, find_cases([scans]), settings_for(out, private=True), lambda _: None)
    assert [row.status for row in rows] == ["kept", "kept"]
    assert set(modes(out).values()) == {"0o700", "0o600"}
    assert "closed to everybody but you" in caplog.text
    run_cases(bundle, find_cases([scans]), settings_for(out, overwrite=True), lambda _: None)
    assert set(modes(out).values()) == {"0o700", "0o600"}  # once closed, closed


def test_another_run_is_neither_swept_nor_closed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with held_output(out):
        (out / "a").mkdir()
        (out / "a" / ".partial-0123456789abcdef").write_text("half")
        out.chmod(0o755)
        with pytest.raises(OutputError, match="another run"), held_output(out, private=True):
            pass
        assert stat.S_IMODE(out.stat().st_mode) == 0o755
        assert (out / "a" / ".partial-0123456789abcdef").exists()


def test_a_mark_of_a_case_that_is_whole_is_removed_and_another_kept(tmp_path: Path) -> None:
    for name in (
        "whole/whole_ifim.json",
        *(f"{case}/.ifim-unfinished" for case in ("whole", "half", "other")),
        "other/a_ifim.json",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    prepared_folder(tmp_path)
    assert sorted(path.parent.name for path in tmp_path.glob("*/.ifim-unfinished")) == ["half", "other"]


def test_a_folder_that_cannot_be_made_or_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name in ("file", "file/below", "dangling"):
        for private in (False, True):
            with pytest.raises(OutputError, match=r"cannot be (made|written) .*: choose another --output"):
                prepared_folder(tmp_path / name, private)
            with pytest.raises(OutputError, match="choose another --output"), held_output(tmp_path / name, private):
                pass
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("path", "case", "refused"),
    [
        ("out/a/a_ifim_high.nii.gz", "a", True), ("out/a/a_planes.npz", "a", True),
        ("out/a-0123abcd/a-0123abcd_ifim_x.dcm", "a", True), ("link/a/a_ifim_high.nii.gz", "a", True),
        ("out/a/a.nii.gz", "a", False), ("out/a/b_ifim_high.nii.gz", "a", False),
        ("out/a_ifim_high.nii.gz", "a", False), ("out/a/b/a_ifim_high.nii.gz", "a", False), ("a/a_ifim_high.nii.gz", "a", False),
        ("out/b/b_ifim_high.nii.gz", "a", False),
    ],
)  # fmt: skip
def test_results_replace_no_input(path: str, case: str, refused: bool, tmp_path: Path) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "out").mkdir(exist_ok=True)
    if path.startswith("link"):
        shutil.rmtree(tmp_path / "link")
        (tmp_path / "link").symlink_to(tmp_path / "out")
    cases = [Case(case, Source(tmp_path / "scan.nii.gz")), Case("other", Source(tmp_path / path))]
    if not refused:
        refuse_replaced_inputs(cases, tmp_path / "out")
        return
    with pytest.raises(InputError, match="is an input, and the results of the case .* would replace it: choose another"):
        refuse_replaced_inputs(cases, tmp_path / "out")
    refuse_replaced_inputs(cases, tmp_path / "another")  # the cure


def test_the_command_line_has_the_option(root: Path, scans: Path, tmp_path: Path) -> None:
    words = ["decompose", str(scans), "--bundle", str(root), "-o", str(tmp_path / "out"), "--rank", "1", "--no-locality"]
    assert CliRunner().invoke(app, [*words, "--private"]).exit_code == 0
    assert set(modes(tmp_path / "out").values()) == {"0o700", "0o600"}
    (tmp_path / "out").chmod(0o755)
    assert CliRunner().invoke(app, words).exit_code == 0
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o755  # opened again by its owner


def _says_who(lock: Path) -> bool:
    try:
        return lock.stat().st_size > 0
    except FileNotFoundError:
        return False


@pytest.mark.soak
def test_two_programs_at_once(root: Path, scans: Path, tmp_path: Path) -> None:
    """A command that is given while another program, stopped before its end, is writing, says who is."""
    out = tmp_path / "out"
    words = ["decompose", str(scans), "--bundle", str(root), "-o", str(out), "--rank", "1", "--no-locality"]
    first = subprocess.Popen([sys.executable, "-m", "monai_ifim.cli.main", *words], stdout=subprocess.PIPE, encoding="utf-8")
    try:
        while not _says_who(out / LOCK) and first.poll() is None:
            time.sleep(0.001)
        first.send_signal(signal.SIGSTOP)  # it keeps the lock however fast it is
        second = CliRunner().invoke(app, words)
    finally:
        first.send_signal(signal.SIGCONT)
        output, _ = first.communicate()
    assert second.exit_code == 1
    assert isinstance(second.exception, OutputError)
    assert f"another run is writing into it (process {first.pid} on" in str(second.exception)
    assert first.returncode == 0, output
    assert json.loads((out / "run.json").read_text())["cases"]["done"] == 2
    assert not (out / LOCK).exists()
