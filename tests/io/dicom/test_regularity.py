"""DICOM series whose volume would be built in the wrong place are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from monai_ifim.io import InputError, OpenedSource, Source
from monai_ifim.io.dicom.regularity import SHARE_TOLERANCE, SPACING_TOLERANCE, check_volume, is_regular
from monai_ifim.io.dicom.volume import SAME_PLACE, DicomVolume


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


def volume(heights: list[float], sideways: float = 0.0) -> DicomVolume:
    """Axial slices at these heights, the last of them moved along the columns; 1 mm pixels."""
    positions = np.column_stack([np.zeros(len(heights)), np.zeros(len(heights)), heights])
    positions[-1, 0] += sideways
    orientation = np.array([1.0, 0, 0, 0, 1, 0])
    return DicomVolume("1.2", (Path("a"), Path("b")), "CT", (4, 4), len(heights), positions, orientation, (1.0, 1.0))


@pytest.mark.parametrize("gap", [1.0, 10.0])
def test_the_larger_of_both_tolerances_holds(gap: float) -> None:
    """Below 5 mm it is the one in mm, above it is a share of the gap."""
    allowed = max(SPACING_TOLERANCE, SHARE_TOLERANCE * gap)
    assert allowed == {1.0: 0.05, 10.0: 0.1}[gap]
    for off, regular in ((0.9 * allowed, True), (1.1 * allowed, False)):
        assert is_regular(volume([0.0, gap, 2 * gap + off, 3 * gap + off])) is regular
        assert is_regular(volume([0.0, gap, 2 * gap], sideways=off)) is regular


def test_two_slices_at_one_place_are_refused() -> None:
    check_volume("a", volume([0.0, 2 * SAME_PLACE, 4 * SAME_PLACE]))
    with pytest.raises(InputError, match=r"^a: two slices lie at the same place: leave one of them out"):
        check_volume("a", volume([0.0, 0.5 * SAME_PLACE, 2.0]))


def test_the_tilt_is_stated_in_degrees() -> None:
    with pytest.raises(InputError, match=r"1\.00 mm over the volume, a gantry tilted by 45\.0 degrees"):
        check_volume("a", volume([0.0, 1.0], sideways=1.0))
