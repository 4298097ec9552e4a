"""Units of scans, as their files state them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_ifim.io import OpenedSource, Source
from monai_ifim.io.scan import Scan
from monai_ifim.io.units import SCANNER_UNITS
from synthetic_series import ORIENTATIONS, Series, write


@pytest.mark.parametrize(
    ("tags", "unit"),
    [
        ({"Modality": "CT"}, "Hounsfield units"),
        ({"Modality": "CT", "RescaleType": "HU"}, "Hounsfield units"),
        ({"Modality": "CT", "RescaleType": "US"}, SCANNER_UNITS),
        ({"Modality": "MR"}, SCANNER_UNITS),
        ({"Modality": "PT", "Units": "BQML"}, "Bq/ml"),
        ({"Modality": "PT", "Units": "GML"}, "g/ml"),
        ({"Modality": "PT", "Units": "PROPCNTS"}, SCANNER_UNITS),
    ],
)
def test_unit_is_what_the_header_says(tags: dict[str, str], unit: str, tmp_path: Path) -> None:
    slices = Series(ORIENTATIONS["oblique"], slices=3).slices()
    for image in slices:
        for name, value in tags.items():
            setattr(image, name, value)
    assert OpenedSource(Source(write(tmp_path / "series", slices))).unit == unit


def test_unit_of_other_files_is_not_known_but_for_photographs() -> None:
    assert OpenedSource(Source(Path("gone.nii.gz"))).unit == SCANNER_UNITS
    assert OpenedSource(Source(Path("gone.PNG"))).unit == "grey values"


@pytest.mark.parametrize(
    ("values", "dtype"), [([-1024.0, 3071.0], np.int16), ([0.0, 0.5], np.float32), ([0.0, 40000.0], np.float32)]
)
def test_scan_is_held_as_whole_numbers_where_that_loses_nothing(values: list[float], dtype: type) -> None:
    held = Scan(np.array(values, dtype=np.float32), np.eye(4)).smallest()
    assert held.values.dtype == dtype
    np.testing.assert_array_equal(held.values, values)
