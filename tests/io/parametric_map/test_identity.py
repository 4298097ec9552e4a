"""What a Parametric Map takes over of its source's patient and study, and when none is written."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from monai_ifim.io import OpenedSource, OutputError, Source
from monai_ifim.io.parametric_map.identity import give_identity
from monai_ifim.io.parametric_map.source import referenced_series
from synthetic_series import ORIENTATIONS, Series, write


@pytest.fixture
def slices() -> list[Dataset]:
    """A series of one patient."""
    series, frame = Series(ORIENTATIONS["axial"], slices=3).slices(), generate_uid()
    for image in series:
        image.FrameOfReferenceUID, image.PatientName, image.PatientID = frame, "Doe^Jane", "P-4711"
    return series


def written(folder: Path, slices: list[Dataset], **attributes: Any) -> Path:
    """The series with these attributes in all of its slices."""
    with disable_value_validation():
        for image in slices:
            for keyword, value in attributes.items():
                setattr(image, keyword, value)
        return write(folder, slices)


def identity(folder: Path) -> Dataset:
    """What a map of the series would state, written and read again."""
    dataset = Dataset()
    with disable_value_validation():
        give_identity(dataset, referenced_series(OpenedSource(Source(folder))).first)
        dataset.save_as(folder.parent / "map", implicit_vr=False, little_endian=True)
        return pydicom.dcmread(folder.parent / "map", force=True)


UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
NO_UIDS = ["Zw0020000e/../../x", "1.2.a", "1..2", ".1.2", "1.2.", "1" * 65, "1.2 3", "1.2\\1.3", "-1.2"]


@pytest.mark.parametrize("uid", NO_UIDS)
@pytest.mark.parametrize("keyword", UIDS)
def test_a_uid_that_is_none_is_refused_and_not_repeated(keyword: str, uid: str, slices: list[Dataset], tmp_path: Path) -> None:
    if keyword == "SOPInstanceUID":
        slices = slices[1:] + slices[:1]  # of a slice that is not the first
        with disable_value_validation():
            slices[0].SOPInstanceUID = uid
            folder = write(tmp_path / "study", slices)
    else:
        folder = written(tmp_path / "study", slices, **{keyword: uid})
    named = {"StudyInstanceUID": "Study Instance UID", "SeriesInstanceUID": "Series Instance UID"}
    named |= {"FrameOfReferenceUID": "Frame of Reference UID", "SOPInstanceUID": "SOP Instance UID"}
    with pytest.raises(OutputError) as error:
        referenced_series(OpenedSource(Source(folder)))
    said = str(error.value)
    assert said == (
        f"study: its {named[keyword]} is no UID, so a Parametric Map cannot belong to it or refer to it: give its files valid "
        "UIDs, those that belong together the same one, or leave --dicom-pm out."
    )
    OpenedSource(Source(folder)).check(1)  # without maps it can be decomposed
    for image in slices:
        setattr(image, keyword, generate_uid() if keyword == "SOPInstanceUID" else "1.2.3")
    assert identity(write(folder, slices)).PatientID == "P-4711"  # the cure works


def test_padding_and_zeros_before_a_number_are_still_a_uid(slices: list[Dataset], tmp_path: Path) -> None:
    folder = written(tmp_path / "study", slices, StudyInstanceUID="1.02.3\0", SeriesInstanceUID="1.2.3.04")
    assert identity(folder).StudyInstanceUID == "1.02.3"


@pytest.mark.parametrize("terms", ["Zw00080005", "latin_1", "ISO-IR 100", "utf8", ["ISO 2022 IR 6", "Zw00080005"]], ids=str)
def test_a_character_set_that_is_none_is_not_copied(terms: Any, slices: list[Dataset], tmp_path: Path) -> None:
    folder = written(tmp_path / "study", slices, SpecificCharacterSet=terms)
    stated = identity(folder)
    assert "SpecificCharacterSet" not in stated
    assert (stated.PatientName, stated.PatientID) == ("Doe^Jane", "P-4711")
    folder = written(folder, slices, PatientName=b"M\xc3\xbcller")
    with pytest.raises(
        OutputError, match="IM.*: its Specific Character Set is none of DICOM's.*another name: correct it"
    ) as error:
        identity(folder)
    assert "Zw" not in str(error.value)
    folder = written(folder, slices, SpecificCharacterSet="ISO_IR 192")  # the cure works
    assert identity(folder).PatientName == "Müller"


RIGHT = [
    ("ISO_IR 192", "Müller^Jörg".encode()),
    ("ISO_IR 100", "Müller^Jörg".encode("latin1")),
    ("ISO_IR 144", "Жданъ".encode("iso8859_5")),
    (["", "ISO 2022 IR 87"], b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
    ("GB18030", "王^小东".encode("gb18030")),
    (None, b"M\xfcller"),  # no set is stated: the bytes are copied as they are
]


@pytest.mark.parametrize(("terms", "name"), RIGHT, ids=str)
def test_names_are_copied_byte_by_byte(terms: Any, name: bytes, slices: list[Dataset], tmp_path: Path) -> None:
    folder = written(tmp_path / "study", slices, SpecificCharacterSet=terms, PatientName=name)
    identity(folder)
    assert name in (tmp_path / "map").read_bytes()
    assert name in next(folder.iterdir()).read_bytes()


WRONG = [("ISO_IR 192", b"M\xfcller"), ("ISO_IR 192", b"\xff\xfe\xfd"), (["", "ISO 2022 IR 149"], b"\x1b$)C\xff\xff\xff")]


@pytest.mark.parametrize(("terms", "name"), WRONG, ids=str)
@pytest.mark.parametrize("keyword", ["PatientName", "PatientID", "IssuerOfPatientID", "AccessionNumber"])
def test_texts_that_their_character_set_does_not_hold_are_refused(
    keyword: str, terms: Any, name: bytes, slices: list[Dataset], tmp_path: Path
) -> None:
    with disable_value_validation():
        for image in slices:
            image.SpecificCharacterSet = terms
            image[keyword] = pydicom.DataElement(keyword, "PN" if keyword == "PatientName" else "UN", name)
        folder = write(tmp_path / "study", slices)
        for file in folder.iterdir():  # as the text that the standard has there
            vr = pydicom.datadict.dictionary_VR(keyword).encode()
            tag = pydicom.tag.Tag(keyword)
            begin = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little")
            content = file.read_bytes()
            long, short = begin + b"UN\0\0" + len(name).to_bytes(4, "little"), begin + vr + len(name).to_bytes(2, "little")
            file.write_bytes(content.replace(long, short))
    with pytest.raises(OutputError, match="not that of its texts"):
        identity(folder)


def test_items_in_another_character_set_are_copied_in_that_of_the_map(slices: list[Dataset], tmp_path: Path) -> None:
    issuer = Dataset()
    issuer.SpecificCharacterSet, issuer.LocalNamespaceEntityID = "ISO_IR 192", "Жданъ"
    for image in slices:
        image.SpecificCharacterSet, image.IssuerOfAccessionNumberSequence = "ISO_IR 144", [copy.deepcopy(issuer)]
    assert identity(write(tmp_path / "study", slices)).IssuerOfAccessionNumberSequence[0].LocalNamespaceEntityID == "Жданъ"
    for image in slices:
        image.SpecificCharacterSet = "ISO_IR 100"  # which has no such letters
    with pytest.raises(OutputError, match="Specific Character Set"):
        identity(write(tmp_path / "study", slices))


@pytest.mark.parametrize(("stated", "copied"), [("R", "R"), ("L", "L"), ("Zw00200060 left knee", None), ("r", None), ("", None)])
def test_a_laterality_that_is_none_is_not_copied(stated: str, copied: str | None, slices: list[Dataset], tmp_path: Path) -> None:
    assert identity(written(tmp_path / "study", slices, Laterality=stated)).Laterality in (copied, copied or "")


def test_a_file_that_became_another_patients_is_refused(slices: list[Dataset], tmp_path: Path) -> None:
    folder = write(tmp_path / "study", slices)
    opened = OpenedSource(Source(folder))
    assert opened.volume.slices == 3
    for image in slices:
        image.PatientID = "P-1"
    write(folder, slices)
    with pytest.raises(OutputError, match="is of another patient or study than a moment ago"):
        referenced_series(opened)
    assert referenced_series(OpenedSource(Source(folder))).first.PatientID == "P-1"
