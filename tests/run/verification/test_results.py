"""Verification of results: whatever is changed, lost, swapped or added is found and named, and nothing is made."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.cli.main import app
from monai_ifim.io import InputError, read_sidecar
from monai_ifim.io.sidecar import write_sidecar
from monai_ifim.report.cohort import pictures
from monai_ifim.report.cohort.page import write_cohort
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.run_record import tabulate
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import write_run
from monai_ifim.run.verification.findings import Verification
from monai_ifim.run.verification.results import verify_results
from synthetic_series import ORIENTATIONS, Series, write

SETTINGS = CaseSettings("categorical", rank=1, space="network", scene_bundle=True)


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
    make_bundle: Callable[..., Path],
    write_scan: Callable[..., Path],
    turned: Callable[..., npt.NDArray[Any]],
) -> Path:
    """A place with a bundle, three scans, of which the last is broken, and the results of a run."""
    place = tmp_path_factory.mktemp("verified")
    bundle = load_bundle(make_bundle(place / "bundle"))
    for i in range(2):
        write_scan(place / "in" / f"s{i}.nii.gz", (7, 6 + i, 5), turned((1.0, 2.0, 3.0), (0.1, 0.2 * i, 0.0)), shift=0.1 * i)
    (place / "in" / "s2.nii.gz").write_bytes(b"broken")
    run_cases(bundle, find_cases([place / "in"]), RunSettings(place / "out", SETTINGS), lambda row: None)
    write_cohort(place / "out")
    return place


@pytest.fixture
def place(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "place", symlinks=True)
    return tmp_path / "place"


def kinds(found: Verification) -> set[tuple[str, str]]:
    return {(finding.place, finding.kind) for finding in found.findings}


def content_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_results_as_they_were_written_are_clean_and_stay_as_they_are(place: Path) -> None:
    before = content_of(place)
    found = verify_results(place / "out", place / "bundle")
    assert found.findings == ()
    assert (found.clean, found.cases, found.inputs, found.bundle) == (True, 2, 2, True)
    assert found.files == sum(len(list((place / "out" / name).iterdir())) - 1 for name in ("s0", "s1"))
    assert found.notes == ()
    assert content_of(place) == before


def flipped(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def swapped(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def linked(path: Path) -> None:
    """A link to the very same content."""
    path.rename(path.parents[2] / "moved")
    path.symlink_to(path.parents[2] / "moved")


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def without_row(table: Path) -> None:
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if not line.startswith("s1,")))


def parquet_without_row(table: Path) -> None:
    content = pq.read_table(table)
    pq.write_table(content.slice(1), table)


S0, S1 = "out/s0/s0", "out/s1/s1"
ATTACKS: dict[str, tuple[Callable[[Path], Any], set[tuple[str, str]]]] = {
    "a truncated map": (
        lambda p: os.truncate(p / f"{S0}_ifim_high.nii.gz", 50),
        {("s0/s0_ifim_high.nii.gz", "altered")},
    ),
    "a flipped bit": (lambda p: flipped(p / f"{S1}_planes.npz"), {("s1/s1_planes.npz", "altered")}),
    "swapped maps": (
        lambda p: swapped(p / f"{S0}_ifim_low.nii.gz", p / f"{S1}_ifim_low.nii.gz"),
        {("s0/s0_ifim_low.nii.gz", "altered"), ("s1/s1_ifim_low.nii.gz", "altered")},
    ),
    "a lost scene": (lambda p: (p / f"{S0}.mrml").unlink(), {("s0/s0.mrml", "missing")}),
    "a lost archive": (lambda p: (p / f"{S0}.mrb").unlink(), {("s0/s0.mrb", "missing")}),
    "a colour table": (lambda p: edited(p / f"{S0}_signed.ctbl", "255", "254"), {("s0/s0_signed.ctbl", "altered")}),
    "a number of a sidecar that no table has": (
        lambda p: edited(p / f"{S0}_ifim.json", '"scale": 1.0', '"scale": 2.0'),
        {("s0/s0_ifim.json", "altered")},
    ),
    "a number of a sidecar": (
        lambda p: edited(p / f"{S0}_ifim.json", '"method": "exact"', '"method": "adaptive"'),
        {("s0/s0_ifim.json", "altered"), ("cases.parquet", "row")},
    ),
    "a sidecar that is sealed again": (
        lambda p: write_sidecar(p / f"{S0}_ifim.json", read_sidecar(p / f"{S0}_ifim.json") | {"rank": 7}),
        {("cases.parquet", "row")},
    ),
    "a lost sidecar": (
        lambda p: (p / f"{S0}_ifim.json").unlink(),
        {("s0/s0_ifim.json", "missing")},
    ),
    "a lost case": (lambda p: shutil.rmtree(p / "out/s0"), {("s0", "missing")}),
    "a link in place of a map": (lambda p: linked(p / f"{S0}_ifim_high.nii.gz"), {("s0/s0_ifim_high.nii.gz", "no file")}),
    "a pipe in place of a map": (lambda p: piped(p / f"{S0}_ifim_high.nii.gz"), {("s0/s0_ifim_high.nii.gz", "no file")}),
    "a pipe in place of a sidecar": (lambda p: piped(p / f"{S0}_ifim.json"), {("s0/s0_ifim.json", "unreadable")}),
    "a further map": (
        lambda p: shutil.copy(p / f"{S1}_ifim_high.nii.gz", p / f"{S0}_ifim_eigenvector-02.nii.gz"),
        {("s0/s0_ifim_eigenvector-02.nii.gz", "not stated")},
    ),
    "a partial file": (
        lambda p: (p / "out/s0/.partial-0123456789abcdef.gz").write_text("x"),
        {("s0/.partial-0123456789abcdef.gz", "unfinished")},
    ),
    "a partial table": (
        lambda p: (p / "out/.partial-0123456789abcdef.csv").write_text("x"),
        {(".partial-0123456789abcdef.csv", "unfinished")},
    ),
    "a row of cases.csv": (lambda p: without_row(p / "out/cases.csv"), {("cases.csv", "altered"), ("cases.csv", "row")}),
    "a row of cases.parquet": (
        lambda p: parquet_without_row(p / "out/cases.parquet"),
        {("cases.parquet", "altered"), ("cases.parquet", "row"), ("s0", "no row")},
    ),
    "a number of cases.csv": (
        lambda p: edited(p / "out/cases.csv", "done", "kept"),
        {("cases.csv", "altered"), ("cases.csv", "row")},
    ),
    "a lost table": (lambda p: (p / "out/cases.csv").unlink(), {("cases.csv", "missing")}),
    "a table that is none": (
        lambda p: (p / "out/cases.parquet").write_bytes(b"PAR1"),
        {("cases.parquet", "damaged"), ("cases.parquet", "altered")},
    ),
    "the record of the run": (lambda p: edited(p / "out/run.json", '"done": 2', '"done": 3'), {("run.json", "altered")}),
    "a record of a run that is none": (lambda p: (p / "out/run.json").write_text("["), {("run.json", "damaged")}),
    "a page": (lambda p: edited(p / "out/index.html", "<body", "<body "), {("index.html", "altered")}),
    "a lost page": (lambda p: (p / "out/index.html").unlink(), {("index.html", "missing")}),
    "a link in place of a case": (
        lambda p: (shutil.move(p / "out/s0", p / "moved"), (p / "out/s0").symlink_to(p / "moved")),
        {("s0", "no file"), ("s0", "missing")},
    ),
    "another input": (lambda p: flipped(p / "in/s0.nii.gz"), {("s0", "input")}),
    "other weights": (lambda p: nudged(p / "bundle/models/model.pt"), {("bundle", "bundle")}),
    "a new script": (lambda p: (p / "bundle/steps.py").write_text(""), {("bundle", "bundle")}),
    "class names": (lambda p: edited(p / "bundle/configs/metadata.json", "class 1", "well"), {("bundle", "bundle")}),
}


def renamed(folder: Path, old: str) -> None:
    for path in folder.iterdir():
        path.rename(path.with_name(path.name.replace(old, folder.name)))
    sidecar = folder / f"{folder.name}_ifim.json"
    content = json.loads(json.dumps(read_sidecar(sidecar)).replace(f'"{old}', f'"{folder.name}'))
    write_sidecar(sidecar, content)


def nudged(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    next(iter(state.values())).view(-1)[0] += 1e-3
    torch.save(state, path)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_is_found_and_named_and_nothing_else_is(name: str, place: Path) -> None:
    attack, expected = ATTACKS[name]
    attack(place)
    found = verify_results(place / "out", place / "bundle")
    assert kinds(found) == expected
    assert not found.clean
    assert all("\n" not in finding.line and finding.text.endswith(".") for finding in found.findings)


CURED = (
    "swapped maps",
    "a number of a sidecar",
    "a further map",
    "a partial file",
    "a lost case",
    "a row of cases.csv",
    "a page",
)


@pytest.mark.parametrize("name", CURED)
def test_the_cure_of_each_line_is_the_command_of_the_run(name: str, place: Path) -> None:
    ATTACKS[name][0](place)
    bundle = load_bundle(place / "bundle")
    run_cases(bundle, find_cases([place / "in"]), RunSettings(place / "out", SETTINGS), lambda row: None)
    write_cohort(place / "out")
    assert verify_results(place / "out", place / "bundle").findings == ()


def test_the_cure_of_a_changed_input_is_to_remove_its_case_and_to_run_again(place: Path) -> None:
    shutil.copy(place / "in/s1.nii.gz", place / "in/s0.nii.gz")
    assert kinds(verify_results(place / "out", place / "bundle")) == {("s0", "input")}
    shutil.rmtree(place / "out/s0")
    run_cases(load_bundle(place / "bundle"), find_cases([place / "in"]), RunSettings(place / "out", SETTINGS), lambda row: None)
    write_cohort(place / "out")
    assert verify_results(place / "out", place / "bundle").findings == ()


def test_results_under_pseudonyms_are_clean_and_their_inputs_are_not_looked_for(place: Path) -> None:
    settings = RunSettings(place / "hidden", replace(SETTINGS, case_names="hash"))
    run_cases(load_bundle(place / "bundle"), find_cases([place / "in"]), settings, lambda row: None)
    write_cohort(place / "hidden")
    found = verify_results(place / "hidden", place / "bundle")
    assert (found.findings, found.cases, found.inputs) == ((), 2, 0)
    assert [note.place for note in found.notes] == ["inputs"]


def test_a_case_of_an_earlier_run_of_other_inputs_is_noted(place: Path) -> None:
    bundle, one = load_bundle(place / "bundle"), [place / "in/s1.nii.gz"]
    run_cases(bundle, find_cases(one), RunSettings(place / "out", SETTINGS), lambda row: None)
    write_cohort(place / "out")
    found = verify_results(place / "out", place / "bundle")
    assert (found.findings, found.cases) == ((), 2)
    assert [(note.place, note.kind) for note in found.notes] == [("s0", "no row")]
    parquet_without_row(place / "out/cases.parquet")
    assert ("s0", "no row") in kinds(verify_results(place / "out", place / "bundle"))


def test_foreign_files_are_named_and_are_no_difference(place: Path) -> None:
    (place / "out/s0/notes.txt").write_text("mine")
    (place / "out/notes.txt").write_text("mine")
    (place / "out/figures").mkdir()
    (place / "out/dicom").mkdir()
    found = verify_results(place / "out", place / "bundle")
    assert found.clean
    assert {note.place for note in found.notes} == {"s0/notes.txt", "notes.txt", "figures"}


def test_a_failed_case_whose_earlier_results_lie_there_is_told(place: Path) -> None:
    shutil.copytree(place / "out/s0", place / "out/s2")
    renamed(place / "out/s2", "s0")
    assert kinds(verify_results(place / "out", place / "bundle")) == {("s2", "stale"), ("s2", "input")}


def test_a_page_of_an_earlier_run_is_told(place: Path) -> None:
    run_cases(load_bundle(place / "bundle"), find_cases([place / "in"]), RunSettings(place / "out", SETTINGS), lambda row: None)
    assert kinds(verify_results(place / "out", place / "bundle")) == {("index.html", "stale")}


@pytest.fixture
def paged(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose cases have pages of their own."""
    monkeypatch.setattr(pictures.choose_pictures, "__defaults__", (0,))
    write_cohort(place / "out")
    return place


PAGE_ATTACKS: dict[str, tuple[Callable[[Path], Any], set[tuple[str, str]]]] = {
    "nothing": (lambda p: None, set()),
    "a page of a case": (lambda p: edited(p / "case-2.html", "<body", "<body "), {("pages/case-2.html", "altered")}),
    "a lost page of a case": (lambda p: (p / "case-1.html").unlink(), {("pages/case-1.html", "missing")}),
    "a page of an earlier run": (lambda p: shutil.copy(p / "case-1.html", p / "case-7.html"), {("pages/case-7.html", "stale")}),
    "a linked page": (lambda p: linked(p / "case-1.html"), {("pages/case-1.html", "unreadable")}),
    "a file of the user": (lambda p: (p / "notes.txt").write_text("mine"), set()),
    "a linked folder": (
        lambda p: (p.rename(p.parents[1] / "moved"), p.symlink_to(p.parents[1] / "moved")),
        {("pages", "no file"), ("pages/case-1.html", "missing"), ("pages/case-2.html", "missing")},
    ),
}


@pytest.mark.parametrize("attack", PAGE_ATTACKS)
def test_pages_of_cases_are_compared_too(paged: Path, attack: str) -> None:
    act, expected = PAGE_ATTACKS[attack]
    assert len(list((paged / "out/pages").iterdir())) == 2
    act(paged / "out/pages")
    assert kinds(verify_results(paged / "out", paged / "bundle")) == expected


def test_the_cure_of_a_lost_page_of_a_case_is_the_command_again(paged: Path) -> None:
    (paged / "out/pages/case-1.html").unlink()
    settings = RunSettings(paged / "out", SETTINGS)
    run_cases(load_bundle(paged / "bundle"), find_cases([paged / "in"]), settings, lambda row: None)
    write_cohort(paged / "out")
    assert verify_results(paged / "out", paged / "bundle").clean


def test_a_record_that_names_files_elsewhere_is_not_followed(place: Path) -> None:
    record = json.loads((place / "out/run.json").read_text())
    write_run(place / "out", record | {"written": {**record["written"], "../in/s1.nii.gz": "0" * 64, "s0/s0.mrml": "0" * 64}})
    assert kinds(verify_results(place / "out", place / "bundle")) == {("run.json", "no name")}


def test_tables_of_a_bundles_own_run_without_record_are_compared_with_the_sidecars(place: Path) -> None:
    for name in ("run.json", "index.html"):
        (place / "out" / name).unlink()
    tabulate(place / "out")
    assert verify_results(place / "out", place / "bundle").clean
    (place / "out/s1/s1_ifim.json").unlink()
    assert ("s1/s1_ifim.json", "missing") in kinds(verify_results(place / "out", place / "bundle"))


def test_tables_that_are_written_anew_are_recorded(place: Path) -> None:
    (place / "out/index.html").unlink()
    tabulate(place / "out")
    assert verify_results(place / "out", place / "bundle").clean


def test_inputs_and_bundle_that_are_not_found_are_noted(place: Path, tmp_path: Path) -> None:
    moved = tmp_path / "deep" / "er" / "out"
    moved.parent.mkdir(parents=True)
    shutil.move(place / "out", moved)
    found = verify_results(moved)
    assert (found.clean, found.inputs, found.bundle) == (True, 0, False)
    assert [note.place for note in found.notes] == ["bundle", "inputs"]
    assert "2 cases" in found.notes[1].line
    given = verify_results(moved, place / "bundle", [place])
    assert (given.clean, given.inputs, given.bundle, given.notes) == (True, 2, True, ())


def test_an_input_of_the_same_name_and_another_content_elsewhere_does_not_count_beside_the_right_one(place: Path) -> None:
    (place / "another").mkdir()
    (place / "another/s0.nii.gz").write_bytes(b"another patient's")
    assert verify_results(place / "out", place / "bundle").clean
    (place / "in/s0.nii.gz").unlink()
    assert kinds(verify_results(place / "out", place / "bundle")) == {("s0", "input")}


def test_the_input_of_another_case_is_no_changed_input(place: Path) -> None:
    """Two patients' files of one name; the first is archived, or lies too deep to be found by itself."""
    bundle, scan = load_bundle(place / "bundle"), place / "in/p2/below/s0.nii.gz"
    scan.parent.mkdir(parents=True)
    shutil.copy(place / "in/s1.nii.gz", scan)
    run_cases(bundle, find_cases([place / "in"]), RunSettings(place / "out", SETTINGS), lambda row: None)
    write_cohort(place / "out")
    for inputs in (None, [place / "in"]):
        assert verify_results(place / "out", place / "bundle", inputs).findings == ()
    shutil.move(place / "in/s0.nii.gz", place / "archived")
    found = verify_results(place / "out", place / "bundle", [place / "in"])
    assert (found.findings, found.inputs, [note.place for note in found.notes]) == ((), 2, ["inputs"])


def test_a_file_of_the_same_name_in_another_place_than_the_tables_tell_is_no_changed_input(place: Path) -> None:
    bundle = load_bundle(place / "bundle")
    (place / "in/p2/below").mkdir(parents=True)
    shutil.copy(place / "in/s1.nii.gz", place / "in/p2/below/deep.nii.gz")
    run_cases(bundle, find_cases([place / "in"]), RunSettings(place / "out", SETTINGS), lambda row: None)
    write_cohort(place / "out")
    (place / "in/deep.nii.gz").write_bytes(b"another patient's")
    assert verify_results(place / "out", place / "bundle").findings == ()
    (place / "in/p2/below/deep.nii.gz").write_bytes(b"changed")
    found = verify_results(place / "out", place / "bundle", [place / "in"])
    assert kinds(found) == {("p2_below_deep", "input")}


@pytest.mark.parametrize("names", ["path", "hash"])
def test_a_folder_of_dicom_that_is_not_found_is_no_changed_input_though_its_case_has_its_name(names: Any, place: Path) -> None:
    series = write(place / "archive/2024/CT", Series(ORIENTATIONS["axial"]).slices())
    settings = RunSettings(place / "of dicom", replace(SETTINGS, case_names=names))
    run_cases(load_bundle(place / "bundle"), find_cases([series]), settings, lambda row: None)
    write_cohort(place / "of dicom")
    found = verify_results(place / "of dicom", place / "bundle")
    assert (found.findings, found.inputs, [note.place for note in found.notes]) == ((), 0, ["inputs"])
    (series / "IM000").write_bytes(b"changed")
    found = verify_results(place / "of dicom", place / "bundle", [place / "archive"])
    assert [finding.kind for finding in found.findings] == (["input"] if names == "path" else [])


def test_a_case_under_another_name_is_one_difference_and_its_cure_works(place: Path) -> None:
    """The sidecar of another case was copied over it: the next run makes the case elsewhere, and the cure is to remove it."""
    bundle, settings = load_bundle(place / "bundle"), RunSettings(place / "out", SETTINGS)
    shutil.copy(place / "out/s0/s0_ifim.json", place / "out/s1/s1_ifim.json")
    [finding] = verify_results(place / "out", place / "bundle").findings
    assert (finding.place, finding.kind) == ("s1/s1_ifim.json", "foreign")
    assert "remove the folder s1, then give the command of the run again" in finding.text
    run_cases(bundle, find_cases([place / "in"]), settings, lambda row: None)
    assert ("s1/s1_ifim.json", "foreign") in kinds(verify_results(place / "out", place / "bundle"))
    shutil.rmtree(place / "out/s1")
    run_cases(bundle, find_cases([place / "in"]), settings, lambda row: None)
    write_cohort(place / "out")
    assert verify_results(place / "out", place / "bundle").findings == ()


def test_a_folder_without_results_is_refused_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no results of monai-ifim in it: name the folder that was given to --output"):
        verify_results(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "figures").mkdir()
    with pytest.raises(InputError, match="no results"):
        verify_results(tmp_path)
    with pytest.raises(OSError, match="No such file"):
        verify_results(tmp_path / "nowhere")


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "names that lead out": lambda c: c["written"].update({"../../secret": "0" * 64, "/etc/passwd": "0" * 64, "a\\b": "0"}),
    "a name of many lines": lambda c: c["written"].update({"x\n\x1b[31mDIFFERS": "0" * 64, "x" * 100_000: None}),
    "files that are none": lambda c: c.update(files=3),
    "written as a list": lambda c: c.update(written=["s0.mrml"]),
    "hashes of other kinds": lambda c: c.update(written={"s0.mrml": {"a": [1]}, "s0_planes.npz": None}),
    "an input that leads out": lambda c: c["input"].update(file="../../secret", files=[{"name": "../../secret"}]),
    "an input of ten gigabytes": lambda c: c["input"]["files"][0].update(bytes=10**10, sha256=["x"]),
    "files of an input of other kinds": lambda c: c["input"].update(files=[None, 3, "s0.nii.gz", {"name": None}]),
    "a bundle of other kinds": lambda c: c["model"].update(bundle_sha256=[1], files="x"),
    "beside of other kinds": lambda c: c["input"].update(beside={"a": 3, "b": {"file": "../x", "files": 3}}),
    "a huge number": lambda c: c.update(rank=10**400),
    "numbers as words": lambda c: c.update(trace="NaN", eigenvalues={"a": 1}),
    "no model": lambda c: c.update(model=None),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_sidecar_is_a_finding_and_leads_nowhere(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "secret").write_text("secret")
    path = place / "out/s0/s0_ifim.json"
    content = read_sidecar(path)
    HOSTILE[name](content)
    write_sidecar(path, content)
    read: list[str] = []
    own = os.open

    def opened(path: Any, *arguments: Any, **options: Any) -> int:
        read.append(os.fsdecode(path))
        return own(path, *arguments, **options)

    monkeypatch.setattr(os, "open", opened)
    found = verify_results(place / "out", place / "bundle")
    assert found.findings or name == "beside of other kinds"
    assert not any("secret" in each or "passwd" in each for each in read)
    for finding in found.findings:
        assert finding.line.isprintable()
        assert len(finding.line) < 2000


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[" * 1_000_000,
        b'{"schema_version": "2.2", "a": ' + b'{"a":' * 100_000,
        b"\xff\xfe",
        b"NaN",
        b'{"schema_version": "2.2"}',
        b'{"schema_version": "2.2", "written": {}}',
        b'{"schema_version": "2.2", "written": {}, "trace": NaN, "rank": 1e999}',
        b'{"schema_version": "3.0"}',
    ],
)
@pytest.mark.parametrize("name", ["s0/s0_ifim.json", "run.json", "cases.csv", "cases.parquet"])
def test_any_bytes_in_place_of_a_record_are_a_finding(name: str, text: bytes, place: Path) -> None:
    (place / "out" / name).write_bytes(text)
    found = verify_results(place / "out", place / "bundle")
    assert any(finding.place.startswith(name) for finding in found.findings)
    assert all(finding.line.isprintable() for finding in found.findings)


def test_a_sidecar_of_an_absurd_size_is_not_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.truncate(place / "out/s0/s0_ifim.json", 10 * 2**30)  # a file with holes takes no room
    os.truncate(place / "out/run.json", 10 * 2**30)
    assert kinds(verify_results(place / "out", place / "bundle")) == {
        ("s0/s0_ifim.json", "unreadable"),
        ("run.json", "damaged"),
    }


def test_a_case_of_an_earlier_version_cannot_be_proven(place: Path) -> None:
    path = place / "out/s0/s0_ifim.json"
    content = read_sidecar(path) | {"schema_version": "2.1"}
    del content["written"], content["input"]["files"], content["model"]["bundle_sha256"], content["model"]["files"]
    path.write_text(json.dumps(content))
    found = verify_results(place / "out")
    assert kinds(found) >= {("s0/s0_ifim.json", "unproven")}
    assert "earlier version" in " ".join(finding.line for finding in found.findings)


def test_a_record_whose_bundle_is_another_than_the_cases(place: Path) -> None:
    record = json.loads((place / "out/run.json").read_text())
    record["bundle"]["bundle_sha256"] = "0" * 64
    write_run(place / "out", record)
    found = verify_results(place / "out", place / "bundle")
    assert kinds(found) == {(f"{case}/{case}_ifim.json", "bundle") for case in ("s0", "s1")}


def test_the_command_prints_a_line_a_difference_and_says_how_much_it_checked(place: Path) -> None:
    words = ["verify", str(place / "out"), "--bundle", str(place / "bundle")]
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, result.stdout.count("\n")) == (0, 1)
    assert "nothing differs; checked: 2 cases with" in result.stdout
    (place / "out/s0/s0.mrml").unlink()
    (place / "out/s0/notes.txt").write_text("")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("DIFFERS s0/s0.mrml: is missing: give the command of the run again")
    assert lines[1] == "note    s0/notes.txt: is no file of the case."
    assert lines[2].startswith("1 difference; checked: 2 cases")


def test_json_holds_all_of_it(place: Path) -> None:
    (place / "out/s0/s0.mrml").unlink()
    result = CliRunner().invoke(app, ["verify", str(place / "out"), "--bundle", str(place / "bundle"), "--json"])
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert said["clean"] is False
    assert [(each["place"], each["kind"]) for each in said["findings"]] == [("s0/s0.mrml", "missing")]
    assert (said["cases"], said["inputs"], said["bundle"]) == (2, 2, True)


@pytest.mark.parametrize("words", [["."], ["nowhere"], ["out", "--bundle", "none of these"], ["out", "--input", "nowhere"], []])
def test_wrong_use_ends_with_status_2(words: list[str], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [str(place / word) if word == "out" else word for word in words]
    assert CliRunner().invoke(app, ["verify", *words]).exit_code == 2


def test_the_number_of_a_table_with_commas_and_quotes_is_read_as_it_was_written(
    whole: Path, tmp_path: Path, write_scan: Callable[..., Path], oblique: npt.NDArray[Any]
) -> None:
    scan = write_scan(tmp_path / "in" / 'a, "b"\r =1+1\N{SNOWMAN}.nii.gz', (7, 6, 5), oblique)
    run_cases(load_bundle(whole / "bundle"), find_cases([scan]), RunSettings(tmp_path / "out", SETTINGS), lambda row: None)
    found = verify_results(tmp_path / "out", whole / "bundle")
    assert (found.findings, found.inputs) == ((), 1)
    with (tmp_path / "out/cases.csv").open(newline="", encoding="utf-8") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done"]
    assert np.isfinite(read_sidecar(next((tmp_path / "out").glob("*/*_ifim.json")))["trace"])
