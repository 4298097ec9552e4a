"""Check that the slices of a DICOM volume form a regular grid (PS3.3, C.7.6.2: Image Position and Orientation, Patient)."""

from __future__ import annotations

import numpy as np

from monai_ifim.io.dicom.grid import SliceGrid, slice_grid
from monai_ifim.io.dicom.identity import check_one_patient
from monai_ifim.io.dicom.mosaic import check_mosaic
from monai_ifim.io.dicom.volume import SAME_PLACE, Array, DicomVolume, check_one_grid
from monai_ifim.io.errors import InputError

SHARE_OF_GAP = 0.1  # of the gap between slices by which one may be off its place on the grid; and, if that is less,
FURTHEST = 0.1  # mm
PRINTED = 0.1  # mm: a place printed with one decimal is rounded by half of it, and so are those of the first and the last slice
ROUNDING = 1e-6  # mm, of sums in float64 and of places printed with few decimals
LENGTH_TOLERANCE = 0.01  # of direction cosines, which may be printed with two decimals: their length is taken as 1
COSINE_TOLERANCE = 2e-3  # between rows and columns, whose direction cosines may be printed with three decimals
SMALLEST_TILT = 0.1  # degrees: below it, direction cosines printed with three decimals look the same
MISSING = 1.5  # times the usual gap: a larger one may lack a slice


def check_volume(name: str, volume: DicomVolume) -> None:
    """Raise InputError unless the slices are of one patient and lie on an even grid at right angles.

    A slice may be off its place between the first and the last one by SHARE_OF_GAP of the gap or FURTHEST, whichever is less;
    uneven gaps, shifted slices and tilted gantries are further off. name: what the message calls the volume.
    """
    check_placed(name, volume)
    grid = slice_grid(volume)
    if grid is not None and not is_even(volume):
        raise InputError(f"{name}: {_unevenness(grid, tolerance(volume))}")


def check_placed(name: str, volume: DicomVolume) -> None:
    """Raise InputError unless the slices are of one patient and each has a place and a size of its own, evenly spaced or not.

    name: what the message calls the volume.
    """
    check_one_patient(name, volume.disagreeing)
    _check_directions(name, volume)
    check_one_grid(name, volume)
    check_mosaic(name, volume.mosaic)
    if volume.positions is None:
        if volume.slices > 1:
            raise InputError(
                f"{name}: {volume.slices} frames without a place in space, or in several orientations or spacings: a film or a "
                "set of views is no volume. Export the frames that belong together as one image."
            )
        _check_spacing(name, volume)
        return
    _check_spacing(name, volume)
    _check_repeated(name, volume)


def is_even(volume: DicomVolume) -> bool:
    """True unless a slice is further off its place on the even grid than `tolerance`; also where no places are known."""
    furthest = largest_distance(volume)
    return furthest is None or furthest <= tolerance(volume) + ROUNDING


def largest_distance(volume: DicomVolume) -> float | None:
    """Largest distance in mm of a slice from its place on the even grid from the first to the last slice.

    None for fewer than two slices with a place in space.
    """
    if volume.orientation is None or not _has_directions(volume.orientation):
        return None
    grid = slice_grid(volume)
    return None if grid is None or len(grid.order) < 2 else float(grid.distances.max())


def tolerance(volume: DicomVolume) -> float:
    """How far in mm a slice of a volume may be off its place on the even grid; 0 if it has no place in space.

    Places that are printed with one decimal may be off by so much in each coordinate that varies.
    """
    grid = slice_grid(volume)
    if grid is None or volume.positions is None:
        return 0.0
    varying = int((np.ptp(volume.positions, axis=0) > ROUNDING).sum())
    tenths = volume.positions / PRINTED
    printed = bool(np.allclose(tenths, np.rint(tenths), rtol=0, atol=ROUNDING))
    furthest = max(FURTHEST, PRINTED * float(np.sqrt(varying))) if printed else FURTHEST
    return min(SHARE_OF_GAP * grid.step, furthest)


def _has_directions(orientation: Array) -> bool:
    """True if rows and columns are two unit vectors at right angles (PS3.3, C.7.6.2.1.1)."""
    directions = orientation.reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1)
    if not bool(np.all(np.abs(lengths - 1) <= LENGTH_TOLERANCE)):
        return False
    return abs(float(directions[0] @ directions[1])) / float(lengths.prod()) <= COSINE_TOLERANCE


def _check_directions(name: str, volume: DicomVolume) -> None:
    if volume.orientation is not None and not _has_directions(volume.orientation):
        raise InputError(
            f"{name}: its Image Orientation is not a pair of unit vectors at right angles, so its slices have no direction: "
            "export the images again."
        )


def _check_spacing(name: str, volume: DicomVolume) -> None:
    if volume.spacing is None and volume.slices > 1:
        raise InputError(f"{name}: its slices state no Pixel Spacing, so their size is not known: export the images again.")
    if volume.spacing is not None and min(volume.spacing) <= 0:
        columns, rows = volume.spacing
        stated = (volume.reading.pixel_spacing or "Pixel Spacing").partition(" (")[0]
        raise InputError(
            f"{name}: its {stated} is {rows:g} x {columns:g} mm, and must be above zero: export the images again, or correct it "
            "(dcmodify)."
        )


def _check_repeated(name: str, volume: DicomVolume) -> None:
    grid = slice_grid(volume)
    if grid is not None and len(grid.heights) > 1 and float(np.diff(grid.heights).min()) < SAME_PLACE:
        raise InputError(f"{name}: two slices lie at the same place: leave one of them out.")


def _unevenness(grid: SliceGrid, most: float) -> str:
    """What is further off than `most` mm, in words, with the cure."""
    heights, shifts = np.abs(grid.uneven), np.linalg.norm(grid.sideways, axis=1)
    if float(shifts.max()) <= most and float(heights.max()) >= float(shifts.max()):
        cure = (
            "put evenly spaced slices into a folder of their own, or resample the volume onto an even grid with --fix-geometry."
        )
        return f"{_uneven_gaps(grid)}: {cure}"
    cure = "resample the volume onto an orthogonal grid with --fix-geometry"
    if float(heights.max()) <= most:
        return f"{_shift(grid)}: {cure}, or correct the tilt with dcm2niix."
    return f"{_uneven_gaps(grid)}; {_shift(grid)}: {cure}."


def _uneven_gaps(grid: SliceGrid) -> str:
    gaps, off = np.diff(grid.heights), float(np.abs(grid.uneven).max())
    missing = "; is one missing?" if float(gaps.max()) > MISSING * float(np.median(gaps)) else ""
    return (
        f"the slices are not evenly spaced: one lies {off:.2f} mm off its place between the first and the last (gaps of "
        f"{gaps.min():.2f} to {gaps.max():.2f} mm{missing})"
    )


def _shift(grid: SliceGrid) -> str:
    """A tilt, whose shifts grow evenly from slice to slice, or other shifts."""
    drift = float(np.linalg.norm(grid.sideways, axis=1).max())
    share = grid.heights / grid.heights[-1]
    bent = np.linalg.norm(grid.sideways - np.outer(share, grid.sideways[-1]), axis=1)
    cause = "off the line of the others"
    if float(bent.max()) < 0.5 * drift:
        tilt = np.degrees(np.arctan2(drift, grid.heights[-1]))
        cause = f"over the volume, a gantry tilted by {tilt:.3g} degrees"
        if tilt < SMALLEST_TILT:
            cause = f"{cause}, or directions printed with few decimals"
    return f"the slices are shifted against each other ({drift:.2f} mm {cause})"
