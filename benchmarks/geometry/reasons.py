"""Known reasons for which two programs read a volume differently; a difference that none of them covers is a finding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from benchmarks.geometry.comparison import SAME_PLACE, Comparison, compare
from benchmarks.geometry.volume import Volume
from monai_ifim.io.geometry import is_invertible

Aspect = Literal["sizes", "place", "values"]
SAME_STEP = 1e-4  # mm; dcm2niix keeps steps as float32
ROUNDED = 1e-3  # of the diagonal of a volume: direction cosines of three decimals
SLIGHTLY = 0.1  # of the range of the values: more is not the rounding of a conversion of colours


@dataclass(frozen=True)
class Difference:
    """What differs, and what is known of it.

    facts: what the DICOM headers say (`headers.FACTS`). by_headers: the product compared with pydicom, if that reads it.
    end_gaps: mm between the first two slices, and between the last two.
    """

    ours: Volume
    theirs: Volume
    found: Comparison
    facts: frozenset[str] = frozenset()
    by_headers: Comparison | None = None
    end_gaps: tuple[float, ...] = ()

    @property
    def aspects(self) -> list[Aspect]:
        """What differs: sizes, or else place and values."""
        if not self.found.sizes:
            return ["sizes"]
        agree: dict[Aspect, bool] = {"place": self.found.same_place, "values": self.found.same_values}
        return [aspect for aspect, same in agree.items() if not same]


@dataclass(frozen=True)
class Reason:
    """name: of the rule, as tables have it. words: what each program does. covers: whether it explains a difference."""

    name: str
    aspect: Aspect
    words: str
    covers: Callable[[Difference], bool]


def reasons_for(difference: Difference) -> list[Reason] | None:
    """The first reason for each aspect that differs; None if one has none."""
    found = [next((each for each in REASONS if _explains(each, aspect, difference)), None) for aspect in difference.aspects]
    reasons = [each for each in found if each is not None]
    return reasons if len(reasons) == len(found) else None


def _explains(reason: Reason, aspect: Aspect, difference: Difference) -> bool:
    return reason.aspect == aspect and reason.covers(difference)


def _apart_from_thickness(difference: Difference) -> bool:
    """True if the places of a single slice agree once both are equally thick."""
    ours, theirs = difference.ours, difference.theirs
    if ours.sizes[2] != 1 or theirs.sizes[2] != 1:
        return False
    normal = theirs.affine[:3, 2] / np.linalg.norm(theirs.affine[:3, 2])
    affine = theirs.affine.copy()
    affine[:3, 2] = normal * np.linalg.norm(ours.affine[:3, 2])
    return compare(ours, replace(theirs, affine=affine)).same_place


def _has_a_step_of(volume: Volume, gaps: tuple[float, ...]) -> bool:
    step = float(np.linalg.norm(volume.affine[:3, 2]))
    return any(abs(step - gap) < SAME_STEP for gap in gaps)


def _has_pixels_of_1_mm(volume: Volume) -> bool:
    return bool(np.allclose(np.linalg.norm(volume.affine[:3, :2], axis=0), 1))


def _is_inverse(difference: Difference) -> bool:
    """True if the values of both add up to one number."""
    ours, theirs = difference.ours.values, difference.theirs.values
    inverse = float(ours.max()) + float(theirs.min()) - ours
    return compare(replace(difference.ours, values=inverse), difference.theirs).same_values


def _is_flat(volume: Volume) -> bool:
    """True for an affine that puts several voxels at one place."""
    steps = np.linalg.norm(volume.affine[:3, :3], axis=0)
    return not is_invertible(volume.affine) or bool(steps.min() < SAME_PLACE)


def _equally_large(difference: Difference) -> bool:
    """True if the voxels of a single slice, or of a volume, are equally large."""
    axes = [axis for axis in range(3) if difference.ours.sizes[axis] > 1]
    ours, theirs = (np.linalg.norm(each.affine[:3, axes], axis=0) for each in (difference.ours, difference.theirs))
    return difference.ours.sizes == difference.theirs.sizes and bool(np.allclose(ours, theirs, rtol=1e-5))


def _as_in_headers(difference: Difference, aspect: Aspect) -> bool:
    """True if the product agrees with pydicom."""
    found = difference.by_headers
    if found is None:
        return False
    return found.same_place if aspect == "place" else found.same_values


REASONS = (
    Reason(
        "no position",
        "place",
        "The header states no position or no orientation, so each program invents a place: dcm2niix puts the middle of the "
        "picture into the origin, monai_ifim its first pixel. Distances within the picture agree.",
        lambda difference: bool({"no position", "no orientation"} & difference.facts) and _equally_large(difference),
    ),
    Reason(
        "no Pixel Spacing",
        "place",
        "The header states neither a position nor Pixel Spacing: monai_ifim takes the size of pixels that it states instead "
        "(Imager Pixel Spacing, Nominal Scanned Pixel Spacing, Ultrasound Regions), dcm2niix 1 mm.",
        lambda difference: {"no position", "no Pixel Spacing"} <= difference.facts and _has_pixels_of_1_mm(difference.theirs),
    ),
    Reason(
        "thickness of one slice",
        "place",
        "The places of a single slice agree, and its thickness does not: dcm2niix takes Spacing Between Slices where it is "
        "stated, monai_ifim Slice Thickness, else 1 mm.",
        lambda difference: _apart_from_thickness(difference) and _as_in_headers(difference, "place"),
    ),
    Reason(
        "tilt of one slice",
        "place",
        "dcm2niix shears a single slice of a tilted gantry; monai_ifim places it as its header states, and pydicom does so too.",
        lambda difference: (
            "tilted gantry" in difference.facts and difference.ours.sizes[2] == 1 and _as_in_headers(difference, "place")
        ),
    ),
    Reason(
        "no place by dcm2niix",
        "place",
        "dcm2niix takes slices at one place for neighbours, as in a series whose slices alternate between volumes or that holds "
        "several orientations, and writes a singular affine; monai_ifim places each slice as its header states.",
        lambda difference: _is_flat(difference.theirs) and _as_in_headers(difference, "place"),
    ),
    Reason(
        "unequal gaps",
        "place",
        "dcm2niix puts all slices at the distance of the first two, monai_ifim between the places of the first and the last.",
        lambda difference: _as_in_headers(difference, "place") and _has_a_step_of(difference.theirs, difference.end_gaps),
    ),
    Reason(
        "rounded directions",
        "place",
        "The direction cosines have few decimals and are no unit vectors at right angles: dcm2niix keeps their angle, monai_ifim "
        "turns both by half of what is missing to the right angle. The corners differ by less than a thousandth of the volume's "
        "diagonal.",
        lambda difference: (
            "rounded directions" in difference.facts
            and difference.found.place <= ROUNDED * float(np.linalg.norm(np.ptp(difference.ours.corners, axis=0)))
        ),
    ),
    Reason(
        "no Instance Number",
        "sizes",
        "dcm2niix removes slices without Instance Number as duplicates; monai_ifim goes by their SOP Instance UID.",
        lambda difference: "no Instance Number" in difference.facts and _as_in_headers(difference, "place"),
    ),
    Reason(
        "slices without position",
        "sizes",
        "Slices whose headers state no position are each a volume of their own in monai_ifim, since their order is not known; "
        "dcm2niix stacks them.",
        lambda difference: bool({"no position", "no orientation"} & difference.facts) and difference.ours.sizes[2] == 1,
    ),
    Reason(
        "scouts",
        "sizes",
        "dcm2niix stacks single slices of different orientations, which are volumes of their own in monai_ifim.",
        lambda difference: (
            difference.ours.sizes[2] == 1 and _as_in_headers(difference, "place") and "localizer" in difference.facts
        ),
    ),
    Reason(
        "values of interleaved volumes",
        "values",
        "Where dcm2niix finds no place it also mixes the slices of the volumes; monai_ifim and pydicom agree.",
        lambda difference: _is_flat(difference.theirs) and _as_in_headers(difference, "values"),
    ),
    Reason(
        "some of several slices",
        "values",
        "dcm2niix stacks slices without a position, in parts, so none of its volumes is the slice; monai_ifim and pydicom agree.",
        lambda difference: (
            "no position" in difference.facts and difference.ours.sizes[2] == 1 and _as_in_headers(difference, "values")
        ),
    ),
    Reason(
        "inverted radiograph",
        "values",
        "A radiograph of MONOCHROME1 is inverted by monai_ifim, as by MONAI's own reader, and the sidecar says it; dcm2niix "
        "keeps the stored values.",
        lambda difference: "MONOCHROME1" in difference.facts and _is_inverse(difference),
    ),
    Reason(
        "Modality LUT",
        "values",
        "dcm2niix ignores a Modality LUT Sequence; monai_ifim applies it, as PS3.3 C.11.1 demands.",
        lambda difference: "Modality LUT" in difference.facts,
    ),
    Reason(
        "colour palette",
        "values",
        "dcm2niix writes the numbers of the colours in the palette, monai_ifim the colours.",
        lambda difference: "palette" in difference.facts,
    ),
    Reason(
        "decoding",
        "values",
        "dcm2niix decodes pixels that are compressed, byte-swapped, or signed with fewer bits stored than allocated, to other "
        "values; monai_ifim and pydicom agree.",
        lambda difference: (
            bool({"not plain", "sign below the highest bit"} & difference.facts) and _as_in_headers(difference, "values")
        ),
    ),
    Reason(
        "conversion of colours",
        "values",
        "The pixels are stored as luminance and colour differences, and programs round and interpolate them differently.",
        lambda difference: "colours" in difference.facts and (difference.found.values or 1.0) <= SLIGHTLY,
    ),
)
