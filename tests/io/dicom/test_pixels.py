"""Pixels that are not decoded: the error names the cause, and a header without a geometry is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from monai_ifim.io import InputError
from monai_ifim.io.dicom import pixels
from monai_ifim.io.dicom.header import read_dicom_files
from monai_ifim.io.dicom.pixels import decoded
from monai_ifim.io.dicom.volume import DicomVolume
from monai_ifim.io.dicom.volumes import volumes_of
from monai_ifim.io.source import ValueChoice
from tests.synthetic_series import ORIENTATIONS, Series, write


def volume_of(folder: Path, slices: list[Dataset]) -> DicomVolume:
    [volume] = volumes_of(read_dicom_files(write(folder, slices)))
    return volume


def test_a_file_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    volume = volume_of(tmp_path / "series", Series(ORIENTATIONS["axial"]).slices())
    volume.files[3].unlink()
    said = rf"^{volume.files[3].name}: it can no longer be read \(No such file or directory\): copy it again\.$"
    with pytest.raises(InputError, match=said):
        decoded("series", volume, ValueChoice())


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("Failed to allocate memory for image.")])
def test_memory_that_ran_out_is_no_damage(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise error

    volume = volume_of(tmp_path / "series", Series(ORIENTATIONS["axial"]).slices())
    monkeypatch.setattr(pixels, "_picture", fail)
    with pytest.raises(InputError, match=r"^series: not enough memory for its pixels: take a smaller image") as refusal:
        decoded("series", volume, ValueChoice())
    assert isinstance(refusal.value.__cause__, MemoryError) is isinstance(error, MemoryError)


def test_uncompressed_pixels_of_a_size_that_no_decoder_takes(tmp_path: Path) -> None:
    [image] = Series(ORIENTATIONS["axial"], slices=1).slices()
    image.BitsAllocated = image.BitsStored = 64
    image.HighBit = 63
    image.PixelData = bytes(8 * image.Rows * image.Columns)
    volume = volume_of(tmp_path / "one", [image])
    said = (
        r"^one: its pixels cannot be decoded \(MONOCHROME2, 1 x 64 bits, not compressed\): convert it to grey values of 8 or 16"
    )
    with pytest.raises(InputError, match=said):
        decoded("one", volume, ValueChoice())


@pytest.mark.parametrize(
    "attributes", [{"ImageOrientationPatient": [0, 0, 0, 0, 0, 0], "ImagePositionPatient": None}, {"SpacingBetweenSlices": 0}]
)
def test_a_picture_whose_header_has_no_geometry_is_decoded(attributes: dict[str, Any], tmp_path: Path) -> None:
    series = Series(ORIENTATIONS["axial"], slices=1)
    [image] = series.slices()
    for name, value in attributes.items():
        setattr(image, name, value)
    volume = volume_of(tmp_path / "one", [image])
    values = np.asarray(pixels.itk.array_from_image(decoded("one", volume, ValueChoice())))
    np.testing.assert_array_equal(values[0].T, series.values[..., 0])


def test_a_coloured_picture_whose_header_has_no_geometry_keeps_its_colours(tmp_path: Path) -> None:
    [image] = Series(ORIENTATIONS["axial"], slices=1).slices()
    colours = np.random.default_rng(2).integers(0, 255, (image.Rows, image.Columns, 3), dtype=np.uint8)
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation, image.SpacingBetweenSlices = 7, 0, 0
    image.PixelData = colours.tobytes() + b"\0"
    volume = volume_of(tmp_path / "one", [image])
    np.testing.assert_array_equal(pixels.itk.array_from_image(decoded("one", volume, ValueChoice()))[0], colours)


@pytest.mark.parametrize(("stored", "high", "shift"), [(12, 15, 4), (12, 12, 1), (8, 15, 8)])
def test_values_in_the_upper_bits_of_their_words_are_refused_and_both_cures_work(
    stored: int, high: int, shift: int, tmp_path: Path
) -> None:
    series = Series(ORIENTATIONS["axial"], slices=1)
    [image] = series.slices()
    values = (np.abs(series.values[..., 0]) % 2**stored).astype(np.uint16)
    image.PixelRepresentation, image.BitsStored, image.HighBit = 0, stored, high
    image.PixelData = (values.T << shift).tobytes()
    folder = write(tmp_path / "upper", [image])
    with pytest.raises(InputError, match=rf"^IM000: .* move the values down by {shift} bits .*dcmodify -m HighBit={stored - 1}"):
        volumes_of(read_dicom_files(folder))
    image.HighBit, image.PixelData = stored - 1, values.T.tobytes()
    volume = volume_of(tmp_path / "cured", [image])
    np.testing.assert_array_equal(pixels.itk.array_from_image(decoded("cured", volume, ValueChoice()))[0].T, values)
