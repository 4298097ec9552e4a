"""The list of cases behind files, folders, DICOM series and datalists."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from monai_ifim.io import InputError
from monai_ifim.run.cases import cases_of_entries, find_cases, list_entries


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """A list that never ends is a failure after five seconds, not a test run that hangs."""

    def stop(*_: Any) -> None:
        raise TimeoutError("the list of cases was not made within five seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def touch(root: Path, *names: str) -> list[Path]:
    paths = [root / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path))
    return paths


def put_dicom(folder: Path, name: str, original: str = "CT_small.dcm") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(str(get_testdata_file(original, download=False)), folder / name)


def found(*inputs: Path, **settings: Any) -> dict[str, Path]:
    return {case.name: case.source.path for case in find_cases(inputs, **settings)}


def test_a_file_is_a_case_whatever_its_suffix(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "IM0001")
    assert found(path) == {"IM0001": path}


def test_a_folder_is_searched_at_every_depth_for_images_in_a_stable_order(tmp_path: Path) -> None:
    paths = touch(tmp_path, "b.nii.gz", "a/z.png", "a/deep/er/y.mha", "c.NRRD")
    touch(tmp_path, "note.txt", "a/table.csv", ".hidden.nii.gz", ".git/x.png")
    order = [paths[2], paths[1], paths[0], paths[3]]
    assert list(found(tmp_path).values()) == order
    assert list(found(tmp_path)) == ["a_deep_er_y", "a_z", "b", "c"]


def test_a_folder_with_dicom_in_it_is_one_series_named_after_the_folder(tmp_path: Path) -> None:
    for name in ("IM1", "IM2.dcm"):
        put_dicom(tmp_path / "series 7", name)
    assert found(tmp_path / "series 7") == {"series_7": tmp_path / "series 7"}


def test_series_are_found_inside_a_study_and_beside_images(tmp_path: Path) -> None:
    put_dicom(tmp_path / "patient" / "study" / "first", "IM1")
    put_dicom(tmp_path / "patient" / "study" / "second", "IM1")
    (image,) = touch(tmp_path, "patient/scan.nii")
    study = tmp_path / "patient" / "study"
    assert found(tmp_path) == {
        "patient_scan": image,
        "patient_study_first": study / "first",
        "patient_study_second": study / "second",
    }


def test_a_series_below_a_folder_with_dicom_in_it_is_not_passed_over(tmp_path: Path) -> None:
    put_dicom(tmp_path / "study", "scout")
    put_dicom(tmp_path / "study" / "series", "IM1")
    touch(tmp_path, "study/preview.png")  # belongs to the DICOM files beside it
    assert found(tmp_path) == {"study": tmp_path / "study", "study_series": tmp_path / "study" / "series"}


def test_reports_and_plans_of_an_archive_are_no_cases_and_hide_none(tmp_path: Path) -> None:
    put_dicom(tmp_path / "study" / "series", "IM1")
    put_dicom(tmp_path / "study" / "series", "SR", "test-SR.dcm")
    put_dicom(tmp_path / "study", "report", "test-SR.dcm")
    put_dicom(tmp_path / "study" / "dose", "report.dcm", "test-SR.dcm")
    put_dicom(tmp_path / "study" / "plan", "plan.dcm", "rtplan.dcm")
    assert found(tmp_path) == {"study_series": tmp_path / "study" / "series"}
    assert found(tmp_path, series="all") == {"study_series": tmp_path / "study" / "series"}
    with pytest.raises(InputError, match="no image and no DICOM series in it"):
        find_cases([tmp_path / "study" / "plan"])


@pytest.mark.parametrize(
    "content",
    [
        [{"image": "x/a.png"}, {"image": "b.png", "label": 1}],
        ["x/a.png", "b.png"],
        {"testing": [{"image": "x/a.png"}, {"image": "b.png"}], "training": [{"image": "c.png"}]},
        {"training": [{"image": "c.png"}], "test": [{"image": "x/a.png"}, {"image": "b.png"}]},
        {"name": "d", "labels": {"0": "no"}, "training": [{"image": "x/a.png"}, {"image": "b.png"}]},
    ],
    ids=["list of entries", "list of names", "testing", "test", "only section"],
)
def test_datalists_of_every_kind_name_the_same_images(content: Any, tmp_path: Path) -> None:
    paths = touch(tmp_path, "x/a.png", "b.png")
    touch(tmp_path, "c.png")
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    assert list(found(tmp_path / "datalist.json").values()) == paths


def test_names_in_a_datalist_are_looked_up_beside_it_and_then_above_it(tmp_path: Path) -> None:
    above, beside = touch(tmp_path, "images/a.png", "lists/b.png")
    (tmp_path / "lists" / "d.json").write_text('["images/a.png", "b.png"]')
    assert list(found(tmp_path / "lists" / "d.json").values()) == [above, beside]


def test_a_folder_named_in_a_datalist_may_be_a_series(tmp_path: Path) -> None:
    put_dicom(tmp_path / "series", "IM1")
    (tmp_path / "d.json").write_text('[{"image": "series"}]')
    assert found(tmp_path / "d.json") == {"series": tmp_path / "series"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not a JSON datalist"),
        ("3", "a datalist is a list"),
        ('[{"label": 1}]', "entry 1 has no image"),
        ("[null]", "entry 1 has no image"),
        ('{"a": [{"image": "1"}], "b": [{"image": "2"}]}', "2 sections with images"),
        ("{}", "name one 'testing'"),
        ("[]", "no image"),
    ],
)
def test_a_datalist_that_is_none_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(InputError, match=rf"d\.json: .*{reason}"):
        find_cases([tmp_path / "d.json"])


def test_images_of_one_name_get_names_that_tell_them_apart(tmp_path: Path) -> None:
    paths = touch(tmp_path, "p1/t1/scan.nii.gz", "p2/t1/scan.nii.gz", "p2/t2/scan.nii.gz", "other.nii.gz")
    names = found(*paths)
    assert list(names.values()) == paths
    assert list(names) == ["scan", "p2_t1_scan", "t2_scan", "other"]


def test_names_are_distinct_even_where_folders_are_not_enough(tmp_path: Path) -> None:
    paths = touch(tmp_path, "a b.png", "a_b.png", "a b.nii")
    assert set(found(*paths).values()) == set(paths)


def test_a_picture_beside_its_volume_and_a_third_file_are_three_cases(tmp_path: Path) -> None:
    paths = touch(tmp_path, "scan.nii.gz", "scan.png", "other.png")
    assert set(found(tmp_path).values()) == set(paths)


def test_a_name_made_distinct_does_not_collide_with_a_third(tmp_path: Path) -> None:
    paths = touch(tmp_path, "x.png", "x.nii", "x-2.png", "y/x_x.png", "y/x/x.png")
    assert set(found(*paths).values()) == set(paths)


def test_names_differ_in_more_than_case(tmp_path: Path) -> None:
    paths = touch(tmp_path, "Scan.png", "scan.nii")
    assert len({name.lower() for name in found(*paths)}) == 2


def test_an_input_named_twice_is_one_case(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "a.png")
    assert found(path, tmp_path, path) == {"a": path}


def test_the_frame_goes_into_every_source_and_name(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "a.nii")
    (case,) = find_cases([path], frame=3)
    assert (case.name, case.source.frame) == ("a_frame-003", 3)


def test_missing_and_empty_inputs_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "texts/a.txt")
    for name, reason in {"empty": "no image", "texts": "no image", "gone": "no such file"}.items():
        with pytest.raises(InputError, match=f"{name}: {reason}"):
            find_cases([tmp_path / name])
    with pytest.raises(InputError, match="no input"):
        find_cases([])


def test_entries_for_a_bundle_are_monais(tmp_path: Path) -> None:
    paths = touch(tmp_path, "a.png", "b.png")
    assert list_entries(tmp_path) == [{"image": str(path)} for path in paths]
    assert list_entries([paths[1]], key="scan") == [{"scan": str(paths[1])}]
    assert list_entries(str(paths[0])) == [{"image": str(paths[0])}]


def test_two_real_series_in_one_tree_are_two_cases(real_data: Path, tmp_path: Path) -> None:
    for series in ("ct_plain", "ct_tilt"):
        (tmp_path / "study" / series).mkdir(parents=True)
        for file in sorted((real_data / "dicom" / series).iterdir())[:2]:
            shutil.copy(file, tmp_path / "study" / series)
    assert list(found(tmp_path)) == ["study_ct_plain", "study_ct_tilt"]


def test_files_that_differ_in_format_alone_carry_it_in_their_names(tmp_path: Path) -> None:
    for name in ("scan.nrrd", "scan.MHA", "other.png"):
        (tmp_path / name).write_bytes(b"x")
    assert {case.name for case in find_cases([tmp_path])} == {"scan", "scan_nrrd", "other"}


def test_input_named_twice_is_one_case(tmp_path: Path) -> None:
    (tmp_path / "scan.nrrd").write_bytes(b"x")
    assert len(find_cases([tmp_path, tmp_path / "scan.nrrd"])) == 1


def test_link_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "scan.nrrd").write_bytes(b"x")
    (tmp_path / "up").symlink_to(tmp_path, target_is_directory=True)
    assert [case.name for case in find_cases([tmp_path])] == ["scan"]


def test_several_files_for_one_image_are_refused(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('[{"image": ["a.nii.gz", "b.nii.gz"]}]', encoding="utf-8")
    with pytest.raises(InputError, match="stack them"):
        find_cases([tmp_path / "list.json"])


def test_entries_of_a_bundle_are_checked_like_those_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        list_entries(str(tmp_path / "empty.nii.gz"))


def test_entries_of_a_datalist_keep_what_lies_beside_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_scan: Callable[..., Path], oblique: Any
) -> None:
    """As a bundle's config hands them over; those of a datalist's file are the same cases."""
    for name in ("a.nii.gz", "b.nii.gz", "mask.nii.gz"):
        write_scan(tmp_path / name, (4, 3, 2), oblique)
    entries = [{"image": "a.nii.gz", "mask": "mask.nii.gz", "age": 41}, {"image": "b.nii.gz", "note": "no file"}]
    (tmp_path / "list.json").write_text(json.dumps(entries), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    renamed = [{"scan" if key == "image" else key: value for key, value in entry.items()} for entry in entries]
    cases = cases_of_entries(renamed, "scan")
    assert [case.source.beside for case in cases] == [(("age", 41), ("mask", Path("mask.nii.gz"))), (("note", "no file"),)]
    assert [(case.name, case.source) for case in cases] == [(case.name, case.source) for case in find_cases(["list.json"])]
    assert list_entries(["list.json"], "scan") == renamed
    with pytest.raises(InputError, match="no such file"):
        cases_of_entries([{"scan": "c.nii.gz"}], "scan")
