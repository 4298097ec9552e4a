"""Results of earlier runs are told by their sidecars, and by nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from monai_ifim.io.case_files import UNFINISHED, is_file_of, results_in

SIDECAR: dict[str, Any] = {
    "schema_version": "2.2",
    "files": [{"file": "a_ifim_high.nii.gz"}, {"file": "a_ifim_eigenvector-01.nii.gz"}],
    "parametric_maps": ["a_ifim_high.dcm"],
    "planes": "a_planes.npz",
    "scene": "a.mrml",
    "written": {"a_ifim_high.nii.gz": "0", "a_signed.ctbl": "1", "a_spectrum.tsv": "2"},
}
OURS = {
    "a_ifim.json", "a_ifim_high.nii.gz", "a_ifim_eigenvector-01.nii.gz", "a_ifim_high.dcm", "a_planes.npz", "a.mrml",
    "a_signed.ctbl", "a_spectrum.tsv",
}  # fmt: skip
THEIRS = {
    "a_ifim_low.nii.gz",
    "b_ifim_high.nii.gz",
    "a.nii.gz",
    "aa_ifim_high.nii.gz",
    "a_ifim_low.dcm",
    "notes.txt",
    "b_planes.npz",
}


def found(folder: Path, sidecar: Any = SIDECAR, name: str = "a_ifim.json") -> set[str]:
    text = sidecar if isinstance(sidecar, str) else json.dumps(sidecar)
    (folder / name).write_text(text)
    return set(results_in(folder, [*OURS, *THEIRS]))


def test_what_a_sidecar_names_is_a_result_and_what_is_merely_called_so_is_not(tmp_path: Path) -> None:
    assert found(tmp_path) == OURS
    assert not results_in(tmp_path, THEIRS)


def test_without_a_sidecar_nothing_is_a_result(tmp_path: Path) -> None:
    assert not results_in(tmp_path, OURS - {"a_ifim.json"})
    assert not results_in(tmp_path, OURS)  # its name, without the file


@pytest.mark.parametrize(
    "sidecar",
    [
        {}, [], 3, {"schema_version": "2.2"}, {"files": SIDECAR["files"]}, {"schema_version": 2, "files": 3, "written": 4},
        {"schema_version": "2.2", "files": [3, {"file": 3}], "planes": [], "parametric_maps": [3]},
    ],
)  # fmt: skip
def test_json_of_others_names_nothing(sidecar: Any, tmp_path: Path) -> None:
    assert found(tmp_path, sidecar) == set()


@pytest.mark.parametrize("named", ["notes.txt", "b_ifim_high.nii.gz", "../a_ifim_high.nii.gz", "a.nii.gz"])
def test_a_sidecar_can_hide_no_file_that_is_not_called_like_its_own(named: str, tmp_path: Path) -> None:
    hiding = SIDECAR | {"files": [{"file": named}], "written": {named: "0"}, "planes": named, "scene": named}
    assert named not in found(tmp_path, hiding)


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": "2.2", "files": [', "[" * 100_000, "\udcff"], ids=len)
def test_a_damaged_sidecar_stands_for_all_that_is_called_like_its_case(text: str, tmp_path: Path) -> None:
    (tmp_path / "a_ifim.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert set(results_in(tmp_path, [*OURS, *THEIRS])) == OURS | {"a_ifim_low.nii.gz", "a_ifim_low.dcm"}


def test_a_sidecar_that_does_not_end_is_no_sidecar(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a_ifim.json")
    assert not results_in(tmp_path, OURS)
    (tmp_path / "a_ifim.json").unlink()
    with (tmp_path / "a_ifim.json").open("wb") as file:
        file.truncate(2**40)
    assert not results_in(tmp_path, OURS)


def test_an_older_sidecar_names_no_tables(tmp_path: Path) -> None:
    older = {name: value for name, value in SIDECAR.items() if name != "written"}
    assert found(tmp_path, older) == OURS


def test_what_an_interrupted_run_left_is_told_by_its_mark(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    left = {"a_ifim_high.nii.gz", "a_planes.npz"}
    assert set(results_in(folder, left | THEIRS | {UNFINISHED})) == left | {"a_ifim_low.nii.gz", "a_ifim_low.dcm"}
    assert not results_in(folder, left | THEIRS)
    assert not results_in(tmp_path, left | THEIRS | {UNFINISHED})  # the mark is for the case that the folder is called after


def test_ten_thousand_cases_in_one_folder_are_no_burden(tmp_path: Path) -> None:
    """Names that differ in their last digits, and one that begins all: each sidecar is compared with its own few files."""
    names = [f"a{i:05d}{end}" for i in range(10_000) for end in ("_ifim.json", "_ifim_high.nii.gz")]
    seen = 0

    class Counted(str):
        def startswith(self, *given: Any) -> bool:
            nonlocal seen
            seen += 1
            return super().startswith(*given)

    assert not results_in(tmp_path, [Counted(name) for name in names])
    assert seen < 20 * len(names)


@pytest.mark.parametrize("case", ["a", "[ab]", "a*", "a?b", "a.b-c_d"])
def test_names_of_cases_are_no_patterns(case: str) -> None:
    assert is_file_of(case, f"{case}_ifim_high.nii.gz")
    assert not is_file_of(case, "axb_ifim_high.nii.gz")
    assert not is_file_of(case, f"{case}.nii.gz")
