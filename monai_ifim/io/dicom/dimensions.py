"""Attributes by which the volumes of a series differ: echo, time, diffusion, kind of image, number."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_ifim.io.dicom.diffusion import PRIVATE_TAGS, b_value, gradient_direction
from monai_ifim.io.dicom.linkage import linked_values
from monai_ifim.io.dicom.planes import Plane

SAME_VALUE = 1e-4  # of the largest number: what rounding in a header makes of one echo time or b-value

DATE_TIME = re.compile("[^0-9.]")  # what ends a time: the offset from UTC (PS3.5, 6.2: DT)
ACQUISITION = ("FrameContentSequence", "FrameAcquisitionNumber")

Value = tuple[Any, ...]  # numbers or codes; empty if the header states none


@dataclass(frozen=True)
class Dimension:
    """An attribute. words: its name in DICOM; of: its value for a slice; leads: volumes of a series are sorted by it first.

    rounding: share of the largest number by which numbers may differ and be the same.
    """

    words: str
    of: Callable[[Plane], Value]
    leads: bool = False
    rounding: float = 0.0

    def values(self, planes: Sequence[Plane]) -> list[Hashable]:
        """The value for each slice, as something that is equal for equal values and sorts in their order."""
        stated = [self.of(plane) for plane in planes]
        if all(isinstance(part, float) for value in stated for part in value):
            return _equal_numbers(stated, self.rounding)
        return [(bool(value), *map(str, value)) for value in stated]


def _numbers(words: str, keyword: str, *functional: str) -> Dimension:
    """A whole number by which volumes are sorted."""
    return Dimension(words, lambda plane: numbers_in(plane.stated(keyword, *functional)), leads=True)


def _measured(words: str, keyword: str, *functional: str) -> Dimension:
    """A measured quantity by which volumes are sorted."""
    return Dimension(words, lambda plane: numbers_in(plane.stated(keyword, *functional)), leads=True, rounding=SAME_VALUE)


def _texts(words: str, keyword: str, *functional: str, leads: bool = True) -> Dimension:
    return Dimension(words, lambda plane: tuple(map(str, _parts(plane.stated(keyword, *functional)))), leads)


def _acquired(plane: Plane) -> Value:
    """Date and time of the acquisition, as the numbers YYYYMMDD and HHMMSS.FFFFFF."""
    whole = str(plane.stated("AcquisitionDateTime", "FrameContentSequence", "FrameAcquisitionDateTime") or "")
    return numbers_in((whole[:8], DATE_TIME.split(whole[8:])[0])) or _date_and_time(plane, "Acquisition")


def _date_and_time(plane: Plane, kind: str) -> Value:
    day, time = (numbers_in(plane.stated(f"{kind}{part}")) for part in ("Date", "Time"))
    return (*day, *time) if time else ()


TRIGGER = _measured("Trigger Time", "TriggerTime", "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime")
REFERENCE_TIME = _numbers("Frame Reference Time", "FrameReferenceTime")
ACQUISITION_TIME = Dimension("Acquisition Time", _acquired, leads=True)
CONTENT_TIME = Dimension("Content Time", lambda plane: _date_and_time(plane, "Content"))
NUMBER = Dimension("Instance Number", lambda plane: _number(plane))
# Tried in this order, and those that lead sorted by in it. A slice's own place or number is none of them.
DIMENSIONS = (
    _texts("Stack ID", "StackID", "FrameContentSequence", "StackID"),
    _texts("Image Type", "ImageType", "MRImageFrameTypeSequence", "FrameType"),
    _texts("Complex Image Component", "ComplexImageComponent", "MRImageFrameTypeSequence", "ComplexImageComponent"),
    _measured("Echo Time", "EchoTime", "MREchoSequence", "EffectiveEchoTime"),
    _numbers("Echo Number", "EchoNumbers"),
    _measured("Inversion Time", "InversionTime", "MRModifierSequence", "InversionTimes"),
    _measured("Flip Angle", "FlipAngle", "MRTimingAndRelatedParametersSequence", "FlipAngle"),
    _numbers("Temporal Position Index", "TemporalPositionIndex", "FrameContentSequence", "TemporalPositionIndex"),
    _numbers("Temporal Position Identifier", "TemporalPositionIdentifier"),
    Dimension("b-value", b_value, rounding=SAME_VALUE),
    Dimension("Diffusion Gradient Orientation", gradient_direction, rounding=SAME_VALUE),
    _texts("Diffusion Directionality", "DiffusionDirectionality", "MRDiffusionSequence", "DiffusionDirectionality", leads=False),
    TRIGGER,
    REFERENCE_TIME,
    Dimension("Acquisition Number", lambda plane: numbers_in(plane.stated("AcquisitionNumber", *ACQUISITION))),
    ACQUISITION_TIME,
    CONTENT_TIME,
)
TIMES = (REFERENCE_TIME, ACQUISITION_TIME, CONTENT_TIME)
KEYWORDS = (
    "StackID", "ImageType", "ComplexImageComponent", "EchoTime", "EchoNumbers", "InversionTime", "FlipAngle",
    "TemporalPositionIndex", "TemporalPositionIdentifier", "DiffusionBValue", "DiffusionGradientOrientation",
    "DiffusionDirectionality", "TriggerTime", "FrameReferenceTime", "AcquisitionNumber", "AcquisitionDateTime",
    "AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime", "InstanceNumber",
)  # fmt: skip
TAGS_READ = (*KEYWORDS, *PRIVATE_TAGS)


def index_dimensions(planes: Sequence[Plane]) -> list[Dimension]:
    """The parts of the Dimension Index Values of the frames of an enhanced object (PS3.3, C.7.6.17); none for others."""
    path = ("DimensionIndexValues", "FrameContentSequence", "DimensionIndexValues")
    several = 0 if planes[0].frame is None else min(len(_parts(plane.stated(*path))) for plane in planes)

    def part(number: int) -> Callable[[Plane], Value]:
        return lambda plane: (float(_parts(plane.stated(*path))[number]),)

    return [Dimension("Dimension Index Values", part(number), leads=True) for number in range(several)]


def _number(plane: Plane) -> Value:
    """The number of a slice in its series, or of a frame in its file."""
    return instance_number(plane.header) if plane.frame is None else (float(plane.frame),)


def instance_number(header: Any) -> Value:
    """The number of an instance in its series; empty if it is missing or damaged."""
    with suppress(Exception):  # pydicom raises many types for a damaged value
        return numbers_in(header.get("InstanceNumber"))
    return ()


def numbers_in(value: Any) -> Value:
    """The numbers of an attribute; none if it is missing or holds anything else."""
    try:
        found = tuple(float(part) for part in _parts(value))
    except (TypeError, ValueError):
        return ()
    return found if all(map(math.isfinite, found)) else ()


def _parts(value: Any) -> Value:
    if value is None:
        return ()
    return (value,) if isinstance(value, (str, int, float)) else tuple(value)


def _equal_numbers(stated: Sequence[Value], rounding: float) -> list[Hashable]:
    """Numbers as their ranks, alike for those that differ by rounding only; no numbers come first."""
    length = max(map(len, stated))
    if length == 0:
        return [()] * len(stated)
    columns = []
    for place in range(length):
        column = np.array([value[place] if place < len(value) else -np.inf for value in stated])
        known = np.isfinite(column)
        ranks = np.full(len(column), -1)
        if known.any():
            ranks[known] = linked_values(column[known], rounding * float(np.abs(column[known]).max()))
        columns.append(ranks.tolist())
    return list(zip(*columns, strict=True))
