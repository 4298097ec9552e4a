"""DICOM Parametric Maps: highdicom and pydicom read back the voxels of the NIfTI files at the same places, dciodvfy finds no
error, they belong to the patient and the series that they are of, and say how they were made."""

from __future__ import annotations

import copy
import hashlib
import io
import itertools
import logging
import re
import shlex
import shutil
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from highdicom.pm import ParametricMap
from monai.transforms import LoadImage
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from typer.testing import CliRunner

from monai_ifim.cli.main import app
from monai_ifim.io import CaseMaps, DicomReader, GeometryError, InputError, MapContent, OpenedSource, OutputError, Source
from monai_ifim.io.dicom.object_kinds import NoImageError
from monai_ifim.io.nifti import write_volume
from monai_ifim.io.parametric_map.source import referenced_series
from monai_ifim.io.parametric_map.write import write_parametric_maps
from synthetic_mosaics import Tiles, siemens
from synthetic_series import ORIENTATIONS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "parametric_maps.md").read_text(encoding="utf-8")
Array = npt.NDArray[Any]
CONTENTS = ("high", "low", "sensitivity", "eigenvectors")
SHAPE = (7, 5, 6)
SPACING, GAP = (0.8, 1.3), 2.5
ORIGIN = np.array([-31.0, 12.5, 70.25])  # LPS mm
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
HOUNSFIELD = {"maps": "Hounsfield units", "sensitivity": "nats per (Hounsfield units)^2"}
PATIENT = "Yamada^Tarou=山田^太郎=やまだ^たろう"
TIMES = ("InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime", "ContributionDateTime")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:highdicom", "ignore::UserWarning:pydicom")


@pytest.fixture(scope="module")
def axes(oblique: Array) -> Array:
    """Directions of the source's columns, rows and slices, LPS: oblique and right-handed."""
    columns, rows = (oblique[:3, i] / np.linalg.norm(oblique[:3, i]) for i in (0, 1))
    return np.column_stack([columns, rows, np.cross(columns, rows)])


@pytest.fixture(scope="module")
def native(axes: Array) -> Array:
    """The source's grid as its reader gives it, RAS."""
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = axes * [*SPACING, GAP], ORIGIN
    return TO_RAS @ lps


@pytest.fixture(scope="module")
def slices(axes: Array) -> list[Dataset]:
    """A CT series, with personal data wherever a scanner may put some."""
    uids = [generate_uid() for _ in range(3)]
    return [_slice(axes, k, uids) for k in range(SHAPE[2])]


def _slice(axes: Array, k: int, uids: list[str]) -> Dataset:
    image = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    image.remove_private_tags()
    image.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = PATIENT, "ID-4711", "19520229", "M"
    image.IssuerOfPatientID, image.AccessionNumber, image.StudyID, image.SeriesNumber = "Ward 9", "A-99", "S-1", 12
    image.ReferringPhysicianName = "Secret^Referrer"
    for keyword in ("PatientComments", "StudyDescription", "SeriesDescription", "InstitutionName", "ImageComments"):
        setattr(image, keyword, f"Hidden {keyword}")
    for keyword in ("OperatorsName", "PerformingPhysicianName", "OtherPatientNames", "PatientMotherBirthName"):
        setattr(image, keyword, "Hidden^Person")
    image.StationName, image.InstitutionAddress, image.DeviceSerialNumber = "Hidden station", "Hidden street", "Hidden serial"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = uids
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.InstanceNumber, image.Columns, image.Rows = k + 1, SHAPE[0], SHAPE[1]
    image.PixelSpacing, image.SliceThickness = [SPACING[1], SPACING[0]], GAP
    image.ImageOrientationPatient = [*axes[:, 0], *axes[:, 1]]
    image.ImagePositionPatient = [*(ORIGIN + k * GAP * axes[:, 2])]
    image.PixelData = np.full(SHAPE[1::-1], k, np.int16).tobytes()
    return image


@pytest.fixture
def series(slices: list[Dataset], tmp_path: Path) -> Source:
    return Source(write(tmp_path / "series", slices))


def write(folder: Path, datasets: Sequence[Dataset]) -> Path:
    folder.mkdir()
    for name, k in enumerate(np.random.default_rng(5).permutation(len(datasets))):
        datasets[k].save_as(folder / f"IM{name:03d}")
    return folder


def maps_on(affine: Array, shape: tuple[int, ...], channels: int = 1, scale: float = 1.0) -> CaseMaps:
    """Random maps; the sensitivity is nowhere negative."""
    random = np.random.default_rng(8)
    given, high, low = (random.normal(size=(channels, *shape)).astype(np.float32) for _ in range(3))
    sensitivity = random.gamma(0.5, size=(channels, *shape)).astype(np.float32)
    eigenvectors = random.normal(size=(2, channels, *shape)).astype(np.float32)
    return CaseMaps(affine, given, high, low, sensitivity, eigenvectors, scale)


def each_map(maps: CaseMaps) -> Iterator[tuple[str, MapContent, Array]]:
    """(name, content, values [*spatial]) of every map and channel, as the case's files are named."""
    kinds = [(name, name, None, getattr(maps, name)) for name in ("input", "high", "low", "sensitivity")]
    kinds += [(f"eigenvector-{i:02d}", "eigenvector", i, vector) for i, vector in enumerate(maps.eigenvectors, start=1)]
    for name, kind, component, values in kinds:
        for i, channel in enumerate(values, start=1):
            yield name if i == 1 else f"{name}_channel-{i:02d}", MapContent(kind, component, i), channel


def sidecar_of(maps: CaseMaps, **changed: Any) -> dict[str, Any]:
    files = [
        {
            "file": f"scan_ifim_{name}.nii.gz",
            **asdict(content),
            "window": [-0.25, 0.75],
            "scale": maps.sensitivity_scale if content.kind == "sensitivity" else 1.0,
        }
        for name, content, _ in each_map(maps)
    ]
    return {
        "generator": {"name": "monai_ifim"},
        "model": {"bundle": "lumpy", "version": "1.2", "weights_sha256": "ab" * 32, "head": "categorical"},
        "method": "exact",
        "settings": {"energy": 0.99, "rank": None},
        "rank": 2,
        "metric": None,
        "space": {"name": "native"},
        "units": {"maps": "network input intensity", "sensitivity": "nats per (network input intensity)^2"},
        "files": files,
    } | changed


def write_all(folder: Path, source: Source, maps: CaseMaps, **changed: Any) -> dict[str, Path]:
    written = write_parametric_maps(folder, referenced_series(OpenedSource(source)), maps, CONTENTS, sidecar_of(maps, **changed))
    assert written == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in written}
    return {name.removeprefix("scan_ifim_").removesuffix(".dcm"): folder / name for name in written}


def read(path: Path) -> ParametricMap:
    return ParametricMap.from_dataset(pydicom.dcmread(path))


def check_against_nifti(path: Path, nifti: Path) -> None:
    """Every voxel, bit by bit, at the same place: as highdicom builds the volume, and as each frame's header says."""
    image = nib.load(nifti)
    voxels = np.indices(image.shape).reshape(3, -1).T
    world, expected = nib.affines.apply_affine(image.affine, voxels), np.asarray(image.dataobj).reshape(-1)
    volume = read(path).get_volume(apply_real_world_transform=False, dtype=np.float32)
    _check_volume(volume.array, TO_RAS @ volume.affine, world, expected)
    frames, affine = by_frames(pydicom.dcmread(path))
    _check_volume(frames, TO_RAS @ affine, world, expected)


def check_against_dcm2niix(path: Path, nifti: Path, folder: Path) -> None:
    """A converter by other hands finds the same numbers at the same places."""
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not installed (Debian package dcm2niix)")
    folder.mkdir()
    shutil.copy(path, folder)
    subprocess.run(["dcm2niix", "-b", "n", "-z", "n", "-o", str(folder), str(folder)], check=True, capture_output=True)
    [converted] = folder.glob("*.nii")
    theirs, ours = nib.load(converted), nib.load(nifti)
    world = nib.affines.apply_affine(ours.affine, np.indices(ours.shape).reshape(3, -1).T)
    _check_volume(np.asarray(theirs.dataobj), theirs.affine, world, np.asarray(ours.dataobj).reshape(-1))


def _check_volume(array: Array, affine: Array, world: Array, expected: Array) -> None:
    assert array.size == expected.size
    found = np.rint(nib.affines.apply_affine(np.linalg.inv(affine), world)).astype(int)
    np.testing.assert_allclose(nib.affines.apply_affine(affine, found), world, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(array[tuple(found.T)].view(np.uint32), expected.view(np.uint32))


def by_frames(dataset: Dataset) -> tuple[Array, Array]:
    """Pixels [slice, row, column] in the order of the file, and the LPS mm of those indices, by the attributes' definitions
    (PS3.3, C.7.6.2.1.1). The frames must follow each other evenly along their normal."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    rows, columns = (float(size) for size in shared.PixelMeasuresSequence[0].PixelSpacing)
    frames = dataset.PerFrameFunctionalGroupsSequence
    positions = np.array([frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames], dtype=float)
    affine = np.eye(4)
    affine[:3, 2], affine[:3, 1], affine[:3, 3] = orientation[:3] * columns, orientation[3:] * rows, positions[0]
    normal = np.cross(orientation[:3], orientation[3:])
    affine[:3, 0] = (positions[-1] - positions[0]) / (len(positions) - 1) if len(positions) > 1 else normal
    even = positions[0] + np.arange(len(positions))[:, None] * affine[:3, 0]
    np.testing.assert_allclose(positions, even, rtol=0, atol=1e-3)
    assert affine[:3, 0] @ normal > 0
    places = [np.atleast_1d(frame.FrameContentSequence[0].DimensionIndexValues).tolist() for frame in frames]
    assert places == [[place] for place in range(1, len(positions) + 1)]
    return dataset.pixel_array.reshape(len(positions), dataset.Rows, dataset.Columns), affine


def grids(native: Array, turned: Any) -> dict[str, tuple[Array, tuple[int, ...]]]:
    """Grids that maps may lie on: their affine in RAS and their shape."""
    permuted = native[:, [2, 0, 1, 3]]
    reversed_rows = native.copy()
    reversed_rows[:3, 3] += (SHAPE[1] - 1) * native[:3, 1]
    reversed_rows[:3, 1] *= -1
    return {
        "source": (native, SHAPE),
        "left-handed": (reversed_rows, SHAPE),
        "permuted": (permuted, (SHAPE[2], SHAPE[0], SHAPE[1])),
        "turned": (turned((2.1, 1.4, 3.3), (-0.4, 0.2, 0.5), flip=True), (4, 9, 5)),
        "single slice": (native, (7, 5, 1)),
        "2D": (native, (7, 5)),
        "plane across": (native[:, [0, 2, 1, 3]], (7, 6)),
    }


@pytest.fixture(params=["source", "left-handed", "permuted", "turned", "single slice", "2D", "plane across"])
def grid(request: pytest.FixtureRequest, native: Array, turned: Any) -> tuple[Array, tuple[int, ...]]:
    return grids(native, turned)[request.param]


@pytest.fixture(scope="module")
def dciodvfy() -> Any:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")

    def errors(path: Path) -> list[str]:
        said = subprocess.run(["dciodvfy", str(path)], check=False, capture_output=True, text=True, errors="replace")
        lines = (said.stdout + said.stderr).splitlines()
        assert "ParametricMap" in lines, "it knows what it looks at"
        return [line for line in lines if line.startswith("Error")]

    return errors


def test_a_map_is_known_as_one_of_this_program_and_its_nifti_is_the_image(series: Source, native: Array, tmp_path: Path) -> None:
    """The refusal's cures: the NIfTI file that the run wrote beside it, or another program's conversion."""
    maps = maps_on(native, SHAPE)
    written = write_all(tmp_path, series, maps)
    for path in written.values():
        with pytest.raises(
            NoImageError, match="a Parametric Map of an earlier run of monai_ifim: .* or the NIfTI file that the"
        ) as caught:
            OpenedSource(Source(path)).check(channels=1)
        assert caught.value.kind.own
    write_volume(tmp_path / "beside.nii.gz", maps.high[0], maps.affine)
    OpenedSource(Source(tmp_path / "beside.nii.gz")).check(channels=1)
    volume = read(written["high"]).get_volume(apply_real_world_transform=False)
    nib.save(nib.Nifti1Image(volume.array, TO_RAS @ volume.affine), tmp_path / "converted.nii")
    OpenedSource(Source(tmp_path / "converted.nii")).check(channels=1)


def test_voxels_and_places_are_those_of_the_nifti(grid: tuple[Array, tuple[int, ...]], series: Source, tmp_path: Path) -> None:
    maps = maps_on(*grid, channels=2)
    written = write_all(tmp_path / "out", series, maps)
    for name, content, values in each_map(maps):
        if content.kind == "input":
            assert name not in written
            continue
        nifti = tmp_path / "map.nii.gz"
        write_volume(nifti, values, maps.affine)
        check_against_nifti(written[name], nifti)
    assert len(written) == 10  # high, low, sensitivity and two eigenvectors, of two channels each


@pytest.mark.parametrize("name", ["source", "left-handed", "permuted", "turned"])
def test_dcm2niix_finds_the_same_map(name: str, native: Array, turned: Any, series: Source, tmp_path: Path) -> None:
    maps = maps_on(*grids(native, turned)[name])
    written = write_all(tmp_path / "out", series, maps)
    write_volume(tmp_path / "high.nii.gz", maps.high[0], maps.affine)
    check_against_dcm2niix(written["high"], tmp_path / "high.nii.gz", tmp_path / "converted")


def test_dciodvfy_finds_no_error(grid: tuple[Array, tuple[int, ...]], series: Source, tmp_path: Path, dciodvfy: Any) -> None:
    for path in write_all(tmp_path / "out", series, maps_on(*grid)).values():
        assert dciodvfy(path) == []


def test_strict_pydicom_has_nothing_to_say(native: Array, series: Source, tmp_path: Path) -> None:
    mode = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.RAISE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for path in write_all(tmp_path / "out", series, maps_on(native, SHAPE)).values():
                dataset = pydicom.dcmread(path)
                assert len(list(dataset.iterall())) > 100
                dataset.save_as(io.BytesIO(), enforce_file_format=True)
    finally:
        pydicom.config.settings.reading_validation_mode = mode


def test_maps_are_of_the_patient_study_and_frame_of_reference_and_carry_no_more(
    native: Array, slices: list[Dataset], series: Source, tmp_path: Path, capfd: Any, caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        written = write_all(tmp_path / "out", series, maps_on(native, SHAPE))
    raw = slices[0]
    for path in written.values():
        dataset = pydicom.dcmread(path)
        for keyword in (
            "SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
            "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
            "FrameOfReferenceUID",
        ):  # fmt: skip
            assert dataset[keyword].value == raw[keyword].value, keyword
        assert dataset.SeriesInstanceUID != raw.SeriesInstanceUID
        assert b"Hidden" not in path.read_bytes()
    said = capfd.readouterr()
    told = "".join([said.out, said.err, caplog.text, *(str(each.message) for each in warned)])
    assert not [word for word in ("Yamada", "山田", "4711", "Hidden", "Secret") if word in told]


def test_odd_headers_are_taken_over_as_they_are(native: Array, slices: list[Dataset], tmp_path: Path, capfd: Any) -> None:
    with pydicom.config.disable_value_validation():
        odd = copy.deepcopy(slices)
        for image in odd:
            image.PatientName, image.PatientSex, image.StudyDate, image.PatientBirthDate = (
                "NAMELESS",
                "unclear",
                "2004.01.19",
                "?",
            )
            image.StudyTime, image.PatientID = "noon", "x" * 70
            image.SeriesNumber = None
            del image.AccessionNumber, image.SliceThickness
        folder = write(tmp_path / "odd", odd)
        written = write_all(tmp_path / "out", Source(folder), maps_on(native, SHAPE))
        dataset = pydicom.dcmread(written["high"])
        assert (dataset.PatientName, dataset.PatientSex, dataset.StudyTime) == ("NAMELESS", "unclear", "noon")
        assert (dataset.PatientID, dataset.AccessionNumber) == ("x" * 70, "")
        assert int(dataset.SeriesNumber) == 9001
    said = capfd.readouterr()
    assert "NAMELESS" not in said.out + said.err


def test_frames_name_the_source_frame_in_their_plane(
    native: Array, slices: list[Dataset], series: Source, turned: Any, tmp_path: Path
) -> None:
    by_uid = {image.SOPInstanceUID: image for image in slices}
    dataset = pydicom.dcmread(write_all(tmp_path / "same", series, maps_on(native, SHAPE))["low"])
    [whole] = dataset.ReferencedSeriesSequence
    assert whole.SeriesInstanceUID == slices[0].SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in whole.ReferencedInstanceSequence} == set(by_uid)
    assert {item.ReferencedSOPInstanceUID for item in dataset.SourceImageSequence} == set(by_uid)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        [source] = frame.DerivationImageSequence[0].SourceImageSequence
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(by_uid[source.ReferencedSOPInstanceUID].ImagePositionPatient, position, atol=1e-3)
        assert source.ReferencedSOPClassUID == slices[0].SOPClassUID
        assert source.SpatialLocationsPreserved == "YES"
        assert frame.DerivationImageSequence[0].DerivationCodeSequence[0].CodeMeaning == "Input-dependent Fisher information"

    coarse = native @ np.diag([1.5, 1.5, 1.5, 1.0])  # every second plane lies on a slice
    dataset = pydicom.dcmread(write_all(tmp_path / "coarse", series, maps_on(coarse, (5, 3, 4)))["low"])
    named = [frame.DerivationImageSequence[0].SourceImageSequence for frame in dataset.PerFrameFunctionalGroupsSequence]
    assert [len(sources) for sources in named] == [1, 0, 1, 0]
    assert [sources[0].SpatialLocationsPreserved for sources in named if sources] == ["NO", "NO"]
    assert named[2][0].ReferencedSOPInstanceUID == slices[3].SOPInstanceUID

    other, shape = grids(native, turned)["turned"]
    dataset = pydicom.dcmread(write_all(tmp_path / "turned", series, maps_on(other, shape))["low"])
    named = [frame.DerivationImageSequence[0].SourceImageSequence for frame in dataset.PerFrameFunctionalGroupsSequence]
    assert [len(sources) for sources in named] == [0] * len(named)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize(("off", "named"), [(0.09, True), (0.11, False), (1.1, False)])
def test_a_frame_off_every_source_plane_names_none(
    off: float, named: bool, side: int, native: Array, series: Source, tmp_path: Path
) -> None:
    """On whichever side of the slice it lies: 0.1 mm along the normal are allowed, as between slices and grid."""
    moved = native.copy()
    moved[:3, 3] += side * off * native[:3, 2] / np.linalg.norm(native[:3, 2])
    dataset = pydicom.dcmread(write_all(tmp_path / "off", series, maps_on(moved, SHAPE))["low"])
    sources = [frame.DerivationImageSequence[0].SourceImageSequence for frame in dataset.PerFrameFunctionalGroupsSequence]
    assert [len(found) for found in sources] == [int(named)] * SHAPE[2]


def test_enhanced_multi_frame_source_is_named_by_frame(
    native: Array, slices: list[Dataset], tmp_path: Path, dciodvfy: Any
) -> None:
    order = (3, 0, 5, 1, 4, 2)
    enhanced = LegacyConvertedEnhancedCTImage(
        [slices[k] for k in order], generate_uid(), 3, generate_uid(), 1, include_dimension_index=False
    )
    enhanced.save_as(tmp_path / "enhanced.dcm")
    maps = maps_on(native, SHAPE)
    written = write_all(tmp_path / "out", Source(tmp_path / "enhanced.dcm"), maps)
    dataset = pydicom.dcmread(written["high"])
    sources = [frame.DerivationImageSequence[0].SourceImageSequence[0] for frame in dataset.PerFrameFunctionalGroupsSequence]
    assert [order[source.ReferencedFrameNumber - 1] for source in sources] == [0, 1, 2, 3, 4, 5]
    assert {source.ReferencedSOPInstanceUID for source in sources} == {enhanced.SOPInstanceUID}
    assert str(dataset.PatientName) == PATIENT
    assert dciodvfy(written["high"]) == []
    write_volume(tmp_path / "high.nii.gz", maps.high[0], native)
    check_against_nifti(written["high"], tmp_path / "high.nii.gz")


@pytest.mark.parametrize("frame", [0, 1])
def test_map_of_a_volume_in_a_file_of_several_names_the_frames_of_that_volume(
    frame: int, slices: list[Dataset], native: Array, tmp_path: Path
) -> None:
    echoes = [copy.deepcopy(image) for image in (*slices, *slices)]
    for k, image in enumerate(echoes):
        image.EchoTime, image.SOPInstanceUID = 4 + k // SHAPE[2], generate_uid()
    order = np.random.default_rng(6).permutation(len(echoes))
    enhanced = LegacyConvertedEnhancedCTImage(
        [echoes[k] for k in order], generate_uid(), 7, generate_uid(), 1, include_dimension_index=False
    )
    enhanced.save_as(tmp_path / "enhanced.dcm")
    source = Source(tmp_path / "enhanced.dcm", frame=frame)
    written = write_all(tmp_path / "out", source, maps_on(native, SHAPE))
    frames = [order.tolist().index(SHAPE[2] * frame + k) + 1 for k in range(SHAPE[2])]
    for file in (pydicom.dcmread(path) for path in written.values()):
        items = [each.DerivationImageSequence[0].SourceImageSequence[0] for each in file.PerFrameFunctionalGroupsSequence]
        assert [item.ReferencedFrameNumber for item in items] == frames
        assert {item.SpatialLocationsPreserved for item in items} == {"YES"}
        assert list(file.SourceImageSequence[0].ReferencedFrameNumber) == sorted(frames)


def test_mosaic_is_named_without_a_frame(tmp_path: Path, dciodvfy: Any) -> None:
    """It is a picture of one frame, whose pixels lie elsewhere than those of the map."""
    tiles = Tiles(ORIENTATIONS["oblique"] * [1, 1, -1], 7)
    image = siemens(tiles)
    image.save_as(tmp_path / "mosaic.dcm")
    loader = LoadImage(image_only=True)
    loader.register(DicomReader())
    native = loader(str(tmp_path / "mosaic.dcm")).affine.numpy()
    maps = maps_on(native, tiles.values.shape)
    written = write_all(tmp_path / "out", Source(tmp_path / "mosaic.dcm"), maps)
    dataset = pydicom.dcmread(written["high"])
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        [source] = frame.DerivationImageSequence[0].SourceImageSequence
        assert source.ReferencedSOPInstanceUID == image.SOPInstanceUID
        assert "ReferencedFrameNumber" not in source
        assert source.SpatialLocationsPreserved == "NO"
    assert len(dataset.PerFrameFunctionalGroupsSequence) == 7
    assert dciodvfy(written["high"]) == []
    write_volume(tmp_path / "high.nii.gz", maps.high[0], native)
    check_against_nifti(written["high"], tmp_path / "high.nii.gz")


def test_planted_voxel_is_found_at_its_place(native: Array, turned: Any, series: Source, tmp_path: Path) -> None:
    affine, shape = grids(native, turned)["turned"]
    maps = maps_on(affine, shape)
    voxel = (3, 1, 2)
    maps.sensitivity[:] = 0
    maps.sensitivity[(0, *voxel)] = 7.5
    volume = read(write_all(tmp_path / "out", series, maps)["sensitivity"]).get_volume()
    [found] = np.argwhere(volume.array == 7.5)
    place = nib.affines.apply_affine(TO_RAS @ volume.affine, found)
    np.testing.assert_allclose(place, nib.affines.apply_affine(affine, voxel), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("units", "code"), [({}, "10*-42.{nat/intensity2}"), ({"units": HOUNSFIELD}, "10*-42.{nat}/[hnsf'U]2")])
def test_sensitivity_below_float32_keeps_its_stored_values_and_has_its_scale_in_the_unit(
    units: dict[str, Any], code: str, native: Array, series: Source, tmp_path: Path, dciodvfy: Any
) -> None:
    maps = maps_on(native, SHAPE, scale=10.0**-42)
    path = write_all(tmp_path / "out", series, maps, **units)["sensitivity"]
    image = read(path)
    values = image.get_volume().array  # mapped to real-world values
    assert np.sort(values, axis=None).tolist() == np.sort(maps.sensitivity, axis=None).tolist()
    mapping = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.DoubleFloatRealWorldValueFirstValueMapped == maps.sensitivity.min()
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == maps.sensitivity.max()
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1.0, 0.0)
    [unit] = mapping.MeasurementUnitsCodeSequence
    assert unit.LongCodeValue == code  # too long for a Code Value
    assert unit.CodeMeaning.startswith("1e-42 nats per (")
    assert mapping.LUTExplanation == unit.CodeMeaning
    assert dciodvfy(path) == []


PER_NOISE = {"maps": "network input intensity", "sensitivity": "nats per (standard deviation of the noise)^2"}
OF_GRID = {"maps": "network input intensity", "sensitivity": "nats per (network input intensity on the network's grid)^2"}
LONG = "10^-3 mm2/s of a long name for an intensity"  # with its grid, more than a Code Meaning holds
TOO_LONG = {"maps": LONG, "sensitivity": f"nats per ({LONG} on the input's grid)^2"}
UNITS = [
    ("sensitivity", {"units": PER_NOISE}, ("{nat/step2}", "nats per (standard deviation of the noise)^2")),
    ("sensitivity", {"units": OF_GRID}, ("{nat/intensity2}", OF_GRID["sensitivity"])),
    ("sensitivity", {"units": TOO_LONG}, ("{nat/intensity2}", "nats per (10^-3 mm2/s of a long name for an intensity)^2")),
    ("high", {}, ("{intensity}", "unit of network input intensity")),
    ("low", {}, ("{intensity}", "unit of network input intensity")),
    ("sensitivity", {}, ("{nat/intensity2}", "nats per (network input intensity)^2")),
    ("eigenvector-02", {}, ("1", "no units")),
    ("high", {"units": HOUNSFIELD}, ("[hnsf'U]", "Hounsfield unit")),
    ("sensitivity", {"units": HOUNSFIELD}, ("{nat}/[hnsf'U]2", "nats per (Hounsfield units)^2")),
    ("eigenvector-01", {"units": HOUNSFIELD}, ("1", "no units")),
]


@pytest.mark.parametrize(("name", "changed", "unit"), UNITS)
def test_units_are_ucum_codes(
    name: str, changed: dict[str, Any], unit: tuple[str, str], native: Array, series: Source, tmp_path: Path
) -> None:
    dataset = pydicom.dcmread(write_all(tmp_path / "out", series, maps_on(native, SHAPE), **changed)[name])
    code = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0].MeasurementUnitsCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == (unit[0], "UCUM", unit[1])


def test_objects_say_what_they_are_and_how_they_were_made(native: Array, series: Source, tmp_path: Path) -> None:
    written = write_all(tmp_path / "out", series, maps_on(native, SHAPE, channels=2))
    datasets = [pydicom.dcmread(path) for path in written.values()]
    assert [int(dataset.InstanceNumber) for dataset in datasets] == list(range(1, 11))
    assert len({dataset.SeriesInstanceUID for dataset in datasets}) == 1
    assert {int(dataset.SeriesNumber) for dataset in datasets} == {1201}
    assert [dataset.ContentLabel for dataset in datasets] == [
        "IFIM_HIGH", "IFIM_HIGH_CH02", "IFIM_LOW", "IFIM_LOW_CH02", "IFIM_SENS", "IFIM_SENS_CH02", "IFIM_EIG01",
        "IFIM_EIG01_CH02", "IFIM_EIG02", "IFIM_EIG02_CH02",
    ]  # fmt: skip
    dataset = datasets[4]
    assert dataset.SeriesDescription == "iFIM maps, lumpy"
    assert dataset.ContentDescription == "Sensitivity of the prediction to each voxel"
    assert "ContentCreatorName" not in dataset
    assert (dataset.ManufacturerModelName, dataset.DeviceSerialNumber) == ("monai_ifim", "ab" * 32)
    assert dataset.SoftwareVersions in dataset.DerivationDescription
    shared = dataset.SharedFunctionalGroupsSequence[0]
    window = shared.FrameVOILUTSequence[0]
    assert (float(window.WindowCenter), float(window.WindowWidth), window.VOILUTFunction) == (0.25, 1.0, "LINEAR_EXACT")
    quantity = shared.RealWorldValueMappingSequence[0].QuantityDefinitionSequence
    assert quantity[0].ConceptCodeSequence[0].CodeMeaning == "Saliency"
    stated = {item.ConceptNameCodeSequence[0].CodeMeaning: item.get("TextValue") for item in quantity}
    assert stated["Algorithm Name"] == "monai_ifim"
    assert stated["Algorithm Version"] == dataset.SoftwareVersions
    assert stated["Algorithm Parameters"] == (
        "head=categorical; method=exact; energy=0.99; components=2; space=native; bundle=lumpy; bundle_version=1.2; "
        f"weights_sha256={'ab' * 32}"
    )


def test_map_that_no_dicom_object_holds_is_refused_with_the_cure(
    native: Array, series: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_ifim.io.parametric_map.write.LARGEST_OBJECT", int(np.prod(SHAPE)) * 4 - 1)
    with pytest.raises(OutputError, match=r"scan_ifim_high\.nii\.gz: larger than the 4 GiB .*leave --dicom-pm out"):
        write_all(tmp_path / "out", series, maps_on(native, SHAPE))
    assert not (tmp_path / "out").exists()


def test_names_that_fit_no_character_set_do_no_harm(native: Array, series: Source, tmp_path: Path) -> None:
    model = {"bundle": "Übung\\1" + "x" * 80, "version": None, "weights_sha256": None, "head": "categorical"}
    written = write_all(tmp_path / "out", series, maps_on(native, SHAPE), model=model)
    dataset = pydicom.dcmread(written["high"])
    assert dataset.SeriesDescription == ("iFIM maps, ?bung/1" + "x" * 80)[:64]
    assert str(dataset.PatientName) == PATIENT


def test_what_the_source_says_of_faces_and_burned_in_names_is_kept(native: Array, slices: list[Dataset], tmp_path: Path) -> None:
    stated = copy.deepcopy(slices)
    for image in stated:
        image.BurnedInAnnotation, image.RecognizableVisualFeatures, image.LossyImageCompression = "YES", "NO", "01"
    plain, named = (
        write_all(tmp_path / name, Source(write(tmp_path / f"{name}-source", images)), maps_on(native, SHAPE))
        for name, images in (("plain", slices), ("named", stated))
    )

    def said(path: Path) -> tuple[str, str, str]:
        dataset = pydicom.dcmread(path)
        return dataset.BurnedInAnnotation, dataset.RecognizableVisualFeatures, dataset.LossyImageCompression

    assert said(plain["low"]) == ("NO", "YES", "00")
    assert said(plain["sensitivity"]) == ("NO", "NO", "00")
    assert said(named["low"]) == ("YES", "NO", "01")


def _timeless(path: Path) -> bytes:
    dataset = pydicom.dcmread(path)
    for element in list(dataset.iterall()):
        if element.keyword in TIMES:
            element.value = None
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def test_same_maps_and_settings_make_the_same_objects(native: Array, series: Source, tmp_path: Path) -> None:
    maps = maps_on(native, SHAPE)
    first, second = (write_all(tmp_path / name, series, maps) for name in ("first", "second"))
    for name, path in first.items():
        assert _timeless(path) == _timeless(second[name]), name

    def uids(paths: dict[str, Path]) -> set[str]:
        datasets = [pydicom.dcmread(path) for path in paths.values()]
        return {dataset.SOPInstanceUID for dataset in datasets} | {datasets[0].SeriesInstanceUID}

    moved, changed = native.copy(), replace(maps, high=maps.high + 1)
    moved[0, 3] += 1e-3
    others = [
        write_all(tmp_path / "values", series, changed),
        write_all(tmp_path / "place", series, replace(maps, affine=moved)),
        write_all(tmp_path / "settings", series, maps, settings=sidecar_of(maps)["settings"] | {"rank": 1}),
    ]
    for one, another in itertools.combinations([first, *others], 2):
        assert not uids(one) & uids(another)


def test_only_the_maps_asked_for_are_written(native: Array, series: Source, tmp_path: Path) -> None:
    maps = maps_on(native, SHAPE)
    written = write_parametric_maps(
        tmp_path / "out", referenced_series(OpenedSource(series)), maps, ("sensitivity", "high"), sidecar_of(maps)
    )
    assert list(written) == ["scan_ifim_high.dcm", "scan_ifim_sensitivity.dcm"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == list(written)


def test_constant_map_is_written(native: Array, series: Source, tmp_path: Path) -> None:
    maps = maps_on(native, SHAPE)
    maps.high[:] = 0
    assert not read(write_all(tmp_path / "out", series, maps)["high"]).get_volume().array.any()


def test_volume_resampled_from_a_tilted_one_can_have_maps(
    axes: Array, slices: list[Dataset], tmp_path: Path, dciodvfy: Any
) -> None:
    tilted = copy.deepcopy(slices)
    for k, image in enumerate(tilted):
        image.ImagePositionPatient = [*(ORIGIN + k * (GAP * axes[:, 2] + 0.9 * axes[:, 1]))]
    source = Source(write(tmp_path / "tilted", tilted), fix_geometry=True)
    referenced_series(OpenedSource(source))
    (tmp_path / "scratch").mkdir()
    image = nib.load(OpenedSource(source).readable_path(tmp_path / "scratch"))
    maps = maps_on(image.affine, image.shape)
    written = write_all(tmp_path / "out", source, maps)
    write_volume(tmp_path / "high.nii.gz", maps.high[0], image.affine)
    check_against_nifti(written["high"], tmp_path / "high.nii.gz")
    assert dciodvfy(written["high"]) == []
    frames = pydicom.dcmread(written["high"]).PerFrameFunctionalGroupsSequence
    assert {frame.DerivationImageSequence[0].SourceImageSequence[0].SpatialLocationsPreserved for frame in frames} == {"NO"}


def test_nothing_but_a_placed_dicom_series_can_have_maps(
    native: Array, slices: list[Dataset], write_scan: Any, tmp_path: Path
) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz", (5, 4, 6), native)
    with pytest.raises(OutputError, match="scan.nii.gz: not DICOM.*leave --dicom-pm out"):
        referenced_series(OpenedSource(Source(scan)))
    with pytest.raises(OutputError, match="not DICOM"):
        write_all(tmp_path / "out", Source(tmp_path / "missing"), maps_on(native, SHAPE))
    for number, (keywords, message) in enumerate(
        [
            (("ImagePositionPatient",), "no place in space.*secondary capture"),
            (("PixelSpacing",), "no place in space"),
            (("FrameOfReferenceUID",), "its Frame of Reference UID is missing.*leave --dicom-pm out"),
            (("StudyInstanceUID",), "its Study Instance UID is missing"),
            (("SeriesInstanceUID",), "its Series Instance UID is missing"),
        ]
    ):
        lacking = copy.deepcopy(slices[0])
        for keyword in keywords:
            delattr(lacking, keyword)
        lacking.save_as(tmp_path / f"lacking{number}.dcm")
        with pytest.raises(OutputError, match=message):
            referenced_series(OpenedSource(Source(tmp_path / f"lacking{number}.dcm")))
    two = copy.deepcopy(slices)
    two[2].FrameOfReferenceUID = generate_uid()
    with pytest.raises(
        InputError, match="not all of one patient, study and frame of reference: .* agree in Frame of Reference UID"
    ):
        referenced_series(OpenedSource(Source(write(tmp_path / "two", two))))


def test_maps_that_dicom_cannot_hold_are_refused(native: Array, series: Source, tmp_path: Path) -> None:
    maps = maps_on(native, SHAPE)
    maps.low[0, 1, 2, 3] = np.nan
    with pytest.raises(OutputError, match="low.*NaN or infinite"):
        write_all(tmp_path / "out", series, maps)
    assert not (tmp_path / "out").exists(), "nothing is written where one of them cannot be"
    sheared = native.copy()
    sheared[:3, 2] += 0.3 * native[:3, 1]
    with pytest.raises(GeometryError, match="sheared"):
        write_all(tmp_path / "out", series, maps_on(sheared, SHAPE))


def test_real_series_has_maps(real_data: Path, tmp_path: Path, dciodvfy: Any) -> None:
    source = Source(real_data / "dicom" / "ct_plain")
    loader = LoadImage(image_only=True)
    loader.register(DicomReader())
    image = loader(str(source.path))
    cropped = image.affine.numpy().copy()
    cropped[:3, 3] += cropped[:3, :3] @ [180, 200, 0]
    values = image.numpy()[180:243, 200:247].astype(np.float32)[None]
    maps = CaseMaps(cropped, values, values * 0.3, values * 0.7, np.abs(values) * 1e-5, values[None] * 1e-3)
    written = write_all(tmp_path / "out", source, maps)
    for name, _, channel in each_map(maps):
        if name != "input":
            write_volume(tmp_path / f"{name}.nii.gz", channel, cropped)
            check_against_nifti(written[name], tmp_path / f"{name}.nii.gz")
            check_against_dcm2niix(written[name], tmp_path / f"{name}.nii.gz", tmp_path / f"{name}-converted")
            assert dciodvfy(written[name]) == []
    headers = {header.SOPInstanceUID: header for header in map(pydicom.dcmread, sorted(source.path.iterdir()))}
    frames = pydicom.dcmread(written["high"]).PerFrameFunctionalGroupsSequence
    named = [frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID for frame in frames]
    heights = [float(headers[uid].ImagePositionPatient[2]) for uid in named]
    assert heights == sorted(heights)
    assert len(set(heights)) == 28


def test_real_compressed_slice_has_maps(real_data: Path, tmp_path: Path, dciodvfy: Any) -> None:
    source = Source(real_data / "dicom" / "compressed" / "MR2_J2KI.dcm")
    loader = LoadImage(image_only=True)
    loader.register(DicomReader())
    image = loader(str(source.path))
    maps = maps_on(image.affine.numpy(), image.shape)
    written = write_all(tmp_path / "out", source, maps)
    write_volume(tmp_path / "high.nii.gz", maps.high[0], maps.affine)
    check_against_nifti(written["high"], tmp_path / "high.nii.gz")
    assert dciodvfy(written["high"]) == []
    assert pydicom.dcmread(written["high"]).LossyImageCompression == pydicom.dcmread(source.path).get("LossyImageCompression")


def test_real_secondary_capture_is_refused(real_data: Path) -> None:
    with pytest.raises(OutputError, match="no place in space"):
        referenced_series(OpenedSource(Source(real_data / "dicom" / "compressed" / "JLSL_16_15_1_1F.dcm")))


def test_highdicom_takes_the_map_for_a_right_handed_volume(native: Array, series: Source, tmp_path: Path) -> None:
    image = read(write_all(tmp_path / "out", series, maps_on(native, SHAPE))["high"])
    geometry = image.get_volume_geometry()
    assert geometry is not None
    assert geometry.handedness == hd.AxisHandedness.RIGHT_HANDED
    assert image.DimensionOrganizationType == "3D"


def test_commands_and_code_of_the_page_do_what_it_says(
    native: Array, slices: list[Dataset], make_bundle: Any, tmp_path: Path, monkeypatch: Any, dciodvfy: Any, capsys: Any
) -> None:
    [command] = re.findall(r"^```bash\nmonai-ifim (.+)\n```$", PAGE, flags=re.MULTILINE)
    [block] = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    make_bundle(tmp_path / "my_bundle")
    values = np.random.default_rng(4).integers(-900, 900, SHAPE).astype(np.int16)
    noisy = copy.deepcopy(slices)
    for k, image in enumerate(noisy):
        image.PixelData = values[:, :, k].T.tobytes()
    write(tmp_path / "study", noisy)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*shlex.split(command), "--head", "categorical", "--rank", "2"])
    assert result.exit_code == 0, result.output
    folder = tmp_path / "results" / "study"
    written = sorted(path.name for path in folder.glob("*.dcm"))
    assert written == [f"study_ifim_{name}.dcm" for name in ("eigenvector-01", "eigenvector-02", "high", "low", "sensitivity")]
    for name in written:
        check_against_nifti(folder / name, folder / name.replace(".dcm", ".nii.gz"))
        assert dciodvfy(folder / name) == []
    exec(compile(block, "parametric_maps.md", "exec"), names := {})
    sensitivity = nib.load(folder / "study_ifim_sensitivity.nii.gz")
    highest = np.unravel_index(np.asarray(sensitivity.dataobj).argmax(), sensitivity.shape)
    said = TO_RAS[:3, :3] @ np.array(names["volume"].map_indices_to_reference(np.array([names["index"]])))[0]
    np.testing.assert_allclose(said, nib.affines.apply_affine(sensitivity.affine, highest), rtol=0, atol=1e-3)
