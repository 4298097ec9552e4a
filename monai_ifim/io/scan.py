"""The scan itself, in the scanner's own units: what lies under the components when they are looked at."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.config import disable_value_validation

from monai_ifim.io.geometry import Affine, same_grid
from monai_ifim.io.source import Source, dicom_files
from monai_ifim.io.windows import HOUNSFIELD

SCANNER_UNITS = "scanner units"
PHOTOGRAPHS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
MODALITY_UNITS = {"CT": HOUNSFIELD}
PET_UNITS = {"BQML": "Bq/ml", "GML": "g/ml", "CNTS": "counts"}  # PS3.3, C.8.9.1: Units (0054,1001)
LARGEST_INT16 = np.iinfo(np.int16).max


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan of one channel as its file states it: values [*spatial], the affine voxel -> RAS mm of its grid, unit."""

    values: npt.NDArray[Any] = field(repr=False)
    affine: Affine
    unit: str = SCANNER_UNITS

    def lies_on(self, shape: tuple[int, ...], affine: Affine) -> bool:
        """Whether the scan has this grid."""
        return self.values.shape == shape and same_grid(self.affine, affine, shape)

    def smallest(self) -> Scan:
        """A copy, in int16 where that loses nothing, so that a scan can be held while it is decomposed, else in float32."""
        values = self.values
        whole = float(values.min(initial=0)) >= -LARGEST_INT16 and float(values.max(initial=0)) <= LARGEST_INT16
        whole = whole and np.array_equal(values, np.rint(values))
        return replace(self, values=values.astype(np.int16 if whole else np.float32))


def unit_of_source(source: Source) -> str:
    """Unit of the values that a reader gives for this source: from the first DICOM header, of a photograph grey values."""
    path = source.path
    if source.suffix in PHOTOGRAPHS:
        return "grey values"
    files = dicom_files(path) if path.exists() else []
    if not files:
        return SCANNER_UNITS
    return unit_of_file(files[0])


def unit_of_file(path: Path) -> str:
    """Unit of one DICOM file's values after its rescaling (PS3.3, C.11.1.1.2: Rescale Type)."""
    tags = ["Modality", "RescaleType", "RescaleSlope", "Units"]
    with disable_value_validation():  # its warnings would show what is in the header
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        modality = str(header.get("Modality", ""))
        if modality == "PT":
            return PET_UNITS.get(str(header.get("Units", "")), SCANNER_UNITS)
        rescaled = str(header.get("RescaleType") or "HU") == "HU"
    return MODALITY_UNITS.get(modality, SCANNER_UNITS) if rescaled else SCANNER_UNITS
