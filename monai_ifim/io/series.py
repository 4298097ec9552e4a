"""Do the slices of a DICOM series make a regular volume? (PS3.3, C.7.6.2: Image Position and Image Orientation, Patient)"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from monai_ifim.io.errors import InputError

SPACING_TOLERANCE = 0.05  # mm, or the share of the mean step, whichever is more, by which a slice may be off its place
SHARE_TOLERANCE = 0.01


def check_spacing(name: str, slices: Sequence[Path]) -> None:
    """Raise InputError unless the slices are evenly spaced along their own normal.

    ITK builds a volume from the mean step and leaves the shear of a tilted gantry out: without this check the components
    would lie millimetres off the anatomy. slices: one file each, in the order of the volume. Slices that state no position,
    and multi-frame files, are left to the reader.
    """
    import pydicom

    tags = ["ImagePositionPatient", "ImageOrientationPatient"]
    headers = [pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True) for path in slices]
    stated = [header for header in headers if all(getattr(header, tag, None) for tag in tags)]
    if len(stated) < 2 or len(stated) < len(headers):
        return
    positions = np.array([header.ImagePositionPatient for header in stated], dtype=np.float64)
    orientation = np.array(stated[0].ImageOrientationPatient, dtype=np.float64)
    normal = np.cross(orientation[:3], orientation[3:])
    heights = positions @ normal
    order = np.argsort(heights)
    positions, heights = positions[order], heights[order]
    gaps = np.diff(heights)
    allowed = max(SPACING_TOLERANCE, SHARE_TOLERANCE * float(gaps.mean()))
    if float(gaps.min()) < 1e-3:
        raise InputError(f"{name}: two slices lie at the same place: leave one of them out.")
    if float(gaps.max() - gaps.min()) > allowed:
        raise InputError(
            f"{name}: the slices are not evenly spaced (gaps of {gaps.min():.2f} to {gaps.max():.2f} mm; is one missing?): put "
            "evenly spaced slices into a folder of their own, or convert the series with a program that resamples it."
        )
    sideways = positions - positions[0] - np.outer(heights - heights[0], normal)
    drift = float(np.linalg.norm(sideways, axis=1).max())
    if drift > allowed:
        tilt = np.degrees(np.arctan2(drift, heights[-1] - heights[0]))
        raise InputError(
            f"{name}: the slices are shifted against each other ({drift:.2f} mm over the volume, a gantry tilted by {tilt:.1f} "
            "degrees): correct the tilt first (dcm2niix does)."
        )
