"""The spectrum as a tab-separated table, and the schema that tells 3D Slicer the types of its columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

COMPONENT, EIGENVALUE, SHARE, LOCALITY = "Component", "Eigenvalue", "Share of trace (%)", "Holds up to (% of |x|)"


@dataclass(frozen=True)
class SpectrumTable:
    """One row per component: number from 1, eigenvalue, share of the trace in percent, and the change of the image up to which
    the eigenvalue holds, in percent of its norm (NaN: not measured, or infinite).

    unit: of eigenvalues.
    """

    rows: tuple[tuple[int, float, float, float], ...]
    unit: str

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the trace that each component holds, in percent."""
        return tuple(row[2] for row in self.rows)

    def table(self) -> str:
        """The table; numbers in full precision."""
        lines = ["\t".join((COMPONENT, EIGENVALUE, SHARE, LOCALITY))]
        lines += ["\t".join(map(repr, row)) for row in self.rows]
        return "\n".join(lines) + "\n"

    def schema(self) -> str:
        """Types, units and meanings of the columns. 3D Slicer finds it by its file name and plots only columns with a type."""
        lines = [
            ("columnName", "type", "componentNames", "nullValue", "unitLabel", "description"),
            (COMPONENT, "int", "", "", "", "Number of the component, the most influential first"),
            (EIGENVALUE, "double", "", "", self.unit, "Fisher information along the component"),
            (SHARE, "double", "", "", "%", "Eigenvalue as a share of all information"),
            (LOCALITY, "double", "", "nan", "%", "Largest change of the image that the eigenvalue describes"),
        ]
        return "".join("\t".join(_cell(text) for text in line) + "\n" for line in lines)


def read_spectrum(sidecar: Mapping[str, Any]) -> SpectrumTable:
    """The spectrum of a sidecar; raises KeyError, TypeError or ValueError if it has none."""
    trace = float(sidecar["trace"])
    values = [float(value) for value in sidecar["eigenvalues"]]
    steps = [math.nan if share is None else 100.0 * float(share) for share in sidecar.get("locality_share") or []]
    steps += [math.nan] * (len(values) - len(steps))
    shares = [100.0 * value / trace if trace > 0 else 0.0 for value in values]
    rows = zip(range(1, len(values) + 1), values, shares, steps, strict=False)
    return SpectrumTable(tuple(rows), str(sidecar["units"]["eigenvalues"]))


def _cell(text: str) -> str:
    """Text without tabs, line ends and double quotes."""
    return " ".join(text.replace('"', "'").split())
