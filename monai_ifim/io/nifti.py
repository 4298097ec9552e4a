"""NIfTI volumes that 3D Slicer, ITK and nibabel open alike: 3D, float32 or whole numbers, qform = sform, millimetres, no NaN."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal import igzip

from monai_ifim.io import atomic
from monai_ifim.io.errors import OutputError
from monai_ifim.io.geometry import Affine, check_writable

SMALLEST_PLAIN = 1e-25  # a map with a larger maximum keeps thirteen decades in float32
LOWEST_POWER = -307  # 10^308 and more overflows float64
SCANNER_CODE = 1  # NIFTI_XFORM_SCANNER_ANAT
GZIP_LEVEL = 1  # igzip's default of 2 is no smaller on float data and slower


def volume_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape of the volume that holds a map of [*spatial]: a 2D map becomes H x W x 1."""
    if len(shape) not in (2, 3):
        raise OutputError(f"a map of shape {shape} is neither 2D nor 3D.")
    padded = (*shape, 1)
    return padded[0], padded[1], padded[2]


def power_below_float32(largest: float) -> int:
    """Power of ten to divide a map by so that float32 can hold it; 0 unless its largest value is near float32's underflow."""
    return max(LOWEST_POWER, math.floor(math.log10(largest))) if 0.0 < largest < SMALLEST_PLAIN else 0


def write_volume(path: Path, values: npt.NDArray[Any], affine: Affine, root: Path | None = None) -> str:
    """Write `values` [*spatial], 2D or 3D, as one .nii.gz, whole or absent; returns the hex SHA-256 of the file.

    Whole numbers are labels and keep their type; all else is stored as float32. root: as `atomic` takes it. Raises
    OutputError for NaN or infinite values, GeometryError for a grid that a qform cannot hold.
    """
    check_writable(affine)
    labels = np.issubdtype(values.dtype, np.integer)
    data = np.ascontiguousarray(values, dtype=values.dtype if labels else np.float32).reshape(volume_shape(values.shape))
    if not np.isfinite(data).all():
        raise OutputError(f"{path.name}: the map holds NaN or infinite values and is not written (Slicer would show 0).")
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1.0, 0.0)
    image.header.set_intent("label" if labels else "none")
    image.set_qform(affine, SCANNER_CODE, strip_shears=True)
    image.set_sform(affine, SCANNER_CODE)  # the same transform; the qform's quaternion is rounded
    content = igzip.compress(_file_of(image, data), GZIP_LEVEL, mtime=0)  # no time stamp
    return atomic.write_bytes(path, content, root)


def _file_of(image: nib.Nifti1Image, data: npt.NDArray[Any]) -> memoryview:
    """The bytes of header and data; the first axis is the fastest in the file, the last one in `data`.

    Transposed plane by plane, which fits a processor's cache and is several times faster than all at once.
    """
    image.update_header()
    head = io.BytesIO()
    image.header.write_to(head)
    start = int(image.header["vox_offset"])
    raw = np.zeros(start + data.nbytes, dtype=np.uint8)
    raw[: head.tell()] = np.frombuffer(head.getbuffer(), dtype=np.uint8)
    values = raw[start:].view(data.dtype).reshape(data.shape[::-1])
    for j in range(data.shape[1]):
        values[:, j] = np.ascontiguousarray(data[:, j]).T
    return raw.data
