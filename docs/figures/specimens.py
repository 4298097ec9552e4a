"""Images of several kinds and their runs, for pictures of the page: those of pydicom and nibabel, and a drawn one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

GALLERY, CROPPED, FAR = "gallery", "cropped", "far"  # folders of the runs
SCANS = {"CT_small.dcm": "ct_small.dcm", "examples_overlay.dcm": "mr_abdomen.dcm", "MR_small.dcm": "mr_small.dcm"}
HEAD, RADIOGRAPH = "head_ct", "drawn_chest"  # names of cases
SEEN = [300, 240]  # pixels of the head's slice that the bundle with a crop keeps
RESIZED = "  - _target_: Resized\n"
CROP = f"  - _target_: CenterSpatialCropd\n    keys: image\n    roi_size: {SEEN}\n"

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]


def run_specimens(folder: Path) -> None:
    """Decompose the images of all kinds in one run, a cropped one, and a volume far from what its bundle was made for.

    Raises RuntimeError where a run fails.
    """
    from monai_ifim.io.installation import resolve_bundle

    images = write_images(folder / "images")
    _decompose("mednist_classification", images, folder / GALLERY)
    (head,) = [image for image in images if image.name.startswith(HEAD)]
    cropping = write_cropping_bundle(Path(resolve_bundle("mednist_classification")), folder / "bundle")
    _decompose(str(cropping), [head], folder / CROPPED)
    _decompose("lumpy_lesion_detection_3d", [_nibabel_file("anatomical.nii")], folder / FAR)


def write_images(folder: Path) -> list[Path]:
    """Write the images of the gallery: the demo's head, slices that come with pydicom, and a drawn radiograph as a photograph."""
    from pydicom.data import get_testdata_file

    from monai_ifim.evaluation.demonstration import demo_head

    demo_head(folder)
    for name, target in SCANS.items():
        shutil.copy(str(get_testdata_file(name, download=False)), folder / target)
    Image.fromarray(drawn_chest()).save(folder / f"{RADIOGRAPH}.png")
    return sorted(folder.iterdir())  # each by its name: of a folder with DICOM only that would be read


def write_cropping_bundle(classifier: Path, folder: Path) -> Path:
    """Copy the bundle, with a crop before it resizes; raises ValueError where its preprocessing has no such step."""
    shutil.copytree(classifier, folder)
    config = folder / "configs" / "inference.yaml"
    text = config.read_text(encoding="utf-8")
    if text.count(RESIZED) != 1:
        raise ValueError(f"{config} has {text.count(RESIZED)} steps that resize, one is needed")
    config.write_text(text.replace(RESIZED, CROP + RESIZED), encoding="utf-8")
    return folder


def drawn_chest(size: int = 256) -> Pixels:
    """A radiograph of ellipsoids: grey is the share of the rays that thickness absorbs. uint8 [size, size]."""
    from scipy.ndimage import gaussian_filter

    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    body = 0.75 * _ellipsoid(x, y, (0, 0.25), (0.95, 1.3)) + 0.25 * (_ellipsoid(x, y, (0, -0.95), (0.28, 0.5)) > 0)
    lungs = _ellipsoid(x, y, (-0.42, -0.02), (0.33, 0.62), 0.12) + _ellipsoid(x, y, (0.42, -0.02), (0.33, 0.62), -0.12)
    heart = _ellipsoid(x, y, (0.12, 0.38), (0.33, 0.33))
    spine = np.exp(-((x / 0.07) ** 2))
    heights = -0.67 + 0.16 * np.arange(9)
    ribs = sum(np.exp(-(((y - height - 0.35 * x**2) / 0.025) ** 2)) for height in heights) * (np.abs(x) < 0.8) * (body > 0.1)
    thickness = gaussian_filter(1.1 * body - lungs + 0.45 * heart + 0.25 * spine + 0.12 * ribs, 2.0).clip(0)
    absorbed = 1 - np.exp(-1.2 * thickness) + np.random.default_rng(0).normal(0, 0.01, (size, size))
    levels: Pixels = np.interp(absorbed, (absorbed.min(), absorbed.max()), (0, 255)).astype(np.uint8)
    return levels


def _ellipsoid(x: Values, y: Values, centre: tuple[float, float], axes: tuple[float, float], angle: float = 0.0) -> Values:
    """Thickness of an ellipsoid along the rays, 1 in its middle; angle in radians."""
    across, along = x - centre[0], y - centre[1]
    u = (across * np.cos(angle) + along * np.sin(angle)) / axes[0]
    v = (along * np.cos(angle) - across * np.sin(angle)) / axes[1]
    thickness: Values = np.sqrt((1 - u**2 - v**2).clip(0))
    return thickness


def _nibabel_file(name: str) -> Path:
    import nibabel as nib

    return Path(nib.__file__).parent / "tests" / "data" / name


def _decompose(bundle: str, images: list[Path], output: Path) -> None:
    from typer.testing import CliRunner

    from monai_ifim.cli.main import app

    words = ["decompose", "--bundle", bundle, *map(str, images), "--output", str(output)]
    ended = CliRunner().invoke(app, words)
    if ended.exit_code:
        raise RuntimeError(f"monai-ifim {' '.join(words)} ended with {ended.exit_code}: {ended.output}")
