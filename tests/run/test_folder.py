"""Strangers in folders, folders without an image among others, pairs of files, and frames of mixed inputs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from monai_ifim.io import InputError, OpenedSource
from monai_ifim.io.parametric_map.codes import LABEL
from monai_ifim.run.cases import Case, cases_of_entries, find_cases, list_entries, search_cases
from synthetic_series import ORIENTATIONS, Series, write

FLOATS = np.linspace(0.1, 9, 64, dtype=np.float32).tobytes()
PARAMETRIC_MAP, SEGMENTATION = "1.2.840.10008.5.1.4.1.1.30", "1.2.840.10008.5.1.4.1.1.66.4"


def series(folder: Path) -> Path:
    return write(folder, Series(ORIENTATIONS["axial"], slices=3).slices())


def put(place: Path, uid: str, **stated: str) -> None:
    """A DICOM object of a class, otherwise a CT slice."""
    image = Series(ORIENTATIONS["axial"], slices=1).slices()[0]
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = uid
    for keyword, value in stated.items():
        setattr(image, keyword, value)
    place.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(place)


def image(place: Path, shape: tuple[int, ...] = (4, 3, 2)) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), np.diag([1, 1, 1, 1.0])), place)
    return place


def put_bytes(place: Path, content: bytes = FLOATS) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place


def paths(cases: list[Case], root: Path) -> list[str]:
    return [os.path.relpath(case.source.path, root) for case in cases]


def refused(cases: list[Case]) -> dict[str, str]:
    return {case.name: case.refusal for case in cases if case.refusal}


def test_the_small_case_of_a_media_directory_is_one_case(small_cases: Path) -> None:
    [case] = find_cases([small_cases / "dicom" / "dirfile"])
    assert case.refusal == ""
    OpenedSource(case.source).check(channels=1)


@pytest.mark.parametrize("name", ["DICOMDIR", "INDEX"])
def test_a_medium_without_its_images_says_what_it_is(name: str, tmp_path: Path) -> None:
    tmp_path.joinpath("medium").mkdir()
    shutil.copy(str(get_testdata_file("DICOMDIR", download=False)), tmp_path / "medium" / name)
    with pytest.raises(InputError, match="medium: no image and no DICOM series in it, but a DICOMDIR, which is an index: copy"):
        find_cases([tmp_path / "medium"])
    series(tmp_path / "medium" / "IMAGES")  # the cure
    assert paths(find_cases([tmp_path / "medium"]), tmp_path) == ["medium/IMAGES"]
    assert paths(find_cases([tmp_path / "medium"], series="all"), tmp_path) == ["medium/IMAGES"]


def test_maps_and_segmentations_beside_a_series_are_no_volumes_of_it(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct")
    put(folder / "0 map", PARAMETRIC_MAP, ContentLabel=f"{LABEL}LOW")
    put(folder / "1 map", PARAMETRIC_MAP)
    put(folder / "2 segmentation", SEGMENTATION)
    for choice in (None, "all"):
        [case] = find_cases([folder], series=choice)
        assert (case.name, case.source.series) == ("ct", None)
        OpenedSource(case.source).check(channels=1)


def test_maps_in_a_folder_of_their_own_are_left_out_or_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    series(tmp_path / "study" / "ct")
    put(tmp_path / "study" / "ours" / "a.dcm", PARAMETRIC_MAP, ContentLabel=f"{LABEL}LOW")
    put(tmp_path / "study" / "ours" / "b", PARAMETRIC_MAP, ContentLabel=f"{LABEL}HIGH")
    put(tmp_path / "study" / "theirs" / "a.dcm", PARAMETRIC_MAP)
    put(tmp_path / "study" / "theirs" / "b", SEGMENTATION)
    found = search_cases([tmp_path / "study"])
    assert paths(found.cases, tmp_path) == ["study/ct"]
    assert found.unread == {"DICOM Parametric Map": 1, "DICOM Segmentation": 1}
    assert caplog.messages == [
        "2 files are results of earlier runs, DICOM Parametric Maps known by their headers: left out of the input."
    ]
    with pytest.raises(InputError, match=r"ours: holds no image but 2 results of earlier runs: name the images\.$"):
        find_cases([tmp_path / "study" / "ours"])
    with pytest.raises(InputError, match=r"theirs: no image .* Not read: 1 DICOM Parametric Map, 1 DICOM Segmentation\."):
        find_cases([tmp_path / "study" / "theirs"])


def test_what_is_not_read_is_counted_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image(tmp_path / "in" / "a.nii.gz")
    for name in ("b.zip", "deep/c.xyz", "deep/d.xyz", "e"):
        put_bytes(tmp_path / "in" / name)
    put_bytes(tmp_path / "in" / "note.txt", b"a text")
    put_bytes(tmp_path / "in" / ".hidden.xyz")
    image(series(tmp_path / "in" / "ct") / "converted.nii.gz")
    put_bytes(tmp_path / "in" / "ct" / "no image of a known name")
    found = search_cases([tmp_path / "in", tmp_path / "in" / "deep" / ".."])
    assert paths(found.cases, tmp_path) == ["in/a.nii.gz", "in/ct"]
    assert found.unread == {".nii.gz beside DICOM images": 1, ".xyz": 2, ".zip": 1, "no suffix": 1}
    assert caplog.messages == []
    assert find_cases([tmp_path / "in"]) == found.cases
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("Not read: 2 .xyz, 1 .nii.gz beside DICOM images, 1 .zip, 1 no suffix. If they are")
    with pytest.raises(
        InputError, match=r"deep: no image and no DICOM series in it\. Not read: 2 \.xyz\. If they are images: conv"
    ):
        find_cases([tmp_path / "in" / "deep"])


def test_voxels_apart_from_their_header_are_no_unread_files(tmp_path: Path) -> None:
    header = "ObjectType = Image\nNDims = 2\nDimSize = 4 4\nElementType = MET_FLOAT\nElementDataFile = a.raw\n"
    put_bytes(tmp_path / "a.mhd", header.encode())
    nrrd = "NRRD0004\ntype: float\ndimension: 2\nsizes: 4 4\nencoding: raw\nendian: little\ndata file: b.img\n\n"
    put_bytes(tmp_path / "b.nhdr", nrrd.encode())
    for name in ("a.raw", "b.img", "c.raw"):
        put_bytes(tmp_path / name)
    found = search_cases([tmp_path])
    assert (paths(found.cases, tmp_path), found.unread) == (["a.mhd", "b.nhdr"], {".raw": 1})
    named = find_cases([tmp_path / "a.mhd", tmp_path / "a.raw", tmp_path / "b.nhdr"])
    assert paths(named, tmp_path) == ["a.mhd", "b.nhdr"]


def test_a_pair_is_one_case_however_it_is_named(tmp_path: Path) -> None:
    for name in ("a", "B"):
        nib.save(nib.Nifti1Pair(np.zeros((4, 3, 2), np.float32), np.eye(4)), tmp_path / f"{name}.hdr")
    (tmp_path / "B.hdr").rename(tmp_path / "B.HDR")
    (tmp_path / "B.img").rename(tmp_path / "B.IMG")
    put_bytes(tmp_path / "alone.img")
    header, voxels = tmp_path / "a.hdr", tmp_path / "a.img"
    found = search_cases([tmp_path])
    assert (paths(found.cases, tmp_path), found.unread) == (["B.HDR", "a.hdr", "alone.img"], {})
    assert [case.name for case in found.cases] == ["B", "a", "alone"]
    assert len(find_cases(sorted(tmp_path.iterdir()))) == 3
    (tmp_path / "list.json").write_text(json.dumps([{"image": "a.img"}, {"image": "a.hdr"}]))
    for inputs in ([header, voxels], [voxels, header], [tmp_path / "list.json"], [tmp_path, voxels], [voxels]):
        [case] = [each for each in find_cases(inputs) if each.name == "a"]
        OpenedSource(case.source).check(channels=1)
        assert OpenedSource(case.source).digest == OpenedSource(find_cases([header])[0].source).digest
    [case] = cases_of_entries([{"image": str(voxels)}, {"image": str(header)}])
    assert case.name == "a"


def test_inputs_without_an_image_are_cases_that_fail(tmp_path: Path) -> None:
    good = image(tmp_path / "good.nii")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    put_bytes(tmp_path / "no.json", b"{")
    inputs = [tmp_path / name for name in ("empty", "gone", "pipe", "no.json", "good.nii")]
    cases = find_cases(inputs)
    assert cases[-1].source.path == good
    assert {name: reason.removeprefix(f"{tmp_path}/") for name, reason in refused(cases).items()} == {
        "empty": "empty: no image and no DICOM series in it.",
        "gone": "gone: no such file or folder.",
        "pipe": "pipe: neither a file nor a folder.",
        "no.json": refused(cases)["no.json"],
    }
    assert "not a JSON datalist" in refused(cases)["no.json"]
    assert [case.given for case in cases] == ["empty", "gone", "pipe", "no.json", "good.nii"]
    with pytest.raises(InputError, match="empty: no image"):
        list_entries(inputs)  # MONAI has no row for them
    with pytest.raises(InputError, match=r"empty: no image .*gone: no such .*pipe: neither .* And 1 more without an image\.$"):
        find_cases(inputs[:-1])
    for way in ({"series": "all"}, {"frame": 0}, {"fix_geometry": True}):
        assert len(refused(find_cases(inputs, **way))) == 4


def test_a_case_keeps_its_name_where_one_without_an_image_wants_it(tmp_path: Path) -> None:
    (tmp_path / "scan").mkdir()
    image(tmp_path / "scan.nii")
    named = find_cases([tmp_path / "scan", tmp_path / "scan.nii"])
    assert [(case.source.path.name, case.name == "scan") for case in named] == [("scan", False), ("scan.nii", True)]


def test_entries_of_a_datalist_without_an_image_fail_alone(tmp_path: Path) -> None:
    image(tmp_path / "a.nii")
    entries: list[Any] = [{"label": 1}, {"image": "a.nii"}, {"image": ["a.nii", "b.nii"]}, None, {"image": "x" * 400}]
    put_bytes(tmp_path / "list.json", json.dumps({"testing": entries}).encode())
    cases = find_cases([tmp_path / "list.json"])
    assert [case.name for case in cases] == ["list_entry-1", "a", "list_entry-3", "list_entry-4", "list_entry-5"]
    assert [bool(case.refusal) for case in cases] == [True, False, True, True, True]
    assert refused(cases)["list_entry-1"] == "list.json: entry 1 has no image: name one, {'image': 'scan.nii.gz'}."
    assert "entry 3 names several files for one image" in refused(cases)["list_entry-3"]
    assert "cannot be looked up" in refused(cases)["list_entry-5"]
    absolute = [entry | {"image": str(tmp_path / "a.nii")} if entry.get("image") == "a.nii" else entry for entry in entries[:2]]
    by_dictionaries = cases_of_entries(absolute)
    assert [(case.name, case.refusal) for case in by_dictionaries] == [
        ("datalist_entry-1", "datalist: entry 1 has no image: name one, {'image': 'scan.nii.gz'}."),
        ("a", ""),
    ]


def test_a_damaged_series_fails_alone_whatever_series_is_asked_for(tmp_path: Path) -> None:
    uid = pydicom.dcmread(next(series(tmp_path / "good").iterdir())).SeriesInstanceUID
    damaged = series(tmp_path / "damaged")
    [file, *_] = sorted(damaged.iterdir())
    file.write_bytes(file.read_bytes()[:900])
    for choice in ("all", str(uid)):
        cases = find_cases([tmp_path], series=choice)
        assert sorted(paths(cases, tmp_path)) == ["damaged", "good"]
        with pytest.raises(InputError, match=file.name):
            OpenedSource(next(case for case in cases if case.name == "damaged").source).check(channels=1)


def test_a_folder_that_cannot_be_listed_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "in" / "a.nii")
    (tmp_path / "in" / "closed").mkdir()
    listed = Path.iterdir

    def closed(self: Path) -> Any:
        if self.name == "closed":
            raise PermissionError(13, "Permission denied", str(self))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", closed)
    for inputs in ([tmp_path / "in"], [tmp_path / "in" / "a.nii", tmp_path / "in" / "closed"]):
        assert refused(find_cases(inputs)) == {
            "closed": "closed: cannot be looked into (Permission denied): get the right to read it, or leave it out."
        }


def test_links_to_files_that_were_not_fetched_are_no_missing_slices(tmp_path: Path) -> None:
    image(tmp_path / "in" / "a.nii")
    (tmp_path / "in" / "b.nii").symlink_to("annex/key")
    (tmp_path / "in" / "c.tgz").symlink_to("annex/key")
    folder = series(tmp_path / "in" / "ct")
    (folder / "IM900").symlink_to("annex/key")
    found = search_cases([tmp_path / "in"])
    assert paths(found.cases, tmp_path / "in") == ["a.nii", "b.nii", "ct"]
    assert found.unread == {".tgz": 1}
    for name, said in (("b", "b.nii: a link to a file that is not there: fetch"), ("ct", "IM900: a link to a file that is")):
        with pytest.raises(InputError, match=said):
            OpenedSource(next(case for case in found.cases if case.name == name).source).check(channels=1)
    (folder / "IM900").rename(folder / "README.md")  # no slice by its name
    OpenedSource(next(case for case in found.cases if case.name == "ct").source).check(channels=1)


def test_frame_is_of_inputs_of_several_volumes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inputs = [image(tmp_path / "three.nii"), image(tmp_path / "four.nii.gz", (4, 3, 2, 5)), series(tmp_path / "ct")]
    inputs += [image(tmp_path / "short.nii", (4, 3, 2, 2)), put_bytes(tmp_path / "broken.nii")]
    cases = find_cases(inputs, frame=3)
    assert {case.name: case.source.frame for case in cases} == {
        "three": None,
        "four_frame-003": 3,
        "ct": None,
        "short_frame-003": 3,
        "broken_frame-003": 3,
    }
    checked = {}
    for case in cases:
        try:
            OpenedSource(case.source).check(channels=1)
        except InputError as error:
            checked[case.source.path.name] = str(error)
    assert checked.keys() == {"short.nii", "broken.nii"}
    assert checked["short.nii"] == "short.nii: there is no frame 3; it has 2, counted from 0."
    assert caplog.messages == []
    (tmp_path / "list.json").write_text(json.dumps(["three.nii", "four.nii.gz"]))
    assert [case.name for case in find_cases([tmp_path / "list.json"], frame=0)] == ["three", "four_frame-000"]
    assert [case.name for case in find_cases(inputs[:1], frame=9)] == ["three"]
    assert caplog.messages == ["--frame 9 has no effect: no input holds several volumes."]
