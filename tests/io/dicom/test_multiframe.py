"""Enhanced multi-frame files made by highdicom out of single-frame series, PET with a rescale of its own in every slice, and
compressed files: our reader gives the numbers and places that the single frames, dcm2niix and other decoders give."""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedCTImage, LegacyConvertedEnhancedMRImage, LegacyConvertedEnhancedPETImage
from monai.transforms import LoadImage
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, RLELossless, generate_uid

from monai_ifim.io import DicomReader, InputError, OpenedSource, Source
from monai_ifim.io.dicom.reader import known_volume
from monai_ifim.run.cases import find_cases

Array = npt.NDArray[Any]
COLUMNS, ROWS, SLICES, SPACING, GAP = 7, 5, 6, (0.8, 1.3), 2.5
ORIGIN = np.array([-31.0, 12.5, 70.25])  # LPS mm
CONVERTERS = {
    "CT": LegacyConvertedEnhancedCTImage,
    "MR": LegacyConvertedEnhancedMRImage,
    "PT": LegacyConvertedEnhancedPETImage,
}
PET_IMAGE = "1.2.840.10008.5.1.4.1.1.128"
ORDERS = {"sorted": range(SLICES), "reversed": range(SLICES)[::-1], "out of order": (3, 0, 5, 1, 4, 2)}
SLOPES = 0.25 + 0.5 * np.arange(SLICES)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:highdicom", "ignore::UserWarning:pydicom")


@pytest.fixture
def axes(oblique: Array) -> Array:
    """Directions of columns, rows and slices, LPS: oblique and right-handed."""
    directions = oblique[:3, :3] / np.linalg.norm(oblique[:3, :3], axis=0)
    return np.column_stack([directions[:, 0], directions[:, 1], np.cross(directions[:, 0], directions[:, 1])])


@pytest.fixture
def values() -> Array:
    return np.random.default_rng(3).integers(0, 2000, (COLUMNS, ROWS, SLICES)).astype(np.int16)


def single_frames(modality: str, axes: Array, values: Array, slopes: Sequence[float] | None = None) -> list[Dataset]:
    """A series with values that tell their place, one data set a slice."""
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    return [_slice(modality, axes, values, k, slopes, (series, study, frame)) for k in range(values.shape[2])]


def _slice(
    modality: str, axes: Array, values: Array, k: int, slopes: Sequence[float] | None, uids: tuple[str, str, str]
) -> Dataset:
    image = pydicom.dcmread(str(get_testdata_file("MR_small.dcm" if modality == "MR" else "CT_small.dcm", download=False)))
    image.remove_private_tags()
    image.Modality = modality
    if modality == "PT":
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = PET_IMAGE
        image.Units, image.SUVType, image.PatientWeight = "BQML", "BW", "70"
    image.SeriesInstanceUID, image.StudyInstanceUID, image.FrameOfReferenceUID = uids
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.InstanceNumber = k + 1
    image.Columns, image.Rows, image.PixelSpacing, image.SliceThickness = COLUMNS, ROWS, [SPACING[1], SPACING[0]], GAP
    image.ImageOrientationPatient = [*axes[:, 0], *axes[:, 1]]
    image.ImagePositionPatient = [*(ORIGIN + k * GAP * axes[:, 2])]
    image.RescaleSlope, image.RescaleIntercept = ("1", "0") if slopes is None else (str(slopes[k]), str(-3.5 * k))
    image.PixelData = values[:, :, k].T.tobytes()
    return image


def enhanced(path: Path, slices: Sequence[Dataset], order: Sequence[int]) -> Path:
    """The slices as the frames of one file, in the order given."""
    convert = CONVERTERS[slices[0].Modality]
    frames = [slices[k] for k in order]
    convert(frames, generate_uid(), 3, generate_uid(), 1, include_dimension_index=False).save_as(path)
    return path


def write(folder: Path, slices: Sequence[Dataset]) -> Path:
    folder.mkdir()
    for name, k in enumerate(np.random.default_rng(5).permutation(len(slices))):
        slices[k].save_as(folder / f"IM{name:03d}")
    return folder


def read(path: Path, **options: Any) -> Any:
    loader = LoadImage(image_only=True)
    loader.register(DicomReader(**options))
    return loader(str(path))


def check_values_at_their_places(image: Any, values: Array, axes: Array) -> None:
    """Every voxel of the series is in the image, at the place that its slice states."""
    voxels = np.indices(values.shape).reshape(3, -1).T
    world = (ORIGIN + voxels * np.array([*SPACING, GAP]) @ axes.T) * [-1, -1, 1]
    check_same(image.numpy(), image.affine.numpy(), values.reshape(-1), world)


def check_same(image: Array, affine: Array, values: Array, world: Array) -> None:
    """values [n] are those of the image at RAS mm [n, 3]."""
    assert image.size == values.size
    found = np.rint(nib.affines.apply_affine(np.linalg.inv(affine), world)).astype(int)
    np.testing.assert_allclose(nib.affines.apply_affine(affine, found), world, rtol=0, atol=1e-3)
    np.testing.assert_allclose(image[tuple(found.T)], values, rtol=1e-6, atol=1e-4)


def check_alike(image: Any, theirs: nib.Nifti1Image) -> None:
    """Every voxel of the NIfTI file is in the image, at the same place; their axes may differ."""
    world = nib.affines.apply_affine(theirs.affine, np.indices(theirs.shape).reshape(3, -1).T)
    check_same(image.numpy(), image.affine.numpy(), theirs.get_fdata().reshape(-1), world)


def by_dcm2niix(source: Path, folder: Path) -> nib.Nifti1Image:
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not installed (Debian package dcm2niix)")
    folder.mkdir()
    command = ["dcm2niix", "-b", "n", "-z", "n", "-f", "%s_%j", "-o", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    [file] = folder.glob("*.nii")
    return nib.load(file)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("modality", CONVERTERS)
def test_frames_of_one_file_are_sorted_by_their_places(
    modality: str, order: str, axes: Array, values: Array, tmp_path: Path
) -> None:
    path = enhanced(tmp_path / "enhanced.dcm", single_frames(modality, axes, values), ORDERS[order])
    OpenedSource(Source(path)).check(channels=1)
    image = read(path)
    assert image.shape == values.shape
    check_values_at_their_places(image, values, axes)
    voxel = np.array([1, 2, 3])
    assert image.affine.numpy()[:3, 2] @ ((axes[:, 2]) * [-1, -1, 1]) > 0, "slices follow each other along the normal"
    np.testing.assert_array_equal(image.numpy()[tuple(voxel)], values[tuple(voxel)])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("modality", CONVERTERS)
def test_each_frame_of_one_file_has_its_own_units(modality: str, order: str, axes: Array, values: Array, tmp_path: Path) -> None:
    slices = single_frames(modality, axes, values, SLOPES)
    expected = values * SLOPES - 3.5 * np.arange(SLICES)
    check_values_at_their_places(read(enhanced(tmp_path / "one.dcm", slices, ORDERS[order])), expected, axes)
    check_values_at_their_places(read(write(tmp_path / "many", slices)), expected, axes)


def test_pet_stays_in_becquerels_per_millilitre_as_dcm2niix_has_it(axes: Array, values: Array, tmp_path: Path) -> None:
    slices = single_frames("PT", axes, values, SLOPES)
    for image in slices:
        image.RescaleIntercept = "0"  # as in every PET image (PS3.3, C.8.9.4)
    folder = write(tmp_path / "pet", slices)
    image = read(folder)
    check_values_at_their_places(image, values * SLOPES, axes)
    theirs = by_dcm2niix(folder, tmp_path / "theirs")
    check_alike(image, theirs)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_multi_frame_file_lies_where_dcm2niix_puts_it(modality: str, axes: Array, values: Array, tmp_path: Path) -> None:
    path = enhanced(tmp_path / "enhanced.dcm", single_frames(modality, axes, values), range(SLICES))
    image, theirs = read(path), by_dcm2niix(path, tmp_path / "theirs")
    check_alike(image, theirs)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_multi_frame_file_is_the_series_it_was_made_of(
    syntax: str, axes: Array, values: Array, tmp_path: Path
) -> None:
    slices = single_frames("CT", axes, values, SLOPES)
    for image in slices:
        image.PixelRepresentation = 0
        for keyword in ("PixelPaddingValue", "SmallestImagePixelValue", "LargestImagePixelValue"):
            image.pop(keyword, None)
    frames = [slices[k] for k in ORDERS["out of order"]]
    made = LegacyConvertedEnhancedCTImage(
        frames, generate_uid(), 3, generate_uid(), 1, transfer_syntax_uid=syntax, include_dimension_index=False
    )
    made.save_as(tmp_path / "compressed.dcm")
    expected = values * SLOPES - 3.5 * np.arange(SLICES)
    check_values_at_their_places(read(tmp_path / "compressed.dcm"), expected, axes)


def test_real_series_as_one_file_is_the_series(real_data: Path, tmp_path: Path) -> None:
    slices = []
    for file in sorted((real_data / "dicom" / "ct_plain").iterdir()):
        image = pydicom.dcmread(file)
        cropped = np.ascontiguousarray(image.pixel_array[200:247, 180:243])
        image.PixelData, image.Rows, image.Columns = cropped.tobytes(), *cropped.shape
        slices.append(image)
    one = read(enhanced(tmp_path / "one.dcm", slices, np.random.default_rng(1).permutation(len(slices)).tolist()))
    many = read(write(tmp_path / "many", slices))
    assert one.shape == (63, 47, 28)
    np.testing.assert_array_equal(one.numpy(), many.numpy())
    np.testing.assert_allclose(one.affine.numpy(), many.affine.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mixed", [False, True])
def test_echoes_in_one_file_are_volumes_of_its_series(mixed: bool, axes: Array, values: Array, tmp_path: Path) -> None:
    first, second = (single_frames("MR", axes, each, SLOPES) for each in (values, values + 1000))
    for image in second:
        image.EchoTime, image.SeriesInstanceUID = "999", first[0].SeriesInstanceUID
        image.StudyInstanceUID, image.FrameOfReferenceUID = first[0].StudyInstanceUID, first[0].FrameOfReferenceUID
    order = np.random.default_rng(2).permutation(2 * SLICES) if mixed else range(2 * SLICES)
    path = enhanced(tmp_path / "echoes.dcm", [*first, *second], order)
    said = "a series of 2 volumes of 6 slices that differ in Echo Time; choose one with --frame N, N from 0 to 1, or --series all"
    with pytest.raises(InputError, match=said):
        OpenedSource(Source(path)).check(channels=1)
    with pytest.raises(InputError, match=said):
        read(path)
    with pytest.raises(InputError, match="there is no frame 2; a series of 2 volumes of 6 slices"):
        OpenedSource(Source(path, frame=2)).check(channels=1)
    for number, expected in enumerate((values, values + 1000)):
        opened = OpenedSource(Source(path, frame=number))
        opened.check(channels=1)
        assert opened.reading.described() | {"largest_distance_mm": 0} == {
            "largest_distance_mm": 0, "slice_step": "positions", "volume": number, "volumes": 2,
            "volumes_differ_in": ("Echo Time",), "pixel_spacing": "Pixel Spacing", "values": "stored values with rescale",
        }  # fmt: skip
        with known_volume(path, opened.readable_volume):
            image = read(path)
        assert image.shape == values.shape
        check_values_at_their_places(image, expected * SLOPES - 3.5 * np.arange(SLICES), axes)


def several_times(axes: Array, values: Array, folder: Path, state: Callable[[Dataset, int], None]) -> Path:
    """One file of three volumes in any order of its frames; `state` puts into a frame's functional groups of which it is."""
    first = single_frames("MR", axes, values)
    frames = [(time, copy.deepcopy(image)) for time in range(3) for image in first]
    for time, image in frames:
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.PixelData = (np.frombuffer(image.PixelData, np.int16) + 1000 * time).astype(np.int16).tobytes()
    frames = [frames[k] for k in np.random.default_rng(2).permutation(len(frames))]
    path = enhanced(folder / "times.dcm", [image for _, image in frames], range(len(frames)))
    file = pydicom.dcmread(path)
    for (time, _), group in zip(frames, file.PerFrameFunctionalGroupsSequence, strict=True):
        state(group, time)
    file.save_as(path)
    return path


def _nested(group: Dataset, value: Any, *path: str) -> None:
    for name in path[:-1]:
        if name not in group:
            setattr(group, name, [Dataset()])
        group = getattr(group, name)[0]
    setattr(group, path[-1], value)


STATED: dict[str, Callable[[Dataset, int], None]] = {
    "Temporal Position Index": lambda group, time: _nested(group, time + 1, "FrameContentSequence", "TemporalPositionIndex"),
    "Stack ID": lambda group, time: _nested(group, f"{time}", "FrameContentSequence", "StackID"),
    "Echo Time": lambda group, time: _nested(group, 4.5 + time, "MREchoSequence", "EffectiveEchoTime"),
    "Dimension Index Values": lambda group, time: _nested(group, [1, time + 1], "FrameContentSequence", "DimensionIndexValues"),
    "b-value": lambda group, time: _nested(group, 500.0 * time, "MRDiffusionSequence", "DiffusionBValue"),
    "Diffusion Gradient Orientation": lambda group, time: _nested(
        group, list(np.eye(3)[time]),
        "MRDiffusionSequence", "DiffusionGradientDirectionSequence", "DiffusionGradientOrientation",
    ),
    "Trigger Time": lambda group, time: _nested(
        group, 30.0 * time, "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"
    ),
    "Acquisition Time": lambda group, time: _nested(
        group, f"2020010112000{time}.5", "FrameContentSequence", "FrameAcquisitionDateTime"
    ),
    "Image Type": lambda group, time: _nested(group, ["ORIGINAL", "MPR"[time]], "MRImageFrameTypeSequence", "FrameType"),
}  # fmt: skip


@pytest.mark.parametrize("words", STATED)
def test_frames_are_told_apart_by_their_functional_groups(words: str, axes: Array, values: Array, tmp_path: Path) -> None:
    path = several_times(axes, values, tmp_path, STATED[words])
    said = f"a series of 3 volumes of {SLICES} slices that differ in {words}; choose one with --frame N, N from 0 to 2"
    with pytest.raises(InputError, match=said):
        OpenedSource(Source(path)).check(channels=1)
    found = [read(path, frame=number) for number in range(3)]
    times = [round((float(image.numpy().mean()) - float(values.mean())) / 1000) for image in found]
    led = ("Temporal Position Index", "Stack ID", "Echo Time", "Dimension Index Values", "Trigger Time", "Acquisition Time")
    assert (times if words in led else sorted(times)) == [0, 1, 2], "others keep the order of the file"
    for time, image in zip(times, found, strict=True):
        check_values_at_their_places(image, values + 1000 * time, axes)


def test_stacks_of_several_orientations_in_one_file_are_volumes_at_their_places(
    axes: Array, values: Array, tmp_path: Path
) -> None:
    stacks = [axes, axes[:, [1, 2, 0]], axes[:, [2, 0, 1]]]
    frames = [image for stack in stacks for image in single_frames("MR", stack, values)]
    for image in frames:
        for name in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
            setattr(image, name, frames[0][name].value)
    path = enhanced(tmp_path / "stacks.dcm", frames, range(len(frames)))
    for number, stack in enumerate(stacks):
        check_values_at_their_places(read(path, frame=number), values, stack)
    (one,) = find_cases([path], frame=1)
    opened = OpenedSource(one.source)
    with known_volume(path, opened.readable_volume):
        check_values_at_their_places(read(opened.readable_path(tmp_path)), values, stacks[1])
    cases = find_cases([path], series="all")
    uid = pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID
    assert [case.source.series for case in cases] == [f"{uid}#{k}" for k in (1, 2, 3)]


def test_single_slices_of_several_orientations_in_one_file_are_placed(axes: Array, values: Array, tmp_path: Path) -> None:
    """A localiser of one slice a direction: ITK knows the place of the first frame alone."""
    stacks = [axes, axes[:, [1, 2, 0]], axes[:, [2, 0, 1]]]
    frames = [single_frames("MR", stack, values)[0] for stack in stacks]
    for image in frames:
        for name in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
            setattr(image, name, frames[0][name].value)
    path = enhanced(tmp_path / "scouts.dcm", frames, range(3))
    for number, stack in enumerate(stacks):
        check_values_at_their_places(read(path, frame=number), values[:, :, :1], stack)


def test_description_of_other_frames_than_there_are_is_refused(axes: Array, values: Array, tmp_path: Path) -> None:
    path = enhanced(tmp_path / "few.dcm", single_frames("MR", axes, values), range(SLICES))
    file = pydicom.dcmread(path)
    del file.PerFrameFunctionalGroupsSequence[-1]
    file.save_as(path)
    with pytest.raises(InputError, match=r"few\.dcm: it holds 6 frames and describes 5: export the image again"):
        read(path)


@pytest.mark.parametrize("rescaled", [False, True])
def test_uneven_frames_of_one_file_are_resampled_where_that_is_asked_for(
    rescaled: bool, axes: Array, values: Array, tmp_path: Path
) -> None:
    """In whatever order they are, each rescaled by its own slope."""
    places, slopes = np.array([0.0, 2.0, 4.0, 7.0, 9.0, 11.0]), SLOPES if rescaled else np.ones(SLICES)
    slices = single_frames("MR", axes, values, SLOPES if rescaled else None)
    for k, image in enumerate(slices):
        image.ImagePositionPatient = [*(ORIGIN + places[k] * axes[:, 2])]
    path = enhanced(tmp_path / "uneven.dcm", slices, ORDERS["out of order"])
    with pytest.raises(InputError, match="not evenly spaced.*--fix-geometry"):
        OpenedSource(Source(path)).check(channels=1)
    opened = OpenedSource(Source(path, fix_geometry=True))
    opened.check(channels=1)
    image = nib.load(opened.readable_path(tmp_path))
    assert image.header.get_zooms() == pytest.approx((*SPACING, 2.0))
    shifts = -3.5 * np.arange(SLICES) if rescaled else np.zeros(SLICES)
    stated = values[3, 2] * slopes + shifts
    np.testing.assert_allclose(np.asarray(image.dataobj)[3, 2], np.interp(2.0 * np.arange(6), places, stated), rtol=1e-5)
    np.testing.assert_allclose(image.affine[:3, 3], ORIGIN * [-1, -1, 1], rtol=0, atol=1e-4)


def test_frames_of_unequal_spacing_are_not_of_one_volume(axes: Array, values: Array, tmp_path: Path) -> None:
    slices = single_frames("CT", axes, values)
    slices[2].PixelSpacing = [1.4, 0.8]
    path = enhanced(tmp_path / "spacings.dcm", slices, range(SLICES))
    with pytest.raises(InputError, match="2 volumes in one file; .*5 slices.*1 slice, 0.8 x 1.4 mm"):
        read(path)


@pytest.mark.parametrize("name", ["693_J2KR.dcm", "MR2_J2KI.dcm", "JLSL_16_15_1_1F.dcm", "image_dfl.dcm"])
def test_compressed_file_has_the_values_that_pydicom_decodes(name: str, real_data: Path) -> None:
    path = real_data / "dicom" / "compressed" / name
    header = pydicom.dcmread(path)
    expected = header.pixel_array * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0))
    np.testing.assert_allclose(read(path).numpy()[:, :, 0], expected.T, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", ["OBXXXX1A_rle.dcm", "OBXXXX1A_expb.dcm"])  # one picture, in two syntaxes
def test_palette_has_the_colours_that_pydicom_gives(name: str, real_data: Path) -> None:
    folder = real_data / "dicom" / "compressed"
    palette = pydicom.dcmread(folder / "OBXXXX1A_rle.dcm")  # pydicom takes a big-endian file's palette for a little-endian one
    coloured = apply_color_lut(pydicom.dcmread(folder / name).pixel_array, palette)
    np.testing.assert_array_equal(read(folder / name).numpy()[:, :, 0], (coloured >> 8).transpose(1, 0, 2))


def test_lossless_jpeg_has_the_values_that_dcmtk_decodes(real_data: Path, tmp_path: Path) -> None:
    if shutil.which("dcmdjpeg") is None:
        pytest.skip("dcmdjpeg is not installed (Debian package dcmtk)")
    path = real_data / "dicom" / "compressed" / "JPEG-LL.dcm"
    subprocess.run(["dcmdjpeg", str(path), str(tmp_path / "plain.dcm")], check=True, capture_output=True)
    plain = pydicom.dcmread(tmp_path / "plain.dcm")
    assert plain.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    np.testing.assert_array_equal(read(path).numpy()[:, :, 0], plain.pixel_array.T)
