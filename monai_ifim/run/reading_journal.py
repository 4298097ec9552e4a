"""Which cases are being read: a case at which an earlier run died is read in a process of its own first.

A reader in C++ may crash, or swallow all memory; the run would die there at every resume. While a case is read, OUT holds an
empty file for it, which stays if the process dies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from monai_ifim.adapt.bundle import Bundle
from monai_ifim.io import InputError, atomic
from monai_ifim.run.cases import Case
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.trial import refusal

MARK = ".reading-"  # in OUT, followed by a digest of the case's input

Trial = Callable[[Case], "str | None"]


class ReadingJournal:
    """The cases that are being read into OUT. trial: reads a case elsewhere; returns why that fails, or None."""

    def __init__(self, output: Path, trial: Trial) -> None:
        self.output, self.trial = output, trial
        self._open: dict[Path, AbstractContextManager[None]] = {}

    def suspects_last(self, cases: Iterable[Case]) -> Iterator[Case]:
        """The cases; those at which an earlier run died after all others, which then are not delayed by their trial."""
        suspects = []
        for case in cases:
            if self._is_suspect(case):
                suspects.append(case)
            else:
                yield case
        yield from suspects

    def begin(self, case: Case) -> None:
        """Note that a case is read from now on; raises InputError if an earlier run died at it and its trial fails."""
        if self._is_suspect(case):
            refusal = self.trial(case)
            if refusal is not None:  # and the file stays, so that no later run reads it here
                raise InputError(refusal)
        marker = atomic.marker(self._mark(case), root=self.output)
        with suppress(OSError):  # a full disk, say, which the files of the case will meet
            marker.__enter__()
            self._open[self._mark(case)] = marker

    def end(self, case: Case) -> None:
        """Note that a case has been read, or has failed without harm; nothing happens for one that was not begun."""
        marker = self._open.pop(self._mark(case), None)
        if marker is not None:
            marker.__exit__(None, None, None)

    def forget(self, case: Case) -> None:
        """Note that a case need not be read."""
        if self._is_suspect(case):
            atomic.remove(self._mark(case), root=self.output)

    def _is_suspect(self, case: Case) -> bool:
        return atomic.is_left_behind(self._mark(case), root=self.output)

    def _mark(self, case: Case) -> Path:
        """The file of a case, whose name tells nothing of the input's."""
        source = case.source
        told = "\0".join((str(source.path.absolute()), str(source.frame), str(source.series)))
        return self.output / f"{MARK}{hashlib.sha256(told.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def journal_of(bundle: Bundle, settings: RunSettings) -> ReadingJournal:
    """The journal of a run in this process."""
    return ReadingJournal(settings.output, lambda case: refusal(bundle.root, case, settings))
