"""The files and the sidecar's words of a decomposed case, made on the spot with nibabel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from monai_ifim.io.slicer.bundle import write_scene_bundle
from monai_ifim.io.slicer.scene import write_scene

Array = npt.NDArray[Any]
UNIT = "network input intensity"
MAPS = ("input", "high", "low", "sensitivity", "eigenvector 1", "eigenvector 2")
UNITS = {"sensitivity": f"nats per ({UNIT})^2", "eigenvector": "1"}
LABEL_NAMES = ("background", "tumour core", "oedema")
EIGENVALUES = (0.75, 0.2, 0.0625)


def write_synthetic_case(
    folder: Path,
    shape: tuple[int, int, int],
    affine: Array,
    blob: tuple[int, int, int],
    contents: Sequence[str] = MAPS,
    channels: int = 1,
    source: bool = True,
    answer: str = "lesion",
) -> dict[str, Any]:
    """Write the volumes of a case into `folder`; returns its sidecar. Sensitivity is zero but for one voxel, `blob`."""
    folder.mkdir(parents=True)
    ramp = np.add.outer(np.add.outer(np.arange(shape[0]), 2 * np.arange(shape[1])), 3 * np.arange(shape[2])).astype(np.float32)
    files = []
    for content in contents:
        for channel in range(1, channels + 1):
            suffix = "" if channel == 1 else f"_channel-{channel:02d}"
            name = f"{folder.name}_ifim_{content.replace(' ', '-0')}{suffix}.nii.gz"
            values = _values(content, ramp, blob) * channel
            _save(folder / name, values, affine)
            files.append(
                {
                    "file": name,
                    "kind": content.partition(" ")[0],
                    "component": int(content.partition(" ")[2] or 0) or None,
                    "channel": channel,
                    "sha256": None,
                    "unit": UNITS.get(content.partition(" ")[0], UNIT),
                    "shape": list(shape),
                    "affine": affine.tolist(),
                    "norm": float(np.linalg.norm(values)),
                    "scale": 1.0,
                    "window": _window(content, values),
                }
            )
    sidecar: dict[str, Any] = {
        "input": {"file": "Zwetschgenbaum.nii.gz"},
        "prediction": {"class": answer},
        "space": {"name": "native" if source else "network"},
        "units": {"maps": UNIT, "eigenvalues": f"nats per ({UNIT})^2", "sensitivity": f"nats per ({UNIT})^2"}
        | {"eigenvectors": "unit norm on the network's grid", "locality_radius": UNIT, "source": "Hounsfield units"},
        "eigenvalues": list(EIGENVALUES),
        "trace": 1.25,
        "locality_radius": [0.5, None],
        "locality_share": [0.02, None],
        "files": files,
    }
    if "labels" in contents:
        sidecar["segmentation"] = {
            "background": 0,
            "labels": [
                {"value": value, "name": name, "voxels": int((_labels(shape) == value).sum())}
                for value, name in enumerate(LABEL_NAMES)
            ],
        }
    if source:
        name = f"{folder.name}_ifim_source.nii.gz"
        _save(folder / name, (ramp - 100).astype(np.int16), affine)
        of_source = {"file": name, "kind": "source", "unit": "Hounsfield units", "window": [-100.0, float(ramp.max()) - 100.0]}
        files.append(files[0] | of_source)
    return sidecar


def _labels(shape: tuple[int, int, int]) -> Array:
    """Two boxes, one in the other, in the background."""
    values = np.zeros(shape, dtype=np.uint8)
    values[2 : shape[0] // 2 + 3, 2:-2, 2:-2] = 1
    values[shape[0] // 2 : shape[0] // 2 + 3, 4:-4, 3:-3] = 2
    return values


def write_scene_file(folder: Path, sidecar: Mapping[str, Any], point: tuple[float, float, float] | None = None) -> Path:
    """Write the scene of a case; returns its path."""
    write_scene(folder, sidecar, point)
    return folder / f"{folder.name}.mrml"


def write_bundle_file(scene: Path) -> Path:
    """Pack a scene; returns the path of the archive."""
    write_scene_bundle(scene)
    return scene.with_suffix(".mrb")


def place_of(affine: Array, index: Sequence[float]) -> Array:
    """RAS mm of a voxel."""
    return np.asarray(affine[:3, :3] @ np.asarray(index) + affine[:3, 3])


def _values(content: str, ramp: Array, blob: tuple[int, int, int]) -> Array:
    if content == "labels":
        return _labels((ramp.shape[0], ramp.shape[1], ramp.shape[2]))
    if content == "sensitivity":
        values = np.zeros_like(ramp)
        values[blob] = 2.5
        return values
    if content in ("input", "low"):
        return ramp / ramp.max()
    return ramp / ramp.max() - 0.5


def _window(content: str, values: Array) -> list[float]:
    if content in ("input", "low", "labels"):
        return [float(values.min()), float(values.max())]
    largest = float(np.abs(values).max())
    return [0.0 if content == "sensitivity" else -largest, largest]


def _save(path: Path, values: Array, affine: Array) -> None:
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nib.save(image, path)
