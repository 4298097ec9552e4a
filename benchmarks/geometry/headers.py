"""pydicom's side: slices placed by their own headers (PS3.3, C.7.6.2), for series of which dcm2niix makes no image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from benchmarks.geometry.volume import Refused, Volume, volume_of
from monai_ifim.io.errors import unquoted

PYDICOM = "pydicom"
PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)  # transfer syntaxes without compression or another order of bytes
FACTS: dict[str, Callable[[Any], bool]] = {
    "no position": lambda header: _nowhere(header, "ImagePositionPatient", "PlanePositionSequence"),
    "no orientation": lambda header: _nowhere(header, "ImageOrientationPatient", "PlaneOrientationSequence"),
    "no Pixel Spacing": lambda header: _nowhere(header, "PixelSpacing", "PixelMeasuresSequence"),
    "no Slice Thickness": lambda header: not header.get("SliceThickness") and "PixelMeasuresSequence" not in _shared(header),
    "Modality LUT": lambda header: "ModalityLUTSequence" in header,
    "colours": lambda header: int(header.get("SamplesPerPixel") or 1) > 1,
    "palette": lambda header: header.get("PhotometricInterpretation") == "PALETTE COLOR",
    "MONOCHROME1": lambda header: header.get("PhotometricInterpretation") == "MONOCHROME1",
    "tilted gantry": lambda header: float(header.get("GantryDetectorTilt") or 0) != 0,
    "not plain": lambda header: header.file_meta.TransferSyntaxUID not in PLAIN,
    "sign below the highest bit": lambda header: bool(header.PixelRepresentation) and header.BitsStored < header.BitsAllocated,
    "localizer": lambda header: "LOCALIZER" in (header.get("ImageType") or []),
    "no Instance Number": lambda header: header.get("InstanceNumber") is None,
    "rounded directions": lambda header: _deviation(header) > UNIT,
    "several frames": lambda header: int(header.get("NumberOfFrames") or 1) > 1,
}
AXIAL = (1, 0, 0, 0, 1, 0)
UNIT = 1e-5  # deviation of direction cosines from two unit vectors at right angles that six decimals leave
RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_pydicom(files: Sequence[Path]) -> Volume | Refused:
    """Files of one slice each, sorted along their normal; the values rescaled (PS3.3, C.11.1.1.2)."""
    try:
        with disable_value_validation():  # its warnings quote headers
            slices = [pydicom.dcmread(path, force=True) for path in files]
            if any(int(getattr(each, "NumberOfFrames", 1) or 1) > 1 for each in slices):
                return Refused("several frames")
            if len(slices) > 1 and any("ImagePositionPatient" not in each for each in slices):
                return Refused("no place in its header")
            return _placed(slices)
    except Exception as error:
        return Refused(unquoted(error))


def facts_of(path: Path) -> frozenset[str]:
    """What the header of a DICOM file says that makes programs differ, in words of `FACTS`; empty if it cannot be read."""
    try:
        with disable_value_validation():
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except Exception:
        return frozenset()
    return frozenset(fact for fact, holds in FACTS.items() if _holds(holds, header))


def end_gaps(files: Sequence[Path]) -> tuple[float, ...]:
    """mm between the first two slices and between the last two, along their normal; empty where the headers do not tell."""
    try:
        with disable_value_validation():
            slices = [pydicom.dcmread(path, stop_before_pixels=True, force=True) for path in files]
            columns, rows = np.array(slices[0].ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
            places = np.array([each.ImagePositionPatient for each in slices], dtype=np.float64)
    except Exception:
        return ()
    gaps = np.diff(np.sort(places @ np.cross(columns, rows)))
    return (float(gaps[0]), float(gaps[-1])) if len(gaps) else ()


def _placed(slices: list[Any]) -> Volume:
    columns, rows = np.array(slices[0].get("ImageOrientationPatient") or AXIAL, dtype=np.float64).reshape(2, 3)
    places = np.array([each.get("ImagePositionPatient") or (0, 0, 0) for each in slices], dtype=np.float64)
    order = np.argsort(places @ np.cross(columns, rows))
    between_rows, between_columns = (float(each) for each in slices[0].get("PixelSpacing") or (1, 1))
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = columns * between_columns, rows * between_rows
    affine[:3, 2] = np.cross(columns, rows) * float(slices[0].get("SliceThickness") or 1)
    if len(slices) > 1:
        affine[:3, 2] = (places[order[-1]] - places[order[0]]) / (len(slices) - 1)
    affine[:3, 3] = places[order[0]]
    values = [_values(slices[k]) for k in order]
    return volume_of(np.stack(values, axis=2), RAS_FROM_LPS @ affine)


def _holds(fact: Callable[[Any], bool], header: Any) -> bool:
    try:
        return fact(header)
    except (AttributeError, TypeError, ValueError):  # a damaged element
        return False


def _nowhere(header: Any, element: str, sequence: str) -> bool:
    """True if neither the header nor the functional groups of its frames state an element."""
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    return not header.get(element) and sequence not in _shared(header) and not any(sequence in frame for frame in frames)


def _deviation(header: Any) -> float:
    """Largest deviation of the direction cosines from two unit vectors at right angles."""
    directions = np.array(header.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    return float(np.abs(directions @ directions.T - np.eye(2)).max())


def _shared(header: Any) -> Any:
    shared = header.get("SharedFunctionalGroupsSequence") or []
    return shared[0] if len(shared) else {}


def _values(image: Any) -> Any:
    """The rescaled values [column, row]; not a number where pydicom cannot decode them, so that only the place counts."""
    try:
        values = np.swapaxes(image.pixel_array, 0, 1)
    except Exception:
        return np.full((image.Columns, image.Rows), np.nan)
    return values * float(image.get("RescaleSlope") or 1) + float(image.get("RescaleIntercept") or 0)
