"""Volumes of a series told apart by their headers: by one attribute, by two, by private ones, by times and numbers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from monai_ifim.io.dicom.header import TAGS
from monai_ifim.io.dicom.planes import Plane, planes_of
from monai_ifim.io.dicom.separation import Separation, separated

SLICES = 4
ATTRIBUTES = Mapping[str, Any]


def header_of(attributes: ATTRIBUTES, place: float) -> Dataset:
    header = Dataset()
    header.ImagePositionPatient, header.ImageOrientationPatient, header.PixelSpacing = [0, 0, place], [1, 0, 0, 0, 1, 0], [1, 1]
    for name, value in attributes.items():
        setattr(header, name, value)
    return header


def planes(volumes: Sequence[ATTRIBUTES | Callable[[int], ATTRIBUTES]], slices: int = SLICES) -> list[Plane]:
    """The slices of several volumes, in any order; each path tells volume and slice."""
    found = []
    for number, attributes in enumerate(volumes):
        for k in range(slices):
            header = header_of(attributes(k) if callable(attributes) else attributes, 3.0 * k)
            found += planes_of(Path(f"{number}-{k}"), header)
    return [found[k] for k in np.random.default_rng(1).permutation(len(found))]


def order_of(separation: Separation) -> list[int]:
    """The number of each volume that was found, in order; each must hold the slices of one, sorted by place."""
    assert not separation.complaint
    found = []
    for volume in separation.volumes:
        numbers, places = zip(*(plane.path.name.split("-") for plane in volume), strict=True)
        assert len(set(numbers)) == 1
        assert list(map(int, places)) == list(range(len(places)))
        found.append(int(numbers[0]))
    return found


ONE = {
    "Echo Time": [{"EchoTime": "4.6"}, {"EchoTime": "9.2"}, {"EchoTime": "13.8"}],
    "Echo Number": [{"EchoNumbers": 1}, {"EchoNumbers": 2}],
    "Inversion Time": [{"InversionTime": 100}, {"InversionTime": 900}],
    "Flip Angle": [{"FlipAngle": 5}, {"FlipAngle": 26}],
    "Temporal Position Index": [{"TemporalPositionIndex": k} for k in range(1, 12)],
    "Temporal Position Identifier": [{"TemporalPositionIdentifier": k} for k in range(1, 12)],
    "Trigger Time": [{"TriggerTime": f"{33.5 * k}"} for k in range(12)],
    "Frame Reference Time": [{"FrameReferenceTime": f"{3e6 + 100 * k}"} for k in range(3)],
    "b-value": [{}, {"DiffusionBValue": 500.0}, {"DiffusionBValue": 1000.0}],
    "Image Type": [{"ImageType": ["ORIGINAL", "PRIMARY", "M"]}, {"ImageType": ["ORIGINAL", "PRIMARY", "P"]}],
    "Complex Image Component": [{"ComplexImageComponent": "MAGNITUDE"}, {"ComplexImageComponent": "PHASE"}],
    "Stack ID": [{"StackID": "1"}, {"StackID": "2"}],
    "Acquisition Number": [{"AcquisitionNumber": k} for k in (3, 4, 10)],
    "Acquisition Time": [
        {"AcquisitionDate": day, "AcquisitionTime": time}
        for day, time in (("20201231", "235959.5"), ("20210101", "000001"), ("20210101", "000003"))
    ],
    "Content Time": [{"ContentTime": f"1200{10 + k}.250"} for k in range(3)],
}


@pytest.mark.parametrize("words", ONE)
def test_volumes_that_differ_in_one_attribute_are_told_apart_and_sorted_by_it(words: str) -> None:
    separation = separated(planes(ONE[words]))
    assert separation.differ == (words,)
    assert order_of(separation) == list(range(len(ONE[words])))


def test_date_and_time_in_one_are_a_time_too() -> None:
    times = [{"AcquisitionDateTime": f"2020123123595{k}.125000+0100"} for k in (3, 4, 9)]
    assert separated(planes(times)).differ == ("Acquisition Time",)


def test_two_attributes_are_combined_where_one_does_not_do() -> None:
    both = [{"TemporalPositionIdentifier": time, "EchoTime": echo} for time in (1, 2, 3) for echo in (2.5, 5)]
    separation = separated(planes(both))
    assert separation.differ == ("Echo Time", "Temporal Position Identifier")
    assert order_of(separation) == [0, 2, 4, 1, 3, 5], "each echo's times follow each other, as in the files of dcm2niix"
    three = [{**each, "ImageType": ["ORIGINAL", kind]} for each in both for kind in "MP"]
    assert separated(planes(three)).differ == ("Image Type", "Echo Time", "Temporal Position Identifier")


def test_what_differs_from_slice_to_slice_tells_no_volumes_apart() -> None:
    """Slices are acquired one after the other, odd ones first, and their echo times are rounded."""

    def volume(echo: float) -> Callable[[int], ATTRIBUTES]:
        return lambda k: {"AcquisitionNumber": 1 + k % 2, "ContentTime": f"1200{10 + k}", "EchoTime": f"{echo + 1e-6 * k:.7f}"}

    separation = separated(planes([volume(4.6), volume(9.2)]))
    assert separation.differ == ("Echo Time",)
    assert order_of(separation) == [0, 1]


def diffusion(weights: Sequence[tuple[float, tuple[float, ...]]]) -> list[ATTRIBUTES]:
    return [
        {"InstanceNumber": number, "DiffusionBValue": b} | ({"DiffusionGradientOrientation": list(direction)} if b else {})
        for number, (b, direction) in enumerate(weights)
    ]


X, Y = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def test_diffusion_is_told_apart_by_b_value_and_direction_in_the_order_of_the_series() -> None:
    separation = separated(planes(diffusion([(0.0, ()), (1000.0, X), (1000.0, Y), (500.0, X), (500.0, Y)])))
    assert separation.differ == ("b-value", "Diffusion Gradient Orientation")
    assert order_of(separation) == [0, 1, 2, 3, 4]


def test_repeated_weights_are_told_apart_by_their_numbers() -> None:
    weights = [(0.0, ()), (1000.0, X), (0.0, ()), (1000.0, Y), (1000.0, X)]
    numbered = [
        lambda k, n=n, each=each: {**each, "InstanceNumber": 1 + SLICES * n + k} for n, each in enumerate(diffusion(weights))
    ]
    separation = separated(planes(numbered))
    assert separation.differ == ("b-value", "Diffusion Gradient Orientation", "Instance Number")
    assert order_of(separation) == [0, 1, 2, 3, 4]


def private(group: int, creator: str, elements: Mapping[int, tuple[str, Any]]) -> Callable[[Dataset], None]:
    def state(header: Dataset) -> None:
        block = header.private_block(group, creator, create=True)
        for element, (kind, value) in elements.items():
            block.add_new(element, kind, value)

    return state


VENDORS: dict[str, list[Callable[[Dataset], None]]] = {
    "Siemens": [
        private(0x0019, "SIEMENS MR HEADER", {0x0C: ("IS", "1000"), 0x0E: ("FD", [0.6, k, 0.8])}) for k in (0.0, 0.1, 0.2)
    ],
    "GE": [
        lambda header, b=b, x=x: (  # type: ignore[misc]
            private(0x0043, "GEMS_PARM_01", {0x39: ("IS", [1_000_000_000 + b, 8, 0, 0])})(header),
            private(0x0019, "GEMS_ACQU_01", {0xBB: ("DS", x), 0xBC: ("DS", "0.0"), 0xBD: ("DS", "0.5")})(header),
        )
        for b, x in ((0, "0.0"), (1000, "0.1"), (1000, "0.2"))
    ],
    "Philips": [
        lambda header, b=b, x=x: (  # type: ignore[misc]
            private(0x2001, "Philips Imaging DD 001", {0x03: ("FL", b)})(header),
            private(0x2005, "Philips MR Imaging DD 001", {0xB0: ("FL", x), 0xB1: ("FL", 0.0), 0xB2: ("FL", 0.5)})(header),
        )
        for b, x in ((0.0, 0.0), (800.0, 0.25), (800.0, 0.5))
    ],
    "UIH": [
        private(0x0065, "Image Private Header", {0x09: ("FD", b), 0x37: ("FD", [x, 0.0, 0.5])})
        for b, x in ((0.0, 0.0), (1000.0, 0.25), (1000.0, 0.5))
    ],
}  # fmt: skip


def as_read(header: Dataset, syntax: str) -> Dataset:
    """The header as our reading of a file leaves it."""
    file = BytesIO()
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    whole = FileDataset(None, header, file_meta=meta, preamble=bytes(128))
    pydicom.dcmwrite(file, whole, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    file.seek(0)
    return pydicom.dcmread(file, specific_tags=TAGS)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("vendor", VENDORS)
def test_diffusion_is_told_apart_by_the_private_attributes_of(vendor: str, syntax: str) -> None:
    found: list[Plane] = []
    for number, state in enumerate(VENDORS[vendor]):
        for k in range(SLICES):
            header = header_of({"InstanceNumber": number + 1}, 3.0 * k)
            state(header)
            found += planes_of(Path(f"{number}-{k}"), as_read(header, syntax))
    separation = separated(found[::-1])
    expected = ("b-value", "Diffusion Gradient Orientation")
    assert separation.differ == (expected[1:] if vendor == "Siemens" else expected)
    assert order_of(separation) == [0, 1, 2]


def test_private_elements_of_another_creator_say_nothing() -> None:
    found: list[Plane] = []
    for number in range(2):
        for k in range(SLICES):
            header = header_of({}, 3.0 * k)
            private(0x0019, "SOMEBODY ELSE", {0x0C: ("IS", str(number)), 0x0E: ("OB", struct.pack("<d", number))})(header)
            found += planes_of(Path(f"{number}-{k}"), header)
    assert "4 places, and neither echo" in separated(found).complaint


def by_volume(number: int, k: int) -> int:
    return 1 + SLICES * number + k


def by_slice(number: int, k: int) -> int:
    return 1 + 3 * (SLICES - k) + number


@pytest.mark.parametrize("numbers", [by_volume, by_slice])
def test_instance_numbers_tell_volumes_apart_as_the_last_resort(numbers: Callable[[int, int], int]) -> None:
    several = [lambda k, n=n: {"InstanceNumber": numbers(n, k)} for n in range(3)]
    separation = separated(planes(several))
    assert separation.differ == ("Instance Number",)
    assert order_of(separation) == [0, 1, 2]


def test_instance_numbers_that_run_neither_by_volume_nor_by_slice_say_nothing() -> None:
    numbers = np.random.default_rng(8).permutation(3 * SLICES).reshape(3, SLICES)
    several = [lambda k, n=n: {"InstanceNumber": int(numbers[n, k])} for n in range(3)]
    said = separated(planes(several)).complaint
    assert said.startswith(
        "3 slices lie at each of 4 places, and neither echo, time, b-value, kind nor number of the images tells"
    )


def test_phases_of_a_heart_beat_are_counted_at_each_slice() -> None:
    """Each slice is acquired in a breath-hold of its own, with another heart rate."""
    several = [lambda k, n=n: {"TriggerTime": f"{n * (30 + 3 * k):.1f}", "ContentTime": f"12{k:02d}00"} for n in range(20)]
    separation = separated(planes(several))
    assert separation.differ == ("Trigger Time",)
    assert order_of(separation) == list(range(20))


@pytest.mark.parametrize(("gap", "told"), [(10.0, True), (2.0, False)])
def test_times_of_slices_tell_volumes_apart_if_these_follow_each_other(gap: float, told: bool) -> None:
    several = [lambda k, n=n: {"AcquisitionTime": f"{120000 + gap * n + k:.2f}"} for n in range(3)]
    separation = separated(planes(several))
    if told:
        assert separation.differ == ("Acquisition Time",)
        assert order_of(separation) == [0, 1, 2]
    else:
        assert "neither echo, time" in separation.complaint


def test_single_slices_at_one_place_are_volumes_of_one_slice() -> None:
    assert order_of(separated(planes([{"TriggerTime": f"{20 * k}"} for k in range(30)], slices=1))) == list(range(30))


def without(found: list[Plane], *names: str) -> list[Plane]:
    return [plane for plane in found if plane.path.name not in names]


UNEQUAL = {
    "it holds 2 volumes of unequal sizes by Echo Time (4 and 3 slices)": without(planes(ONE["Echo Time"][:2]), "1-2"),
    "it holds 3 volumes of unequal sizes by Echo Time (4, 3 and 3 slices)": without(planes(ONE["Echo Time"]), "1-2", "2-0"),
    "it holds 11 volumes of unequal sizes by Temporal Position Index (10 of 4 and 1 of 3 slices)": without(
        planes(ONE["Temporal Position Index"]), "5-1"
    ),
    "it holds 3 volumes of unequal sizes by Instance Number (4, 4 and 3 slices)": without(
        planes([lambda k, n=n: {"InstanceNumber": by_volume(n, k)} for n in range(3)]), "1-0"
    ),
    "its 11 slices lie at 4 places, 2 to 3 at each": without(planes([{}, {}, {}]), "1-0"),
}


@pytest.mark.parametrize("said", UNEQUAL)
def test_volumes_of_unequal_sizes_are_refused_with_the_counts(said: str) -> None:
    separation = separated(UNEQUAL[said])
    assert len(separation.volumes) == 1
    assert separation.complaint == (
        f"{said}. A slice is missing or one too many: copy the series again, or put the slices of each volume into a folder of "
        "their own"
    )
    one = [plane for plane in UNEQUAL[said] if plane.path.name.startswith("0")]
    assert order_of(separated(one)) == [0], "the cure: the slices of one volume in a folder of their own"


def test_one_slice_too_many_among_single_ones_is_no_series_of_volumes() -> None:
    found = planes([{}])
    separation = separated([*found, found[0]])
    assert (separation.complaint, separation.differ, len(separation.volumes)) == ("", (), 1)


def test_slices_at_places_of_their_own_are_one_volume_whatever_they_state() -> None:
    found = planes([lambda k: {"EchoTime": k, "AcquisitionNumber": k, "InstanceNumber": 7 - k}])
    assert order_of(separated(found)) == [0]
    assert separated(found).differ == ()


def test_damaged_attribute_says_nothing() -> None:
    found = planes([{"EchoTime": "4.6", "TemporalPositionIdentifier": 1}, {"EchoTime": "4.6", "TemporalPositionIdentifier": 2}])
    for plane in found:
        plane.header["EchoTime"]._value = "no number"
    assert separated(found).differ == ("Temporal Position Identifier",)
