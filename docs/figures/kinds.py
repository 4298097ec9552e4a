"""Pictures of the page for several kinds of images: a gallery, CT, MR, a photograph, a cropped input, and on a phone."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from docs.figures.browser import chromium, photograph
from docs.figures.pages import SETTLED
from docs.figures.specimens import CROPPED, FAR, GALLERY, HEAD, RADIOGRAPH, run_specimens

DESKTOP, PHONE = (1280, 960), (390, 844)  # pixels
WIDEST, COLORS = 960, 256  # pixels and colours of a stored picture, which then takes half of the bytes
LEAST_COLOR = 24  # difference between the channels of a pixel from which on it is no grey
OPEN = "for (const tile of document.querySelectorAll('#gallery li')) if (tile.innerText.includes(arguments[0])) tile.click();"


class Shot(NamedTuple):
    """A window on a page.

    Args:
        run: folder of the run, of `run_specimens`.
        size: of the window, in pixels.
        case: name of the case to open; a run of one case opens it by itself.
    """

    run: str
    size: tuple[int, int] = DESKTOP
    case: str = ""


SHOTS = {
    "page-cropped.png": Shot(CROPPED),
    "page-ct.png": Shot(GALLERY, case=HEAD),
    "page-gallery.png": Shot(GALLERY),
    "page-mr.png": Shot(FAR),
    "page-phone.png": Shot(GALLERY, PHONE, case=HEAD),
    "page-photograph.png": Shot(GALLERY, case=RADIOGRAPH),
}


def draw_figures(demo: Path, output: Path) -> None:
    """Decompose the specimens, and write all shots; the demo is not drawn. Raises RuntimeError where a run fails."""
    runs = output / "runs"
    run_specimens(runs)
    for name, shot in SHOTS.items():
        take(shot, runs / shot.run / "index.html", output / name)


def take(shot: Shot, page: Path, target: Path) -> None:
    """Write what the window shows, WIDEST pixels wide and in COLORS colours."""
    with chromium(*shot.size) as driver:
        driver.get(page.resolve(strict=True).as_uri())
        time.sleep(SETTLED)
        if shot.case:
            driver.execute_script(OPEN, shot.case)
            time.sleep(SETTLED)
        photograph(driver, target)
    shown = Image.open(io.BytesIO(target.read_bytes())).convert("RGB")
    shown.thumbnail((WIDEST, shown.height), Image.Resampling.LANCZOS)
    shown.quantize(palette=palette_of(shown), dither=Image.Dither.NONE).save(target, optimize=True)


def palette_of(shown: Image.Image) -> Image.Image:
    """An image with a palette of which half are greys, for scans, and half the colours that the picture has: in one palette for
    all, the many greys would take the places of the few colours, or be drawn in steps."""
    pixels = np.asarray(shown)
    colored = pixels[np.ptp(pixels.astype(np.int16), axis=2) > LEAST_COLOR]
    colors = Image.fromarray(colored[None]).quantize(COLORS // 2, Image.Quantize.MAXCOVERAGE).getpalette() or []
    greys = np.linspace(0, 255, COLORS // 2).round().astype(int).repeat(3).tolist()
    palette = Image.new("P", (1, 1))
    palette.putpalette([*greys, *colors])
    return palette
