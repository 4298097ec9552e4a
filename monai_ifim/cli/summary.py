"""Output of the command line: progress, one line per case, a short table at the end."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from monai_ifim.display import numbers
from monai_ifim.display.saturation import SATURATED

if TYPE_CHECKING:
    from monai_ifim.run.table import CaseRow

DOUBT = "the network's derivatives disagree with differences of its output (monai-ifim check names likely causes)"
TAKEN = "holds the case of another input, or one whose damaged sidecar does not say of which, and stays as it is"
NOT_CONVERGED = "not converged"  # as `core.decomposition.status_of` says it, which --help does not load
MARKS = {"done": "ok", "kept": "kept", "failed": "FAILED"}


def quiet_libraries() -> None:
    """Silence the notices of MONAI and other libraries; call before importing MONAI.

    Of libraries that quote what they read or ask for (names in DICOM headers, comments in pictures, UIDs of studies) nothing is
    shown, debugging or not.
    """
    logging.getLogger("monai").setLevel(logging.ERROR)
    logging.getLogger("nvidia").setLevel(logging.ERROR)
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # what is wrong with a header is said by `io.source`
    for library in ("pydicom", "highdicom", "PIL", "urllib3", "dicomweb_client", "LoadImage"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", message="matrix_free is not converged")  # the case's line says it, with options
    warnings.filterwarnings("ignore", module=r"(monai|ignite|itk|pydicom|highdicom|PIL)\b")


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
        """For example `41.3 cases/min, 0:12:30 left`."""
        seconds = time.monotonic() - self.started
        if not self.made or task.total is None:
            return Text("")
        left = timedelta(seconds=round(seconds / self.made * (task.total - task.completed)))
        return Text(f"{numbers.number(60 * self.made / seconds)} cases/min, {left} left")


@dataclass(frozen=True)
class CaseReport:
    """Prints a case's line and moves the bar on; activity: shows how far the case in hand is, beside the bar."""

    progress: Progress
    task: TaskID
    pace: Pace

    def __call__(self, row: CaseRow) -> None:
        """A case is finished."""
        self.pace.count(row)
        self.progress.console.print(_line(row), markup=False, highlight=False, soft_wrap=True)
        self.progress.advance(self.task)

    def activity(self, text: str) -> None:
        """What is computed, "" for nothing."""
        self.progress.update(self.task, activity=text)


@contextmanager
def case_progress(console: Console, total: int) -> Iterator[CaseReport]:
    """A progress bar with pace, time left, and how far a long computation is."""
    pace, doing = Pace(), TextColumn("{task.fields[activity]}", markup=False)
    columns = (TextColumn("cases"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), pace, doing)
    with Progress(*columns, console=console) as progress:
        yield CaseReport(progress, progress.add_task("cases", total=total, activity=""), pace)


def show_rows(console: Console, rows: list[CaseRow], output: Path, unread: Mapping[str, int] | None = None) -> None:
    """The table of a run, where its files are, and what of the inputs was not read (`run.unread_files`)."""
    heads = ("case", "answer", "probability", "leading eigenvalue", "components", "trace kept")
    iterated = any(row.residual for row in rows)
    table = Table(*heads, *(("largest residual",) if iterated else ()), box=None, pad_edge=False)
    for row in rows[:MAXIMUM_ROWS]:
        if row.status == "failed":
            continue
        table.add_row(
            row.case,
            _answer(row),
            numbers.probability(row.probability),
            numbers.number(row.eigenvalue),
            numbers.count(row.rank),
            numbers.percent(row.energy_kept),
            *((f"{numbers.percent(row.residual)}{', not converged' if _unfinished(row) else ''}",) if iterated else ()),
        )
    if table.row_count:
        console.print(table)
    failed = sum(row.status == "failed" for row in rows)
    kept = sum(row.status == "kept" for row in rows)
    done = len(rows) - failed - kept
    unfinished = sum(map(_unfinished, rows))
    short = f" ({numbers.count(unfinished)} not converged)" if unfinished else ""
    tail = f", {numbers.count(kept)} kept from an earlier run (--overwrite makes them again)" if kept else ""
    console.print(
        f"{numbers.count(done)} done, {numbers.count(failed)} failed{tail}{short}; files in {output}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if saturated := sum(row.saturated == "yes" for row in rows):
        said = f"{numbers.counted(saturated, 'case')} {SATURATED}, and the maps are drawn in grey"
        console.print(said, markup=False, highlight=False, soft_wrap=True)
    if unread:
        from monai_ifim.run.unread_files import sentence

        console.print(sentence(unread), markup=False, highlight=False, soft_wrap=True)


MAXIMUM_ROWS = 40  # longer lists are read in cases.csv


def _unfinished(row: CaseRow) -> bool:
    return row.convergence == NOT_CONVERGED


def _shortfall(row: CaseRow) -> str:
    """What a case lacks that is not converged, and what helps."""
    more = ", or --max-seconds, whose limit ended it" if row.stopped == "request" else ""
    found = f"{numbers.counted(row.rank, 'component')}, residuals up to {numbers.percent(row.residual)} of the eigenvalue"
    return f"NOT CONVERGED: {found}: give a smaller --rank, a larger --tolerance{more}"


def _answer(row: CaseRow) -> str:
    """The predicted class; of independent labels the likeliest, which is not the only answer."""
    from monai_ifim.run.labels import are_independent

    outputs, short = len(row.probabilities or ()), ", saturated" if row.saturated == "yes" else ""
    if row.prediction and are_independent(row.head, outputs):
        return f"{row.prediction}, likeliest of {numbers.count(outputs)} labels{short}"
    return f"{row.prediction or numbers.NOT_AVAILABLE}{short}"


def _line(row: CaseRow) -> str:
    text = f"{MARKS[row.status]:7s} {row.case}"
    if row.status == "failed":
        return f"{text}: {row.reason}"
    text = f"{text} ({numbers.duration(row.seconds)})" if row.seconds is not None else text
    if row.case.startswith(f"{row.key}-"):
        text = f"{text}: {row.key} {TAKEN}"
    text = f"{text}, of {row.decomposed}" if row.decomposed else text
    text = f"{text}: {_shortfall(row)}" if _unfinished(row) else text
    text = f"{text}: {SATURATED}" if row.saturated == "yes" else text
    text = f"{text}: {DOUBT}" if row.verification == "disagrees" else text
    return f"{text}. {row.warnings}" if row.warnings else text
