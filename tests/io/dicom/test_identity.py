"""One patient, one study, one frame of reference in a volume: what is the same, what is not, and that no value is told."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from monai.transforms import Compose, EnsureChannelFirst, LoadImage
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import generate_uid

from monai_ifim.adapt import IFIMDecompose, SaveIFIM
from monai_ifim.io import InputError, OpenedSource, Source
from monai_ifim.io.dicom.header import TAGS, read_dicom_file
from monai_ifim.io.dicom.identity import PATIENT
from monai_ifim.io.dicom.reader import register_dicom_reader
from monai_ifim.io.parametric_map.source import referenced_series
from monai_ifim.run.cases import find_cases, list_entries
from synthetic_series import ORIENTATIONS, Series, write

OWN = {"PatientID": "P-4711", "PatientName": "Doe^Jane", "PatientBirthDate": "19700203", "IssuerOfPatientID": "Ward"}


@pytest.fixture
def slices() -> list[Dataset]:
    """A series of one patient."""
    series = Series(ORIENTATIONS["axial"]).slices()
    frame = generate_uid()
    for image in series:
        image.FrameOfReferenceUID = frame
        for keyword, value in OWN.items():
            setattr(image, keyword, value)
    return series


def check(folder: Path, **further: Any) -> None:
    OpenedSource(Source(folder, **further)).check(1)


def with_slice_2(slices: list[Dataset], folder: Path, **attributes: Any) -> Path:
    """The series with these attributes in its third slice; None removes one."""
    with disable_value_validation():
        for keyword, value in attributes.items():
            if value is None:
                delattr(slices[2], keyword)
            else:
                setattr(slices[2], keyword, value)
        return write(folder, slices)


SAME = [
    {"PatientID": " P-4711 "},
    {"PatientID": "P-4711\0"},
    {"PatientName": "Doe^Jane^^^"},
    {"PatientName": "Doe ^ Jane  "},
    {"PatientName": "DOE^Jane"},
    {"PatientName": "Doe^Jane=="},
    {"PatientName": "Doe^Jane^=^"},
    {"PatientBirthDate": "1970.02.03"},
    {"SpecificCharacterSet": "ISO_IR 192"},
    {"SpecificCharacterSet": "Nonsense"},
    {"SpecificCharacterSet": ["", "ISO 2022 IR 87"]},
    {"StudyDescription": "another", "PatientAge": "054Y", "AccessionNumber": "77"},
]


@pytest.mark.parametrize("attributes", SAME, ids=str)
def test_values_of_one_meaning_are_one_patient(attributes: dict[str, Any], slices: list[Dataset], tmp_path: Path) -> None:
    check(with_slice_2(slices, tmp_path / "study", **attributes))


OTHER = [
    ({"PatientID": "P-4712"}, "Patient ID"),
    ({"PatientID": "p-4711"}, "Patient ID"),
    ({"PatientID": "P-4711\\P-4711"}, "Patient ID"),
    ({"PatientID": None}, "Patient ID"),
    ({"IssuerOfPatientID": ""}, "Issuer of Patient ID"),
    ({"PatientName": "Doe^John"}, "Patient's Name"),
    ({"PatientName": "Doe^^Jane"}, "Patient's Name"),
    ({"PatientName": "Jane^Doe"}, "Patient's Name"),
    ({"PatientName": "Doe^Jane=Ideographic"}, "Patient's Name"),
    ({"PatientName": None}, "Patient's Name"),
    ({"PatientBirthDate": "19700204"}, "Patient's Birth Date"),
    ({"PatientBirthDate": ""}, "Patient's Birth Date"),
    ({"StudyInstanceUID": "1.2.3"}, "Study Instance UID"),
    ({"StudyInstanceUID": None}, "Study Instance UID"),
    ({"FrameOfReferenceUID": "1.2.3"}, "Frame of Reference UID"),
    ({"FrameOfReferenceUID": None}, "Frame of Reference UID"),
    ({"PatientID": "ANON", "PatientName": "ANON", "PatientBirthDate": ""}, "Patient ID, Patient's Name, Patient's Birth Date"),
]


@pytest.mark.parametrize(("attributes", "named"), OTHER, ids=str)
def test_other_values_are_refused_by_name_alone(
    attributes: dict[str, Any], named: str, slices: list[Dataset], tmp_path: Path
) -> None:
    folder = with_slice_2(slices, tmp_path / "study", **attributes)
    with pytest.raises(InputError) as error:
        check(folder)
    said = str(error.value)
    assert said.startswith(
        f"study: its files are not all of one patient, study and frame of reference: they do not agree in {named} (which"
    )
    values = [*OWN.values(), "4712", "John", "ANON", "1.2.3", str(slices[0].StudyInstanceUID), str(slices[0].FrameOfReferenceUID)]
    assert not [value for value in values if value in said]
    with pytest.raises(InputError, match="not all of one patient"):
        check(folder, fix_geometry=True)
    with pytest.raises(InputError, match="not all of one patient"):
        referenced_series(OpenedSource(Source(folder)))


# One name in two character sets, and two names whose bytes are the same.
ENCODED = [
    ("ISO_IR 100", "Müller^Jörg", "ISO_IR 192", "Müller^Jörg", True),
    ("ISO_IR 192", "Mu\N{COMBINING DIAERESIS}ller", "ISO_IR 100", "Müller", True),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", "ISO_IR 192", "Yamada^Tarou=山田^太郎^", True),
    ("ISO_IR 100", "Müller", "ISO_IR 100", "Möller", False),
    ("ISO_IR 192", "Müller", "ISO_IR 192", "Möller", False),
]
RAW = [
    ("Nonsense", b"M\xfcller", "Nonsense", b"M\xfcller ", True),
    ("Nonsense", b"M\xfcller", "Nonsense", b"M\xf6ller", False),
    ("Nonsense", b"M\xfcller", "ISO_IR 100", b"M\xfcller", False),
    ("ISO_IR 192", b"M\xfcller", "ISO_IR 192", b"M\xf6ller", False),  # neither is UTF-8
    ("ISO_IR 100", b"M\xfcller", "ISO_IR 144", b"M\xfcller", False),
]


@pytest.mark.parametrize(("first", "name", "second", "other", "same"), [*ENCODED, *RAW])
def test_names_are_compared_as_they_are_decoded(
    first: Any, name: Any, second: Any, other: Any, same: bool, slices: list[Dataset], tmp_path: Path
) -> None:
    with disable_value_validation():
        for k, image in enumerate(slices):
            image.SpecificCharacterSet, image.PatientName = (second, other) if k == 2 else (first, name)
        folder = write(tmp_path / "study", slices)
    if same:
        check(folder)
        return
    with pytest.raises(InputError, match="agree in Patient's Name"):
        check(folder)


def test_the_cures_work(slices: list[Dataset], tmp_path: Path) -> None:
    folder = with_slice_2(slices, tmp_path / "study", PatientID="P-4712", PatientName="Roe^Richard")
    for path in sorted(folder.iterdir()):
        patient = tmp_path / f"of_{pydicom.dcmread(path).PatientID}"
        patient.mkdir(exist_ok=True)
        shutil.copy(path, patient)
    check(tmp_path / "of_P-4712")
    with pytest.raises(InputError, match="not evenly spaced"):  # of one patient, and one slice of it is missing
        check(tmp_path / "of_P-4711")
    for path in folder.iterdir():
        image = pydicom.dcmread(path)
        image.PatientID, image.PatientName = "X", "X"
        image.save_as(path)
    check(folder)


def test_two_patients_with_series_of_their_own_in_one_folder_are_two_volumes(slices: list[Dataset], tmp_path: Path) -> None:
    other = copy.deepcopy(slices)
    uid, study = generate_uid(), generate_uid()
    for image in other:
        image.SeriesInstanceUID, image.StudyInstanceUID, image.PatientID = uid, study, "P-1"
        image.SOPInstanceUID = generate_uid()
    write(tmp_path / "study", slices)
    for k, image in enumerate(other):
        image.save_as(tmp_path / "study" / f"other{k}")
    cases = find_cases([tmp_path / "study"], series="all")
    assert len(cases) == 2
    for case in cases:
        OpenedSource(case.source).check(1)
    for image in other[3:]:  # now one of the two is mixed
        image.PatientID = "P-2"
        image.save_as(tmp_path / "study" / f"other{other.index(image)}")
    cases = find_cases([tmp_path / "study"], series="all")
    refused = [case.source.series for case in cases if _is_refused(case.source)]
    assert refused == [uid]


def _is_refused(source: Source) -> bool:
    try:
        OpenedSource(source).check(1)
    except InputError:
        return True
    return False


@pytest.mark.parametrize(("keyword", "mixed", "refused"), [
    ("PatientID", False, [True, True]), ("StudyInstanceUID", False, [False, False]), ("StudyInstanceUID", True, [False, True])
])  # fmt: skip
def test_volumes_of_one_series_are_of_one_patient_and_each_of_one_study(
    keyword: str, mixed: bool, refused: list[bool], slices: list[Dataset], tmp_path: Path
) -> None:
    """The slices of two patients at the same places under one series UID: they would be told apart by their time."""
    other = copy.deepcopy(slices)
    write(tmp_path / "study", slices)
    for k, image in enumerate(other):
        image.SOPInstanceUID, image.AcquisitionTime = generate_uid(), "101010"
        image.save_as(tmp_path / "study" / f"other{k}")
    cases = find_cases([tmp_path / "study"], series="all")
    assert len(cases) == 2
    assert not [case for case in cases if _is_refused(case.source)]
    for k, image in enumerate(other[1:] if mixed else other):
        setattr(image, keyword, "1.2.3")
        image.save_as(tmp_path / "study" / f"other{k + mixed}")
    cases = find_cases([tmp_path / "study"], series="all")
    assert sorted(_is_refused(case.source) for case in cases) == refused


def test_frames_of_reference_of_two_volumes_may_differ(slices: list[Dataset], tmp_path: Path) -> None:
    other = copy.deepcopy(slices)
    frame = generate_uid()
    write(tmp_path / "study", slices)
    for k, image in enumerate(other):
        image.SOPInstanceUID, image.AcquisitionTime, image.FrameOfReferenceUID = generate_uid(), "101010", frame
        image.save_as(tmp_path / "study" / f"other{k}")
    assert not [case for case in find_cases([tmp_path / "study"], series="all") if _is_refused(case.source)]


def test_lists_and_writers_of_other_programs_refuse_it_too(
    slices: list[Dataset], make_network: Callable[..., Any], tmp_path: Path
) -> None:
    folder = write(tmp_path / "study", slices)
    image = EnsureChannelFirst()(LoadImage(image_only=True, reader="ITKReader")(folder))  # MONAI's own, which compares nothing
    components = IFIMDecompose(make_network(3), head="categorical")(image)
    SaveIFIM(tmp_path / "out", space="network")(image, components)
    assert len(list_entries(folder)) == 1
    slices[2].PatientID = "P-4712"
    write(folder, slices)
    with pytest.raises(InputError, match="agree in Patient ID"):
        list_entries(folder)
    with pytest.raises(InputError, match="agree in Patient ID"):
        SaveIFIM(tmp_path / "other", space="network")(image, components)
    assert not (tmp_path / "other").exists()
    pipeline = Compose([LoadImage(image_only=True, reader="PydicomReader")])
    register_dicom_reader(pipeline)
    with pytest.raises(RuntimeError) as error:
        pipeline(str(folder))
    assert "agree in Patient ID" in str(error.value.__cause__)


def test_headers_keep_nothing_that_names_the_patient(slices: list[Dataset], tmp_path: Path) -> None:
    slices[0].SpecificCharacterSet = "ISO_IR 192"
    slices[0].save_as(tmp_path / "slice")
    read = read_dicom_file(tmp_path / "slice")
    assert {Tag(name) for name in PATIENT} <= set(TAGS)
    kept = json.dumps({str(element.tag): str(element.value) for element in read.header}) + repr(read)
    assert not [value for value in OWN.values() if value in kept]
    assert np.array_equal(read.header.PixelSpacing, slices[0].PixelSpacing)
