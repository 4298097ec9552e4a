"""The report of an experiment: one page, as Markdown with figures beside it and as one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

from monai_ifim.display import numbers
from monai_ifim.evaluation.records import ExperimentRecord, read_experiment
from monai_ifim.io.atomic import write_bytes, write_text
from monai_ifim.report.experiment import tables
from monai_ifim.report.experiment.cell_tables import all_comparisons, by_class
from monai_ifim.report.experiment.drawings import Drawings
from monai_ifim.report.experiment.render import render_html, render_markdown
from monai_ifim.report.experiment.tasks import task_section
from monai_ifim.report.experiment.wording import MEANING, family_meanings
from monai_ifim.report.pages.blocks import Block, Definitions, Fold, Listing, Page, Paragraph, Section, Table, Verbatim
from monai_ifim.report.pages.texts import flat_settings, plain

__all__ = ["write_report"]


QUESTION = (
    "Does noise inside the leading eigenspace of the Fisher information move a classifier's answer more than equally large noise "
    "in its complement?"
)


def write_report(folder: Path) -> list[Path]:
    """Write figures/*.png, report.md and report.html into the folder of an experiment, and return their paths.

    Reads results.json and the planes of examples below cells/. Each file is whole or absent, and the same
    bytes for the same input. Raises InputError where results.json is missing or of another form.
    """
    results = read_experiment(folder / "results.json")
    page = _page(results, Drawings(folder)).numbered()
    written = []
    for picture in page.pictures():
        write_bytes(folder / picture.file, picture.content, root=folder)
        written.append(folder / picture.file)
    for name, text in (("report.md", render_markdown(page)), ("report.html", render_html(page))):
        write_text(folder / name, text, root=folder)
        written.append(folder / name)
    return written


def _page(results: ExperimentRecord, drawings: Drawings) -> Page:
    tasks = [task_section(cells, results, drawings, n) for n, cells in enumerate(results.cells_by_task().values(), start=1)]
    return Page(
        title=results.name,
        question=QUESTION,
        answers=_answers(results),
        sections=(
            _overview(results, drawings),
            _negative(results),
            _reading(),
            _controls(results),
            *tasks,
            _details(results),
            _making(results),
        ),
    )


def _answers(results: ExperimentRecord) -> tuple[str, ...]:
    """The result in words, first the number of cells in which the claim holds."""
    total = results.claim.total
    cells, holds, reverse = (0 if n is None else n for n in (total.cells, total.holds, total.reverse))
    if not cells:
        return ("No cell gave a result, so the question stays open.", *_failures(results))
    answer = f"It does in {holds} of {cells} {_cells(cells)}."
    if reverse:
        answer += f" In {reverse} {_cells(reverse)} the data show the reverse."
    if open_cells := cells - holds - reverse:
        answer += f" In {open_cells} {_cells(open_cells)} neither is shown."
    norms = [norm for norm in results.relative_norms if norm > 0]
    sizes = f", at norms up to {numbers.as_given(norms[-1])} of the image's own" if norms else ""
    explained = (
        "A cell is one classification task with one network architecture. The answer is the probability of the class that the "
        f"network names; how far it moves is averaged over the size of the noise{sizes}, image by image. "
        f"Shown or not, the difference points the asked way in {numbers.count(total.favourable)} of {cells} {_cells(cells)}."
    )
    return (answer, explained, *_failures(results))


def _failures(results: ExperimentRecord) -> tuple[str, ...]:
    if not results.failed:
        return ()
    number = len(results.failed)
    return (
        f"{number} further {_cells(number)} failed and {'has' if number == 1 else 'have'} no result; the reason is given below.",
    )


def _cells(number: int) -> str:
    return "cell" if number == 1 else "cells"


def _overview(results: ExperimentRecord, drawings: Drawings) -> Section:
    blocks: list[Block] = [tables.glance(results)]
    if results.cells:
        blocks.append(drawings.forest(results))
    return Section("Every cell", "every-cell", tuple(blocks))


def _negative(results: ExperimentRecord) -> Section:
    lines = tables.negative_cells(results)
    blocks: list[Block] = []
    if lines:
        blocks += [Paragraph("The claim is not shown, or reversed, here:"), Listing(lines)]
    elif results.cells:
        blocks.append(Paragraph("None: the claim holds in every cell that gave a result."))
    if auroc := tables.reversed_auroc(results):
        blocks += [Paragraph("The loss of macro AUROC, leading eigenspace less complement, is reversed here:"), Listing(auroc)]
    if results.failed:
        rows = tuple(f"{results.title(f.task)}, {f.architecture}: {f.reason}" for f in results.failed)
        blocks += [Paragraph("These cells failed and have no result:"), Listing(rows)]
    else:
        blocks.append(Paragraph("No cell failed."))
    return Section("Where it does not hold, and what failed", "negative", tuple(blocks))


def _reading() -> Section:
    return Section("What the numbers mean", "meaning", (Definitions(MEANING),))


def _controls(results: ExperimentRecord) -> Section:
    found = {comparison.second for cell in results.cells for comparison in cell.comparisons} | {results.claim.first}
    meanings = family_meanings(found)
    blocks: list[Block] = [Paragraph("What noise in the leading eigenspace is compared with:"), Definitions(meanings)]
    blocks += [table for table in _overall(results) if table.rows]
    return Section("Against every control", "controls", tuple(blocks))


def _overall(results: ExperimentRecord) -> list[Table]:
    return [tables.control_tally(results), tables.claim_by_measure(results), tables.claim_by_task(results)]


def _details(results: ExperimentRecord) -> Section:
    blocks: list[Block] = []
    for cell in results.cells:
        inside: list[Block] = [all_comparisons(cell)]
        if (classes := by_class(cell)) is not None:
            inside.append(classes)
        blocks.append(Fold(f"{cell.task_title}, {cell.architecture}", tuple(inside)))
    if not blocks:
        blocks.append(Paragraph("No cell gave a result."))
    return Section("All comparisons, cell by cell", "all-comparisons", tuple(blocks))


def _making(results: ExperimentRecord) -> Section:
    facts = [
        ("seed", plain(results.seed)),
        ("relative norms", plain([numbers.as_given(norm) for norm in results.relative_norms])),
        ("time taken", numbers.duration(results.seconds)),
    ]
    blocks: list[Block] = [
        Paragraph("Command:"),
        Verbatim(results.command or numbers.NOT_AVAILABLE),
        Definitions(tuple(facts)),
    ]
    for title, content in (("Settings", results.settings), ("Environment", results.environment)):
        if content:
            blocks += [Paragraph(f"{title}:"), Definitions(tuple(flat_settings(content)))]
    if described_parts := (*results.tasks, *results.models):
        described = tuple(Definitions(tuple(flat_settings(content))) for content in described_parts)
        blocks.append(Fold("Tasks and models as they were configured", described))
    files = "measurements.parquet holds every single measurement, images.csv every image, comparisons.csv every comparison"
    blocks.append(Paragraph(f"All numbers of this page are in results.json; {files}."))
    return Section("How this was made", "making", tuple(blocks))
