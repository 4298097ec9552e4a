"""The round trip with a small server: what is chosen, pulled, pulled again, and stored."""

from __future__ import annotations

import json
import shutil
import stat
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import ParametricMapStorage, generate_uid

from fake_pacs import FakePacs, refuses
from monai_ifim.io import InputError, OpenedSource, OutputError
from monai_ifim.io.dicom.header import dicom_files
from monai_ifim.io.dicom.volumes import index_dicom
from monai_ifim.io.dicomweb.access import access_to
from monai_ifim.io.dicomweb.client import DicomWeb, ServerError, UnreachableError
from monai_ifim.run.audit_trail import AuditTrail
from monai_ifim.run.pacs import cases_of, choose_series, pull_series, store_maps
from monai_ifim.run.table import CaseRow
from synthetic_series import ORIENTATIONS, Series

STUDY = generate_uid()


def slices_of(name: str, count: int, number: int) -> list[Dataset]:
    series = Series(ORIENTATIONS[name], slices=count)
    series.study = STUDY
    images = series.slices()
    for image in images:
        image.SeriesNumber = number
    return images


@pytest.fixture
def first() -> list[Dataset]:
    return slices_of("axial", 4, 201)


@pytest.fixture
def second() -> list[Dataset]:
    return slices_of("oblique", 3, 202)


@pytest.fixture
def pacs(first: list[Dataset], second: list[Dataset]) -> Iterator[FakePacs]:
    with FakePacs([*first, *second]) as running:
        yield running


@pytest.fixture
def server(pacs: FakePacs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[DicomWeb]:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with DicomWeb(access_to(pacs.url, environment={})) as asked:
        yield asked


def uid_of(images: list[Dataset]) -> str:
    return str(images[0].SeriesInstanceUID)


def write_maps(output: Path, case: str, *names: str, study: str = STUDY) -> list[Dataset]:
    """Stand-ins for Parametric Maps: what is stored depends on their UIDs alone."""
    (output / case).mkdir(parents=True, exist_ok=True)
    maps = Series(ORIENTATIONS["axial"], slices=len(names)).slices()
    for name, one in zip(names, maps, strict=True):
        one.StudyInstanceUID, one.SOPClassUID = study, ParametricMapStorage
        one.file_meta.MediaStorageSOPClassUID = ParametricMapStorage
        one.save_as(output / case / f"{case}_ifim_{name}.dcm")
    return maps


def test_several_series_are_never_chosen_from_in_silence(server: DicomWeb, first: list[Dataset], second: list[Dataset]) -> None:
    with pytest.raises(InputError) as caught:
        choose_series(server, STUDY, None)
    text = str(caught.value)
    assert text.startswith(f"{server.name}: 2 series in the study; choose with --series UID, or --series all. It holds ")
    assert f"CT, series 201, 7 x 5, 4 images: {uid_of(first)}" in text
    assert f"CT, series 202, 7 x 5, 3 images: {uid_of(second)}" in text
    assert "CompressedSamples" not in text  # the patient


def test_series_is_chosen_by_uid_or_all(server: DicomWeb, first: list[Dataset], second: list[Dataset]) -> None:
    assert [series.uid for series in choose_series(server, STUDY, uid_of(second))] == [uid_of(second)]
    assert {series.uid for series in choose_series(server, STUDY, "all")} == {uid_of(first), uid_of(second)}
    with pytest.raises(InputError, match=r"no series 1\.2\.3 with images in it. It holds CT, series 20"):
        choose_series(server, STUDY, "1.2.3")


def test_only_series_needs_no_choice_though_maps_lie_beside_it(
    server: DicomWeb, pacs: FakePacs, first: list[Dataset], second: list[Dataset]
) -> None:
    for image in second:
        image.SOPClassUID = ParametricMapStorage
    assert [series.uid for series in choose_series(server, STUDY, None)] == [uid_of(first)]
    with pytest.raises(InputError, match="no series"):
        choose_series(server, STUDY, uid_of(second))


@pytest.mark.parametrize("status", [200, 404])
def test_unknown_study_is_told(server: DicomWeb, pacs: FakePacs, status: int) -> None:
    pacs.faults = [refuses(404)] if status == 404 else []
    with pytest.raises(InputError, match=r"no images in a study 1\.2\.3, or this user may not see it: check --study"):
        choose_series(server, "1.2.3", None)


def test_study_that_is_no_uid_is_refused_unasked(server: DicomWeb, pacs: FakePacs) -> None:
    with pytest.raises(ServerError, match="is not a DICOM UID"):
        choose_series(server, "../../instances", None)
    assert pacs.asked == []


def test_pulled_images_are_those_of_the_server_in_folders_of_their_series(
    server: DicomWeb, first: list[Dataset], second: list[Dataset], tmp_path: Path
) -> None:
    seen: list[int] = []
    folders = pull_series(server, STUDY, choose_series(server, STUDY, "all"), tmp_path / "out", lambda: seen.append(1))
    assert {folder.name: len(list(folder.iterdir())) for folder in folders} == {uid_of(first): 4, uid_of(second): 3}
    assert len(seen) == 7
    for image in (*first, *second):
        path = tmp_path / "out" / "dicom" / STUDY / image.SeriesInstanceUID / f"{image.SOPInstanceUID}.dcm"
        with BytesIO() as file:
            image.save_as(file)
            assert path.read_bytes() == file.getvalue()
    assert stat.S_IMODE((tmp_path / "out" / "dicom").stat().st_mode) == 0o700
    assert [volume.slices for volume in index_dicom(dicom_files(folders[0]))] == [len(list(folders[0].iterdir()))]


def test_interrupted_pull_goes_on_and_fetches_nothing_twice(
    server: DicomWeb, pacs: FakePacs, first: list[Dataset], tmp_path: Path
) -> None:
    chosen = choose_series(server, STUDY, uid_of(first))
    names = chosen[0].instances
    broken = pacs.content.pop(names[2])
    with pytest.raises(ServerError, match="HTTP 404"):
        pull_series(server, STUDY, chosen, tmp_path)
    assert pacs.fetched() == list(names[:3])
    pacs.content[names[2]] = broken
    pacs.asked.clear()
    [folder] = pull_series(server, STUDY, chosen, tmp_path)
    assert pacs.fetched() == list(names[2:])
    pacs.asked.clear()
    pull_series(server, STUDY, chosen, tmp_path)
    assert pacs.asked == []
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.dcm" for name in names)


def test_damaged_file_is_fetched_anew_and_what_the_server_lost_goes(
    server: DicomWeb, pacs: FakePacs, first: list[Dataset], tmp_path: Path
) -> None:
    [folder] = pull_series(server, STUDY, choose_series(server, STUDY, uid_of(first)), tmp_path)
    one, other, gone, _ = sorted(folder.iterdir())
    one.write_bytes(one.read_bytes()[:200])
    other.write_bytes(b"")
    (folder / ".partial-x.dcm").write_bytes(b"half")
    del pacs.content[gone.stem]
    pacs.asked.clear()
    pull_series(server, STUDY, choose_series(server, STUDY, uid_of(first)), tmp_path)
    assert pacs.fetched() == [one.stem, other.stem]
    assert len(list(folder.iterdir())) == 3
    assert index_dicom(dicom_files(folder))[0].slices == 3


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_a_pulled_file_of_another_study_series_or_instance_is_fetched_anew(
    keyword: str, server: DicomWeb, pacs: FakePacs, first: list[Dataset], tmp_path: Path
) -> None:
    [folder] = pull_series(server, STUDY, choose_series(server, STUDY, uid_of(first)), tmp_path)
    path = min(folder.iterdir())
    whole = path.read_bytes()
    other = pydicom.dcmread(path)
    setattr(other, keyword, "1.2.3")
    other.save_as(path)
    pacs.asked.clear()
    pull_series(server, STUDY, choose_series(server, STUDY, uid_of(first)), tmp_path)
    assert pacs.fetched() == [path.stem]
    assert path.read_bytes() == whole


@pytest.mark.parametrize("level", ["dicom", "study", "series"])
@pytest.mark.parametrize("kind", ["folder", "dangling"])
def test_links_below_out_are_neither_filled_nor_emptied_nor_closed(
    kind: str, level: str, server: DicomWeb, pacs: FakePacs, first: list[Dataset], tmp_path: Path
) -> None:
    chosen = choose_series(server, STUDY, uid_of(first))
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    inner = elsewhere / STUDY / uid_of(first)
    inner.mkdir(parents=True)
    for folder in (elsewhere, elsewhere / STUDY, inner):
        (folder / "theirs.dcm").write_text("theirs")
        (folder / ".partial-0123456789abcdef").write_text("theirs")
        folder.chmod(0o755)
    link = out / "dicom" / ("" if level == "dicom" else STUDY) / (uid_of(first) if level == "series" else "")
    link.parent.mkdir(parents=True)
    target = {"dicom": elsewhere, "study": elsewhere / STUDY, "series": inner}[level]
    link.symlink_to(target if kind == "folder" else tmp_path / "nothing")
    before = {path: (path.lstat().st_mode, path.is_file() and path.read_bytes()) for path in [elsewhere, *elsewhere.rglob("*")]}
    with pytest.raises(OutputError, match="is a link to another place"):
        pull_series(server, STUDY, chosen, out)
    assert before == {
        path: (path.lstat().st_mode, path.is_file() and path.read_bytes()) for path in [elsewhere, *elsewhere.rglob("*")]
    }
    assert not (tmp_path / "nothing").exists()
    assert pacs.fetched() == []
    link.unlink()  # the cure
    [folder] = pull_series(server, STUDY, chosen, out)
    assert len(list(folder.iterdir())) == 4


def test_a_link_in_place_of_an_image_is_replaced(server: DicomWeb, first: list[Dataset], tmp_path: Path) -> None:
    chosen = choose_series(server, STUDY, uid_of(first))
    [folder] = pull_series(server, STUDY, chosen, tmp_path / "out")
    one, other, *_ = sorted(folder.iterdir())
    shutil.copy(one, tmp_path / "same.dcm")  # the very image, elsewhere
    (tmp_path / "theirs").write_text("theirs")
    for path, target in ((one, tmp_path / "same.dcm"), (other, tmp_path / "theirs")):
        path.unlink()
        path.symlink_to(target)
    pull_series(server, STUDY, chosen, tmp_path / "out")
    assert [path.is_symlink() for path in sorted(folder.iterdir())] == [False] * 4
    assert (tmp_path / "theirs").read_text() == "theirs"


def test_folder_that_cannot_be_written_is_named(server: DicomWeb, first: list[Dataset], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="the study cannot be written there"):
        pull_series(server, STUDY, choose_series(server, STUDY, uid_of(first)), tmp_path / "out")


def test_cases_are_named_by_modality_number_and_a_digest(
    server: DicomWeb, first: list[Dataset], second: list[Dataset], tmp_path: Path
) -> None:
    chosen = choose_series(server, STUDY, "all")
    folders = pull_series(server, STUDY, chosen, tmp_path)
    cases = {case.source.path.name: case.name for case in cases_of(folders, chosen, "all")}
    assert cases[uid_of(first)].startswith("CT-201-")
    assert cases[uid_of(second)].startswith("CT-202-")
    [alone] = choose_series(server, STUDY, uid_of(second))
    [case] = cases_of([tmp_path / "dicom" / STUDY / alone.uid], [alone], uid_of(second))
    assert case.name == cases[uid_of(second)]
    OpenedSource(case.source).check(channels=1)


def test_volumes_of_one_series_are_cases_of_their_own(server: DicomWeb, pacs: FakePacs, tmp_path: Path) -> None:
    echoes = slices_of("axial", 6, 203)
    for k, image in enumerate(echoes):
        image.EchoTime, image.ImagePositionPatient = float(k // 3), [0.0, 0.0, 2.0 * (k % 3)]
    pacs.content.update({str(image.SOPInstanceUID): image for image in echoes})
    chosen = choose_series(server, STUDY, f"{uid_of(echoes)}#2")
    folders = pull_series(server, STUDY, chosen, tmp_path)
    [case] = cases_of(folders, chosen, f"{uid_of(echoes)}#2")
    assert case.source.series == f"{uid_of(echoes)}#2"
    assert case.name.startswith("CT-203-")
    assert len({case.name for case in cases_of(folders, chosen, uid_of(echoes))}) == 2


def test_maps_of_cases_that_did_not_fail_are_stored_once(server: DicomWeb, pacs: FakePacs, tmp_path: Path) -> None:
    maps = [*write_maps(tmp_path, "a", "high", "low"), *write_maps(tmp_path, "b", "high")]
    write_maps(tmp_path, "c", "high")
    (tmp_path / "a" / "a_other.dcm").write_bytes(b"not a map")
    rows = [CaseRow("a", "done"), CaseRow("b", "kept"), CaseRow("c", "failed", "why")]
    before = set(pacs.content)
    stored = store_maps(server, STUDY, tmp_path, rows)
    assert [(one.file, one.status) for one in stored] == [
        ("a_ifim_high.dcm", "stored"),
        ("a_ifim_low.dcm", "stored"),
        ("b_ifim_high.dcm", "stored"),
    ]
    assert set(pacs.content) - before == {str(one.SOPInstanceUID) for one in maps}
    np.testing.assert_array_equal(pacs.content[str(maps[1].SOPInstanceUID)].pixel_array, maps[1].pixel_array)
    pacs.asked.clear()
    assert {one.status for one in store_maps(server, STUDY, tmp_path, rows)} == {"kept"}
    assert not any(line.startswith("POST") for line in pacs.asked)


def test_map_that_is_refused_does_not_keep_the_others_back(server: DicomWeb, pacs: FakePacs, tmp_path: Path) -> None:
    write_maps(tmp_path, "a", "high", "low")
    pacs.faults = [lambda exchange: exchange.json([]), refuses(413)]
    stored = store_maps(server, STUDY, tmp_path, [CaseRow("a", "done")])
    assert [one.status for one in stored] == ["failed", "stored"]
    assert "HTTP 413" in stored[0].reason


def test_map_of_another_study_is_never_sent(server: DicomWeb, pacs: FakePacs, tmp_path: Path) -> None:
    write_maps(tmp_path, "a", "high", study=generate_uid())
    [stored] = store_maps(server, STUDY, tmp_path, [CaseRow("a", "done")])
    assert (stored.status, "not a map of this study" in stored.reason) == ("failed", True)
    assert pacs.asked == []


def test_storing_goes_on_through_a_busy_spell_and_ends_where_the_server_is_gone(
    server: DicomWeb, pacs: FakePacs, tmp_path: Path
) -> None:
    write_maps(tmp_path, "a", "high", "low")
    pacs.faults = [refuses(503), refuses(502)]
    assert {one.status for one in store_maps(server, STUDY, tmp_path, [CaseRow("a", "done")])} == {"stored"}
    pacs.faults = [refuses(503)] * 99
    with pytest.raises(UnreachableError, match="the same command then goes on where this one stopped"):
        store_maps(server, STUDY, tmp_path, [CaseRow("a", "done")])


def test_what_cannot_be_recorded_is_neither_pulled_nor_stored(
    server: DicomWeb, pacs: FakePacs, first: list[Dataset], tmp_path: Path
) -> None:
    chosen = choose_series(server, STUDY, uid_of(first))
    write_maps(tmp_path / "out", "a", "high")
    pacs.asked.clear()
    (tmp_path / "log").mkdir()
    trail = AuditTrail(tmp_path / "log")
    with pytest.raises(OutputError, match="audit log"):
        pull_series(server, STUDY, chosen, tmp_path / "out", trail=trail)
    with pytest.raises(OutputError, match="audit log"):
        store_maps(server, STUDY, tmp_path / "out", [CaseRow("a", "done")], trail=trail)
    assert pacs.asked == []


def test_each_map_is_recorded_with_what_became_of_it(server: DicomWeb, pacs: FakePacs, tmp_path: Path) -> None:
    maps = write_maps(tmp_path, "a", "high", "low", "sensitivity")
    (tmp_path / "a" / "a_ifim_sensitivity.dcm").write_bytes(b"damaged")
    pacs.faults = [refuses(403)]
    store_maps(server, STUDY, tmp_path, [CaseRow("a", "done")], trail=AuditTrail(tmp_path / "log"))
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["outcome"] for line in lines] == ["begun", "failed", "begun", "stored", "failed"]
    assert [line.get("map_instance") for line in lines] == [
        *[str(maps[0].SOPInstanceUID)] * 2, *[str(maps[1].SOPInstanceUID)] * 2, None
    ]  # fmt: skip
    assert "HTTP 403" in lines[1]["reason"]


def test_file_that_is_no_dicom_any_more_is_said_to_be_so(server: DicomWeb, tmp_path: Path) -> None:
    write_maps(tmp_path, "a", "high")
    (tmp_path / "a" / "a_ifim_high.dcm").write_bytes(b"damaged")
    [stored] = store_maps(server, STUDY, tmp_path, [CaseRow("a", "done")])
    assert (stored.status, "cannot be read" in stored.reason) == ("failed", True)
