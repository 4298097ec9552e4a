"""Distance between the pixels of a DICOM image within its plane, and which attribute states it (PS3.3, 10.7.1).

A projection image is larger than what it shows, as the rays spread: Pixel Spacing is corrected for that, or calibrated, and
Imager Pixel Spacing is measured at the detector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PIXEL_SPACING = "Pixel Spacing"
AT_THE_DETECTOR = "Imager Pixel Spacing (at the detector)"
OF_FILM = "Nominal Scanned Pixel Spacing (digitised film)"
OF_THE_PLANE = "Image Plane Pixel Spacing (at the image plane)"
OF_ASPECT = "Pixel Aspect Ratio (1 mm between columns is assumed)"
OF_REGION = "Physical Delta (of the ultrasound region)"
ASSUMED = "assumed"
GUESSED_SIZES = (OF_ASPECT, ASSUMED)
# In the order in which they are asked for, with the name that the sidecar states.
STATED = {
    "PixelSpacing": PIXEL_SPACING,
    "ImagerPixelSpacing": AT_THE_DETECTOR,
    "NominalScannedPixelSpacing": OF_FILM,
    "ImagePlanePixelSpacing": OF_THE_PLANE,
}
CENTIMETRES = 3  # unit of an ultrasound region (PS3.3, C.8.5.5.1.15)
SAME = 1e-3  # relative difference within which two spacings are equal: they are written with few digits
SPACING_TAGS = (*STATED, "PixelSpacingCalibrationType", "PixelAspectRatio", "SequenceOfUltrasoundRegions")


@dataclass(frozen=True)
class PixelSize:
    """Distance in mm between the columns and between the rows of an image, and what states it."""

    columns: float
    rows: float
    stated_by: str

    @property
    def pair(self) -> tuple[float, float]:
        """Between columns, between rows."""
        return self.columns, self.rows


def stated_size(header: Any) -> PixelSize | None:
    """The size that a header states: corrected or calibrated, else at the detector, else on the film that was digitised.

    None if no attribute states it. A size that is not above zero is returned as it is, for an error to name it.
    """
    for keyword, name in STATED.items():
        found = _pair(header.get(keyword))
        if found is None:
            continue
        alike = keyword == "PixelSpacing" and "PixelSpacingCalibrationType" not in header
        at_detector = _pair(header.get("ImagerPixelSpacing")) if alike else None
        if at_detector is not None and _same(found, at_detector):  # then it was not corrected (PS3.3, 10.7.1.1)
            name = AT_THE_DETECTOR
        return PixelSize(*found, name)
    return _size_of_regions(header)


def assumed_size(header: Any) -> PixelSize:
    """1 mm between columns, and between rows what Pixel Aspect Ratio says (PS3.3, C.7.6.3.1.7), for a header without a size."""
    ratio = header.get("PixelAspectRatio")
    if ratio is None or len(ratio) != 2 or min(ratio) <= 0 or ratio[0] == ratio[1]:
        return PixelSize(1.0, 1.0, ASSUMED)
    return PixelSize(1.0, float(ratio[0]) / float(ratio[1]), OF_ASPECT)


def _size_of_regions(header: Any) -> PixelSize | None:
    """The size that all ultrasound regions in centimetres state (PS3.3, C.8.5.5); None if they differ or there are none."""
    found = set()
    for region in header.get("SequenceOfUltrasoundRegions") or ():
        units = region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection")
        if units == (CENTIMETRES, CENTIMETRES):
            found.add((10 * abs(float(region.PhysicalDeltaX)), 10 * abs(float(region.PhysicalDeltaY))))
    return PixelSize(*found.pop(), OF_REGION) if len(found) == 1 else None


def _pair(spacing: Any) -> tuple[float, float] | None:
    """Spacing between columns and between rows; DICOM states rows first (PS3.3, 10.7.1.3)."""
    return (
        None if not spacing or isinstance(spacing, (str, float)) or len(spacing) != 2 else (float(spacing[1]), float(spacing[0]))
    )


def _same(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return all(abs(a - b) <= SAME * max(abs(a), abs(b)) for a, b in zip(one, other, strict=True))
