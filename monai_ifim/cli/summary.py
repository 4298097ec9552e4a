"""What the command line says of cases: a line of each, and at the end a table and what it comes to in sentences."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from monai_ifim.display import numbers
from monai_ifim.display import vocabulary as words
from monai_ifim.display.saturation import SATURATED

if TYPE_CHECKING:
    from monai_ifim.run.table import CaseRow

DOUBT = "the network's derivatives disagree with differences of its output (monai-ifim check names likely causes)"
TAKEN = "holds the case of another input, or one whose damaged sidecar does not say of which, and stays as it is"
NOT_CONVERGED = "not converged"  # as `core.decomposition.status_of` says it, which --help does not load
MAXIMUM_ROWS = 40  # longer lists are read in cases.csv
FEW_ROWS = 5  # of so many cases each has a sentence
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


def show_rows(
    console: Console, rows: Sequence[CaseRow], output: Path, unread: Mapping[str, int] | None = None, page: Path | None = None
) -> None:
    """The table of a run, how many cases are done, the same in sentences, and what of the inputs was not read.

    unread: see `run.unread_files`. page: to look at, if one was written.
    """
    made = [row for row in rows if row.status != "failed"]
    if made:
        console.print(_table(made[:MAXIMUM_ROWS]))
        console.print(f"{words.LEADING.label} in {words.PER_UNIT}; {words.ONE_NAT}", style="dim", highlight=False)
    failed, kept = len(rows) - len(made), sum(row.status == "kept" for row in rows)
    unfinished = sum(map(_unfinished, rows))
    short = f" ({numbers.count(unfinished)} not converged)" if unfinished else ""
    tail = f", {numbers.count(kept)} kept from an earlier run (--overwrite makes them again)" if kept else ""
    _say(console, f"{numbers.count(len(made) - kept)} done, {numbers.count(failed)} failed{tail}{short}; files in {output}")
    for sentence in _sentences(made):
        _say(console, sentence)
    if saturated := sum(row.saturated == "yes" for row in made):
        _say(console, f"{numbers.counted(saturated, 'case')} {SATURATED}, and the maps are drawn in grey")
    if unread:
        from monai_ifim.run.unread_files import sentence as of_unread

        _say(console, of_unread(unread))
    if page is not None:
        _say(console, f"To look at: {page}")


def _table(rows: Sequence[CaseRow]) -> Table:
    """A line for each case that gave a result."""
    heads = [
        term.label
        for term in (words.CASE, words.ANSWER, words.PROBABILITY, words.LEADING, words.COMPONENTS_KEPT, words.SENSITIVITY_KEPT)
    ]
    iterated = any(row.residual for row in rows)
    table = Table(*heads, *((words.RESIDUAL.label,) if iterated else ()), box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            Text(row.case),
            Text(_answer(row)),
            numbers.probability(row.probability),
            numbers.number(row.eigenvalue),
            numbers.count(row.rank),
            numbers.percent(row.energy_kept),
            *((f"{numbers.percent(row.residual)}{', not converged' if _unfinished(row) else ''}",) if iterated else ()),
        )
    return table


def _sentences(made: Sequence[CaseRow]) -> list[str]:
    """Of few cases each in a sentence, of many what they answered."""
    from monai_ifim.run.sentences import case_sentence, run_sentences

    cases = [vars(row) for row in made]
    return [case_sentence(case) for case in cases] if len(cases) <= FEW_ROWS else run_sentences(cases)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _unfinished(row: CaseRow) -> bool:
    return row.convergence == NOT_CONVERGED


def _shortfall(row: CaseRow) -> str:
    """What a case lacks that is not converged, and what helps."""
    more = ", or --max-seconds, whose limit ended it" if row.stopped == "request" else ""
    found = f"{numbers.counted(row.rank, 'component')}, {words.RESIDUAL.label} {numbers.percent(row.residual)}"
    return f"NOT CONVERGED: {found}: give a smaller --rank, a larger --tolerance{more}"


def _answer(row: CaseRow) -> str:
    """The predicted class; of independent labels the likeliest, which is not the only answer."""
    from monai_ifim.run.labels import are_independent

    outputs, short = len(row.probabilities or ()), ", saturated" if row.saturated == "yes" else ""
    if row.prediction and are_independent(row.head, outputs):
        return f"{row.prediction}, likeliest of {numbers.count(outputs)} labels{short}"
    return f"{row.prediction or numbers.NOT_AVAILABLE}{short}"


def case_line(row: CaseRow) -> str:
    """A finished case in a line: its status, its time, and what is to be known of it."""
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
