"""How far a run is: a bar of its cases, one of a computation that takes long, and a line for each finished case."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from monai_ifim.cli.summary import case_line
from monai_ifim.display import numbers

if TYPE_CHECKING:
    from monai_ifim.run.case_clock import Stage
    from monai_ifim.run.table import CaseRow

BETWEEN_LINES = 60.0  # seconds: where there is no terminal for a bar, such as in a log


class Pace(ProgressColumn):
    """Cases per minute and the remaining time, from the cases made in this run; kept ones do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0
        self.started = time.monotonic()

    def count(self, row: CaseRow) -> None:
        """Take a row into account."""
        if row.status == "kept" and self.made == 0:
            self.started = time.monotonic()
        self.made += row.status != "kept"

    def render(self, task: Task) -> Text:
        """For example `41.3 cases/min, 0:12:30 left`; of a case in hand the time left that its own products tell."""
        if "left" in task.fields:
            return Text(task.fields["left"])
        seconds = time.monotonic() - self.started
        if not self.made or task.total is None or not seconds:
            return Text("")
        left = timedelta(seconds=round(seconds / self.made * (task.total - task.completed)))
        return Text(f"{numbers.number(60 * self.made / seconds)} cases/min, {left} left")


@dataclass
class CaseReport:
    """Prints a case's line and moves the bar on; activity: shows how far the case in hand is, in a bar of its own."""

    progress: Progress
    task: TaskID
    pace: Pace
    _case: TaskID | None = field(default=None, init=False)
    _line: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._line = time.monotonic()

    def __call__(self, row: CaseRow) -> None:
        """A case is finished."""
        self.pace.count(row)
        self._print(case_line(row))
        self.progress.advance(self.task)
        self.progress.update(self.task, counted=self._counted())

    def activity(self, stage: Stage | None) -> None:
        """How far the computation in hand is; None: it is done."""
        if stage is None:
            if self._case is not None:
                self.progress.remove_task(self._case)
            self._case = None
            return
        if not self.progress.console.is_terminal:
            self._say_at_times(stage)
            return
        if self._case is None:
            self._case = self.progress.add_task("", total=None, counted="", left="")
        known = stage.expected is not None
        self.progress.update(
            self._case,
            description=stage.names,
            total=stage.expected,
            completed=stage.products,
            counted=f"{stage.share} products" if known else numbers.counted(stage.products, "product"),
            left=", ".join(_left(stage)),
        )

    def _say_at_times(self, stage: Stage) -> None:
        now = time.monotonic()
        if now - self._line >= BETWEEN_LINES:
            self._line = now
            self._print(str(stage))

    def _print(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _counted(self) -> str:
        (task,) = (each for each in self.progress.tasks if each.id == self.task)
        return _of_cases(int(task.completed), int(task.total or 0))


@contextmanager
def case_progress(console: Console, total: int) -> Iterator[CaseReport]:
    """A progress bar of the cases with pace and time left, and below it one of the products of a long computation."""
    pace = Pace()
    description, counted = (TextColumn(f"{{task.{name}}}", markup=False) for name in ("description", "fields[counted]"))
    with Progress(description, BarColumn(), counted, TimeElapsedColumn(), pace, console=console) as progress:
        yield CaseReport(progress, progress.add_task("cases", total=total, counted=_of_cases(0, total)), pace)


def _of_cases(done: int, total: int) -> str:
    return f"{numbers.count(done)}/{numbers.count(total)}"


def _left(stage: Stage) -> Iterator[str]:
    if stage.left is not None:
        yield f"about {numbers.duration(stage.left)} left"
    if stage.iteration is not None:
        yield f"{stage.iteration.good} of {numbers.counted(stage.iteration.wanted, 'component')} exact enough"
