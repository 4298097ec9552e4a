"""The bundle of the trained network that finds grey and white matter in T1-weighted MRI; weights lie among the real scans."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

CONFIGS = Path(__file__).resolve().parent / "zoo_bundles" / "meshnet_gw" / "configs"
T1 = Path("nifti") / "spm152.nii.gz"  # a head at 0.74 mm, in the folder of real scans


def write_meshnet_bundle(root: Path, real_data: Path, size: int = 256) -> Path:
    """Write the bundle into the new folder `root`; size: voxels of 1 mm along each axis of what the network sees.

    real_data: the folder of real scans. The network was trained with 256; 64 to 160 voxels in the middle of a head work as well.
    """
    shutil.copytree(CONFIGS, root / "configs")
    path = root / "configs" / "inference.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"size": size}
    path.write_text(json.dumps(config), encoding="utf-8")
    (root / "models").mkdir()
    shutil.copyfile(real_data / "networks" / "meshnet_gw" / "model.pt", root / "models" / "model.pt")
    return root
