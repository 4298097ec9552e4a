"""The `DicomVolume` that slices of one orientation and spacing make.

Only numbers, UIDs and codes are taken over from a header, and only if they have the form of one: any other text may be a name.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_ifim.io.dicom.forms import LONGEST_UID, MODALITY_FORM, UID_FORM
from monai_ifim.io.dicom.measures import measured
from monai_ifim.io.dicom.mosaic import Mosaic
from monai_ifim.io.dicom.planes import Plane, frames_of, functional, spacing_of
from monai_ifim.io.dicom.volume import DicomVolume
from monai_ifim.io.reading import Reading


def volume_of(planes: Sequence[Plane]) -> DicomVolume:
    """The volume that slices make, which are sorted by place; those of a multi-frame file are all of that file.

    A file whose frames are all taken keeps them in its own order.
    """
    header, count = planes[0].header, frames_of(planes[0].header)
    whole = count > 1 and len(planes) == count
    if whole:
        planes = sorted(planes, key=lambda plane: plane.frame or 0)
    frames = None if count == 1 else tuple(plane.frame or 0 for plane in planes)
    volume = DicomVolume(
        key=series_name(planes[0].path, header),
        files=(planes[0].path,) if count > 1 else tuple(plane.path for plane in planes),
        modality=modality_of(header),
        size=(int(header.Columns), int(header.Rows)),
        slices=len(planes),
        positions=np.array([plane.position for plane in planes]),
        orientation=np.mean([plane.orientation for plane in planes], axis=0),  # what rounding leaves of one orientation
        spacing=_mean([plane.spacing for plane in planes]),
        frames=None if whole else frames,
        thickness=_thickness(planes[0]),
    )
    return measured(volume, [(plane.header, plane.frame) for plane in planes])


def volume_without_place(path: Path, header: Any) -> DicomVolume:
    """The volume of a file that does not state the place of each of its frames."""
    spacings = functional(header, "PixelMeasuresSequence", "PixelSpacing")
    volume = DicomVolume(
        key=series_name(path, header),
        files=(path,),
        modality=modality_of(header),
        size=(int(header.Columns), int(header.Rows)),
        slices=frames_of(header),
        spacing=spacing_of(spacings[0] if spacings else header.get("PixelSpacing")),
    )
    return measured(volume, [(header, frame) for frame in range(frames_of(header))])


def volume_of_mosaic(path: Path, header: Any, mosaic: Mosaic) -> DicomVolume:
    """The volume in a mosaic, or, if it cannot be taken apart, its picture, which `regularity.check_volume` refuses."""
    count = frames_of(header) if mosaic.positions is None else len(mosaic.positions)
    volume = DicomVolume(
        key=series_name(path, header),
        files=(path,),
        modality=modality_of(header),
        size=(int(header.Columns) // mosaic.across, int(header.Rows) // mosaic.down),
        slices=count,
        positions=mosaic.positions,
        orientation=mosaic.orientation,
        spacing=mosaic.spacing,
        reading=Reading(tiles=None if mosaic.fault else count, slice_step=mosaic.slice_step),
        mosaic=mosaic,
    )
    return measured(volume, [(header, None)])


def series_name(path: Path, header: Any) -> str:
    """The key of a series: its UID, or a digest if that has not the form of a UID and may be any text."""
    uid = str(header.get("SeriesInstanceUID") or "").strip(" \0")
    if not uid:
        return path.name
    if len(uid) <= LONGEST_UID and UID_FORM.fullmatch(uid):
        return uid
    return f"series-{hashlib.sha256(uid.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"


def modality_of(header: Any) -> str:
    """The modality if it has the form of a code, else an empty text."""
    text = str(header.get("Modality") or "")
    return text if MODALITY_FORM.fullmatch(text) else ""


def _mean(spacings: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """The mean of spacings that are equal but for rounding; None if they are not stated."""
    known = [spacing for spacing in spacings if spacing is not None]
    if len(known) < len(spacings):
        return None
    columns, rows = np.mean(known, axis=0)
    return float(columns), float(rows)


def _thickness(plane: Plane) -> float | None:
    """Slice Thickness in mm, None if it is missing or none: slices with neighbours need none, so that it is never an error."""
    try:
        thickness = float(plane.stated("SliceThickness", "PixelMeasuresSequence", "SliceThickness"))
    except (TypeError, ValueError):
        return None
    return thickness if 0 < thickness < math.inf else None
