"""`IntendedUse`: what a bundle's metadata say it was made for, and in what an image departs from that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_ifim.display.numbers import number, percent, sizes

# Names in metadata, in small letters without signs, and the values of DICOM's Modality (0008,0060) that they stand for.
MODALITIES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        **dict.fromkeys(("ct", "computedtomography"), frozenset({"CT"})),
        **dict.fromkeys(("mr", "mri", "magneticresonance"), frozenset({"MR"})),
        **dict.fromkeys(("pt", "pet"), frozenset({"PT"})),
        **dict.fromkeys(("us", "ultrasound"), frozenset({"US", "IVUS"})),
        **dict.fromkeys(("mg", "mammography"), frozenset({"MG"})),
        **dict.fromkeys(("xray", "cxr", "cr", "dx", "radiography"), frozenset({"CR", "DX", "RF", "RG"})),
        **dict.fromkeys(("simulated", "simulation", "synthetic"), frozenset()),
    }
)
FURTHEST_RATIO = 2.0  # of voxel sizes that are still alike
MARGIN = 0.1  # share of the stated range by which values may lie beyond it
MOST_BEYOND = 0.01  # share of the values that may lie beyond that
LEAST_SPREAD = 0.01  # of the values, from their 1st to their 99th percentile, over the width of the stated range
SAMPLE = 2**18  # values that are looked at


@dataclass(frozen=True, eq=False)
class SeenImage:
    """What is known of an image. modality: of its DICOM header, empty if unknown; spacing: mm between the voxels that the network
    sees, values: its input; None if these are unknown."""

    modality: str = ""
    spacing: tuple[float, ...] | None = None
    values: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class IntendedUse:
    """What metadata.json states. text: `intended_use`; modality, spacing (mm, an addition to MONAI's schema) and value_range: of
    the image among the inputs of `network_data_format`; None where it is not stated, or not in this form."""

    text: str | None = None
    modality: str | None = None
    spacing: tuple[float, ...] | None = None
    value_range: tuple[float, float] | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, Any], image: Mapping[str, Any]) -> IntendedUse:
        """From the whole of the metadata, and the part on the image."""
        text, modality = metadata.get("intended_use"), image.get("modality")
        ends = _numbers(image.get("value_range"))
        return cls(
            text=" ".join(text.split()) if isinstance(text, str) and text.strip() else None,
            modality=modality if isinstance(modality, str) else None,
            spacing=_numbers(image.get("spacing")),
            value_range=(ends[0], ends[1]) if ends is not None and len(ends) == 2 and ends[0] < ends[1] else None,
        )

    def departures(self, image: SeenImage) -> tuple[str, ...]:
        """In what an image lies far from this, each a phrase; empty where nothing is far or nothing is known."""
        return (*self._of_modality(image.modality), *self._of_spacing(image.spacing), *self._of_values(image.values))

    def _of_modality(self, seen: str) -> Iterator[str]:
        wanted = MODALITIES.get("".join(filter(str.isalnum, (self.modality or "").lower())))
        if seen and wanted is not None and seen not in wanted:
            yield f"the modality is {seen}, made for {self.modality}"

    def _of_spacing(self, seen: Sequence[float] | None) -> Iterator[str]:
        if seen is None or self.spacing is None or len(seen) != len(self.spacing):
            return
        ratios = [a / b for a, b in zip(sorted(seen), sorted(self.spacing), strict=True)]
        if max(max(ratio, 1 / ratio) for ratio in ratios) > FURTHEST_RATIO:
            yield f"the network sees voxels of {_in_mm(seen)}, made for {_in_mm(self.spacing)}"

    def _of_values(self, seen: npt.NDArray[Any] | None) -> Iterator[str]:
        if seen is None or self.value_range is None or not seen.size:
            return
        low, high = self.value_range
        sample = np.asarray(seen.reshape(-1)[:: max(1, seen.size // SAMPLE)], dtype=np.float64)
        margin = MARGIN * (high - low)
        beyond = float(((sample < low - margin) | (sample > high + margin)).mean())
        first, last = (float(end) for end in np.percentile(sample, (1, 99)))
        stated = f"made for values from {number(low)} to {number(high)}"
        if beyond > MOST_BEYOND:
            yield f"{percent(beyond)} of the values that the network sees lie outside of it, {stated}"
        elif 0 < last - first < LEAST_SPREAD * (high - low):
            yield f"nearly all values that the network sees lie between {number(first)} and {number(last)}, {stated}"


def far_sentence(departures: Sequence[str]) -> str:
    """The departures of an image in a sentence, empty without any."""
    return f"Far from what the bundle was made for: {'; '.join(departures)}." if departures else ""


def _numbers(stated: Any) -> tuple[float, ...] | None:
    """A list of finite numbers; None for anything else and for an empty one."""
    if not isinstance(stated, (list, tuple)) or not stated:
        return None
    if not all(isinstance(each, (int, float)) and not isinstance(each, bool) and math.isfinite(each) for each in stated):
        return None
    return tuple(map(float, stated))


def _in_mm(spacing: Sequence[float]) -> str:
    return f"{sizes([number(each) for each in spacing])} mm"
