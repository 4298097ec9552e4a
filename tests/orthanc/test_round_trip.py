"""`monai-ifim pacs` against a real Orthanc: CT slices are fetched from it and their maps stored in it."""

from __future__ import annotations

import json
import logging
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import ParametricMapStorage, generate_uid
from typer.testing import CliRunner, Result

from fake_pacs import PASSWORD, USER
from monai_ifim.cli.main import app
from monai_ifim.core.errors import IFIMError

ALIKE = ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate", "AccessionNumber")
pytestmark = pytest.mark.usefixtures("blank_figure")


@pytest.fixture(autouse=True)
def signed_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("IFIM_PACS_USER", USER)
    monkeypatch.setenv("IFIM_PACS_PASSWORD", PASSWORD)
    monkeypatch.setenv("COLUMNS", "200")


def pacs(orthanc: Any, study: str, output: Path, *words: Any, bundle: str = "lumpy_lesion_detection_3d") -> Result:
    options = ("--url", orthanc.dicom_web, "--ca-bundle", orthanc.certificate, "--study", study, "--output", output)
    return CliRunner().invoke(app, ["pacs", *map(str, options), "--bundle", bundle, *map(str, words)])


def maps_in(orthanc: Any, study: str) -> dict[str, Dataset]:
    """The Parametric Maps of a study as the server keeps them, by SOP Instance UID, found by QIDO and fetched as files."""
    query = f"/dicom-web/studies/{study}/instances?SOPClassUID={ParametricMapStorage}"
    uids = [entry["00080018"]["Value"][0] for entry in orthanc.ask(query).json()]
    found = {}
    for uid in uids:
        [instance] = orthanc.instances(SOPInstanceUID=uid)
        found[uid] = pydicom.dcmread(BytesIO(orthanc.ask(f"/instances/{instance['ID']}/file").content))
    return found


def check_alike(stored: dict[str, Dataset], output: Path, sources: list[Dataset]) -> None:
    """All maps in OUT are stored on the server, voxel by voxel, under the patient of their images."""
    local = [pydicom.dcmread(path) for path in sorted(output.glob("*/*_ifim_*.dcm"))]
    assert {str(one.SOPInstanceUID) for one in local} == set(stored)
    images = {str(source.SOPInstanceUID) for source in sources}
    for one in local:
        kept = stored[str(one.SOPInstanceUID)]
        np.testing.assert_array_equal(kept.pixel_array, one.pixel_array)
        assert kept.pixel_array.dtype == np.float32
        assert all(kept.get(name) == sources[0].get(name) for name in ALIKE)
        referenced = {str(item.ReferencedSOPInstanceUID) for item in kept.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
        assert referenced == images


def test_slice_goes_round_in_2d(orthanc: Any, real_data: Path, tmp_path: Path) -> None:
    image = pydicom.dcmread(real_data / "dicom" / "ct_plain" / "I100")
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    orthanc.take(image)
    words = ("--rank", 2, "--save", "high,low,sensitivity,eigenvectors")
    result = pacs(orthanc, image.StudyInstanceUID, tmp_path, *words, bundle="mednist_classification")
    assert result.exit_code == 0, result.output
    assert "maps: 5 stored in the study, 0 there already, 0 failed" in result.output
    stored = maps_in(orthanc, image.StudyInstanceUID)
    assert len(stored) == 5
    check_alike(stored, tmp_path, [image])
    again = pacs(orthanc, image.StudyInstanceUID, tmp_path, *words, bundle="mednist_classification")
    assert "maps: 0 stored in the study, 5 there already, 0 failed" in again.output
    assert maps_in(orthanc, image.StudyInstanceUID).keys() == stored.keys()


@pytest.fixture(scope="module")
def study(orthanc: Any, real_data: Path) -> list[Dataset]:
    """Two series of one study: 9 slices of one, at even places, and 3 of the other."""
    even = [pydicom.dcmread(real_data / "dicom" / "ct_plain" / f"I{number}0") for number in range(8, 17)]
    thin = [pydicom.dcmread(real_data / "dicom" / "mixed" / name) for name in ("I690", "I700", "I710")]
    uid = generate_uid()
    for image in (*even, *thin):
        image.StudyInstanceUID = uid
        orthanc.take(image)
    return [*even, *thin]


def test_study_of_two_series_is_listed_and_one_goes_round_in_3d(
    orthanc: Any, study: list[Dataset], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    uid, chosen = study[0].StudyInstanceUID, study[0].SeriesInstanceUID
    refused = pacs(orthanc, uid, tmp_path)
    assert isinstance(refused.exception, IFIMError)
    assert f"CT, series 201, 512 x 512, 9 images: {chosen}" in str(refused.exception)
    result = pacs(orthanc, uid, tmp_path, "--series", chosen, "--rank", 1, "--save", "sensitivity,high")
    assert result.exit_code == 0, result.output
    check_alike(maps_in(orthanc, uid), tmp_path, study[:9])
    written = caplog.text + result.output + str(refused.exception)
    assert not any(word in written for word in (PASSWORD, "Authorization", str(study[0].PatientName)))


def test_all_series_are_cases_and_maps_are_none_and_nothing_is_stored_where_not_wanted(
    orthanc: Any, study: list[Dataset], tmp_path: Path
) -> None:
    uid = study[0].StudyInstanceUID
    before = len(orthanc.instances(StudyInstanceUID=uid))
    result = pacs(orthanc, uid, tmp_path, "--series", "all", "--rank", 1, "--save", "sensitivity", "--no-store")
    assert result.exit_code == 0, result.output
    assert "2 done, 0 failed" in result.output
    assert len(list(tmp_path.glob("CT-*/*_ifim.json"))) == 2
    assert len(orthanc.instances(StudyInstanceUID=uid)) == before


def test_sidecar_and_table_name_nobody(orthanc: Any, study: list[Dataset], tmp_path: Path) -> None:
    chosen = study[-1].SeriesInstanceUID
    assert pacs(orthanc, study[0].StudyInstanceUID, tmp_path, "--series", chosen, "--save", "sensitivity").exit_code == 0
    [sidecar] = tmp_path.glob("*/*_ifim.json")
    written = sidecar.read_text() + (tmp_path / "cases.csv").read_text() + (tmp_path / "run.json").read_text()
    assert json.loads(sidecar.read_text())["input"]["file"] == chosen
    private = [str(study[0].get(name)) for name in ("PatientName", "PatientID", "StudyDate", "SeriesDescription")]
    assert not any(value in written for value in private if value)


def test_wrong_password_and_unknown_authority_end_with_one_line(
    orthanc: Any, study: list[Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = study[0].StudyInstanceUID
    words = ["pacs", "--url", orthanc.dicom_web, "--study", uid, "--bundle", "mednist_classification", "-o", str(tmp_path)]
    untrusted = CliRunner().invoke(app, words)
    assert "its certificate is not trusted" in str(untrusted.exception)
    monkeypatch.setenv("IFIM_PACS_PASSWORD", "wr0ng-one")
    result = pacs(orthanc, uid, tmp_path, bundle="mednist_classification")
    assert isinstance(result.exception, IFIMError)
    assert "HTTP 401" in str(result.exception)
    assert "wr0ng-one" not in str(result.exception) + result.output
    assert not (tmp_path / "dicom").exists()


def test_unknown_study_is_told(orthanc: Any, tmp_path: Path) -> None:
    result = pacs(orthanc, "1.2.3.4", tmp_path, bundle="mednist_classification")
    assert "no images in a study 1.2.3.4" in str(result.exception)


@pytest.mark.parametrize("name", ["693_J2KR.dcm", "MR2_J2KI.dcm", "JPEG-LL.dcm"])
def test_compressed_images_come_as_they_are_kept(orthanc: Any, real_data: Path, tmp_path: Path, name: str) -> None:
    from monai_ifim.io.dicomweb.access import access_to
    from monai_ifim.io.dicomweb.client import DicomWeb
    from monai_ifim.run.pacs import choose_series, pull_series

    image = pydicom.dcmread(real_data / "dicom" / "compressed" / name)
    orthanc.take(image)
    with DicomWeb(access_to(orthanc.dicom_web, orthanc.certificate)) as server:
        chosen = choose_series(server, image.StudyInstanceUID, None if name == "693_J2KR.dcm" else "all")
        pull_series(server, image.StudyInstanceUID, chosen, tmp_path)
    [pulled] = tmp_path.rglob(f"{image.SOPInstanceUID}.dcm")
    copy = pydicom.dcmread(pulled)
    assert copy.file_meta.TransferSyntaxUID == image.file_meta.TransferSyntaxUID
    assert copy.PixelData == image.PixelData
