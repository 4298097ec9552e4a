"""DICOM folders: what is grouped into a volume, where ITK through our reader places it, and what is refused instead."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from monai.transforms import Compose, EnsureChannelFirstd, LoadImage, LoadImaged
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.io import InputError, OpenedSource, Source, read_sidecar
from monai_ifim.io.dicom.header import dicom_files
from monai_ifim.io.dicom.reader import DicomReader, register_dicom_reader
from monai_ifim.io.dicom.volumes import index_dicom
from monai_ifim.io.errors import innermost
from monai_ifim.io.installation import resolve_bundle
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
from synthetic_series import COLUMNS, ORIENTATIONS, ROWS, SPACING, Series, write

Array = npt.NDArray[Any]


def read(path: Path) -> Any:
    loader = LoadImage(image_only=True)
    loader.register(DicomReader())
    return loader(str(path))


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("flipped", [False, True])
def test_volume_has_each_value_at_the_place_that_its_slice_states(name: str, flipped: bool, tmp_path: Path) -> None:
    axes = ORIENTATIONS[name].copy()
    series = Series(axes)
    slices = series.slices()
    if flipped:  # stacked against the normal: places descend as the instances go on
        for k, image in enumerate(slices):
            image.InstanceNumber = len(slices) - k
    image = read(write(tmp_path / "series", slices))
    assert image.shape == series.values.shape
    voxels = np.random.default_rng(6).integers(0, series.values.shape, (60, 3))
    expected = series.world(voxels)
    found = np.rint((np.linalg.inv(image.affine.numpy()) @ np.c_[expected, np.ones(60)].T).T[:, :3]).astype(int)
    placed = (image.affine.numpy() @ np.c_[found, np.ones(60)].T).T[:, :3]
    np.testing.assert_allclose(placed, expected, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(image.numpy()[tuple(found.T)], series.values[tuple(voxels.T)])


def test_slices_of_mixed_rescale_have_their_own_units(tmp_path: Path) -> None:
    series = Series(ORIENTATIONS["oblique"])
    slices = series.slices()
    for k, image in enumerate(slices):
        image.RescaleSlope, image.RescaleIntercept = 0.25 + 0.5 * k, -3.5 * k
    image = read(write(tmp_path / "series", slices))
    slopes, intercepts = 0.25 + 0.5 * np.arange(6), -3.5 * np.arange(6)
    np.testing.assert_allclose(
        np.sort(image.numpy(), axis=None), np.sort(series.values * slopes + intercepts, axis=None), rtol=1e-5
    )


def _two_series(folder: Path) -> tuple[Series, Series]:
    first, second = Series(ORIENTATIONS["axial"]), Series(ORIENTATIONS["oblique"], slices=4)
    write(folder, first.slices())
    for k, image in enumerate(second.slices()):
        image.Modality = "MR"
        image.save_as(folder / f"other{k}")
    return first, second


def test_folder_of_two_series_is_refused_and_both_are_listed_without_a_name(tmp_path: Path) -> None:
    first, second = _two_series(tmp_path / "two")
    with pytest.raises(InputError) as refusal:
        OpenedSource(Source(tmp_path / "two")).check(channels=1)
    said = str(refusal.value)
    assert "2 volumes in one folder; choose with --series UID, or --series all" in said
    assert f"CT, 7 x 5, 6 slices, 0.8 x 1.3 x 2.5 mm: {first.uid}" in said
    assert f"MR, 7 x 5, 4 slices, 0.8 x 1.3 x 2.5 mm: {second.uid}" in said
    assert "CompressedSamples" not in said  # the patient's name


NO_IMAGES = {
    "Comprehensive SR Storage": "1.2.840.10008.5.1.4.1.1.88.33",
    "X-Ray Radiation Dose SR Storage": "1.2.840.10008.5.1.4.1.1.88.67",
    "Key Object Selection Document Storage": "1.2.840.10008.5.1.4.1.1.88.59",
    "Grayscale Softcopy Presentation State Storage": "1.2.840.10008.5.1.4.1.1.11.1",
    "RT Structure Set Storage": "1.2.840.10008.5.1.4.1.1.481.3",
    "Encapsulated PDF Storage": "1.2.840.10008.5.1.4.1.1.104.1",
    "Raw Data Storage": "1.2.840.10008.5.1.4.1.1.66",
    "Segmentation Storage": "1.2.840.10008.5.1.4.1.1.66.4",
    "RT Dose Storage": "1.2.840.10008.5.1.4.1.1.481.2",
}


def _of_class(uid: str, with_pixels: bool) -> Dataset:
    found = Series(ORIENTATIONS["axial"], slices=1).slices()[0]
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = uid
    for name in () if with_pixels else ("PixelData", "Rows", "Columns"):
        delattr(found, name)
    return found


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_holds_no_image_is_passed_over_beside_a_series_and_named_alone(name: str, tmp_path: Path) -> None:
    series = Series(ORIENTATIONS["oblique"])
    other = _of_class(NO_IMAGES[name], with_pixels=name in ("Segmentation Storage", "RT Dose Storage"))
    folder = write(tmp_path / "study", [*series.slices(), other])
    OpenedSource(Source(folder)).check(channels=1)
    (volume,) = index_dicom(dicom_files(folder))
    assert (volume.series, volume.slices) == (series.uid, 6)
    np.testing.assert_array_equal(np.sort(read(folder).numpy(), axis=None), np.sort(series.values, axis=None))
    alone = write(tmp_path / "alone", [other])
    with pytest.raises(InputError, match=rf"it holds no image \({name}\): give the images that it belongs to"):
        OpenedSource(Source(alone)).check(channels=1)


def test_what_should_be_an_image_is_never_passed_over(tmp_path: Path) -> None:
    broken = _of_class("1.2.840.10008.5.1.4.1.1.2", with_pixels=False)
    folder = write(tmp_path / "study", [*Series(ORIENTATIONS["axial"]).slices(), broken])
    with pytest.raises(InputError, match="its DICOM header breaks off, or it is no image"):
        OpenedSource(Source(folder)).check(channels=1)


def test_image_without_a_uid_of_its_own_is_refused_for_that_and_the_cure_works(tmp_path: Path) -> None:
    slices = Series(ORIENTATIONS["axial"]).slices()
    nameless = Series(ORIENTATIONS["axial"], slices=1).slices()[0]
    del nameless.SOPInstanceUID
    folder = write(tmp_path / "nameless", [nameless])
    with pytest.raises(
        InputError, match="states no SOP Instance UID, which every image has: export the image again, or give it one"
    ):
        OpenedSource(Source(folder)).check(channels=1)
    nameless.SOPInstanceUID = slices[0].SOPInstanceUID
    OpenedSource(Source(write(folder, [nameless]))).check(channels=1)


def test_reader_takes_the_series_that_it_is_told_of(tmp_path: Path) -> None:
    for series in _two_series(tmp_path / "two"):
        loader = LoadImage(image_only=True)
        loader.register(DicomReader(series=series.uid))
        image = loader(str(tmp_path / "two"))
        assert image.shape == series.values.shape
        np.testing.assert_array_equal(np.sort(image.numpy(), axis=None), np.sort(series.values, axis=None))


def test_reader_leaves_what_is_no_dicom_to_others(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(OSError, match=r"notes\.txt is not DICOM"):
        DicomReader().read(tmp_path / "notes.txt")


def test_a_slice_without_a_place_or_a_size_is_listed_as_such(tmp_path: Path) -> None:
    slices = Series(ORIENTATIONS["axial"]).slices()
    del slices[1].ImagePositionPatient, slices[4].PixelSpacing
    with pytest.raises(InputError, match=r"1 slice, 0.8 x 1.3 mm, no position.*1 slice, no Pixel Spacing") as refusal:
        OpenedSource(Source(write(tmp_path / "some", slices))).check(channels=1)
    assert "1 x 1 mm" not in str(refusal.value)


def test_folder_of_many_series_is_listed_in_part_and_counted(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for number in range(15):
        Series(ORIENTATIONS["axial"], slices=1).slices()[0].save_as(tmp_path / "many" / f"IM{number}")
    with pytest.raises(InputError, match=r"15 volumes in one folder; .*; and 3 more\.$") as refusal:
        OpenedSource(Source(tmp_path / "many")).check(channels=1)
    assert str(refusal.value).count("CT, 7 x 5, 1 slice, 0.8 x 1.3 mm: ") == 12


@pytest.mark.parametrize("missing", ["PixelSpacing", "ImagePositionPatient"])
def test_slices_without_a_place_or_a_size_cannot_be_resampled(missing: str, tmp_path: Path) -> None:
    slices = Series(ORIENTATIONS["oblique"]).slices()
    for image in slices:
        delattr(image, missing)
    folder = write(tmp_path / "series", slices)
    cure = "state no Pixel Spacing, so their size is not known" if missing == "PixelSpacing" else "6 volumes in one folder"
    with pytest.raises(InputError, match=cure):
        OpenedSource(Source(folder, fix_geometry=True)).check(channels=1)


def test_irregular_volume_whose_pixels_cannot_be_decoded_is_told(tmp_path: Path) -> None:
    slices = Series(ORIENTATIONS["axial"]).slices()
    for k, image in enumerate(slices):
        image.ImagePositionPatient = [0, 3.0 * k, 5.0 * k]
        image.file_meta.TransferSyntaxUID = JPEG2000Lossless
        image.PixelData = encapsulate([b"no JPEG"])
        image["PixelData"].is_undefined_length = True
    source = Source(write(tmp_path / "series", slices), fix_geometry=True)
    with pytest.raises(InputError, match=r"cannot be decoded \(transfer syntax: JPEG 2000 .*uncompressed transfer syntax"):
        OpenedSource(source).readable_path(tmp_path)


def test_series_can_be_chosen_by_uid_or_all_be_cases(tmp_path: Path) -> None:
    first, second = _two_series(tmp_path / "two")
    [chosen] = find_cases([tmp_path / "two"], series=second.uid)
    OpenedSource(chosen.source).check(channels=1)
    (tmp_path / "scratch").mkdir()
    image = read(OpenedSource(chosen.source).readable_path(tmp_path / "scratch"))
    assert image.shape == second.values.shape
    both = find_cases([tmp_path / "two"], series="all")
    assert {case.source.series for case in both} == {first.uid, second.uid}
    assert len({case.name for case in both}) == 2
    assert len({OpenedSource(case.source).digest for case in both}) == 2
    with pytest.raises(InputError, match="no input holds the series 1\\.2\\.3"):
        find_cases([tmp_path / "two"], series="1.2.3")
    with pytest.raises(InputError, match="there is no series 1\\.2\\.3 in it"):
        OpenedSource(Source(tmp_path / "two", series="1.2.3")).check(channels=1)


@pytest.mark.parametrize(
    ("tag", "values"), [("EchoTime", (4.6, 9.2)), ("TemporalPositionIdentifier", (1, 2)), ("EchoNumbers", (1, 2))]
)
def test_echoes_and_times_of_one_series_are_volumes_of_their_own(tag: str, values: tuple[Any, Any], tmp_path: Path) -> None:
    series = Series(ORIENTATIONS["oblique"])
    folder = tmp_path / "echoes"
    for n, value in enumerate(values):
        for k, image in enumerate(series.slices()):
            setattr(image, tag, value)
            folder.mkdir(exist_ok=True)
            image.save_as(folder / f"{n}-{k}")
    volumes = index_dicom(dicom_files(folder))
    assert [volume.slices for volume in volumes] == [6, 6]
    assert [volume.key for volume in volumes] == [f"{series.uid}#1", f"{series.uid}#2"]
    cases = find_cases([folder], series="all")
    assert len(cases) == 2
    OpenedSource(cases[1].source).check(channels=1)
    said = "a series of 2 volumes of 6 slices that differ in [ETI].*; choose one with --frame N, N from 0 to 1, or --series all"
    with pytest.raises(InputError, match=said):
        OpenedSource(Source(folder, series=series.uid)).check(channels=1)


def test_scouts_of_another_orientation_are_no_slices(tmp_path: Path) -> None:
    series = Series(ORIENTATIONS["axial"])
    folder = write(tmp_path / "scouts", series.slices())
    scout = Series(ORIENTATIONS["coronal"], slices=1)
    scout.uid = series.uid
    scout.slices()[0].save_as(folder / "scout")
    assert sorted(volume.slices for volume in index_dicom(dicom_files(folder))) == [1, 6]


def _left_out(slices: list[Dataset]) -> list[Dataset]:
    return [image for k, image in enumerate(slices) if k != 3]


def _repeated(slices: list[Dataset]) -> list[Dataset]:
    slices[2].ImagePositionPatient = slices[3].ImagePositionPatient
    return slices


def _tilted(slices: list[Dataset]) -> list[Dataset]:
    for k, image in enumerate(slices):
        image.ImagePositionPatient = [
            image.ImagePositionPatient[0],
            image.ImagePositionPatient[1] + 0.9 * k,
            image.ImagePositionPatient[2],
        ]
    return slices


@pytest.mark.parametrize(
    ("change", "message"),
    [(_left_out, "not evenly spaced.*2.50 to 5.00"), (_repeated, "same place"), (_tilted, "gantry tilted by 19.8 degrees")],
)
def test_irregular_slices_are_refused_by_check_and_by_the_reader(
    change: Callable[[list[Dataset]], list[Dataset]], message: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "irregular", change(Series(ORIENTATIONS["axial"]).slices()))
    with pytest.raises(InputError, match=message):
        OpenedSource(Source(folder)).check(channels=1)
    with pytest.raises(InputError, match=message):
        read(folder)


def test_film_is_no_volume(tmp_path: Path) -> None:
    image = Series(ORIENTATIONS["axial"], slices=1).slices()[0]
    del image.ImagePositionPatient
    image.NumberOfFrames, image.PixelData = 4, image.PixelData * 4
    image.save_as(tmp_path / "film.dcm")
    with pytest.raises(InputError, match="4 frames without a place in space"):
        OpenedSource(Source(tmp_path / "film.dcm")).check(channels=1)


@pytest.mark.parametrize("reader", [None, "ITKReader", "PydicomReader"])
def test_pipeline_of_any_reader_gets_the_checks_and_reads_other_formats_as_before(
    reader: str | None, tmp_path: Path, write_scan: Callable[..., Path], oblique: Array
) -> None:
    series = Series(ORIENTATIONS["oblique"])
    folder = write(tmp_path / "series", series.slices())
    tilted = write(tmp_path / "tilted", _tilted(Series(ORIENTATIONS["axial"]).slices()))
    pipeline = Compose([LoadImaged("image", reader=reader), EnsureChannelFirstd("image")])
    register_dicom_reader(pipeline)
    register_dicom_reader(pipeline)  # twice is once
    assert sum(isinstance(each, DicomReader) for each in pipeline.transforms[0]._loader.readers) == 1
    assert pipeline({"image": str(folder)})["image"].shape == (1, *series.values.shape)
    with pytest.raises(RuntimeError) as refusal:
        pipeline({"image": str(tilted)})
    assert "gantry tilted" in innermost(refusal.value)
    if reader is None:
        scan = write_scan(tmp_path / "scan.nii.gz", (5, 4, 6), oblique)
        assert pipeline({"image": str(scan)})["image"].shape == (1, 5, 4, 6)
    single = tmp_path / "single.dcm"
    shutil.copy(folder / "IM000", single)
    expected = (1, COLUMNS, ROWS) if reader == "PydicomReader" else (1, COLUMNS, ROWS, 1)
    assert pipeline({"image": str(single)})["image"].shape == expected


REFUSED = {
    "ct_tilt": "not evenly spaced.*1.08 to 7.00",
    "mixed": "2 volumes in one folder.*CT, 512 x 512, [23] slices.*CT, 512 x 512, [23] slices",
}


@pytest.mark.parametrize("name", REFUSED)
def test_real_folders_that_are_no_volume_are_refused(name: str, real_data: Path) -> None:
    with pytest.raises(InputError, match=REFUSED[name]):
        OpenedSource(Source(real_data / "dicom" / name)).check(channels=1)
    with pytest.raises(Exception, match=REFUSED[name]):
        read(real_data / "dicom" / name)


def test_real_series_of_a_mixed_folder_are_two_cases_at_their_places(real_data: Path, tmp_path: Path) -> None:
    cases = find_cases([real_data / "dicom" / "mixed"], series="all")
    shapes = []
    for case in cases:
        OpenedSource(case.source).check(channels=1)
        image = read(OpenedSource(case.source).readable_path(tmp_path))
        shapes.append(image.shape[2])
        headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in (tmp_path / case.source.name).iterdir()]
        stated = np.array(
            [
                [-header.ImagePositionPatient[0], -header.ImagePositionPatient[1], header.ImagePositionPatient[2]]
                for header in headers
            ]
        )
        corners = image.affine.numpy()[:3, 3] + np.arange(image.shape[2])[:, None] * image.affine.numpy()[:3, 2]
        distance = np.linalg.norm(stated[:, None] - corners[None], axis=2)
        assert float(distance.min(axis=1).max()) < 1e-3
    assert sorted(shapes) == [2, 3]


READ = {  # shape, and the length of a voxel's axes in mm
    "693_J2KR.dcm": ((512, 512, 1), None),
    "MR2_J2KI.dcm": ((1024, 1024, 1), None),
    "JLSL_16_15_1_1F.dcm": ((128, 128, 1), None),
    "JPEG-LL.dcm": ((256, 1024, 1), None),
    "OBXXXX1A_rle.dcm": ((800, 600, 1, 3), None),
    "OBXXXX1A_expb.dcm": ((800, 600, 1, 3), None),
    "image_dfl.dcm": ((512, 512, 1), None),
}


@pytest.mark.parametrize("name", READ)
def test_compressed_files_are_decoded(name: str, real_data: Path) -> None:
    path = real_data / "dicom" / "compressed" / name
    OpenedSource(Source(path)).check(channels=1)
    image = read(path)
    assert tuple(image.shape) == READ[name][0]
    assert abs(float(np.linalg.det(image.affine.numpy()[:3, :3]))) > 1e-6
    header = pydicom.dcmread(path, stop_before_pixels=True)
    if "ImagePositionPatient" in header:
        position = np.array(header.ImagePositionPatient, dtype=float) * [-1, -1, 1]
        np.testing.assert_allclose(image.affine.numpy()[:3, 3], position, rtol=0, atol=1e-3)
        along = np.array(header.ImageOrientationPatient[:3], dtype=float) * [-1, -1, 1] * float(header.PixelSpacing[1])
        np.testing.assert_allclose(image.affine.numpy()[:3, 0], along, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_palette_that_itk_cannot_read_is_refused_and_not_read_as_indices(real_data: Path) -> None:
    with pytest.raises(Exception, match="its pixels cannot be decoded"):
        read(real_data / "dicom" / "compressed" / "gdcm-US-ALOKA-16.dcm")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ct_cut_in_header.dcm", "header breaks off"),
        ("ct_cut_in_pixels.dcm", "pixel data break off"),
        ("emri_small_jpeg_2k_lossless_too_short.dcm", "without a place in space"),
    ],
)
def test_broken_files_are_refused_by_name(name: str, message: str, real_data: Path) -> None:
    path = real_data / "dicom" / "broken" / name

    def checked_and_read() -> None:
        OpenedSource(Source(path)).check(channels=1)
        read(path)

    with pytest.raises(Exception, match=message):
        checked_and_read()


def _field(world: Array) -> Array:
    """A linear field over RAS mm, which linear interpolation keeps."""
    return world @ np.array([-11.0, 17.0, 23.0]) + 5.0


@pytest.mark.parametrize("kind", ["tilt", "uneven", "both"])
@pytest.mark.parametrize("name", ["axial", "oblique"])
def test_irregular_volume_is_resampled_onto_an_even_grid_where_that_is_asked_for(kind: str, name: str, tmp_path: Path) -> None:
    series = Series(ORIENTATIONS[name], slices=7)
    if kind != "tilt":
        series.places = np.array([0.0, 2.5, 5.0, 8.9, 11.4, 14.0, 16.5])
    sideways = np.outer(np.arange(7), 1.1 * series.axes[:, 1]) if kind != "uneven" else np.zeros((7, 3))
    slices = series.slices()
    grid = np.stack(np.meshgrid(np.arange(COLUMNS), np.arange(ROWS), indexing="ij"), axis=-1)
    for k, image in enumerate(slices):
        position = series.origin + series.places[k] * series.axes[:, 2] + sideways[k]
        image.ImagePositionPatient = [*position]
        lps = position + grid * np.array(SPACING) @ series.axes[:, :2].T
        values = _field(lps * [-1, -1, 1])
        image.PixelData = np.rint(values).astype(np.int16).T.tobytes()
    folder = write(tmp_path / "irregular", slices)
    [case] = find_cases([folder], fix_geometry=True)
    OpenedSource(case.source).check(channels=1)
    (tmp_path / "scratch").mkdir()
    image = nib.load(OpenedSource(case.source).readable_path(tmp_path / "scratch"))
    axes = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(image.affine[:3, 2]), 2.5, rtol=0, atol=1e-3)
    values = np.asarray(image.dataobj)
    voxels = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"), axis=-1)
    expected = _field(voxels @ image.affine[:3, :3].T + image.affine[:3, 3])
    covered = values > values.min() + 1  # outside of all slices is the smallest value
    assert covered.mean() > 0.2
    np.testing.assert_allclose(values[covered], expected[covered], rtol=0, atol=1.5)


def test_regular_volume_is_left_as_it_is(tmp_path: Path) -> None:
    folder = write(tmp_path / "regular", Series(ORIENTATIONS["oblique"]).slices())
    [case] = find_cases([folder], fix_geometry=True)
    assert OpenedSource(case.source).readable_path(tmp_path) == folder


def test_real_tilted_series_is_decomposed_on_an_even_grid_and_the_sidecar_says_so(real_data: Path, tmp_path: Path) -> None:
    cases = find_cases([real_data / "dicom" / "ct_tilt"], fix_geometry=True)
    bundle = load_bundle(resolve_bundle("lumpy_lesion_detection_3d"))
    settings = RunSettings(tmp_path / "out", CaseSettings("categorical", rank=1, contents=("sensitivity",)))
    [row] = run_cases(bundle, cases, settings, lambda row: None)
    assert row.status == "done", row.reason
    content = read_sidecar(tmp_path / "out" / "ct_tilt" / "ct_tilt_ifim.json")
    assert content["input"]["resampled"] is True
    affine = np.array(content["input"]["affine"])
    np.testing.assert_allclose(np.linalg.norm(affine[:3, 2]), np.median([4.002, 6.999]), rtol=0.3)
    first, last = (pydicom.dcmread(real_data / "dicom" / "ct_tilt" / f"{n:02d}.dcm", stop_before_pixels=True) for n in (6, 23))
    normal = np.cross(first.ImageOrientationPatient[:3], first.ImageOrientationPatient[3:])
    thickness = abs((np.array(last.ImagePositionPatient, float) - np.array(first.ImagePositionPatient, float)) @ normal)
    covered = np.linalg.norm(affine[:3, 2]) * (content["input"]["shape"][2] - 1)
    assert thickness - np.linalg.norm(affine[:3, 2]) < covered <= thickness + 1e-3
    assert [row.status for row in run_cases(bundle, cases, settings, lambda row: None)] == ["kept"]
    again = find_cases([real_data / "dicom" / "ct_tilt"])
    assert [row.status for row in run_cases(bundle, again, settings, lambda row: None)] == ["failed"]
