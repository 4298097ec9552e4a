"""The volumes of a scene: every file of a case under a name that a clinician understands, and how it is shown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai_ifim.display.numbers import percent

GREY, SENSITIVITY, SIGNED = "grey", "sensitivity", "signed"
LEGEND_WIDTH = 20  # letters: a longer line would be drawn smaller
_CONTENT = re.compile(r"(input|high|low|sensitivity|eigenvector)(?: (\d+))?(?:, channel (\d+))?")
_COLORS = {"high": SIGNED, "eigenvector": SIGNED, "sensitivity": SENSITIVITY}
_ORDER = ("source", "sensitivity", "high", "low", "eigenvector", "input")


@dataclass(frozen=True)
class SceneVolume:
    """One volume. kind: source, input, high, low, sensitivity or eigenvector; number: of the eigenvector; channel: from 1;
    window: its ends in the stored values; colors: GREY, SENSITIVITY or SIGNED; legend: title of its colour bar, or ""."""

    file: str
    kind: str
    name: str
    window: tuple[float, float]
    colors: str
    legend: str = ""
    number: int = 0
    channel: int = 1

    @property
    def level(self) -> float:
        """Middle of the window; of a signed map exactly zero."""
        return 0.5 * (self.window[0] + self.window[1])

    @property
    def width(self) -> float:
        """From the window's low to its high end."""
        return self.window[1] - self.window[0]


def scene_volumes(sidecar: Mapping[str, Any], shares: tuple[float, ...]) -> list[SceneVolume]:
    """The volumes that a sidecar describes, in the order in which they are listed to the user.

    shares: of the trace, in percent, by component. Raises KeyError, TypeError or ValueError where the sidecar is no good.
    """
    maps = [file for file in sidecar["files"] if file["content"] != "source"]
    volumes = [_map_volume(file, sidecar["units"], shares) for file in maps]
    source = sidecar["source"]
    if source is not None:
        name = f"Image ({source['unit']})"
        volumes.append(SceneVolume(source["file"], "source", name, _window(source), GREY))
    return sorted(volumes, key=lambda volume: (volume.channel, _ORDER.index(volume.kind), volume.number))


def first_of(volumes: list[SceneVolume], *kinds: str) -> SceneVolume | None:
    """The first volume of the first of these kinds that there is."""
    found = (volume for kind in kinds for volume in volumes if volume.kind == kind)
    return next(found, None)


def _map_volume(file: Mapping[str, Any], units: Mapping[str, str], shares: tuple[float, ...]) -> SceneVolume:
    found = _CONTENT.fullmatch(file["content"])
    if found is None:
        raise ValueError(f"content {file['content']!r} is not known")
    kind, number, channel = found[1], int(found[2] or 0), int(found[3] or 1)
    suffix = "" if channel == 1 else f", channel {channel}"
    name, unit = _name_and_unit(kind, number, units)
    unit = unit if file["scale"] == 1 else f"{file['scale']:g} x {unit}"
    legend = "\n".join([name + suffix, *textwrap.wrap(unit, LEGEND_WIDTH)]) if kind in _COLORS else ""
    if kind == "sensitivity":
        name = f"{name} ({unit})"
    if kind == "eigenvector" and number <= len(shares):
        name = f"{name} ({percent(shares[number - 1] / 100)} of the information)"
    return SceneVolume(file["file"], kind, name + suffix, _window(file), _COLORS.get(kind, GREY), legend, number, channel)


def _name_and_unit(kind: str, number: int, units: Mapping[str, str]) -> tuple[str, str]:
    if kind == "eigenvector":
        return f"Direction {number}", "relative"
    names = {
        "input": "Image as the network saw it",
        "sensitivity": "Sensitivity",
        "high": "Sensitive part (high)",
        "low": "Insensitive part (low)",
    }
    return names[kind], units["sensitivity" if kind == "sensitivity" else "maps"]


def _window(file: Mapping[str, Any]) -> tuple[float, float]:
    low, high = (float(end) for end in file["window"])
    if not low < high:
        raise ValueError(f"the window of {file['file']} is empty")
    return low, high
