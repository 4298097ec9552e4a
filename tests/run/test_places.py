"""A case is its input: no run, engine or program files one input's results where another's lie."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import threading
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.saving import SaveIFIM
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.cli.main import app
from monai_ifim.io import OpenedSource, OutputError, Source, read_sidecar, sidecar_path
from monai_ifim.io.case_folder import claimed, holder_of
from monai_ifim.run.cases import find_cases
from monai_ifim.run.cluster import driver
from monai_ifim.run.local import run_cases
from monai_ifim.run.places import placed
from monai_ifim.run.ranks import Rank, run_shard
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import CaseRow

CASE = CaseSettings("categorical", space="network", contents=("high",), verify="never")
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Bundle:
    return load_bundle(make_bundle(tmp_path_factory.mktemp("bundle") / "b"))


@pytest.fixture
def scan(tmp_path: Path, write_scan: Write, oblique: npt.NDArray[Any]) -> Write:
    """A scan at tmp_path/NAME; another `value` gives another content."""

    def write(name: str, value: int = 0) -> Path:
        return write_scan(tmp_path / name, (6, 5, 4), oblique, shift=float(value))

    return write


def run(bundle: Bundle, inputs: Sequence[Path], output: Path, overwrite: bool = False, **how: Any) -> list[CaseRow]:
    settings = RunSettings(output, replace(CASE, **how), overwrite=overwrite)
    return run_cases(bundle, find_cases(inputs), settings, lambda row: None)


def names(rows: Sequence[CaseRow]) -> list[tuple[str, str]]:
    assert all(row.status != "failed" for row in rows), [row.reason for row in rows]
    return [(row.case, row.status) for row in rows]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def held(output: Path) -> dict[str, str]:
    """The hash of the input of every case in OUT."""
    return {path.parent.name: json.loads(path.read_bytes())["input"]["sha256"] for path in output.glob("*/*_ifim.json")}


def suffixed(name: str, path: Path) -> str:
    return f"{name}-{digest(path)[:8]}"


def test_a_second_patient_of_one_file_name_replaces_nobody(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    first, second, out = scan("p1/scan.nii", 1), scan("p2/scan.nii", 2), tmp_path / "out"
    assert names(run(bundle, [first], out)) == [("scan", "done")]
    before = {path: path.read_bytes() for path in (out / "scan").iterdir()}
    assert names(run(bundle, [second], out)) == [(suffixed("scan", second), "done")]
    assert {path: path.read_bytes() for path in (out / "scan").iterdir()} == before
    assert held(out) == {"scan": digest(first), suffixed("scan", second): digest(second)}
    assert names(run(bundle, [second], out)) == [(suffixed("scan", second), "kept")]
    assert names(run(bundle, [first], out)) == [("scan", "kept")]


def test_overwrite_makes_the_same_input_s_case_again_and_no_other(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    first, second, out = scan("p1/scan.nii", 1), scan("p2/scan.nii", 2), tmp_path / "out"
    run(bundle, [first], out)
    for _ in range(2):
        assert names(run(bundle, [second], out, overwrite=True)) == [(suffixed("scan", second), "done")]
        assert names(run(bundle, [first], out, overwrite=True)) == [("scan", "done")]
    assert held(out) == {"scan": digest(first), suffixed("scan", second): digest(second)}


def test_other_settings_make_a_case_again_where_it_lies(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    first, second, out = scan("p1/scan.nii", 1), scan("p2/scan.nii", 2), tmp_path / "out"
    run(bundle, [first], out)
    run(bundle, [second], out)
    assert names(run(bundle, [second], out, rank=1)) == [(suffixed("scan", second), "done")]
    assert len(held(out)) == 2


def test_added_before_and_after_a_file_rename_no_case(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    middle, out = scan("p1/scan.nii", 1), tmp_path / "out"
    assert names(run(bundle, [middle], out)) == [("scan", "done")]
    after = scan("p2/scan.nii", 2)
    assert names(run(bundle, [middle, after], out)) == [("scan", "kept"), ("p2_scan", "done")]
    before = scan("p0/scan.nii", 3)
    rows = run(bundle, [before, middle, after], out)
    assert names(rows) == [(suffixed("scan", before), "done"), ("scan", "kept"), ("p2_scan", "kept")]
    assert held(out) == {row.case: digest(path) for row, path in zip(rows, (before, middle, after), strict=True)}


def test_a_case_of_a_first_trial_is_found_by_the_run_of_its_folder(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    paths, out = [scan(f"in/p{i}/scan.nii", i) for i in range(3)], tmp_path / "out"
    run(bundle, [paths[1]], out)
    rows = run(bundle, [tmp_path / "in"], out)
    assert names(rows) == [("p0_scan", "done"), ("scan", "kept"), ("p2_scan", "done")]
    assert [row.path for row in rows] == [f"p{i}/scan.nii" for i in range(3)]


def test_two_files_of_one_content_are_two_cases_also_where_one_has_a_case(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    first, second, out = scan("p0/scan.nii", 1), scan("p1/scan.nii", 1), tmp_path / "out"
    run(bundle, [second], out)
    for expected in ("done", "kept"):
        rows = run(bundle, [first, second], out)
        assert names(rows) == [("scan", "kept"), ("p1_scan", expected)]
        assert len({row.path for row in rows}) == 2


def test_a_case_that_a_run_of_its_own_made_is_found_by_a_run_of_several_and_the_other_way_round(
    bundle: Bundle, scan: Write, tmp_path: Path
) -> None:
    first, second, out = scan("p1/scan.nii", 1), scan("p2/scan.nii", 2), tmp_path / "out"
    run(bundle, [first], out)
    run(bundle, [second], out)
    kept = {("scan", "kept"), (suffixed("scan", second), "kept")}
    for inputs in ([first, second], [second, first], [tmp_path / "p2", tmp_path / "p1"], [tmp_path]):
        assert set(names(run(bundle, inputs, out))) == kept
    together = tmp_path / "together"
    run(bundle, [first, second], together)
    assert names(run(bundle, [second], together)) == [("p2_scan", "kept")]
    assert set(held(together)) == {"scan", "p2_scan"}


def test_a_file_that_takes_the_longer_name_of_another_renames_no_case(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    """scan.nii.gz and SCAN.nii: the second has its suffix in its name, which a third file then takes."""
    scan("in/SCAN.nii.gz", 1)
    scan("in/Scan.nii", 2)
    out = tmp_path / "out"
    before = {row.path: row.case for row in run(bundle, [tmp_path / "in"], out)}
    scan("in/SCAN.nii", 3)
    again = {row.path: (row.case, row.status) for row in run(bundle, [tmp_path / "in"], out)}
    assert {path: again[path] for path in before} == {path: (name, "kept") for path, name in before.items()}
    assert len({name.lower() for name, _ in again.values()}) == 3


def test_two_files_of_one_content_never_share_a_case_that_has_digits(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    other, first, second, out = scan("p0/scan.nii", 0), scan("p1/scan.nii", 1), scan("p2/scan.nii", 1), tmp_path / "out"
    run(bundle, [other], out)
    run(bundle, [first], out)
    for inputs in ([first, second], [second, first], [other, second, first]):
        rows = run(bundle, inputs, out)
        assert len({row.case for row in rows}) == len(inputs)


def test_dates_in_names_are_no_digits_of_a_hash(scan: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No input is read before the run because its name looks like that of a case whose first name another input has."""
    for name in ("CT", "CT-20240101", "CT-20240102"):
        scan(f"in/{name}.nii", 1)
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / f"{name}_ifim.json").write_text("{}")
    monkeypatch.setattr(OpenedSource, "digest", property(lambda self: pytest.fail("read")))
    assert [case.earlier for case in placed(find_cases([tmp_path / "in"]), RunSettings(tmp_path / "out", CASE))] == [(), (), ()]


@pytest.mark.parametrize("text", ["{", "", "[]", '{"schema_version": "2.1", "input": {}}', '{"input": {"sha256": 3}}'])
def test_a_damaged_sidecar_that_names_nobody_is_not_replaced(text: str, bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    first, second, out = scan("p1/scan.nii", 1), scan("p2/scan.nii", 2), tmp_path / "out"
    run(bundle, [first], out)
    sidecar = sidecar_path(out, "scan")
    sidecar.write_text(text)
    before = {path: path.read_bytes() for path in (out / "scan").iterdir()}
    assert names(run(bundle, [second], out)) == [(suffixed("scan", second), "done")]  # cases.csv tells of the first
    assert {path: path.read_bytes() for path in (out / "scan").iterdir()} == before
    (out / "cases.csv").unlink()
    assert names(run(bundle, [first], out)) == [(suffixed("scan", first), "done")]
    assert {path: path.read_bytes() for path in (out / "scan").iterdir()} == before


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "no end"])
def test_what_is_no_sidecar_is_not_waited_for_and_nobody_s(kind: str, bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    """A pipe in place of a sidecar or of the table would keep the run waiting for ever, a file without end would fill memory."""
    path, out = scan("scan.nii", 1), tmp_path / "out"
    run(bundle, [path], out)
    elsewhere = shutil.copy(sidecar_path(out, "scan"), tmp_path / "elsewhere.json")
    for place in (sidecar_path(out, "scan"), out / "cases.csv"):
        place.unlink()
        {
            "pipe": lambda place: os.mkfifo(place),
            "link": lambda place: place.symlink_to(elsewhere),
            "folder": lambda place: place.mkdir(),
            "no end": lambda place: place.touch() or os.truncate(place, 2**40),
        }[kind](place)
    assert holder_of(out, "scan", OpenedSource(Source(path))) == "another"


@pytest.mark.parametrize("damage", ["cut", "an entry less"])
def test_a_damaged_case_is_made_again_in_its_folder_where_all_shows_whose_it_is(
    damage: str, bundle: Bundle, scan: Write, tmp_path: Path
) -> None:
    path, out = scan("scan.nii", 1), tmp_path / "out"
    run(bundle, [path], out)
    sidecar = sidecar_path(out, "scan")
    if damage == "cut":  # cases.csv of that run has the hash
        sidecar.write_bytes(sidecar.read_bytes()[:-100])
    else:
        content = json.loads(sidecar.read_bytes())
        del content["trace"]
        sidecar.write_text(json.dumps(content))
        (out / "cases.csv").unlink()
    assert names(run(bundle, [path], out)) == [("scan", "done")]
    assert set(held(out)) == {"scan"}
    assert names(run(bundle, [path], out)) == [("scan", "kept")]


def test_what_is_no_case_is_left_alone(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    path, out = scan("scan.nii", 1), tmp_path / "out"
    (out / "scan").mkdir(parents=True)
    (out / "scan" / "my thesis.txt").write_text("x")
    (out / "other").write_text("a file of this name")
    other = scan("other.nii", 2)
    assert names(run(bundle, [path, other], out)) == [(suffixed("scan", path), "done"), (suffixed("other", other), "done")]
    assert (out / "scan" / "my thesis.txt").read_text() == "x"


def test_what_a_killed_run_left_is_cleared_and_its_name_is_used(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    path, out = scan("scan.nii", 1), tmp_path / "out"
    run(bundle, [path], out)
    sidecar_path(out, "scan").unlink()
    (out / "scan" / ".partial-0123456789abcdef.gz").write_text("half")
    assert names(run(bundle, [path], out)) == [("scan", "done")]
    assert not list(out.rglob(".partial*"))


@pytest.mark.parametrize("own", ["cases.csv", "Run.json", "index.html", "pacs-audit.jsonl"])
def test_a_file_cannot_take_the_place_of_a_table(own: str, bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    path, out = scan(f"{own}.nii", 1), tmp_path / "out"
    assert names(run(bundle, [path], out)) == [(f"case_{own}", "done")]
    assert (out / "cases.csv").is_file()


def test_letters_that_are_not_ascii_keep_cases_apart_and_their_names(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    words = ["王", "ألف", "🫀", "🫁", "Müller", "Muller", "Möller", "Moller"]
    paths = {word: scan(f"in/{word}.nii", i) for i, word in enumerate(words)}
    scan("in/张.nii", 20)
    out = tmp_path / "out"
    first = {row.path: row.case for row in run(bundle, [tmp_path / "in"], out)}
    assert len(set(first.values())) == len(words) + 1
    assert all(name.isascii() for name in first.values())
    assert first["Muller.nii"] == "Muller"
    assert first["Müller.nii"] == "Muller-" + hashlib.sha256("Müller".encode()).hexdigest()[:8]
    assert held(out) == {first[f"{word}.nii"]: digest(path) for word, path in paths.items()} | {
        first["张.nii"]: digest(tmp_path / "in" / "张.nii")
    }
    scan("in/丁.nii", 30)  # sorts before the others
    again = {row.path: (row.case, row.status) for row in run(bundle, [tmp_path / "in"], out)}
    assert {path: again[path] for path in first} == {path: (name, "kept") for path, name in first.items()}


def test_the_two_forms_of_one_name_are_one_name_on_two_file_systems_and_two_cases_in_one_folder(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Schädel.png") for form in ("NFC", "NFD"))
    assert composed != decomposed
    for folder, there in (("linux", [composed]), ("mac", [decomposed]), ("both", [composed, decomposed])):
        (tmp_path / folder).mkdir()
        for name in there:
            (tmp_path / folder / name).write_bytes(b"x")
    linux, mac, both = ([case.name for case in find_cases([tmp_path / folder])] for folder in ("linux", "mac", "both"))
    assert linux == mac
    assert set(linux) < set(both)
    assert len(set(both)) == 2


def test_tables_tell_which_input_is_which(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    paths, out = [scan("in/p1/scan.nii", 1), scan("in/p2/scan.nii", 2)], tmp_path / "out"
    broken = tmp_path / "in" / "p3" / "scan.nii"
    broken.parent.mkdir()
    broken.write_bytes(b"")
    run(bundle, [tmp_path / "in"], out)
    with (out / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    told = [(row["case"], row["path"], row["input_sha256"]) for row in rows]
    assert told == [(f"p{i}_scan", f"p{i}/scan.nii", digest(path)) for i, path in enumerate(paths, 1)] + [
        ("p3_scan", "p3/scan.nii", "")
    ]
    table = pq.read_table(out / "cases.parquet")
    assert table.column("path").to_pylist() == [row["path"] for row in rows]
    assert read_sidecar(sidecar_path(out, "p1_scan"))["input"]["file"] == "scan.nii"


def test_of_a_datalist_images_with_other_labels_are_other_cases(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    scan("x/scan.nii", 1)
    (tmp_path / "list.json").write_text(json.dumps([{"image": "x/scan.nii", "sex": 0}, {"image": "x/scan.nii", "sex": 1}]))
    first, second = find_cases([tmp_path / "list.json"])
    assert first.name == "x_scan"
    assert second.name.startswith("x_scan-")
    (tmp_path / "list.json").write_text(json.dumps([{"image": "x/scan.nii", "sex": 1}, {"image": "x/scan.nii", "sex": 0}]))
    assert [case.name for case in find_cases([tmp_path / "list.json"])][0] == "x_scan"


def test_ranks_and_workers_file_no_input_under_another_s_name(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    """The functions that torchrun's ranks call; the ones of Ray's workers are those of `run`."""
    first, second, out = scan("p1/scan.nii", 1), scan("p2/scan.nii", 2), tmp_path / "out"
    settings = RunSettings(out, CASE)
    assert names(run_shard(bundle, find_cases([first]), settings, lambda row: None, Rank())) == [("scan", "done")]
    seen: list[CaseRow] = []
    rows = run_shard(bundle, find_cases([second, first]), settings, seen.append, Rank())
    assert names(rows) == [(suffixed("scan", second), "done"), ("scan", "kept")]
    assert {row.case for row in seen} == {row.case for row in rows}
    assert held(out) == {"scan": digest(first), suffixed("scan", second): digest(second)}


@pytest.mark.soak
def test_ray_files_no_input_under_another_s_name(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    first, second, out = scan("p1/scan.nii", 1), scan("p2/scan.nii", 2), tmp_path / "out"
    run(bundle, [first], out)
    cases = find_cases([second, first])
    rows = driver.run_on_ray(bundle.root, bundle.identity, cases, RunSettings(out, CASE), lambda row: None, workers=1)
    assert names(rows) == [(suffixed("scan", second), "done"), ("scan", "kept")]
    assert held(out) == {"scan": digest(first), suffixed("scan", second): digest(second)}


def test_the_command_line_says_that_a_name_is_taken(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    first, second, out = scan("p1/scan.nii", 1), scan("p2/scan.nii", 2), tmp_path / "out"
    run(bundle, [first], out)
    words = ["decompose", str(second), "--bundle", str(bundle.root), "-o", str(out), "--space", "network", "--save", "high"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert f"{suffixed('scan', second)} (" in result.output
    assert "scan holds the case of another input" in " ".join(result.output.split())


def test_of_two_writers_of_one_name_the_second_waits_and_finds_it_taken(scan: Write, tmp_path: Path) -> None:
    paths, out = [scan("p1/scan.nii", 1), scan("p2/scan.nii", 2)], tmp_path / "out"
    inside, go, got = threading.Event(), threading.Event(), []

    def write(path: Path, wait: bool) -> None:
        with claimed(out, "scan", OpenedSource(Source(path))) as name:
            got.append(name)
            inside.set()
            assert not wait or go.wait(10)
            (out / name).mkdir(parents=True)
            (out / name / f"{name}_ifim.json").write_text(json.dumps({"input": {"sha256": digest(path), "beside": {}}}))

    first = threading.Thread(target=write, args=(paths[0], True))
    first.start()
    assert inside.wait(10)
    second = threading.Thread(target=write, args=(paths[1], False))
    second.start()
    second.join(0.2)
    assert got == ["scan"]
    go.set()
    first.join(10)
    second.join(10)
    assert got == ["scan", suffixed("scan", paths[1])]
    assert held(out) == {name: digest(path) for name, path in zip(got, paths, strict=True)}
    assert sorted(os.listdir(out)) == sorted(got)


def test_a_moved_tree_keeps_its_cases(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    scan("old/p1/scan.nii", 1)
    out = tmp_path / "out"
    run(bundle, [tmp_path / "old"], out)
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert names(run(bundle, [tmp_path / "new"], out)) == [("p1_scan", "kept")]


def test_only_contested_names_are_looked_at_before_the_run(scan: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No input is read to list the cases of a new OUT."""
    for i in range(3):
        scan(f"in/p{i}/scan.nii", i)
    cases = find_cases([tmp_path / "in"])
    monkeypatch.setattr(OpenedSource, "digest", property(lambda self: pytest.fail("read")))
    assert [case.name for case in placed(cases, RunSettings(tmp_path / "out", CASE))] == ["p0_scan", "p1_scan", "p2_scan"]


def test_no_name_of_a_file_comes_beside_pseudonyms(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    """The option was forgotten once: the name of the file would lie beside the pseudonyms, in a folder and in the tables."""
    path, out = scan("Jane Doe.nii", 1), tmp_path / "out"
    run(bundle, [path], out, case_names="hash")
    before = sorted(out.rglob("*"))
    with pytest.raises(OutputError, match="holds cases under pseudonyms.*give --case-names hash again"):
        run(bundle, [path], out)
    with pytest.raises(OutputError, match="holds cases under pseudonyms"):
        _ = SaveIFIM(out, CASE).key_table
    assert sorted(out.rglob("*")) == before
    [row] = run(bundle, [path], out, case_names="hash")  # the cure
    assert row.status == "kept"
    run(bundle, [path], tmp_path / "another")


def test_values_survive(bundle: Bundle, scan: Write, tmp_path: Path) -> None:
    """What lies under a suffixed name is what a run of its own makes of that input."""
    first, second = scan("p1/scan.nii", 1), scan("p2/scan.nii", 2)
    [alone] = run(bundle, [second], tmp_path / "alone")
    run(bundle, [first], tmp_path / "out")
    [beside] = run(bundle, [second], tmp_path / "out")
    np.testing.assert_allclose(beside.eigenvalues, alone.eigenvalues)  # type: ignore[arg-type]
    assert (beside.input, beside.input_sha256) == (alone.input, alone.input_sha256)
