"""The picture of a case in the gallery: the plane through its most sensitive point, with the sensitivity over the image."""

from __future__ import annotations

import numpy as np
from PIL import Image

from monai_ifim.display.overlay import overlay
from monai_ifim.io.planes import CasePlanes, Plane
from monai_ifim.io.stacks import IMAGES
from monai_ifim.report.cohort.encoding import data_uri

__all__ = ["thumbnail"]

SIDE = 144  # longest side in pixels
QUALITY = 70  # of WebP: two to four kilobytes a case


def thumbnail(planes: CasePlanes) -> str:
    """Data URI of the first plane of a case, in its true shape; empty where the case has no image."""
    image = next((found.planes[0] for found in planes.maps if found.kind in IMAGES and found.planes), None)
    if image is None:
        return ""
    maps = () if planes.saturated else planes.maps  # nothing moves the answer: no spot is a finding
    sensitivity = next((found.planes[0].values for found in maps if found.kind == "sensitivity" and found.planes), None)
    grey = image.values / 255.0
    fits = sensitivity is not None and sensitivity.shape == image.values.shape
    colors = overlay(grey, sensitivity / 255.0) if sensitivity is not None and fits else np.repeat(grey[..., None], 3, axis=2)
    picture = Image.fromarray(np.rint(255 * colors).astype(np.uint8))
    return data_uri(picture.resize(_size(image), Image.Resampling.LANCZOS), QUALITY)


def _size(plane: Plane) -> tuple[int, int]:
    """Width and height in pixels, in the proportions of the plane's extent."""
    down, across = plane.extent
    share = SIDE / max(down, across)
    return max(1, round(across * share)), max(1, round(down * share))
