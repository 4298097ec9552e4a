"""Do the slices of a DICOM volume make a regular grid? (PS3.3, C.7.6.2: Image Position and Image Orientation, Patient)"""

from __future__ import annotations

import numpy as np

from monai_ifim.io.dicom_volumes import SAME_PLACE, Array, DicomVolume
from monai_ifim.io.errors import InputError

SPACING_TOLERANCE = 0.05  # mm, or the share of the mean step, whichever is more, by which a slice may be off its place
SHARE_TOLERANCE = 0.01


def check_volume(name: str, volume: DicomVolume) -> None:
    """Raise InputError unless the slices are evenly spaced along their own normal and not shifted against each other.

    ITK builds a volume from the mean step and leaves the shear of a tilted gantry out: without this check the components
    would lie millimetres off the anatomy. name: what to call the volume in the message.
    """
    if volume.positions is None:
        if volume.slices > 1:
            raise InputError(
                f"{name}: {volume.slices} frames without a place in space, or in several orientations or spacings: a film or a "
                "set of views is no volume. Export the frames that belong together as one image."
            )
        return
    if len(volume.positions) < 2 or volume.orientation is None:
        return
    _check_places(name, volume.positions, volume.orientation, one_file=len(volume.files) == 1)


def is_regular(volume: DicomVolume) -> bool:
    """Whether `check_volume` has nothing to say against it."""
    try:
        check_volume("", volume)
    except InputError:
        return False
    return True


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
