"""Where the time of a run went: reading, computing and writing of its cases, and its page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class StageSeconds:
    """Seconds by the clock that a case took in each stage. A batch's computing is shared evenly by its cases. Reading: hashes and
    preprocessing too, and for a kept case its check. Writing: the way back to the input's grid too."""

    reading: float = 0.0
    computing: float = 0.0
    writing: float = 0.0

    @property
    def total(self) -> float:
        """Of all stages."""
        return self.reading + self.computing + self.writing


STAGES = tuple(field.name for field in fields(StageSeconds))


def profile_of(stages: Iterable[StageSeconds], seconds: float, processes: int = 1) -> dict[str, Any]:
    """The profile of a run as plain data: `seconds` of each stage, over all cases and processes, and as `shares` of the time that
    the processes had, `processes` times the run's `seconds`.

    Reading and writing happen in threads of their own beside computing, so that the shares may add up to more than 1; the largest
    is what the run waited for.
    """
    known = [asdict(each) for each in stages]
    spent = {stage: sum(each[stage] for each in known) for stage in STAGES}
    had = processes * seconds
    return {"processes": processes, "seconds": spent, "shares": {stage: share_of(value, had) for stage, value in spent.items()}}


def with_page(profile: Mapping[str, Any], page_seconds: float, seconds: float) -> dict[str, Any]:
    """The profile with the page, which one process makes after the run of `seconds`; its share is of these."""
    spent, shares = profile["seconds"] | {"page": page_seconds}, profile["shares"] | {"page": share_of(page_seconds, seconds)}
    return {**profile, "seconds": spent, "shares": shares}


def share_of(part: float, whole: float) -> float:
    """part / whole; 0 of nothing."""
    return part / whole if whole > 0 else 0.0
