"""What a verification finds, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from monai_ifim.io.errors import single_line

LONGEST_NAME = 300  # characters of a name that a hostile sidecar states


@dataclass(frozen=True)
class Finding:
    """One thing that differs. place: its path below OUT, or what else it is; kind: a word for programs; text: what is wrong, and
    the cure."""

    place: str
    kind: str
    text: str

    @property
    def line(self) -> str:
        """Place and text in one printable line."""
        return single_line(f"{self.place[:LONGEST_NAME]}: {self.text}")


@dataclass(frozen=True)
class Verification:
    """The outcome of a verification.

    cases, files, inputs: how many were checked; bundle: whether that was; findings: what differs; notes: what is worth knowing
    and no difference.
    """

    cases: int
    files: int
    inputs: int
    bundle: bool
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """True if nothing differs."""
        return not self.findings

    def described(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {"clean": self.clean, **asdict(self)}
