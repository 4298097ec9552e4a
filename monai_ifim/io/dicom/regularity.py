"""Check that the slices of a DICOM volume form a regular grid (PS3.3, C.7.6.2: Image Position and Orientation, Patient)."""

from __future__ import annotations

import numpy as np

from monai_ifim.io.dicom.identity import check_one_patient
from monai_ifim.io.dicom.mosaic import check_mosaic
from monai_ifim.io.dicom.volume import SAME_PLACE, Array, DicomVolume
from monai_ifim.io.errors import InputError

SPACING_TOLERANCE = 0.05  # mm by which a slice may be off its place; or, if that is more,
SHARE_TOLERANCE = 0.01  # the share of the mean gap
COSINE_TOLERANCE = 0.01  # direction cosines are often written with three decimals


def check_volume(name: str, volume: DicomVolume) -> None:
    """Raise InputError unless the slices are of one patient, evenly spaced along their normal and not shifted against each other.

    ITK builds a volume from the mean gap and ignores the shear of a tilted gantry, so that components could lie millimetres off
    the anatomy. name: what the message calls the volume.
    """
    check_one_patient(name, volume.disagreeing)
    check_mosaic(name, volume.mosaic)
    if volume.positions is None:
        if volume.slices > 1:
            raise InputError(
                f"{name}: {volume.slices} frames without a place in space, or in several orientations or spacings: a film or a "
                "set of views is no volume. Export the frames that belong together as one image."
            )
        return
    if volume.orientation is not None:
        _check_directions(name, volume.orientation)
    _check_spacing(name, volume)
    if len(volume.positions) < 2 or volume.orientation is None:
        return
    _check_places(name, volume.positions, volume.orientation, one_file=len(volume.files) == 1)


def is_regular(volume: DicomVolume) -> bool:
    """True if `check_volume` does not raise."""
    try:
        check_volume("", volume)
    except InputError:
        return False
    return True


def largest_distance(volume: DicomVolume) -> float | None:
    """Largest distance in mm of a slice from its place on the even grid from the first to the last slice.

    None for fewer than two slices with a place in space.
    """
    if volume.positions is None or volume.orientation is None or len(volume.positions) < 2:
        return None
    order = np.argsort(volume.positions @ np.cross(volume.orientation[:3], volume.orientation[3:]), kind="stable")
    positions = volume.positions[order]
    grid = np.linspace(positions[0], positions[-1], len(positions))
    return float(np.linalg.norm(positions - grid, axis=1).max())


def _check_directions(name: str, orientation: Array) -> None:
    """Raise InputError unless rows and columns are two unit vectors at right angles (PS3.3, C.7.6.2.1.1)."""
    directions = orientation.reshape(2, 3)
    if float(np.abs(directions @ directions.T - np.eye(2)).max()) > COSINE_TOLERANCE:
        raise InputError(
            f"{name}: its Image Orientation is not a pair of unit vectors at right angles, so its slices have no direction: "
            "export the images again."
        )


def _check_spacing(name: str, volume: DicomVolume) -> None:
    if volume.spacing is None and volume.slices > 1:
        raise InputError(f"{name}: its slices state no Pixel Spacing, so their size is not known: export the images again.")
    if volume.spacing is not None and min(volume.spacing) <= 0:
        columns, rows = volume.spacing
        raise InputError(
            f"{name}: its Pixel Spacing is {rows:g} x {columns:g} mm, and must be above zero: export the images again."
        )


def _check_places(name: str, positions: Array, orientation: Array, one_file: bool) -> None:
    normal = np.cross(orientation[:3], orientation[3:])
    heights = positions @ normal
    order = np.argsort(heights)
    positions, heights = positions[order], heights[order]
    gaps = np.diff(heights)
    allowed = max(SPACING_TOLERANCE, SHARE_TOLERANCE * float(gaps.mean()))
    if float(gaps.min()) < SAME_PLACE:
        cure = "they are several echoes, times or stacks; take them apart with dcm2niix" if one_file else "leave one of them out"
        raise InputError(f"{name}: two slices lie at the same place: {cure}.")
    if float(gaps.max() - gaps.min()) > allowed:
        raise InputError(
            f"{name}: the slices are not evenly spaced (gaps of {gaps.min():.2f} to {gaps.max():.2f} mm; is one missing?): put "
            "evenly spaced slices into a folder of their own, or resample the volume onto an even grid with --fix-geometry."
        )
    sideways = positions - positions[0] - np.outer(heights - heights[0], normal)
    drift = float(np.linalg.norm(sideways, axis=1).max())
    if drift > allowed:
        tilt = np.degrees(np.arctan2(drift, heights[-1] - heights[0]))
        raise InputError(
            f"{name}: the slices are shifted against each other ({drift:.2f} mm over the volume, a gantry tilted by {tilt:.1f} "
            "degrees): resample the volume onto an orthogonal grid with --fix-geometry, or correct the tilt with dcm2niix."
        )
