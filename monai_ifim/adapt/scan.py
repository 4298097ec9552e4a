"""The scan that a case's components belong to, as MONAI's readers give it."""

from __future__ import annotations

from pathlib import Path

from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirst, LoadImage
from torch import Tensor

from monai_ifim.adapt.native import native_affine, native_shape
from monai_ifim.io.dicom.reader import register_dicom_reader
from monai_ifim.io.geometry import world_affine
from monai_ifim.io.scan import Scan
from monai_ifim.io.units import SCANNER_UNITS


def scan_of(read: Tensor, unit: str = SCANNER_UNITS) -> Scan | None:
    """The scan in a freshly read image [channel, *spatial]; None where it has several channels or no metadata."""
    if not isinstance(read, MetaTensor) or read.shape[0] != 1:
        return None
    values = read.as_subclass(Tensor)[0].detach().cpu().numpy()
    while values.ndim > 2 and values.shape[-1] == 1:  # as `native_shape` counts
        values = values[..., 0]
    return Scan(values, world_affine(read.affine.cpu().numpy(), read.meta), unit).smallest()


def read_scan(image: MetaTensor, path: Path, unit: str) -> Scan | None:
    """Read the file of `image` again; None if that fails or gives another grid than the image's own."""
    reading = Compose([LoadImage(image_only=True), EnsureChannelFirst()])
    register_dicom_reader(reading)
    try:
        scan = scan_of(reading(str(path)), unit)
    except Exception:  # the components are whole without it
        return None
    return scan if scan is not None and scan.lies_on(native_shape(image), native_affine(image)) else None
