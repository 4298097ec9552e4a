"""Objects that lie among the images of a folder: known by their SOP class, whatever their files are called."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from monai_ifim.io import DicomReader, InputError, OpenedSource, Source
from monai_ifim.io.dicom.header import is_no_image, read_dicom_file
from monai_ifim.io.dicom.object_kinds import NoImageError
from monai_ifim.io.units import HOUNSFIELD
from synthetic_series import ORIENTATIONS, Series, write

PARAMETRIC_MAP, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.30", "1.2.840.10008.5.1.4.1.1.66.7"
SPECTROSCOPY, CSA_NON_IMAGE = "1.2.840.10008.5.1.4.1.1.4.2", "1.3.12.2.1107.5.9.1"
WITHOUT_SIZE = ("Rows", "Columns", "PixelData")


def stranger(uid: str, without: tuple[str, ...] = (), **stated: Any) -> Dataset:
    """A CT slice that says to be of another SOP class."""
    image = Series(ORIENTATIONS["axial"], slices=1).slices()[0]
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = uid
    for keyword in without:
        delattr(image, keyword)
    for keyword, value in stated.items():
        setattr(image, keyword, value)
    return image


def directory() -> Dataset:
    return pydicom.dcmread(str(get_testdata_file("DICOMDIR", download=False)))


def put(place: Path, dataset: Dataset) -> Path:
    dataset.save_as(place)
    return place


def test_the_small_case_of_a_media_directory_is_read(small_cases: Path) -> None:
    opened = OpenedSource(Source(small_cases / "dicom" / "dirfile"))
    opened.check(channels=1)
    assert opened.volume.slices == 20
    assert opened.unit == HOUNSFIELD


@pytest.mark.parametrize("name", ["DICOMDIR", "DIRFILE", "0000", "dicomdir.bak", "zz"])
def test_a_media_directory_of_any_name_is_passed_over(name: str, tmp_path: Path) -> None:
    made = Series(ORIENTATIONS["oblique"])
    folder = write(tmp_path / "series", made.slices())
    put(folder / name, directory())
    opened = OpenedSource(Source(folder))
    opened.check(channels=1)
    assert (opened.volume.slices, opened.unit) == (6, HOUNSFIELD)
    assert opened.reading.described()["passed_over"] == {"Media Storage Directory Storage": 1}
    assert opened.reading.words() == ()
    reader = DicomReader()
    assert reader.get_data(reader.read(folder))[0].shape == made.values.shape


def test_an_image_called_as_directories_are_is_an_image(tmp_path: Path) -> None:
    folder = write(tmp_path / "series", Series(ORIENTATIONS["axial"]).slices())
    (folder / "IM003").rename(folder / "DICOMDIR")
    opened = OpenedSource(Source(folder))
    opened.check(channels=1)
    assert opened.volume.slices == 6


def test_a_directory_that_is_cut_short_is_known_by_its_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "series", Series(ORIENTATIONS["axial"]).slices())
    whole = put(folder / "DICOMDIR", directory()).read_bytes()
    (folder / "DICOMDIR").write_bytes(whole[:150])  # before its SOP class
    OpenedSource(Source(folder)).check(channels=1)
    (folder / "DICOMDIR").rename(folder / "IM900")  # it may be a slice
    with pytest.raises(InputError, match="IM900: its DICOM header"):
        OpenedSource(Source(folder)).check(channels=1)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (stranger(LABEL_MAP), r"it holds no image \(Label Map Segmentation Storage\)"),
        (stranger(SPECTROSCOPY, ("PixelData",)), r"it holds no image \(MR Spectroscopy Storage\)"),
        (stranger(CSA_NON_IMAGE, WITHOUT_SIZE), "it holds no image .a private or unknown SOP class"),
        (stranger(PARAMETRIC_MAP), r"a Parametric Map, which was computed from images .*\(dcm2niix, or"),
        (directory(), "a media directory .DICOMDIR., which is an index of other files and no image: name the folder"),
    ],
    ids=["label map", "spectroscopy", "private", "map", "directory"],
)
def test_a_stranger_is_passed_over_beside_images_and_refused_by_its_kind_alone(kind: Dataset, said: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "series", Series(ORIENTATIONS["axial"]).slices())
    file = put(folder / "A stranger", kind)  # sorted before the images
    opened = OpenedSource(Source(folder))
    opened.check(channels=1)
    assert (opened.volume.slices, opened.unit) == (6, HOUNSFIELD)
    assert is_no_image(file)
    alone = tmp_path / "alone"
    alone.mkdir()
    for path in (file, alone, file.rename(alone / file.name)):
        if not path.exists():
            continue
        with pytest.raises(NoImageError, match=f"A stranger: {said}") as caught:
            OpenedSource(Source(path)).check(channels=1)
        assert str(copy.copy(caught.value)) == str(caught.value)  # as a worker of a cluster hands it on


def test_a_private_object_that_breaks_off_may_have_been_an_image(tmp_path: Path) -> None:
    """Its elements end before those of rows and columns (PS3.5, 7.1: they ascend)."""
    image = stranger(CSA_NON_IMAGE)
    for element in [element for element in image if element.tag > 0x00280000]:
        del image[element.tag]
    with pytest.raises(InputError, match="its DICOM header breaks off, or it is no image"):
        OpenedSource(Source(put(tmp_path / "x.dcm", image))).check(channels=1)


def test_pixels_of_a_class_without_images_are_an_image(tmp_path: Path) -> None:
    """Some programs state a wrong class; what has rows, columns and pixels is read."""
    assert not is_no_image(put(tmp_path / "x.dcm", stranger("1.2.840.10008.5.1.4.1.1.66")))


@pytest.mark.parametrize(
    ("stated", "own"),
    [
        ({"Manufacturer": "monai_ifim contributors", "ManufacturerModelName": "monai_ifim"}, True),
        ({"Manufacturer": "removed", "ContentLabel": "IFIM_EIG01_CH02"}, True),
        ({"Manufacturer": "QIICR", "ContentLabel": "ADC"}, False),
        ({"Manufacturer": "monai_ifim contributors", "ManufacturerModelName": "another"}, False),
    ],
    ids=["maker", "label", "of others", "another model"],
)
def test_maps_beside_a_series_are_counted_and_said(stated: dict[str, str], own: bool, tmp_path: Path) -> None:
    folder = write(tmp_path / "series", Series(ORIENTATIONS["axial"]).slices())
    for k in range(2):
        put(folder / f"map {k}", stranger(PARAMETRIC_MAP, **stated))
    opened = OpenedSource(Source(folder))
    opened.check(channels=1)
    kind = "Parametric Map of an earlier run" if own else "Parametric Map Storage"
    assert opened.reading.described()["passed_over"] == {kind: 2}
    [word] = opened.reading.words()
    assert word.startswith(
        f"2 Parametric Maps of {'an earlier run of monai_ifim' if own else 'another program'} beside the images"
    )
    assert read_dicom_file(folder / "map 0").refusal.kind.own == own  # type: ignore[union-attr]


def test_an_image_with_the_maker_of_the_maps_is_an_image(tmp_path: Path) -> None:
    image = stranger("1.2.840.10008.5.1.4.1.1.2", ManufacturerModelName="monai_ifim", ContentLabel="IFIM_LOW")
    image.Manufacturer = "monai_ifim contributors"
    assert not is_no_image(put(tmp_path / "x.dcm", image))
