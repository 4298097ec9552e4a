"""Results of earlier runs in the input are left out, with a word; the same command makes the same cases every time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.io import InputError
from monai_ifim.io.case_files import UNFINISHED
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
from synthetic_series import ORIENTATIONS, Series


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Bundle:
    return load_bundle(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


@pytest.fixture
def place(tmp_path: Path, write_cohort: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with scans in a folder and in one below that."""
    write_cohort(tmp_path / "scans", 2)
    shutil.copytree(tmp_path / "scans", tmp_path / "scans" / "more")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(bundle: Bundle, inputs: list[str], output: str, **files: Any) -> dict[str, str]:
    """Status of each case by the path of its input."""
    settings = RunSettings(Path(output), CaseSettings("categorical", rank=1, **files))
    cases = find_cases(inputs)
    rows = run_cases(bundle, cases, settings, lambda _: None)
    assert [row.reason for row in rows if row.status == "failed"] == []
    return {str(case.source.path): row.status for case, row in zip(cases, rows, strict=True)}


@pytest.mark.parametrize(
    ("entry", "output"), [("scans", "scans"), ("scans", "scans/out"), (".", "out"), (".", "scans"), ("scans", "scans/more")]
)
def test_the_same_command_makes_the_same_cases(
    entry: str, output: str, bundle: Bundle, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(bundle, [entry], output)
    assert set(first.values()) == {"done"}
    assert len(first) == 4
    assert caplog.text == ""
    written = sorted(path for path in place.rglob("*_ifim_*.nii.gz")) + sorted(place.rglob("*_planes.npz"))
    for _ in range(2):
        caplog.clear()
        again = run(bundle, [entry], output)
        assert again == dict.fromkeys(first, "kept")
        assert f"{len(written)} files are results of earlier runs, known by the sidecars beside them: left out" in caplog.text
    assert sorted(path for path in place.rglob("*_ifim_*.nii.gz")) + sorted(place.rglob("*_planes.npz")) == written


def test_results_of_another_run_below_the_input_are_no_images(bundle: Bundle, place: Path) -> None:
    run(bundle, ["scans/more"], "scans/other/out")
    assert len(run(bundle, ["scans"], "out")) == 4


def test_files_that_are_merely_called_like_results_are_decomposed(bundle: Bundle, place: Path) -> None:
    (place / "scans" / "x").mkdir()
    for name in ("x_ifim_high.nii.gz", "x/x_ifim_high.nii.gz", "x/x_ifim_source.nii.gz"):
        shutil.copy(place / "scans" / "s000.nii.gz", place / "scans" / name)
    for _ in range(2):
        found = run(bundle, ["scans"], "scans/out")
        assert len(found) == 7
        assert {name for name in found if "_ifim_" in name} == {
            f"scans/{name}" for name in ("x_ifim_high.nii.gz", "x/x_ifim_high.nii.gz", "x/x_ifim_source.nii.gz")
        }


def test_an_input_that_results_would_replace_is_refused(bundle: Bundle, place: Path) -> None:
    (place / "scans" / "s000").mkdir()
    mine = place / "scans" / "s000" / "s000_ifim_high.nii.gz"
    shutil.copy(place / "scans" / "s001.nii.gz", mine)
    content = mine.read_bytes()
    with pytest.raises(InputError, match="is an input, and the results of the case .* would replace it: choose another --output"):
        run(bundle, ["scans"], "scans")
    assert mine.read_bytes() == content
    assert len(run(bundle, ["scans"], "out")) == 5  # the cure


def test_what_a_killed_run_left_is_no_image(bundle: Bundle, place: Path) -> None:
    first = run(bundle, ["scans"], "scans")
    case = next(place.glob("scans/*/s000_ifim.json"), None) or next(place.glob("scans/*/*_ifim.json"))
    case.unlink()
    (case.parent / UNFINISHED).touch()
    again = run(bundle, ["scans"], "scans")
    assert again.keys() == first.keys()
    assert sorted(again.values()) == ["done", "kept", "kept", "kept"]
    assert list(place.rglob(UNFINISHED)) == []


@pytest.mark.parametrize("dicom_pm", [False, True], ids=["nifti", "parametric maps"])
@pytest.mark.parametrize("output", [".", "ct/out", "ct"])
def test_results_in_the_folder_of_a_dicom_series_are_no_part_of_it(
    output: str, dicom_pm: bool, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the folder above as OUT they lie in the series' own folder, which is called like its case."""
    monkeypatch.chdir(tmp_path)
    Path("ct").mkdir()
    for i, image in enumerate(Series(ORIENTATIONS["axial"], slices=4).slices()):
        image.save_as(f"ct/{i}.dcm")
    for status in ("done", "kept", "kept"):
        assert run(bundle, ["ct"], output, dicom_pm=dicom_pm) == {"ct": status}
    assert len(list(Path().rglob("*_ifim_*.dcm"))) == (4 if dicom_pm else 0)


@pytest.mark.parametrize("way", ["file", "datalist"])
def test_a_result_that_is_named_is_decomposed_and_said_to_be_one(
    way: str, bundle: Bundle, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(bundle, ["scans/s000.nii.gz"], "out")
    [result] = place.glob("out/*/*_ifim_high.nii.gz")
    (place / "list.json").write_text(json.dumps([{"image": str(result)}]))
    found = find_cases([result if way == "file" else place / "list.json"])
    assert [case.source.path for case in found] == [result]
    assert "1 file is a result of earlier runs: decomposed, because named as input." in caplog.text


def test_a_folder_of_results_alone_is_refused_with_the_cure(bundle: Bundle, place: Path) -> None:
    run(bundle, ["scans/s000.nii.gz"], "out")
    with pytest.raises(
        InputError, match=r"out: holds no image but \d+ results of earlier runs: name the images, or, to decompose"
    ):
        find_cases(["out"])
    [result] = place.glob("out/*/*_ifim_high.nii.gz")
    assert len(find_cases([result])) == 1


def test_of_many_processes_one_speaks(
    bundle: Bundle, place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(bundle, ["scans/s000.nii.gz"], "scans/out")
    monkeypatch.setenv("RANK", "1")
    assert len(find_cases(["scans"])) == 4
    assert caplog.text == ""
