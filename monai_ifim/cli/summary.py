"""Output of the command line: progress, one line per case, a short table at the end."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from monai_ifim.display import numbers

if TYPE_CHECKING:
    from monai_ifim.run.table import CaseRow

DOUBT = "the network's derivatives disagree with differences of its output (monai-ifim check names likely causes)"
TAKEN = "holds the case of another input, or one whose damaged sidecar does not say of which, and stays as it is"
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


@contextmanager
def case_progress(console: Console, total: int) -> Iterator[Callable[[CaseRow], None]]:
    """A progress bar with pace and time left; the callable prints a case's line and moves the bar on."""
    pace = Pace()
    with Progress(TextColumn("cases"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), pace, console=console) as progress:
        task = progress.add_task("cases", total=total)

        def report(row: CaseRow) -> None:
            pace.count(row)
            progress.console.print(_line(row), markup=False, highlight=False, soft_wrap=True)
            progress.advance(task)

        yield report


def show_rows(console: Console, rows: list[CaseRow], output: Path, unread: Mapping[str, int] | None = None) -> None:
    """The table of a run, where its files are, and what of the inputs was not read (`run.unread_files`)."""
    table = Table("case", "answer", "probability", "leading eigenvalue", "components", "trace kept", box=None, pad_edge=False)
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
        )
    if table.row_count:
        console.print(table)
    failed = sum(row.status == "failed" for row in rows)
    kept = sum(row.status == "kept" for row in rows)
    done = len(rows) - failed - kept
    tail = f", {numbers.count(kept)} kept from an earlier run (--overwrite makes them again)" if kept else ""
    console.print(
        f"{numbers.count(done)} done, {numbers.count(failed)} failed{tail}; files in {output}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if unread:
        from monai_ifim.run.unread_files import sentence

        console.print(sentence(unread), markup=False, highlight=False, soft_wrap=True)


MAXIMUM_ROWS = 40  # longer lists are read in cases.csv


def _answer(row: CaseRow) -> str:
    """The predicted class; of independent labels the likeliest, which is not the only answer."""
    from monai_ifim.run.labels import are_independent

    outputs = len(row.probabilities or ())
    if row.prediction and are_independent(row.head, outputs):
        return f"{row.prediction}, likeliest of {numbers.count(outputs)} labels"
    return row.prediction or numbers.NOT_AVAILABLE


def _line(row: CaseRow) -> str:
    text = f"{MARKS[row.status]:7s} {row.case}"
    if row.status == "failed":
        return f"{text}: {row.reason}"
    text = f"{text} ({numbers.duration(row.seconds)})" if row.seconds is not None else text
    if row.case.startswith(f"{row.key}-"):
        text = f"{text}: {row.key} {TAKEN}"
    text = f"{text}, of {row.decomposed}" if row.decomposed else text
    text = f"{text}: {DOUBT}" if row.verification == "disagrees" else text
    return f"{text}. {row.warnings}" if row.warnings else text
