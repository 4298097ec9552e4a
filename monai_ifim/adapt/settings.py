"""How a case is made: the decomposition, what is decomposed of a scan, and the files written of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from math import isfinite
from typing import Any, Literal, TypedDict, get_args

from monai_ifim.core import IFIMError
from monai_ifim.core.coordinates import Family
from monai_ifim.core.settings import Settings, SettingsShortcuts, check_name
from monai_ifim.io import OutputError, check_contents
from monai_ifim.options import FILES, CaseNames, Channels, Space, Statistics, option

Resolution = float | Literal["network"] | None


class FileShortcuts(TypedDict, total=False):
    """The fields of `CaseSettings` that decide which files are written, as keywords instead of `settings=`."""

    space: Space
    contents: Sequence[str]
    dicom_pm: bool
    scene_bundle: bool
    case_names: CaseNames


class CaseShortcuts(SettingsShortcuts, FileShortcuts, total=False):
    """The fields of `CaseSettings` as keywords, for constructors that accept them instead of `settings=`."""

    statistics: Statistics
    resolution: Resolution
    channels: Channels
    deterministic: bool


@dataclass(frozen=True, kw_only=True)
class CaseSettings(Settings):
    """All that decides the files of a case.

    space: "native", components of what the network saw on the input's own grid, "network", on the network's grid, or
    "scanner", components of the scan itself. statistics, resolution: in scanner space, as `monai_ifim.decompose_scan`. channels:
    of a network's input whose channels are one grey image (`adapt.tied_channels`), "tied", maps of that image, or "each", of
    each channel; the scan of scanner space has the channels that it has.
    deterministic: as `core.determinism.deterministic_algorithms`, while a case is computed. contents: which of high, low,
    sensitivity, eigenvectors to write; the input is always written. dicom_pm: write the components as DICOM Parametric Maps
    too. scene_bundle: write the scene and its files as one .mrb file too. case_names: "path", cases are named after their files,
    or "hash", by pseudonyms (`io.key_table`), and names of files are in no result. coordinates: families, or names of them,
    "placement,acquisition=ct".
    """

    statistics: Statistics = option("statistics")
    resolution: Resolution = option("resolution")
    channels: Channels = option("channels")
    deterministic: bool = option("deterministic")
    space: Space = option("space")
    contents: Sequence[str] = option("contents")
    dicom_pm: bool = option("dicom_pm")
    scene_bundle: bool = option("scene_bundle")
    case_names: CaseNames = option("case_names")

    def __post_init__(self) -> None:
        if isinstance(self.coordinates, str):
            from monai_ifim.coordinates.choice import named_families  # with SciPy, which most runs do not need

            object.__setattr__(self, "coordinates", named_families(self.coordinates))
        super().__post_init__()
        check_space(self.space)
        check_statistics(self.statistics)
        check_name("channels", self.channels, get_args(Channels))
        check_name("case_names", self.case_names, get_args(CaseNames))
        contents = self.contents.split(",") if isinstance(self.contents, str) else self.contents
        named = [str(name).strip() for name in contents]
        object.__setattr__(self, "contents", check_contents([name for name in named if name]))
        object.__setattr__(self, "resolution", checked_resolution(self.resolution))
        if self.space != "scanner" and (self.resolution is not None or self.statistics != "differentiate"):
            raise IFIMError(f"statistics and resolution belong to the space 'scanner', not to {self.space!r}: leave them out.")
        if self.space == "scanner" and self.channels == "each":
            raise IFIMError(
                "channels='each' belongs to the spaces 'native' and 'network'; in space 'scanner' each channel of the scan has "
                "maps of its own in any case: leave it out."
            )
        check_scan_coordinates(self.families, self.space)
        if self.resolution is not None and self.metric is not None:
            raise IFIMError("resolution and metric (noise) are two input metrics: give one of them.")

    def written(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """Description of a case that was computed with the settings described in `made` and written with these."""
        own = self.describe()
        return own | {name: value for name, value in made.items() if name not in FILES}


def own_keywords(constructor: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the keyword-only parameters of a constructor that takes settings as further keywords."""
    return tuple(name for name, each in signature(constructor).parameters.items() if each.kind is Parameter.KEYWORD_ONLY)


def check_space(space: str) -> None:
    """Raise OutputError unless `space` is the name of one."""
    if space not in get_args(Space):
        raise OutputError(f"unknown space {space!r}: choose one of {', '.join(map(repr, get_args(Space)))}.")


def check_scan_coordinates(families: Sequence[Family], space: str) -> None:
    """Raise IFIMError for coordinates that are stated in the scanner's own values or on its grid, in another space."""
    for family in families:
        if space != "scanner" and family.of_scan:
            raise IFIMError(
                f"the coordinates {family.kind!r} are stated on the scan, in its own values, and space={space!r} decomposes "
                "what the network sees: choose space='scanner'."
            )


def check_statistics(statistics: str) -> None:
    """Raise IFIMError unless `statistics` is "differentiate" or "freeze"."""
    if statistics not in get_args(Statistics):
        raise IFIMError(f"unknown statistics {statistics!r}: choose one of {', '.join(map(repr, get_args(Statistics)))}.")


def checked_resolution(resolution: Any) -> Resolution:
    """Millimetres from 0 on (0: None), "network", or None; raises IFIMError for anything else."""
    if resolution is None or resolution == "network":
        return resolution
    try:
        width = float(resolution)
    except (TypeError, ValueError):
        width = float("nan")
    if not isfinite(width) or width < 0:
        raise IFIMError(f"resolution {resolution!r}: give millimetres, from 0 on, or 'network'.")
    return width or None
