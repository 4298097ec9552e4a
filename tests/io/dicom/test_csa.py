"""CSA headers of Siemens: the numbers are those that nibabel reads, and a damaged header is a ValueError that quotes nothing."""

from __future__ import annotations

import math
import struct
import warnings
from contextlib import suppress
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_ifim.io.dicom.csa import csa_numbers
from synthetic_mosaics import csa_header

NAMES = ("NumberOfImagesInMosaic", "SliceNormalVector", "MosaicRefAcqTimes")
CONTENT = {
    "UsedChannelString": ["XXXX"],
    "NumberOfImagesInMosaic": [40],
    "PatientName": ["Roentgen^Wilhelm"],
    "SliceNormalVector": [0.0, "0.12360148", -0.99233194],
    "MosaicRefAcqTimes": [],
}
NUMBERS = {"NumberOfImagesInMosaic": (40.0,), "SliceNormalVector": (0.0, 0.12360148, -0.99233194)}


@pytest.mark.parametrize("version", [1, 2])
def test_numbers_of_the_named_elements(version: int) -> None:
    assert csa_numbers(csa_header(CONTENT, version), NAMES) == NUMBERS


def test_real_header_has_the_numbers_that_nibabel_reads(real_data: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel calls its reader experimental
        from nibabel.nicom import csareader
    header = pydicom.dcmread(real_data / "dicom" / "mosaic" / "1.dcm", stop_before_pixels=True)[0x0029, 0x1010].value
    tags = csareader.read(header)["tags"]
    names = [name for name, tag in tags.items() if tag["vr"] in ("IS", "DS", "FD", "US", "UL", "SL")]
    assert csa_numbers(header, names) == {name: tuple(tags[name]["items"]) for name in names if tags[name]["items"]}


def _with(place: int, *numbers: int) -> bytes:
    """A header with other numbers from a place on."""
    header = csa_header(CONTENT)
    change = struct.pack(f"<{len(numbers)}i", *numbers)
    return header[:place] + change + header[place + len(change) :]


FIRST_ELEMENT, FIRST_ITEM = 16, 16 + 84


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"SV10",
        csa_header(CONTENT)[:-20],
        _with(8, 2**31 - 1),  # elements
        _with(8, 100),
        _with(FIRST_ELEMENT + 76, -1),  # items
        _with(FIRST_ELEMENT + 76, 2**31 - 1),
        _with(FIRST_ITEM + 4, -84),  # length of an item
        _with(FIRST_ITEM + 4, 2**31 - 1),
        csa_header({"SliceNormalVector": ["Roentgen^Wilhelm"]}),
        csa_header({"SliceNormalVector": ["inf", 0, 0]}),
        csa_header({"NumberOfImagesInMosaic": ["1e999"]}),
        csa_header(CONTENT) + bytes(2**20),
    ],
)
def test_damaged_header_is_refused(header: bytes) -> None:
    with pytest.raises(ValueError, match=r"^a CSA header that is damaged$") as caught:
        csa_numbers(header, NAMES)
    assert caught.value.__cause__ is None


@given(st.integers(0, len(csa_header(CONTENT)) - 1), st.binary(min_size=1, max_size=8), st.sampled_from([1, 2]))
def test_changed_bytes_give_numbers_or_a_refusal(place: int, change: bytes, version: int) -> None:
    header = csa_header(CONTENT, version)
    with suppress(ValueError):
        found = csa_numbers(header[:place] + change + header[place + len(change) :], NAMES)
        assert all(math.isfinite(number) for numbers in found.values() for number in numbers)
