"""What a case consists of: the kinds of maps, and the names of their files. Plain Python, so that the viewer can use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from monai_ifim.display.vocabulary import MAPS, map_name, titled

KINDS = tuple(MAPS)


@dataclass(frozen=True)
class MapContent:
    """What one file of a case holds: one channel of one map.

    kind: one of KINDS. component: number of the eigenvector, from 1; None for the other kinds. channel: from 1.
    Raises ValueError for other values.
    """

    kind: str
    component: int | None = None
    channel: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is not a kind of map; the kinds are {', '.join(KINDS)}")
        if (self.component is None) == (self.kind == "eigenvector"):
            raise ValueError(f"component {self.component!r} of {self.kind}: an eigenvector has a component, other maps have none")
        for name, number in (("component", self.component), ("channel", self.channel)):
            if number is not None and (type(number) is not int or number < 1):
                raise ValueError(f"{name} {number!r} is not a whole number from 1 on")

    @classmethod
    def of(cls, file: Mapping[str, Any]) -> MapContent:
        """The content that a sidecar states of a file; raises KeyError, TypeError or ValueError if it states none."""
        return cls(file["kind"], file["component"], file["channel"])

    @property
    def whole(self) -> MapContent:
        """The same map, by its first channel: equal for all channels of one map."""
        return replace(self, channel=1)

    @property
    def saved_as(self) -> str:
        """The entry of CONTENTS that it belongs to; "source", "input" and "labels" stand for themselves."""
        return {"eigenvector": "eigenvectors", "sensitivity_error": "sensitivity"}.get(self.kind, self.kind)

    @property
    def stem(self) -> str:
        """Its part of a file's name, for example eigenvector-02_channel-03."""
        numbered = self.kind if self.component is None else f"{self.kind}-{self.component:02d}"
        return numbered if self.channel == 1 else f"{numbered}_channel-{self.channel:02d}"

    @property
    def name(self) -> str:
        """What readers of images call it, without the channel."""
        return map_name(self.kind, self.component)

    @property
    def title(self) -> str:
        """The same with a capital letter, as in scenes and in the viewer."""
        return titled(self.name)

    @property
    def label(self) -> str:
        """Its name in DICOM and in files, for example "eigenvector 2, channel 3"."""
        named = self.kind.replace("_", " ")
        numbered = named if self.component is None else f"{named} {self.component}"
        return numbered if self.channel == 1 else f"{numbered}, channel {self.channel}"
