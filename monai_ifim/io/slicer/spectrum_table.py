"""The spectrum as a tab-separated table, and the schema that tells 3D Slicer the types of its columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai_ifim.display.vocabulary import COMPONENT, HOLDS_UP_TO, SENSITIVITY_ALONG, SHARE

COLUMNS = (
    (COMPONENT.title, "int", ""),
    ("Sensitivity", "double", "nan"),
    (f"{SHARE.title} (%)", "double", "nan"),
    (f"{HOLDS_UP_TO.title} (% of |x|)", "double", "nan"),
)  # title, type, and what stands for no value


@dataclass(frozen=True)
class SpectrumTable:
    """One row per component: number from 1, eigenvalue, share of the trace in percent, and the change of the image up to which
    the eigenvalue holds, in percent of its norm; NaN where it was not measured or is not finite.

    unit: of eigenvalues. at_least: the last column holds lower bounds.
    """

    rows: tuple[tuple[int, float, float, float], ...]
    unit: str
    at_least: bool = False

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the trace that each component holds, in percent; NaN where that is not finite."""
        return tuple(row[2] for row in self.rows)

    @property
    def largest_share(self) -> float:
        """The largest of these that is finite; 0 where none is."""
        return max((share for share in self.shares if math.isfinite(share)), default=0.0)

    def table(self) -> str:
        """The table; numbers in full precision."""
        lines = ["\t".join(self.titles)]
        lines += ["\t".join(map(repr, row)) for row in self.rows]
        return "\n".join(lines) + "\n"

    @property
    def titles(self) -> tuple[str, ...]:
        """Heads of the columns."""
        *others, last = (title for title, *_ in COLUMNS)
        return (*others, f"{HOLDS_UP_TO.title} at least (% of |x|)" if self.at_least else last)

    def schema(self) -> str:
        """Types, units and meanings of the columns. 3D Slicer finds it by its file name and plots only columns with a type."""
        lines = [("columnName", "type", "componentNames", "nullValue", "unitLabel", "description")]
        tips = (COMPONENT.tip, SENSITIVITY_ALONG.tip, SHARE.tip, HOLDS_UP_TO.tip)
        units = ("", self.unit, "%", "%")
        for title, (_, kind, null), unit, tip in zip(self.titles, COLUMNS, units, tips, strict=True):
            lines.append((title, kind, "", null, unit, tip))
        return "".join("\t".join(_cell(text) for text in line) + "\n" for line in lines)


def read_spectrum(sidecar: Mapping[str, Any]) -> SpectrumTable:
    """The spectrum of a sidecar, where null stands for what is not finite; raises KeyError, TypeError or ValueError if it has
    none."""
    trace = _number(sidecar["trace"])
    values = [_number(value) for value in sidecar["eigenvalues"]]
    steps = [100.0 * _number(share) for share in sidecar.get("locality_share") or []]
    steps += [math.nan] * (len(values) - len(steps))
    shares = [0.0 if trace <= 0 else 100.0 * value / trace for value in values]
    rows = zip(range(1, len(values) + 1), values, shares, steps, strict=False)
    return SpectrumTable(tuple(rows), str(sidecar["units"]["eigenvalues"]), sidecar.get("locality_is_lower_bound") is True)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _cell(text: str) -> str:
    """Text without tabs, line ends and double quotes."""
    return " ".join(text.replace('"', "'").split())
