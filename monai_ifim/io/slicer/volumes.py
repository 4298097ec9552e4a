"""The volumes of a scene: a clinical name, a display window and colours for each file of a case."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai_ifim.display.numbers import percent
from monai_ifim.display.saturation import is_saturated
from monai_ifim.io.maps import MapContent

GREY, SENSITIVITY, SIGNED, LABELS = "grey", "sensitivity", "signed", "labels"
LEGEND_WIDTH = 20  # letters: a longer line would be drawn smaller
_COLORS = {"high": SIGNED, "eigenvector": SIGNED, "sensitivity": SENSITIVITY, "sensitivity_error": SENSITIVITY, "labels": LABELS}
_WITH_BAR = (SIGNED, SENSITIVITY)
_ORDER = ("source", "labels", "sensitivity", "high", "low", "eigenvector", "sensitivity_error", "input")


@dataclass(frozen=True)
class SceneVolume:
    """One volume. name: for the user; window: its ends in the stored values; colors: GREY, SENSITIVITY, SIGNED or LABELS; legend:
    title of its colour bar, or ""."""

    file: str
    content: MapContent
    name: str
    window: tuple[float, float]
    colors: str
    legend: str = ""

    @property
    def kind(self) -> str:
        """Kind of map, one of `io.maps.KINDS`."""
        return self.content.kind

    @property
    def level(self) -> float:
        """Middle of the window; exactly zero for a signed map."""
        return 0.5 * (self.window[0] + self.window[1])

    @property
    def width(self) -> float:
        """Width of the window."""
        return self.window[1] - self.window[0]


def scene_volumes(sidecar: Mapping[str, Any], shares: tuple[float, ...]) -> list[SceneVolume]:
    """The volumes that a sidecar describes, in the order in which the user sees them listed.

    shares: of the trace, in percent, by component, NaN where unknown. Maps of a saturated answer are grey.

    Raises KeyError, TypeError or ValueError for a damaged sidecar.
    """
    muted = is_saturated(sidecar)
    volumes = [_map_volume(file, shares, muted) for file in sidecar["files"]]
    return sorted(volumes, key=_place_in_list)


def _place_in_list(volume: SceneVolume) -> tuple[int, int, int]:
    content = volume.content
    return content.channel, _ORDER.index(content.kind), content.component or 0


def first_of(volumes: list[SceneVolume], *kinds: str) -> SceneVolume | None:
    """The first volume of the first of these kinds that occurs."""
    found = (volume for kind in kinds for volume in volumes if volume.kind == kind)
    return next(found, None)


def _map_volume(file: Mapping[str, Any], shares: tuple[float, ...], muted: bool) -> SceneVolume:
    """muted: the maps are grey, because nothing moves the answer."""
    content = MapContent.of(file)
    kind, number = content.kind, content.component
    suffix = "" if content.channel == 1 else f", channel {content.channel}"
    name = content.title
    unit = file["unit"] if number is None else "relative"
    unit = unit if file["scale"] == 1 else f"{file['scale']:g} x {unit}"
    legend = "\n".join([name + suffix, *textwrap.wrap(unit, LEGEND_WIDTH)]) if _COLORS.get(kind) in _WITH_BAR else ""
    if kind in ("source", "sensitivity", "sensitivity_error"):
        name = f"{name} ({unit})"
    if number is not None and number <= len(shares) and math.isfinite(shares[number - 1]):
        name = f"{name} ({percent(shares[number - 1] / 100)} of the sensitivity)"
    colors = GREY if muted and kind != "labels" else _COLORS.get(kind, GREY)
    return SceneVolume(file["file"], content, name + suffix, _window(file), colors, legend)


def _window(file: Mapping[str, Any]) -> tuple[float, float]:
    low, high = (float(end) for end in file["window"])
    if not low < high:
        raise ValueError(f"the window of {file['file']} is empty")
    return low, high
