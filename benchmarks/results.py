"""Results of a comparison: rows with bars, sections with a stamp, one JSON file per device."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.stamp import Stamp


@dataclass(frozen=True)
class Bar:
    """The limit that a value must not pass."""

    limit: float
    at_least: bool

    def holds(self, value: float) -> bool:
        """Whether the value passes; NaN does not."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"


@dataclass(frozen=True)
class Row:
    """One number of a comparison.

    what: the quantity, or numerator / denominator. value: None if it could not be measured, with the reason in `details`.
    unit: "" for a ratio. seconds: of every round, by candidate.
    """

    what: str
    case: str
    value: float | None
    bar: Bar | None = None
    unit: str = ""
    details: str = ""
    seconds: Mapping[str, list[float]] = field(default_factory=dict)

    @property
    def holds(self) -> bool | None:
        """Whether the bar is passed; None where there is none."""
        if self.bar is None:
            return None
        return self.value is not None and self.bar.holds(self.value)

    @property
    def value_text(self) -> str:
        """The value to three digits with its unit."""
        if self.value is None:
            return "failed"
        digits = f"{self.value:.2f}" if 0.1 <= abs(self.value) < 10 else f"{self.value:.3g}"
        return f"{digits} {self.unit}".strip() if abs(self.value) < 1000 else f"{self.value:.0f} {self.unit}".strip()

    @property
    def bar_text(self) -> str:
        """The bar with the value's unit, nothing where there is none."""
        return "" if self.bar is None else f"{self.bar} {self.unit}".strip()

    @property
    def holds_text(self) -> str:
        """Yes, NO, or nothing where there is no bar."""
        return {None: "", True: "yes", False: "NO"}[self.holds]


@dataclass(frozen=True)
class Section:
    """The rows of one section, and the stamp that was taken before they were measured."""

    stamp: Stamp
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Comparison:
    """Sections by name, as far as they were run, in the order of the benchmark; quick: at the tiny sizes of a smoke test."""

    device: str
    sections: Mapping[str, Section]
    quick: bool = False

    def with_section(self, name: str, section: Section, order: Sequence[str]) -> Comparison:
        """This comparison with a section replaced or added."""
        known = {**self.sections, name: section}
        return replace(self, sections={key: known[key] for key in order if key in known})

    def write(self, path: Path) -> None:
        """As JSON."""
        sections = {name: asdict(section) for name, section in self.sections.items()}
        content = {"device": self.device, "quick": self.quick, "sections": sections}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_comparison(path: Path, device: str, quick: bool) -> Comparison:
    """The results of earlier runs; empty if there are none."""
    if not path.is_file():
        return Comparison(device, {}, quick)
    content = json.loads(path.read_text(encoding="utf-8"))
    return Comparison(device, {name: _section(entry) for name, entry in content["sections"].items()}, quick)


def _section(entry: Mapping[str, Any]) -> Section:
    rows = tuple(Row(**{**row, "bar": None if row["bar"] is None else Bar(**row["bar"])}) for row in entry["rows"])
    return Section(Stamp(**entry["stamp"]), rows)
