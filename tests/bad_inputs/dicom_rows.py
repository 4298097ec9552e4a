"""Rows of DICOM folders and files that are no volume, or incomplete."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG4HP41, JPEGLosslessSV1, generate_uid

from bad_inputs.attempt import Attempt, Row, bad_input
from synthetic_mosaics import Tiles, siemens
from synthetic_series import ORIENTATIONS, Series, write

PIXELS = b"\xe0\x7f\x10\0"  # the tag (7FE0,0010)
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def series(name: str = "axial", **further: Any) -> list[Dataset]:
    return Series(ORIENTATIONS[name], **further).slices()


def each(change: Callable[[int, Dataset], Any]) -> Callable[[Attempt], Attempt]:
    """A series whose slices are changed one by one, each with its number."""

    def make(folder: Path) -> Path:
        slices = series()
        for k, image in enumerate(slices):
            change(k, image)
        return write(folder / "bad", slices)

    return bad_input(make)


def of_slice_2(change: Callable[[Dataset], Any]) -> Callable[[Attempt], Attempt]:
    return each(lambda k, image: change(image) if k == 2 else None)


def stated(**attributes: Any) -> Callable[[Attempt], Attempt]:
    """A series with this attribute in all slices."""
    return each(lambda _, image: [setattr(image, name, value) for name, value in attributes.items()])


def beside(*strangers: Dataset) -> Callable[[Path], Path]:
    """A good series with other objects in its folder."""

    def make(folder: Path) -> Path:
        found = write(folder / "bad", series())
        for k, image in enumerate(strangers):
            image.save_as(found / f"stranger{k}")
        return found

    return make


def with_a_copy(folder: Path) -> Path:
    """A slice under two SOP Instance UIDs."""
    slices = series()
    again = copy.deepcopy(slices[2])
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return write(folder / "bad", [*slices, again])


def with_another_of_one_uid(folder: Path) -> Path:
    """Two files of one SOP Instance UID, and of different pixels."""
    slices = series()
    again = copy.deepcopy(slices[2])
    again.PixelData = bytes(len(again.PixelData))
    return write(folder / "bad", [*slices, again])


def two_times(folder: Path) -> Path:
    """Six slices at two times, of which the second lacks one."""
    slices = series()
    for number, image in enumerate([*slices, *(later := copy.deepcopy(slices))], start=1):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.InstanceNumber = number
    return write(folder / "bad", [*slices, *later[:3], *later[4:]])


def with_a_gap(folder: Path) -> Path:
    slices = series()
    del slices[3]
    return write(folder / "bad", slices)


def uneven(folder: Path) -> Path:
    made = Series(ORIENTATIONS["axial"])
    made.places = np.array([0.0, 2.5, 5.0, 8.9, 11.4, 14.0])
    return write(folder / "bad", made.slices())


def tilt(k: int, image: Dataset) -> None:
    across, along, height = image.ImagePositionPatient
    image.ImagePositionPatient = [across, along + 0.9 * k, height]


def turn(k: int, image: Dataset) -> None:
    if k > 3:
        image.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


def mosaic(folder: Path) -> Path:
    """As anonymising leaves it."""
    image = siemens(Tiles(ORIENTATIONS["oblique"], 7))
    image.remove_private_tags()
    return write(folder / "bad", [image])


def enlarge(image: Dataset) -> None:
    image.Rows *= 2
    image.PixelData *= 2


def screenshot() -> Dataset:
    image = series(slices=1)[0]
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = SECONDARY_CAPTURE
    image.SeriesInstanceUID, image.Modality = generate_uid(), "OT"
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(image, name)
    return image


def plan() -> Dataset:
    return pydicom.dcmread(str(get_testdata_file("rtplan.dcm", download=False)))


def directory(folder: Path) -> Path:
    (folder / "bad").mkdir()
    shutil.copy(str(get_testdata_file("DICOMDIR", download=False)), folder / "bad" / "DICOMDIR")
    return folder / "bad"


def encoded(syntax: str) -> Callable[[Attempt], Attempt]:
    """A series whose header says that its pixels are compressed."""

    def change(_: int, image: Dataset) -> None:
        image.file_meta.TransferSyntaxUID = syntax
        image.PixelData = encapsulate([b"\0\0\0\1 no picture " * 4])
        image["PixelData"].is_undefined_length = True

    return each(change)


def of_unknown_syntax(folder: Path) -> Path:
    found = write(folder / "bad", series())
    for file in found.iterdir():
        file.write_bytes(file.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0"))
    return found


def cut(place: Callable[[bytes], int]) -> Callable[[Attempt], Attempt]:
    """A series with one truncated file."""

    def make(folder: Path) -> Path:
        found = write(folder / "bad", series())
        content = (found / "IM003").read_bytes()
        (found / "IM003").write_bytes(content[: place(content)])
        return found

    return bad_input(make)


def no_numbers(image: Dataset) -> None:
    del image.ImagePositionPatient
    image.add_new(0x00200032, "LO", ["here", "there", "nowhere"])


def words_as_dicom(folder: Path) -> Path:
    (folder / "bad.dcm").write_text("no DICOM, only words")
    return folder / "bad.dcm"


def without_dicom(folder: Path) -> Path:
    (folder / "bad").mkdir()
    (folder / "bad" / "note.txt").write_text("nothing")
    return folder / "bad"


TWO = "bad: 2 volumes in one folder; choose with --series UID, or --series all. It holds CT, ... OT, ..."
TWO_OF_ONE_KIND = "bad: 2 volumes in one folder; choose with --series UID, or --series all. It holds CT, ...; CT, ..."
BREAKS_OFF = "...: its DICOM header breaks off, or it is no image: copy the file again, or leave it out."
PIXELS_BREAK_OFF = "IM...: its pixel data break off: copy the file again, or leave it out."
UNEVEN = (
    "bad: the slices are not evenly spaced: one lies {} mm off its place between the first and the last (gaps of 2.50 to {} mm; "
    "is one missing?): put evenly spaced slices into a folder of their own, or resample the volume onto an even grid with "
    "--fix-geometry."
)
NOT_DECODED = (
    "bad: its pixels cannot be decoded (transfer syntax: {}...): convert the file to an uncompressed transfer syntax (dcmconv, "
    "gdcmconv), or export it again."
)

ROWS = [
    Row("two series in one folder", bad_input(beside(*series("oblique", slices=4))), "failed", TWO_OF_ONE_KIND),
    Row(
        "slices of two patients", of_slice_2(lambda image: setattr(image, "PatientID", "another")), "failed",
        "bad: its files are not all of one patient, study and frame of reference: they do not agree in Patient ID (which some "
        "may lack). Put the files of each into a folder of their own; if they are of one, state it alike in all of them (...).",
    ),
    Row(
        "a slice that is there twice", bad_input(with_a_copy), "failed",
        "bad: two slices lie at the same place: leave one of them out.",
    ),
    Row(
        "two files of one instance that differ", bad_input(with_another_of_one_uid), "failed",
        "IM... and IM...: two files of one SOP Instance UID, which differ in places, sizes, pixels or transfer syntax: leave one "
        "of them out.",
    ),
    Row(
        "a time series that lacks a slice", bad_input(two_times), "failed",
        "bad: it holds 2 volumes of unequal sizes by Instance Number (6 and 5 slices). A slice is missing or one too many: copy "
        "the series again, or put the slices of each volume into a folder of their own.",
    ),
    Row("a slice that is missing", bad_input(with_a_gap), "failed", UNEVEN.format("1.25", "5.00")),
    Row("uneven spacing", bad_input(uneven), "failed", UNEVEN.format("0.60", "3.90")),
    Row(
        "a mosaic without its private elements", bad_input(mosaic), "failed",
        "bad: a mosaic, one picture that holds the slices of a volume side by side, and its header does not state how many "
        "(NumberOfImagesInMosaic, a private element of Siemens): get the files as the scanner wrote them, with the private "
        "elements that anonymising removes, and give these, or the NIfTI file that dcm2niix makes of them.",
    ),
    Row(
        "a tilted gantry", each(tilt), "failed",
        "bad: the slices are shifted against each other (4.50 mm over the volume, a gantry tilted by 19.8 degrees): resample the "
        "volume onto an orthogonal grid with --fix-geometry, or correct the tilt with dcm2niix.",
    ),
    Row("slices of two orientations", each(turn), "failed", TWO_OF_ONE_KIND),
    Row("slices of two sizes", of_slice_2(enlarge), "failed", TWO_OF_ONE_KIND),
    Row("a secondary capture beside the series", bad_input(beside(screenshot())), "failed", TWO.replace("CT, ... OT", "...OT")),
    Row(
        "a plan or report instead of a series", bad_input(lambda folder: write(folder / "bad", [plan()]) / "IM000"), "failed",
        "IM000: it holds no image (RT Plan Storage): give the images that it belongs to.",
    ),
    Row(
        "a DICOMDIR and nothing else", bad_input(directory), "failed",
        "...: no image and no DICOM series in it, but a DICOMDIR, which is an index: copy the images that it names, too.",
    ),
    Row(
        "a DICOMDIR named as the input", bad_input(lambda folder: directory(folder) / "DICOMDIR"), "failed",
        "DICOMDIR: a media directory (DICOMDIR), which is an index of other files and no image: name the folder that holds "
        "those.",
    ),
    Row(
        "a DICOM file without pixel data", of_slice_2(lambda image: delattr(image, "PixelData")), "failed",
        "IM...: a DICOM file without pixel data: export the image again, or leave the file out.",
    ),
    Row("a DICOM file that ends in its pixels", cut(lambda content: content.rindex(PIXELS) + 30), "failed", PIXELS_BREAK_OFF),
    Row(
        "fewer pixels than the size needs", of_slice_2(lambda image: setattr(image, "PixelData", image.PixelData[:20])), "failed",
        PIXELS_BREAK_OFF,
    ),
    Row("a DICOM file that ends in its header", cut(lambda _: 900), "failed", BREAKS_OFF),
    Row("an unsupported transfer syntax", encoded(MPEG4HP41), "failed", NOT_DECODED.format("MPEG-4")),
    Row("an unknown transfer syntax", bad_input(of_unknown_syntax), "failed", NOT_DECODED.format("1.2.840.10008.9.9.9")),
    Row("compressed pixels that are damaged", encoded(JPEGLosslessSV1), "failed", NOT_DECODED.format("JPEG Lossless")),
    Row("a folder without a DICOM file", bad_input(without_dicom), "failed", "...: no image and no DICOM series in it."),
    Row(
        "a text under a DICOM file's name", bad_input(words_as_dicom), "failed",
        "bad.dcm: cannot be read (no format that is known): copy it again, or convert it to NIfTI.",
    ),
    Row(
        "a Pixel Spacing of zero", stated(PixelSpacing=[0, 0]), "failed",
        "bad: its Pixel Spacing is 0 x 0 mm, and must be above zero: export the images again, or correct it (dcmodify).",
    ),
    Row(
        "slices without Pixel Spacing", each(lambda _, image: delattr(image, "PixelSpacing")), "failed",
        "bad: its slices state no Pixel Spacing, so their size is not known: export the images again.",
    ),
    Row(
        "directions that are none", stated(ImageOrientationPatient=[2, 0, 0, 0, 1, 0]), "failed",
        "bad: its Image Orientation is not a pair of unit vectors at right angles, so its slices have no direction: export the "
        "images again.",
    ),
    Row(
        "slices without a place", each(lambda _, image: delattr(image, "ImagePositionPatient")), "failed",
        "bad: 6 volumes in one folder; choose with --series UID, or --series all. It holds ...",
    ),
    Row(
        "words instead of numbers", of_slice_2(no_numbers), "failed",
        "IM...: places, directions or spacings in its DICOM header are not numbers: export the image again.",
    ),
    Row(
        "a Rescale Slope of 0", stated(RescaleSlope=0), "failed",
        "IM...: its Rescale Slope is 0, which leaves nothing of the image: export the image again.",
    ),
]  # fmt: skip
