"""Pictures of the page of a run, as a reader first sees it: of the segmentation, and of the detector in the dark."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from docs.figures.browser import chromium, photograph

SETTLED = 2.0  # seconds in which pictures are unpacked and drawn


class Shot(NamedTuple):
    """A window on the page of a case of the demo."""

    bundle: str
    width: int
    height: int
    scheme: str = "light"


SHOTS = {
    "index-dark.png": Shot("lumpy_lesion_detection_3d", 1280, 860, "dark"),
    "index-light.png": Shot("lumpy_segmentation_3d", 1280, 860),
}


def draw_figures(demo: Path, output: Path) -> None:
    """Write all shots; raises FileNotFoundError where the demo left no page."""
    for name, shot in SHOTS.items():
        with chromium(shot.width, shot.height, shot.scheme) as driver:
            driver.get((demo / shot.bundle / "index.html").resolve(strict=True).as_uri())
            time.sleep(SETTLED)
            photograph(driver, output / name)
