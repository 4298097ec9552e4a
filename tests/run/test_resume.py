"""Resume: a case is kept where its input, model, settings and files are what its sidecar states; else it is made again."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.coordinates import Placement
from monai_ifim.core import GaussianHead
from monai_ifim.core.settings import Settings
from monai_ifim.io import InputError, read_sidecar
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.repetition import find_image, read_recorded_case, repeat_case
from monai_ifim.run.resume import OlderCaseWarning, kept_row
from monai_ifim.run.settings import RunSettings

GAUSSIAN = {"head": GaussianHead(1.0)}
DRAWN = {"method": "matrix_free", "rank": 1, "tolerance": 0.1}
OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # how a case was made, and what is asked for then
    "head": ({}, {"head": "bernoulli"}),
    "head's parameters": (GAUSSIAN, {"head": GaussianHead(10.0)}),
    "output_key": ({}, {"output_key": 0}),
    "energy": ({}, {"energy": 0.5}),
    "rank": ({}, {"rank": 1}),
    "method": ({}, {"method": "adaptive"}),
    "tolerance": (DRAWN, {"tolerance": 0.2}),
    "probes": (DRAWN, {"probes": 3}),
    "metric": ({}, {"metric": 0.5}),
    "precision": ({}, {"precision": "float64"}),
    "seed": (DRAWN, {"seed": 1}),
    "locality": ({}, {"locality": True}),
    "volume_tolerance": ({}, {"volume_tolerance": "3 %"}),
    "answer": ({}, {"answer": 1}),
    "answer_mask": ({}, {"answer_mask": torch.ones(2, 2)}),
    "coordinates": ({}, {"coordinates": (Placement(),)}),
    "space": ({}, {"space": "native"}),
    "statistics": ({"space": "scanner"}, {"statistics": "freeze"}),
    "resolution": ({"space": "scanner"}, {"resolution": 2.0}),
    "channels": ({}, {"channels": "each"}),
    "contents": ({}, {"contents": ("high",)}),
    "scene_bundle": ({}, {"scene_bundle": True}),
    "deterministic": ({}, {"deterministic": True}),
}
KEPT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "seed of the exact method": ({}, {"seed": 5}),
    "tolerance of the exact method": ({}, {"tolerance": 0.3}),
    "probes of the exact method": ({}, {"probes": 3}),
    "what is the default": ({}, {"energy": 0.99}),
    "budget": ({}, {"memory_budget": "2GiB"}),
    "a radius less": ({"locality": True}, {"locality": False}),
    "an equal head of another object": (GAUSSIAN, {"head": GaussianHead(1.0)}),
    "a bundle less": ({"scene_bundle": True}, {"scene_bundle": False}),
    "equal coordinates of other objects": ({"coordinates": (Placement(),)}, {"coordinates": (Placement(),)}),
    "contents in another order": ({"contents": ("low", "high")}, {"contents": "high,low"}),
}


@pytest.fixture
def root(tmp_path: Path, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def scan(tmp_path: Path, write_scan: Callable[..., Path], oblique: npt.NDArray[Any]) -> Path:
    return write_scan(tmp_path / "in" / "scan.nii.gz", (7, 6, 5), oblique)


def status(bundle: Bundle, scan: Path, output: Path, case: CaseSettings) -> str:
    [row] = run_cases(bundle, find_cases([scan]), RunSettings(output, case), lambda row: None)
    assert row.status != "failed", row.reason
    return row.status


def asked(first: dict[str, Any], then: dict[str, Any]) -> tuple[CaseSettings, CaseSettings]:
    made = CaseSettings(**({"head": "categorical", "space": "network"} | first))
    return made, replace(made, **then)


def test_every_field_is_here_but_those_that_decide_nothing_or_need_dicom() -> None:
    assert set(OTHERS) - {"head's parameters"} == set(CaseSettings.options()) - {
        "memory_budget",
        "verify",
        "dicom_pm",
        "case_names",
    }


@pytest.mark.parametrize("name", OTHERS)
def test_a_case_made_by_other_settings_is_made_again(name: str, root: Path, scan: Path, tmp_path: Path) -> None:
    made, wanted = asked(*OTHERS[name])
    bundle = load_bundle(root)
    [case] = find_cases([scan])
    assert status(bundle, scan, tmp_path, made) == "done"
    assert kept_row(bundle.identity, case, RunSettings(tmp_path, made)) is not None
    assert kept_row(bundle.identity, case, RunSettings(tmp_path, wanted)) is None


@pytest.mark.parametrize("name", KEPT)
def test_a_case_that_holds_what_is_asked_for_is_kept(name: str, root: Path, scan: Path, tmp_path: Path) -> None:
    made, wanted = asked(*KEPT[name])
    bundle = load_bundle(root)
    assert status(bundle, scan, tmp_path, made) == "done"
    assert status(bundle, scan, tmp_path, wanted) == "kept"


def test_another_head_gives_other_numbers_on_the_second_run(root: Path, scan: Path, tmp_path: Path) -> None:
    made, wanted = asked(*OTHERS["head's parameters"])
    bundle = load_bundle(root)
    traces = []
    for case in (made, wanted):
        assert status(bundle, scan, tmp_path, case) == "done"
        traces.append(read_sidecar(tmp_path / "scan" / "scan_ifim.json")["trace"])
    assert traces[0] == pytest.approx(100 * traces[1], rel=1e-5)  # 1 / sigma^2


def test_other_class_names_in_the_metadata_make_a_case_again(root: Path, scan: Path, tmp_path: Path) -> None:
    made, _ = asked({}, {})
    assert status(load_bundle(root), scan, tmp_path, made) == "done"
    path = root / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    names = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = {key: f"new {name}" for key, name in names.items()}
    path.write_text(json.dumps(metadata))
    assert status(load_bundle(root), scan, tmp_path, made) == "done"
    assert read_sidecar(tmp_path / "scan" / "scan_ifim.json")["prediction"]["class"].startswith("new ")
    assert status(load_bundle(root), scan, tmp_path, made) == "kept"


def flipped(path: Path) -> None:
    """One bit of its last byte: the file keeps its size."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def linked(path: Path) -> None:
    """A link to a copy of the very same content."""
    copy = path.parents[2] / f"copy-{path.name}"
    path.rename(copy)
    path.symlink_to(copy)


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


FILES = (
    "_ifim_input.nii.gz", "_ifim_high.nii.gz", "_ifim_low.nii.gz", "_ifim_sensitivity.nii.gz", "_ifim_eigenvector-01.nii.gz",
    "_planes.npz", ".mrml", ".mrb", "_spectrum.tsv", "_spectrum.schema.tsv", "_sensitivity.ctbl", "_signed.ctbl", "_ifim.json",
)  # fmt: skip
SPOILING: dict[str, Callable[[Path], Any]] = {
    "missing": lambda path: path.unlink(),
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: path.write_bytes(b""),
    "flipped": flipped,
    "linked": linked,
    "a pipe": a_pipe,
}


@pytest.mark.parametrize("spoil", SPOILING.values(), ids=SPOILING)
def test_a_case_of_which_any_file_is_spoilt_is_made_again(
    spoil: Callable[[Path], Any], root: Path, scan: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle, [case] = load_bundle(root), find_cases([scan])
    settings = RunSettings(tmp_path / "out", CaseSettings("categorical", rank=1, space="network", scene_bundle=True))
    assert status(bundle, scan, settings.output, settings.case) == "done"
    folder = settings.output / "scan"
    assert {path.name for path in folder.iterdir()} == {f"scan{name}" for name in FILES}
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    caplog.set_level(logging.INFO, logger="monai_ifim")
    for name in FILES:
        assert kept_row(bundle.identity, case, settings) is not None
        spoil(folder / f"scan{name}")
        assert kept_row(bundle.identity, case, settings) is None, name
        assert f"scan{name}" in caplog.text or name == "_ifim.json"
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)


def test_a_spoilt_file_is_there_again_after_the_next_run(root: Path, scan: Path, tmp_path: Path) -> None:
    bundle, settings = load_bundle(root), CaseSettings("categorical", rank=1, space="network")
    assert status(bundle, scan, tmp_path / "out", settings) == "done"
    map_file = tmp_path / "out" / "scan" / "scan_ifim_high.nii.gz"
    content = map_file.read_bytes()
    flipped(map_file)
    foreign = map_file.with_name("scan_ifim_eigenvector-09.nii.gz")
    foreign.write_bytes(content)
    assert status(bundle, scan, tmp_path / "out", settings) == "done"
    assert map_file.read_bytes() == content
    assert not foreign.exists()
    assert status(bundle, scan, tmp_path / "out", settings) == "kept"


def test_a_map_that_the_sidecar_does_not_state_makes_the_case_again(root: Path, scan: Path, tmp_path: Path) -> None:
    """A viewer, and a PACS that it was sent to, would take it for a map of the case; other people's files are left alone."""
    bundle, [case] = load_bundle(root), find_cases([scan])
    settings = RunSettings(tmp_path / "out", CaseSettings("categorical", rank=1, space="network"))
    assert status(bundle, scan, settings.output, settings.case) == "done"
    (settings.output / "scan" / "notes.txt").write_text("mine")
    assert kept_row(bundle.identity, case, settings) is not None
    (settings.output / "scan" / "scan_ifim_high_channel-02.nii.gz").write_bytes(b"")
    assert kept_row(bundle.identity, case, settings) is None


def test_maps_that_two_cases_have_exchanged_are_made_again(root: Path, tmp_path: Path, write_cohort: Callable[..., Path]) -> None:
    bundle, scans = load_bundle(root), write_cohort(tmp_path / "in", 3)
    settings = RunSettings(tmp_path / "out", CaseSettings("categorical", rank=1, space="network"))

    def statuses() -> list[str]:
        return [row.status for row in run_cases(bundle, find_cases([scans]), settings, lambda row: None)]

    assert statuses() == ["done"] * 3
    one, other = (tmp_path / "out" / name / f"{name}_ifim_sensitivity.nii.gz" for name in ("s000", "s002"))
    first = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(first)
    assert statuses() == ["done", "kept", "done"]
    assert one.read_bytes() == first


def test_a_case_under_another_cases_name_is_made_again(root: Path, tmp_path: Path, write_cohort: Callable[..., Path]) -> None:
    """Its files are whole; it is the case of another input."""
    bundle, scans = load_bundle(root), write_cohort(tmp_path / "in", 2)
    settings = RunSettings(tmp_path / "out", CaseSettings("categorical", rank=1, space="network"))
    run_cases(bundle, find_cases([scans]), settings, lambda row: None)
    shutil.rmtree(tmp_path / "out" / "s000")
    shutil.copytree(tmp_path / "out" / "s001", tmp_path / "out" / "s000")
    for path in (tmp_path / "out" / "s000").iterdir():
        path.rename(path.with_name(path.name.replace("s001", "s000")))
    assert kept_row(bundle.identity, find_cases([scans])[0], settings) is None


BUNDLE_CHANGES: dict[str, Callable[[Path], Any]] = {
    "weights": lambda root: nudged(root / "models" / "model.pt"),
    "a script": lambda root: (root / "scripts" / "steps.py").write_text("GAIN = 2"),
    "a new script": lambda root: (root / "scripts" / "more.py").write_text(""),
    "another config": lambda root: (root / "configs" / "more.json").write_text("{}"),
    "class names": lambda root: replace_text(root / "configs" / "metadata.json", "class 1", "another"),
}


def nudged(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    next(iter(state.values())).view(-1)[0] += 1e-3
    torch.save(state, path)


def replace_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("name", BUNDLE_CHANGES)
def test_another_bundle_makes_a_case_again(name: str, root: Path, scan: Path, tmp_path: Path) -> None:
    (root / "scripts").mkdir()
    (root / "scripts" / "steps.py").write_text("GAIN = 1")
    made, _ = asked({}, {})
    assert status(load_bundle(root), scan, tmp_path / "out", made) == "done"
    assert status(load_bundle(root), scan, tmp_path / "out", made) == "kept"
    BUNDLE_CHANGES[name](root)
    assert status(load_bundle(root), scan, tmp_path / "out", made) == "done"


def test_a_bundle_that_changes_while_it_is_loaded_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = torch.load

    def load(path: Any, **options: Any) -> Any:
        state = own(path, **options)
        monkeypatch.undo()
        nudged(root / "models" / "model.pt")
        return state

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(InputError, match="its files changed while they were read: run the same command again"):
        load_bundle(root)
    load_bundle(root)


def test_sidecars_state_the_bundle_that_was_loaded_whatever_lies_there_when_they_are_written(
    root: Path, scan: Path, tmp_path: Path
) -> None:
    bundle = load_bundle(root)
    nudged(root / "models" / "model.pt")
    made, _ = asked({}, {})
    assert status(bundle, scan, tmp_path / "out", made) == "done"
    stated = read_sidecar(tmp_path / "out" / "scan" / "scan_ifim.json")["model"]
    assert stated["bundle_sha256"] == bundle.identity.bundle_sha256
    assert stated["bundle_sha256"] != load_bundle(root).identity.bundle_sha256
    assert json.loads((tmp_path / "out" / "run.json").read_text())["bundle"]["bundle_sha256"] == stated["bundle_sha256"]


def test_a_case_of_an_earlier_version_is_made_again_and_one_line_says_why(root: Path, scan: Path, tmp_path: Path) -> None:
    made, _ = asked({}, {})
    bundle = load_bundle(root)
    assert status(bundle, scan, tmp_path / "out", made) == "done"
    path = tmp_path / "out" / "scan" / "scan_ifim.json"
    content = read_sidecar(path) | {"schema_version": "2.1"}
    del content["written"], content["input"]["files"], content["model"]["bundle_sha256"], content["model"]["files"]
    path.write_text(json.dumps(content))
    with pytest.warns(OlderCaseWarning, match=r"made again: .* prove them whole") as told:
        assert status(bundle, scan, tmp_path / "out", made) == "done"
    assert len([each for each in told if each.category is OlderCaseWarning]) == 1
    assert "\n" not in str(told[0].message)
    assert status(bundle, scan, tmp_path / "out", made) == "kept"


def test_run_and_sidecar_state_the_settings_whole_as_plain_data(root: Path, scan: Path, tmp_path: Path) -> None:
    case = CaseSettings(GaussianHead(np.float64(3.0)), rank=2, seed=4, metric=0.5, contents="low", space="network")
    assert status(load_bundle(root), scan, tmp_path, case) == "done"
    run = (tmp_path / "run.json").read_text()
    sidecar = read_sidecar(tmp_path / "scan" / "scan_ifim.json")
    assert "object at 0x" not in run
    assert json.loads(run)["settings"] == sidecar["settings"] == case.describe()
    assert CaseSettings.from_description(sidecar["settings"]).gives_same_result(case)
    assert set(sidecar["settings"]) == set(CaseSettings.options())
    assert set(Settings.options()) < set(sidecar["settings"])


@pytest.mark.parametrize("head", [GaussianHead(3.0), GaussianHead(covariance=np.diag([1.0, 2.0, 3.0]))])  # type: ignore[arg-type]
def test_a_case_of_a_head_with_parameters_is_repeated(head: GaussianHead, root: Path, scan: Path, tmp_path: Path) -> None:
    assert status(load_bundle(root), scan, tmp_path / "out", CaseSettings(head, output_key=None, locality=True)) == "done"
    name, case = read_recorded_case(tmp_path / "out" / "scan" / "scan_ifim.json")
    found = repeat_case(name, case, root, find_image(case), tmp_path / "again")
    assert found.identical
    assert found.causes == ()
    again = read_sidecar(tmp_path / "again" / "scan" / "scan_ifim.json")
    assert again["settings"]["head"] == case.sidecar["settings"]["head"] == head.describe()


CASES = 200


def command(bundle: Path, scans: Path, output: Path) -> list[str]:
    options = ["--space", "network", "--save", "low,eigenvectors", "--head", "categorical", "-o", str(output)]
    return [sys.executable, "-m", "monai_ifim.cli.main", "decompose", str(scans), "--bundle", str(bundle), *options]


def whole(output: Path) -> int:
    return sum(1 for _ in output.glob("*/*_ifim.json"))


def kill_at(count: int, words: list[str], output: Path) -> None:
    """SIGKILL once `count` cases are whole; the run must not be over by then."""
    running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while whole(output) < count:
        assert running.poll() is None
        assert time.monotonic() < until
        time.sleep(0.001)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert not (output / "cases.csv").exists()


@pytest.mark.soak
def test_killed_twice_and_run_again_is_an_undisturbed_run(
    tmp_path: Path,
    make_bundle: Callable[..., Path],
    write_cohort: Callable[..., Path],
    contents_of: Callable[[Path], Any],
    rows_of: Callable[[Path], list[dict[str, str]]],
) -> None:
    bundle, scans = make_bundle(tmp_path / "bundle"), write_cohort(tmp_path / "in", CASES)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    subprocess.run(command(bundle, scans, undisturbed), check=True, stdout=subprocess.DEVNULL)
    for count in (37, 121):
        kill_at(count, command(bundle, scans, killed), killed)
    (killed / ".partial-left.csv").write_text("half a tab")  # as a kill in the middle of writing the table leaves it
    before = {path: os.stat(path).st_mtime_ns for path in killed.glob("*/*_ifim.json")}
    finished = subprocess.run(command(bundle, scans, killed), check=True, capture_output=True, text=True)
    assert f"{CASES - len(before)} done, 0 failed, {len(before)} kept" in " ".join(finished.stdout.split())
    assert {path: os.stat(path).st_mtime_ns for path in before} == before
    assert contents_of(killed) == contents_of(undisturbed)
    assert {path.name for path in killed.iterdir()} == {path.name for path in undisturbed.iterdir()}
    expected = [row | {"status": ""} for row in rows_of(undisturbed)]
    assert [row | {"status": ""} for row in rows_of(killed)] == expected
    assert len({row["case"] for row in expected}) == len(expected) == CASES
