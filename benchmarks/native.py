"""Seconds to carry the components of one large volume to its own grid and to write all files of the case.

The volume is 256 x 384 x 384 voxels of smooth structure and noise, the bundle the 3D one that comes with the package. Beside it,
in the same rounds: writing five float32 volumes of that size by nibabel alone, compressed as nibabel does by default.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import gaussian_filter, zoom

from benchmarks.results import Row
from benchmarks.timing import Setting
from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.components import component_tensors, item_of_batch
from monai_ifim.adapt.saving import SaveIFIM
from monai_ifim.adapt.scan import scan_of
from monai_ifim.core import decompose
from monai_ifim.io.installation import resolve_bundle

SHAPE = (256, 384, 384)
SPACING = (0.9, 0.7, 0.8)
FILES = 5
SMALL = (24, 32, 40)
ROUNDS = 3
OURS, BARE = "all files of the case", "nibabel, five volumes"


def write_volume(path: Path, shape: tuple[int, ...]) -> None:
    """A volume in whole numbers, as scanners give them."""
    generator = np.random.default_rng(0)
    coarse = gaussian_filter(generator.standard_normal([size // 8 for size in shape]), 2)
    smooth = zoom(coarse, 8, order=1)
    values = 400 * smooth / smooth.std() + 20 * generator.standard_normal(shape)
    nib.save(nib.Nifti1Image(values.astype(np.int16), np.diag([*SPACING, 1.0])), path)


class LargeCase:
    """A decomposed volume, and the two ways of writing it."""

    def __init__(self, folder: Path, bundle: Bundle, shape: tuple[int, ...]) -> None:
        self.folder, self.bundle = folder, bundle
        path = folder / "volume.nii.gz"
        write_volume(path, shape)
        read = bundle.read(path)
        self.scan = scan_of(read[bundle.image_key])
        self.image = bundle.prepare(read, path)
        batch = self.image.as_subclass(torch.Tensor)[None]
        decomposition = decompose(bundle.network, batch, head="categorical")
        self.components = item_of_batch(component_tensors(decomposition, batch, 0.0), 0, self.image)
        self.values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)

    def ours(self) -> None:
        """All files of the case: maps on the volume's own grid, the scan, planes, scene, sidecar."""
        writer = SaveIFIM(self.folder / "out", preprocessing=self.bundle.preprocessing, bundle_root=self.bundle.root)
        writer(self.image, self.components, scan=self.scan)

    def bare(self) -> None:
        """As many volumes of that size as the case has maps, by nibabel."""
        for i in range(FILES):
            nib.save(nib.Nifti1Image(self.values, np.eye(4)), self.folder / f"bare-{i}.nii.gz")


def native(setting: Setting) -> list[Row]:
    """Seconds for all files of the case against nibabel's for five bare volumes."""
    shape = SMALL if setting.quick else SHAPE
    with tempfile.TemporaryDirectory() as folder:
        written = LargeCase(Path(folder), load_bundle(resolve_bundle("lumpy_lesion_detection_3d")), shape)
        timings = setting.measure({OURS: written.ours, BARE: written.bare}, rounds=ROUNDS)
    case = f"volume {' x '.join(map(str, shape))}"
    return [Row(f"{OURS} / {BARE}", case, timings.ratio(OURS, BARE), None, "", timings.describe(), timings.seconds)]
