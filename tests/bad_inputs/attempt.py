"""A row of the table of bad inputs: the fault, how to make it, the exit status and the message of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

# failed: the bad case alone, exit status 3. all failed: the bundle cannot do any. refused: no case is begun, exit status 1.
# usage: the command line's own complaint, exit status 2. done: nothing is wrong with it, exit status 0.
Outcome = Literal["failed", "all failed", "refused", "usage", "done"]


@dataclass(frozen=True)
class Attempt:
    """A command to run, and the folder in which its bad input is made.

    inputs: a good one before, a good one after. fault: what else goes wrong while it runs.
    """

    folder: Path
    inputs: tuple[str | Path, ...]
    bundle: Path
    output: Path
    options: tuple[str, ...] = ()
    fault: Callable[[pytest.MonkeyPatch], None] | None = None

    def between(self, bad: str | Path) -> Attempt:
        """The attempt with the bad input between the two good ones."""
        return replace(self, inputs=(self.inputs[0], bad, *self.inputs[1:]))

    def words(self) -> list[str]:
        """The command line."""
        fixed = ("--bundle", self.bundle, "-o", self.output, "--save", "low", "--rank", "1")
        return [str(word) for word in ("decompose", *fixed, *self.options, "--", *self.inputs)]


@dataclass(frozen=True)
class Row:
    """sees: the whole line of reason, "..." for what differs from case to case. dims: of the network. Where `make` leaves
    expected.npy in the attempt's folder, it holds the values that the written copy of the scan must have."""

    what: str
    make: Callable[[Attempt], Attempt]
    outcome: Outcome
    sees: str
    dims: int = 3

    @property
    def slug(self) -> str:
        """Name of the row's test."""
        return self.what.replace(" ", "_")


def bad_input(make: Callable[[Path], Path]) -> Callable[[Attempt], Attempt]:
    """Turns a function that makes a bad file or folder into one that makes an attempt with it."""
    return lambda attempt: attempt.between(make(attempt.folder))
