"""DICOM series whose volume would be built in the wrong place are refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from scipy.spatial.transform import Rotation

from monai_ifim.io import InputError, OpenedSource, Source
from monai_ifim.io.dicom.grid import slice_grid
from monai_ifim.io.dicom.regularity import check_placed, check_volume, is_even, largest_distance
from monai_ifim.io.dicom.volume import SAME_PLACE, DicomVolume
from synthetic_series import ORIENTATIONS, Series, write


def copied(source: Path, target: Path, leave_out: tuple[str, ...] = (), keep: int | None = None) -> Path:
    target.mkdir()
    for path in sorted(source.iterdir())[:keep]:
        if path.name not in leave_out:
            shutil.copy(path, target)
    return target


def test_tilted_gantry_is_refused(real_data: Path, tmp_path: Path) -> None:
    nine = copied(real_data / "dicom" / "ct_tilt", tmp_path / "tilt", keep=9)
    with pytest.raises(InputError, match=r"gantry tilted by 18\.5 degrees.*--fix-geometry.*dcm2niix"):
        OpenedSource(Source(nine)).check(1)


def test_missing_slices_are_refused(real_data: Path, tmp_path: Path) -> None:
    gaps = copied(real_data / "dicom" / "ct_plain", tmp_path / "gaps", leave_out=("I100", "I110", "I20"))
    with pytest.raises(InputError, match=r"gaps of 5\.00 to 1[05]\.00 mm"):
        OpenedSource(Source(gaps)).check(1)


def test_regular_series_passes(real_data: Path) -> None:
    OpenedSource(Source(real_data / "dicom" / "ct_plain")).check(1)


def volume(heights: list[float], sideways: float = 0.0, orientation: tuple[float, ...] = (1.0, 0, 0, 0, 1, 0)) -> DicomVolume:
    """Axial slices at these heights, the last of them moved along the columns; 1 mm pixels."""
    positions = np.column_stack([np.full(len(heights), 1 / 3), np.zeros(len(heights)), heights])  # not printed with one decimal
    positions[-1, 0] += sideways
    files = tuple(Path(f"{k}") for k in range(len(heights)))
    return DicomVolume("1.2", files, "CT", (4, 4), len(heights), positions, np.array(orientation), (1.0, 1.0))


@pytest.mark.parametrize(("gap", "allowed"), [(0.5, 0.05), (1.0, 0.1), (10.0, 0.1)])
@pytest.mark.parametrize(("share", "even"), [(0.98, True), (1.02, False)])
def test_a_slice_may_be_off_its_place_by_a_tenth_of_the_gap_or_of_a_millimetre(
    gap: float, allowed: float, share: float, even: bool
) -> None:
    off = share * allowed
    for up in (off, -off):
        moved = volume([0.0, gap, 2 * gap + up, 3 * gap, 4 * gap])
        assert is_even(moved) is even
        assert largest_distance(moved) == pytest.approx(off)
    aside = volume([0.0, gap, 2 * gap], sideways=off)
    assert is_even(aside) is even
    assert largest_distance(aside) == pytest.approx(off)
    both = volume([0.0, gap + 0.6 * off, 2 * gap])
    both.positions[1, 1] = 0.8 * off  # type: ignore[index]
    assert is_even(both) is even
    assert largest_distance(both) == pytest.approx(off)


def test_gaps_that_drift_or_change_are_refused_however_small_the_change() -> None:
    """No gap differs much from its neighbours, and slices are more than a millimetre off."""
    drift = np.concatenate([[0], np.cumsum(np.linspace(2.4755, 2.5245, 199))]).tolist()
    with pytest.raises(
        InputError, match=r"^a: the slices are not evenly spaced: one lies 1\.22 mm off its place .*--fix-geometry"
    ):
        check_volume("a", volume(drift))
    two_speeds = np.concatenate([2.0 * np.arange(50), 98 + 2.01 * np.arange(1, 51)]).tolist()
    with pytest.raises(InputError, match=r"one lies 0\.25 mm off .*gaps of 2\.00 to 2\.01 mm\)"):
        check_volume("a", volume(two_speeds))


@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (0.3, -0.5, 0.8), (1.1, 0.2, -0.4)])
@pytest.mark.parametrize("seed", range(6))
def test_places_printed_with_one_decimal_are_accepted(turn: tuple[float, float, float], seed: int) -> None:
    axes = Rotation.from_rotvec(turn).as_matrix()
    start = np.random.default_rng(seed).uniform(-200, 200, 3)
    exact = start + 5.0 * np.arange(40)[:, None] * axes[:, 2]
    files = tuple(Path(f"{k}") for k in range(40))
    orientation = np.concatenate([axes[:, 0], axes[:, 1]])
    printed = DicomVolume("1.2", files, "CT", (4, 4), 40, np.round(exact, 1), orientation, (1.0, 1.0))
    check_volume("a", printed)
    worse = np.round(exact, 1) + np.where(np.arange(40) == 20, 0.3, 0.0)[:, None] * axes[:, 2]
    assert not is_even(replace(printed, positions=worse))


def test_two_slices_at_one_place_are_refused() -> None:
    check_volume("a", volume([0.0, 2 * SAME_PLACE, 4 * SAME_PLACE]))
    with pytest.raises(InputError, match=r"^a: two slices lie at the same place: leave one of them out"):
        check_volume("a", volume([0.0, 0.5 * SAME_PLACE, 2.0]))


def test_the_tilt_is_stated_in_degrees() -> None:
    with pytest.raises(InputError, match=r"1\.00 mm over the volume, a gantry tilted by 45 degrees"):
        check_volume("a", volume([0.0, 1.0], sideways=1.0))


def test_one_shifted_slice_is_no_tilt() -> None:
    shifted = volume([0.0, 2.0, 4.0, 6.0, 8.0])
    shifted.positions[2, 1] += 0.5  # type: ignore[index]
    with pytest.raises(InputError, match=r"shifted against each other \(0\.50 mm off the line of the others\)"):
        check_volume("a", shifted)


@pytest.mark.parametrize(
    ("orientation", "accepted"),
    [
        ((0.71, 0.71, 0, -0.71, 0.71, 0), True),  # printed with two decimals
        ((1, 0, 0, 0.0019, 1, 0), True),
        ((1, 0, 0, 0.0021, 1, 0), False),
        ((0.98, 0, 0, 0, 1, 0), False),
        ((0, 0, 0, 0, 1, 0), False),
        ((1, 0, 0, 1, 0, 0), False),
    ],
)
def test_directions_are_two_unit_vectors_at_right_angles(orientation: tuple[float, ...], accepted: bool) -> None:
    one = volume([0.0], orientation=orientation)
    if accepted:
        check_volume("a", one)
        axes = slice_grid(one).directions  # type: ignore[union-attr]
        np.testing.assert_allclose(axes.T @ axes, np.eye(3), rtol=0, atol=1e-12)
        stated = np.reshape(orientation, (2, 3)).T
        assert np.abs(axes[:, :2] - stated / np.linalg.norm(stated, axis=0)).max() < 1e-3
        return
    with pytest.raises(InputError, match="not a pair of unit vectors at right angles"):
        check_volume("a", one)
    assert largest_distance(one) is None
    assert is_even(one)


def test_resampling_mends_only_what_is_uneven() -> None:
    """Directions that are none, or two patients, are refused with or without --fix-geometry."""
    skewed = volume([0.0, 2.0, 5.0], orientation=(1, 0, 0, 1, 0, 0))
    with pytest.raises(InputError, match="not a pair of unit vectors"):
        check_placed("a", skewed)
    with pytest.raises(InputError, match="not all of one patient"):
        check_placed("a", replace(volume([0.0, 2.0, 5.0]), disagreeing=("Patient ID",)))
    check_placed("a", volume([0.0, 2.0, 5.0]))


def test_case_whose_gaps_drift_is_refused_and_resampled_where_that_is_asked_for(small_cases: Path, tmp_path: Path) -> None:
    folder = small_cases / "dicom" / "gaps_drift"
    with pytest.raises(InputError, match=r"one lies 1\.23 mm off its place .* with --fix-geometry"):
        OpenedSource(Source(folder)).check(1)
    opened = OpenedSource(Source(folder, fix_geometry=True))
    opened.check(1)
    assert opened.reading.largest_distance_mm == pytest.approx(1.225, abs=1e-3)
    image = nib.load(opened.readable_path(tmp_path))
    slices = sorted((pydicom.dcmread(file) for file in folder.iterdir()), key=lambda each: float(each.ImagePositionPatient[2]))
    heights = [float(each.ImagePositionPatient[2]) for each in slices]
    values = [each.pixel_array[2, 3] * float(each.RescaleSlope) + float(each.RescaleIntercept) for each in slices]
    planes = image.affine[2, 3] + image.affine[2, 2] * np.arange(image.shape[2])
    assert (image.affine[2, 3], planes[-1]) == pytest.approx((heights[0], heights[-1]), abs=2.5)
    np.testing.assert_allclose(np.asarray(image.dataobj)[3, 2], np.interp(planes, heights, values), rtol=0, atol=0.05)


def test_case_whose_places_jitter_is_accepted_and_says_by_how_much(small_cases: Path) -> None:
    folder = small_cases / "dicom" / "jitter_0.02mm"
    opened = OpenedSource(Source(folder))
    opened.check(1)
    assert opened.reading.largest_distance_mm == pytest.approx(0.0235, abs=1e-4)
    grid = slice_grid(opened.volume)
    assert grid is not None
    stated = np.array([header.ImagePositionPatient for header in opened.headers], dtype=float)
    placed = grid.origin + np.arange(20)[:, None] * grid.step * grid.normal
    assert np.linalg.norm(stated - placed, axis=1).max() == pytest.approx(0.0235, abs=1e-4)
    assert np.linalg.norm(stated[[0, -1]] - placed[[0, -1]], axis=1).max() < 1e-6


@pytest.mark.parametrize("directions", [[0, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0]])
def test_slices_without_directions_are_refused_for_that(directions: list[int], tmp_path: Path) -> None:
    slices = Series(ORIENTATIONS["axial"]).slices()
    for image in slices:
        image.ImageOrientationPatient = directions
    with pytest.raises(InputError, match="its Image Orientation is not a pair of unit vectors"):
        OpenedSource(Source(write(tmp_path / "flat", slices))).check(channels=1)
