"""Mosaics: the volume in one picture has the values and places of dcm2niix and nibabel, or is refused with the reason."""

from __future__ import annotations

import copy
import itertools
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedMRImage
from monai.transforms import LoadImage
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RLELossless, generate_uid

from monai_ifim.io import DicomReader, InputError, OpenedSource, Source
from monai_ifim.io.dicom.header import read_dicom_file
from monai_ifim.io.limits import LimitError, Limits
from monai_ifim.io.stated_size import check_size
from monai_ifim.run.cases import list_entries
from synthetic_mosaics import Tiles, csa_header, siemens, united_imaging
from synthetic_series import ORIENTATIONS

Array = npt.NDArray[Any]
DESCENDING = [1, 1, -1]
KINDS = {"siemens": siemens, "united imaging": united_imaging}
SECRET = "Roentgen^Wilhelm"


@pytest.fixture
def tiles() -> Tiles:
    return Tiles(ORIENTATIONS["oblique"], 7)


def save(image: Dataset, path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    image.save_as(path)
    return path


def read(path: Path) -> Any:
    loader = LoadImage(image_only=True)
    loader.register(DicomReader())
    return loader(str(path))


def check_same(image: Any, values: Array, world: Array) -> None:
    """values [n] are those of the image at RAS mm [n, 3], and there are no others."""
    affine = image.affine.numpy()
    found = np.rint(nib.affines.apply_affine(np.linalg.inv(affine), world)).astype(int)
    assert image.numel() == values.size
    np.testing.assert_allclose(nib.affines.apply_affine(affine, found), world, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(image.numpy()[tuple(found.T)], values)


def by_dcm2niix(source: Path, folder: Path) -> nib.Nifti1Image:
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not installed (Debian package dcm2niix)")
    folder.mkdir()
    command = ["dcm2niix", "-b", "n", "-z", "n", "-f", "made", "-o", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    [file] = folder.glob("*.nii")
    return nib.load(file)


def check_as_nifti(image: Any, theirs: nib.Nifti1Image, frame: int | None = None) -> None:
    """The image has every voxel of a NIfTI file, or of one of its frames, at the same place; their axes may differ."""
    values = theirs.get_fdata() if frame is None else theirs.get_fdata()[..., frame]
    check_same(image, values.reshape(-1), nib.affines.apply_affine(theirs.affine, np.indices(values.shape).reshape(3, -1).T))


@pytest.mark.parametrize("vendor", KINDS)
@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize(("count", "ways"), [(2, [1, 1, 1]), (7, DESCENDING), (9, [1, 1, 1]), (12, DESCENDING)])
def test_each_tile_is_a_slice_at_its_place(vendor: str, name: str, count: int, ways: list[int], tmp_path: Path) -> None:
    tiles = Tiles(ORIENTATIONS[name] * ways, count)
    path = save(KINDS[vendor](tiles), tmp_path / "one.dcm")
    opened = OpenedSource(Source(path))
    opened.check(channels=1)
    image = read(path)
    assert image.shape == opened.volume.size + (count,) == tiles.values.shape
    check_same(image, tiles.values.reshape(-1), tiles.world())
    np.testing.assert_allclose(np.linalg.norm(image.affine.numpy()[:3, :3], axis=0), tiles.spacing, rtol=1e-6)


@pytest.mark.parametrize("ways", [[1, 1, 1], DESCENDING])
def test_nibabel_and_dcm2niix_agree_on_a_mosaic_of_siemens(ways: list[int], tmp_path: Path) -> None:
    tiles = Tiles(ORIENTATIONS["oblique"] * ways, 6)
    path = save(siemens(tiles), tmp_path / "in" / "one.dcm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel calls its reader experimental
        from nibabel.nicom.dicomwrappers import wrapper_from_file
    theirs = wrapper_from_file(path)
    lps = nib.affines.apply_affine(theirs.affine, np.indices(theirs.image_shape).reshape(3, -1).T)
    image = read(path)
    check_same(image, theirs.get_data().reshape(-1), lps * [-1, -1, 1])
    check_as_nifti(image, by_dcm2niix(path.parent, tmp_path / "theirs"))


def test_dcm2niix_agrees_on_a_mosaic_of_united_imaging(tmp_path: Path) -> None:
    tiles = Tiles(ORIENTATIONS["oblique"] * DESCENDING, 11)
    path = save(united_imaging(tiles), tmp_path / "in" / "one.dcm")
    check_as_nifti(read(path), by_dcm2niix(path.parent, tmp_path / "theirs"))


def test_real_mosaics_are_the_volumes_that_dcm2niix_makes(real_data: Path, tmp_path: Path) -> None:
    theirs = by_dcm2niix(real_data / "dicom" / "mosaic", tmp_path / "siemens")
    assert theirs.shape == (64, 64, 40, 2)
    for frame, name in enumerate(("1.dcm", "2.dcm")):
        check_as_nifti(read(real_data / "dicom" / "mosaic" / name), theirs, frame)
    folder = real_data / "dicom" / "uih_vframe"
    check_as_nifti(read(folder), by_dcm2niix(folder, tmp_path / "united"))


def test_record_of_the_reading_says_that_a_picture_was_taken_apart(tiles: Tiles, tmp_path: Path) -> None:
    image = siemens(tiles)
    first = OpenedSource(Source(save(image, tmp_path / "one.dcm"))).reading
    assert (first.tiles, first.slice_step, first.words()) == (7, "Spacing Between Slices", ())
    grid = OpenedSource(Source(save(united_imaging(tiles), tmp_path / "grid.dcm"))).reading
    assert (grid.tiles, grid.slice_step, grid.words()) == (7, "positions", ())
    del image.SpacingBetweenSlices
    guessed = OpenedSource(Source(save(image, tmp_path / "guess.dcm"))).reading
    assert guessed.slice_step == "Slice Thickness"
    [word] = guessed.words()
    assert "no gap between them" in word
    affine = read(tmp_path / "guess.dcm").affine.numpy()
    assert np.linalg.norm(affine[:3, 2]) == pytest.approx(0.75 * tiles.spacing[2])  # as dcm2niix


def _without_csa(image: Dataset) -> None:
    del image[0x0029, 0x1010]


def _only_count(image: Dataset) -> None:
    _without_csa(image)
    image.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 7)


def _two_counts(image: Dataset) -> None:
    image.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 8)


def _set_csa(**elements: Any) -> Callable[[Dataset], None]:
    def change(image: Dataset) -> None:
        content = {"NumberOfImagesInMosaic": [7], "SliceNormalVector": [1.0, 0.0, 0.0]} | elements
        image[0x0029, 0x1010].value = csa_header(content)

    return change


def _text_for_a_step(image: Dataset) -> None:
    with disable_value_validation():
        image.add_new("SpacingBetweenSlices", "SH", SECRET)  # in a file without types, it is read as a number
    image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def _no_steps(image: Dataset) -> None:
    del image.SpacingBetweenSlices, image.SliceThickness


def _no_place(image: Dataset) -> None:
    del image.ImagePositionPatient


def _cut(image: Dataset) -> None:
    image.Rows -= 1
    image.PixelData = image.PixelData[: image.Rows * image.Columns * 2]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_without_csa, "does not state how many"),
        (_only_count, "does not state on which side of each other they lie"),
        (_two_counts, "does not state one number of them"),
        (_set_csa(NumberOfImagesInMosaic=[-4]), "does not state one number of them"),
        (_set_csa(), "SliceNormalVector is not at right angles"),
        (_set_csa(SliceNormalVector=[0.0, 0.0, 0.0]), "SliceNormalVector is not at right angles"),
        (_set_csa(SliceNormalVector=[SECRET]), "CSA header of Siemens, which tells how they lie, is damaged"),
        (_set_csa(NumberOfImagesInMosaic=["nan"]), "CSA header of Siemens, which tells how they lie, is damaged"),
        (_set_csa(NumberOfImagesInMosaic=[7.5]), "does not state one number of them"),
        (_text_for_a_step, "other text instead of the numbers"),
        (_no_steps, "how far apart they are"),
        (_no_place, "where they lie"),
        (_cut, "its 21 x 14 pixels cannot be 3 x 3 equal tiles"),
    ],
)
def test_mosaic_of_siemens_that_tells_too_little_is_refused(
    change: Callable[[Dataset], None], reason: str, tiles: Tiles, tmp_path: Path
) -> None:
    image = siemens(tiles)
    change(image)
    check_refused(save(image, tmp_path / "series" / "one.dcm"), reason)


def check_refused(path: Path, reason: str) -> None:
    """The file, its folder and the reader alone say why; --fix-geometry has nothing to resample."""
    for source in (Source(path), Source(path.parent), Source(path.parent, fix_geometry=True)):
        with pytest.raises(InputError, match=reason) as caught:
            OpenedSource(source).check(channels=1)
        assert "dcm2niix" in str(caught.value)
        assert SECRET not in str(caught.value)
    with pytest.raises(InputError, match=reason):
        read(path)


def _no_slices(image: Dataset) -> None:
    del image[0x0065, 0x1051]


def _more_slices(image: Dataset) -> None:
    image[0x0065, 0x1051].value.append(Dataset())


def _no_private(image: Dataset) -> None:
    image.remove_private_tags()


def _no_place_of_one(image: Dataset) -> None:
    del image[0x0065, 0x1051].value[3].ImagePositionPatient


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_no_private, "how many and where"),
        (_no_slices, "how many and where"),
        (_more_slices, "how many and where"),
        (_no_place_of_one, "where they lie"),
        (_cut, "pixels cannot be 3 x 3 equal tiles"),
    ],
)
def test_mosaic_of_united_imaging_that_tells_too_little_is_refused(
    change: Callable[[Dataset], None], reason: str, tiles: Tiles, tmp_path: Path
) -> None:
    image = united_imaging(tiles)
    change(image)
    check_refused(save(image, tmp_path / "series" / "one.dcm"), reason)


def test_cure_of_the_refusal_leads_to_acceptance(tiles: Tiles, small_cases: Path, tmp_path: Path) -> None:
    check_refused(next((small_cases / "dicom" / "mosaic").iterdir()), "does not state how many")
    path = save(siemens(tiles), tmp_path / "as_written" / "one.dcm")
    theirs = by_dcm2niix(path.parent, tmp_path / "theirs")
    for given in (path, path.parent, Path(theirs.get_filename())):
        OpenedSource(Source(given)).check(channels=1)


def test_uneven_slices_of_united_imaging_are_resampled_as_those_of_a_series(tiles: Tiles, tmp_path: Path) -> None:
    image = united_imaging(tiles)
    places = 2.5 * np.arange(7.0)
    places[6] += 2.5  # a slice is missing
    for item, place in zip(image[0x0065, 0x1051].value, places, strict=True):
        item.ImagePositionPatient = [*(np.array(tiles.origin) + place * tiles.axes[:, 2])]
    path = save(image, tmp_path / "series" / "one.dcm")
    with pytest.raises(InputError, match="not evenly spaced"):
        OpenedSource(Source(path)).check(channels=1)
    opened = OpenedSource(Source(path.parent, fix_geometry=True))
    opened.check(channels=1)
    found = nib.load(opened.readable_path(tmp_path))
    columns, rows, slices = np.indices(tiles.values.shape).reshape(3, -1)
    lps = tiles.origin + np.stack([columns * 0.8, rows * 1.3, places[slices]], axis=1) @ tiles.axes.T
    voxels = np.rint(nib.affines.apply_affine(np.linalg.inv(found.affine), lps * [-1, -1, 1])).astype(int)
    np.testing.assert_allclose(nib.affines.apply_affine(found.affine, voxels), lps * [-1, -1, 1], rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.get_fdata()[tuple(voxels.T)], tiles.values.reshape(-1), rtol=0, atol=1e-2)


def test_picture_is_a_mosaic_by_its_count_whatever_its_image_type(tiles: Tiles, tmp_path: Path) -> None:
    for image in (siemens(tiles), united_imaging(tiles)):
        image.ImageType = ["DERIVED", "SECONDARY"]
        if "UIH" not in image.Manufacturer:
            image.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 7)
        check_same(read(save(image, tmp_path / "one.dcm")), tiles.values.reshape(-1), tiles.world())


def test_slice_cut_out_of_a_mosaic_is_a_slice(tiles: Tiles, tmp_path: Path) -> None:
    image = siemens(tiles)
    image.ImageType = ["DERIVED", "PRIMARY", "M"]
    image.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 7)
    image.Columns, image.Rows, image.PixelData = 7, 5, tiles.values[:, :, 0].T.tobytes()
    assert read(save(image, tmp_path / "one.dcm")).shape == (7, 5, 1)


def test_mosaic_of_one_tile_is_a_slice(tmp_path: Path) -> None:
    tiles = Tiles(ORIENTATIONS["oblique"], 1)
    image = read(save(siemens(tiles), tmp_path / "one.dcm"))
    check_same(image, tiles.values.reshape(-1), tiles.world())


@pytest.mark.parametrize("modality", ["CT", "DX"])
def test_stitched_picture_of_another_modality_is_a_picture(modality: str, tiles: Tiles, tmp_path: Path) -> None:
    image = siemens(tiles)
    image.Modality = modality
    _without_csa(image)
    OpenedSource(Source(save(image, tmp_path / "one.dcm"))).check(channels=1)
    assert read(tmp_path / "one.dcm").shape == (21, 15, 1)


def test_vframe_without_anything_else_is_no_slice(tiles: Tiles, tmp_path: Path) -> None:
    image = united_imaging(tiles)
    image.remove_private_tags()
    del image.Manufacturer
    check_refused(save(image, tmp_path / "series" / "one.dcm"), "how many and where")
    image.ImagePositionPatient = [1, 2, 3]
    assert read(save(image, tmp_path / "series" / "one.dcm")).shape == (21, 15, 1)


def test_volume_of_siemens_xa_may_say_vframe_and_mosaic(tiles: Tiles, tmp_path: Path) -> None:
    image = siemens(tiles)
    image.ImageType, image.Manufacturer = ["ORIGINAL", "PRIMARY", "M", "VFRAME"], "Siemens Healthineers"
    _without_csa(image)
    assert read(save(image, tmp_path / "one.dcm")).shape == (21, 15, 1)
    for kind in ("MOSAIC", "VFRAME"):
        slices = _slices(tiles)
        for each in slices:
            each.ImageType = ["ORIGINAL", "PRIMARY", "M", kind]
        made = LegacyConvertedEnhancedMRImage(slices, generate_uid(), 3, generate_uid(), 1, include_dimension_index=False)
        made.ImageType = ["ORIGINAL", "PRIMARY", "FMRI", kind]
        check_same(read(save(made, tmp_path / f"{kind}.dcm")), tiles.values.reshape(-1), tiles.world())


def test_frames_at_one_place_that_may_be_mosaics_are_refused(tiles: Tiles, tmp_path: Path) -> None:
    slices = _slices(tiles)
    for each in slices:
        each.ImageType, each.ImagePositionPatient = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"], [1, 2, 3]
    made = LegacyConvertedEnhancedMRImage(slices, generate_uid(), 3, generate_uid(), 1, include_dimension_index=False)
    made.ImageType = ["ORIGINAL", "PRIMARY", "FMRI", "MOSAIC"]
    check_refused(save(made, tmp_path / "series" / "one.dcm"), "its frames lie at one place")


def _slices(tiles: Tiles) -> list[Dataset]:
    """The volume as a series of single slices."""
    shared = siemens(tiles)
    shared.remove_private_tags()
    found = []
    for k in range(tiles.count):
        image = copy.deepcopy(shared)
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.InstanceNumber, (image.Columns, image.Rows) = k + 1, tiles.size
        image.ImagePositionPatient = [*(np.array(tiles.origin) + k * tiles.spacing[2] * tiles.axes[:, 2])]
        image.PixelData = tiles.values[:, :, k].T.tobytes()
        found.append(image)
    return found


def test_private_sequence_without_its_type_is_read(tiles: Tiles, tmp_path: Path) -> None:
    image = united_imaging(tiles)
    image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    path = tmp_path / "one.dcm"
    pydicom.dcmwrite(path, image, implicit_vr=True, little_endian=True)
    assert isinstance(pydicom.dcmread(path)[0x0065, 0x1051].value, bytes)
    check_same(read(path), tiles.values.reshape(-1), tiles.world())


@pytest.mark.parametrize("ways", [[1, 1, 1], DESCENDING])
def test_coloured_mosaic_is_taken_apart(ways: list[int], tmp_path: Path) -> None:
    tiles = Tiles(ORIENTATIONS["oblique"] * ways, 7)
    image = siemens(tiles)
    colours = (np.stack([tiles.picture(3, 3)] * 3, axis=-1) * [1, 3, 7]).astype(np.uint8)
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.PixelData = colours.tobytes()
    found = read(save(image, tmp_path / "one.dcm"))
    values = (tiles.values[..., None] * [1, 3, 7]).astype(np.uint8)
    np.testing.assert_array_equal(found.numpy(), values[:, :, :: ways[2]])
    corner = found.affine.numpy()[:3, 3] * [-1, -1, 1]
    np.testing.assert_allclose(corner, tiles.origin if ways[2] > 0 else tiles.origin + 6 * 2.5 * tiles.axes[:, 2], atol=1e-4)


def test_values_of_a_mosaic_are_those_of_its_picture(tiles: Tiles, tmp_path: Path) -> None:
    """Rescaled; and not inverted by MONOCHROME1, as no MR image is."""
    image = siemens(tiles)
    image.RescaleSlope, image.RescaleIntercept, image.PhotometricInterpretation = "0.5", "-4", "MONOCHROME1"
    path = save(image, tmp_path / "one.dcm")
    check_same(read(path), tiles.values.reshape(-1) * 0.5 - 4, tiles.world())
    assert OpenedSource(Source(path)).reading.tiles == 7


def test_compressed_mosaic_is_taken_apart(tiles: Tiles, tmp_path: Path) -> None:
    image = siemens(tiles)
    image.compress(RLELossless)
    check_same(read(save(image, tmp_path / "one.dcm")), tiles.values.reshape(-1), tiles.world())


def test_datalist_of_monai_holds_no_mosaic(tiles: Tiles, tmp_path: Path) -> None:
    """MONAI's readers would take it for one slice."""
    path = save(siemens(tiles), tmp_path / "one.dcm")
    with pytest.raises(InputError, match="take for one slice: give the NIfTI file that dcm2niix makes"):
        list_entries(path)
    by_dcm2niix(tmp_path, tmp_path / "theirs")
    assert list_entries(tmp_path / "theirs" / "made.nii") == [{"image": str(tmp_path / "theirs" / "made.nii")}]


def test_limit_counts_the_picture(tiles: Tiles, tmp_path: Path) -> None:
    opened = OpenedSource(Source(save(siemens(tiles), tmp_path / "one.dcm")))
    check_size(opened, Limits(voxels=21 * 15))
    with pytest.raises(LimitError):
        check_size(opened, Limits(voxels=21 * 15 - 1))


def test_time_points_are_volumes_of_their_series_in_order(tiles: Tiles, tmp_path: Path) -> None:
    """Whatever the names of their files."""
    for number in range(3):
        image = siemens(tiles)
        image.SeriesInstanceUID, image.StudyInstanceUID, image.FrameOfReferenceUID = "1.2.3", "1.2.4", "1.2.5"
        image.InstanceNumber = image.AcquisitionNumber = number + 9
        save(image, tmp_path / "series" / f"{9 - number}.dcm")
    volumes = OpenedSource(Source(tmp_path / "series")).volumes
    assert [volume.key for volume in volumes] == ["1.2.3#1", "1.2.3#2", "1.2.3#3"]
    assert [volume.files[0].name for volume in volumes] == ["9.dcm", "8.dcm", "7.dcm"]
    with pytest.raises(InputError, match="a series of 3 volumes of 7 slices.*; choose one with --frame N, N from 0 to 2"):
        OpenedSource(Source(tmp_path / "series")).check(channels=1)
    for frame in range(3):
        opened = OpenedSource(Source(tmp_path / "series", frame=frame))
        opened.check(channels=1)
        assert [part.name for part in opened.parts] == [f"{9 - frame}.dcm"]


def test_mosaic_that_tells_too_little_hides_no_other_series(tiles: Tiles, tmp_path: Path) -> None:
    mosaic, whole = siemens(tiles), siemens(tiles)
    _without_csa(mosaic)
    save(mosaic, tmp_path / "study" / "a.dcm")
    save(whole, tmp_path / "study" / "b.dcm")
    OpenedSource(Source(tmp_path / "study", series=str(whole.SeriesInstanceUID))).check(channels=1)
    with pytest.raises(InputError, match="does not state how many"):
        OpenedSource(Source(tmp_path / "study", series=str(mosaic.SeriesInstanceUID))).check(channels=1)


def test_header_keeps_no_private_text(tiles: Tiles, tmp_path: Path) -> None:
    image = siemens(tiles, {"PatientName": [SECRET]})
    file = read_dicom_file(save(image, tmp_path / "one.dcm"))
    assert file.mosaic is not None
    assert SECRET not in str(file.header)
    assert not any(element.tag.group == 0x0029 for element in file.header)


def test_corners_are_those_of_the_picture_of_one_tile(tiles: Tiles, tmp_path: Path) -> None:
    """A mosaic whose picture is one tile larger in each direction has the same volume in the same place."""
    more = Tiles(tiles.axes, 10)
    volumes = [read(save(siemens(each), tmp_path / f"{each.count}.dcm")) for each in (tiles, more)]
    shape = tiles.values.shape
    corners = np.array(list(itertools.product(*[(0, size - 1) for size in shape])))
    places = [nib.affines.apply_affine(volume.affine.numpy(), corners) for volume in volumes]
    np.testing.assert_allclose(places[0], places[1], rtol=0, atol=1e-6)
