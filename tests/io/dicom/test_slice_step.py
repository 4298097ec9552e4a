"""The distance between slices: their places decide, for a single slice its thickness, and else 1 mm with a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from monai.transforms import LoadImage

from monai_ifim.io import DicomReader, OpenedSource, Source
from tests.synthetic_series import GAP, ORIENTATIONS, SPACING, Series, write

MISSING = "missing"


def read(path: Path) -> Any:
    loader = LoadImage(image_only=True)
    loader.register(DicomReader())
    return loader(path)


def stated(slices: list[Any], **attributes: Any) -> list[Any]:
    """The slices with these attributes in place of their own; MISSING removes one."""
    for image in slices:
        for name, value in attributes.items():
            if value == MISSING:
                image.pop(name, None)
            else:
                setattr(image, name, value)
    return slices


def lps(image: Any) -> npt.NDArray[np.float64]:
    return np.diag([-1.0, -1, 1, 1]) @ np.asarray(image.affine, dtype=np.float64)


@pytest.mark.parametrize(("between", "thickness"), [(0, 0), (-3, ""), (7.5, 40), (MISSING, MISSING)])
def test_places_decide_whatever_spacing_and_thickness_say(between: Any, thickness: Any, tmp_path: Path) -> None:
    series = Series(ORIENTATIONS["oblique"])
    slices = stated(series.slices(), SpacingBetweenSlices=between, SliceThickness=thickness)
    folder = write(tmp_path / "series", slices)
    opened = OpenedSource(Source(folder))
    opened.check(channels=1)
    image = read(folder)
    np.testing.assert_array_equal(np.asarray(image), series.values)
    expected = np.column_stack([series.axes * [*SPACING, GAP], series.origin])
    np.testing.assert_allclose(lps(image)[:3], expected, rtol=0, atol=1e-6)
    assert opened.reading.slice_step == "positions"
    assert opened.reading.words() == ()


@pytest.mark.parametrize(
    ("between", "thickness", "step", "source"),
    [
        (0, 4.5, 4.5, "Slice Thickness"),
        (-3, 4.5, 4.5, "Slice Thickness"),  # ITK turns the slice's normal round
        (6, 4.5, 4.5, "Slice Thickness"),  # ITK takes the distance to a neighbour that is not there
        (0, 0, 1, "assumed"),
        (MISSING, MISSING, 1, "assumed"),
        (6, "", 1, "assumed"),
        (MISSING, -2, 1, "assumed"),
    ],
)
@pytest.mark.parametrize("name", ["sagittal", "oblique"])
def test_a_single_slice_is_as_thick_as_it_says(
    name: str, between: Any, thickness: Any, step: float, source: str, tmp_path: Path
) -> None:
    series = Series(ORIENTATIONS[name], slices=1)
    [one] = stated(series.slices(), SpacingBetweenSlices=between, SliceThickness=thickness)
    one.save_as(tmp_path / "one.dcm")
    opened = OpenedSource(Source(tmp_path / "one.dcm"))
    opened.check(channels=1)
    image = read(tmp_path / "one.dcm")
    np.testing.assert_array_equal(np.asarray(image), series.values)
    across, down = series.axes[:, :2].T
    expected = np.column_stack([across * SPACING[0], down * SPACING[1], np.cross(across, down) * step, series.origin])
    np.testing.assert_allclose(lps(image)[:3], expected, rtol=0, atol=1e-6)
    assert opened.reading.slice_step == source
    assert opened.reading.words() == (("The slice states no Slice Thickness: 1 mm is assumed.",) if source == "assumed" else ())


def test_case_with_spacing_0_is_read(small_cases: Path) -> None:
    folder = small_cases / "dicom" / "spacing_between_slices_0"
    OpenedSource(Source(folder)).check(channels=1)
    headers = [pydicom.dcmread(file) for file in folder.iterdir()]
    headers.sort(key=lambda header: float(header.ImagePositionPatient[2]))
    expected = np.stack([header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept) for header in headers])
    np.testing.assert_array_equal(np.asarray(read(folder)), expected.transpose(2, 1, 0))
