"""The arrays of one case on their common grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from monai_ifim.io.errors import OutputError
from monai_ifim.io.geometry import Affine
from monai_ifim.io.maps import MapContent
from monai_ifim.io.segmentation import Segmentation
from monai_ifim.options import CONTENTS

Values = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class CaseMaps:
    """Maps of one case on one grid. input, high, low, sensitivity: [channel, *spatial]; eigenvectors: [k, channel, *spatial].

    sensitivity_scale: factor from the stored to the true sensitivity; 1 unless float32 could not hold it. segmentation: of a
    network that labels voxels, on the same grid. sensitivity_error: standard error of the sensitivity, in the same way, where
    that is an estimate.
    """

    affine: Affine
    input: Values
    high: Values
    low: Values
    sensitivity: Values
    eigenvectors: Values
    sensitivity_scale: float = 1.0
    segmentation: Segmentation | None = None
    sensitivity_error: Values | None = None

    def values(self, content: MapContent) -> Values:
        """The stored values [*spatial] of one channel of one map, the source excepted."""
        if content.component is not None:
            return self.eigenvectors[content.component - 1][content.channel - 1]
        if content.kind == "labels" and self.segmentation is not None:
            return self.segmentation.values
        array: Values = getattr(self, content.kind)[content.channel - 1]
        return array

    def scale(self, content: MapContent) -> float:
        """Factor from the stored to the true values."""
        return self.sensitivity_scale if content.saved_as == "sensitivity" else 1.0

    def contents(self, chosen: Sequence[str]) -> Iterator[MapContent]:
        """Contents of the files to write: the input, the segmentation if there is one, then those of `chosen` (a selection of
        CONTENTS), channel by channel."""
        channels = range(1, len(self.input) + 1)
        for name in ("input", *chosen):
            components = range(1, len(self.eigenvectors) + 1) if name == "eigenvectors" else (None,)
            kind = "eigenvector" if name == "eigenvectors" else name
            yield from (MapContent(kind, component, channel) for component in components for channel in channels)
            if kind == "input" and self.segmentation is not None:
                yield MapContent("labels")
            if kind == "sensitivity" and self.sensitivity_error is not None:
                yield from (MapContent("sensitivity_error", None, channel) for channel in channels)


def check_contents(contents: Sequence[str]) -> tuple[str, ...]:
    """The contents to save, in the order of CONTENTS; raises OutputError for an unknown one."""
    unknown = sorted(set(contents) - set(CONTENTS))
    if unknown:
        raise OutputError(f"cannot save {', '.join(unknown)}: choose from {', '.join(CONTENTS)}.")
    return tuple(name for name in CONTENTS if name in contents)
