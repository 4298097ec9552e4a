"""The section of one task: curves, controls, removals, locality, checks and example images of all its architectures."""

from __future__ import annotations

from collections.abc import Sequence

from monai_ifim.display import numbers
from monai_ifim.evaluation.records import CellRecord, ExperimentRecord
from monai_ifim.report.experiment import cell_tables
from monai_ifim.report.experiment.curves import measures_with_values
from monai_ifim.report.experiment.drawings import Drawings
from monai_ifim.report.experiment.label_table import INDEPENDENT, label_table
from monai_ifim.report.experiment.locality import has_locality
from monai_ifim.report.experiment.removal import has_removal
from monai_ifim.report.experiment.wording import family, selection_text
from monai_ifim.report.pages.blocks import Block, Definitions, Listing, Paragraph, Section, Table
from monai_ifim.report.pages.texts import plain

__all__ = ["task_section"]


def task_section(cells: Sequence[CellRecord], results: ExperimentRecord, drawings: Drawings, number: int) -> Section:
    """All cells of one task."""
    blocks: list[Block] = []
    if cells[0].task_note:
        blocks.append(Paragraph(cells[0].task_note))
    blocks += [Definitions(_facts(cells)), cell_tables.classifiers(cells)]
    if any(cell.labels for cell in cells):
        blocks += [Paragraph(INDEPENDENT), label_table(cells)]
    blocks += [drawings.curves(cell) for cell in cells if measures_with_values(cell)]
    controls = cell_tables.control_differences(cells, results.claim)
    if controls.rows:
        blocks += [drawings.controls(cells, results.claim), controls]
    blocks.append(cell_tables.correctness(cells, results.claim))
    if has_removal(cells):
        blocks.append(drawings.removal(cells))
    blocks += _present(cell_tables.removals(cells))
    if has_locality(cells):
        blocks.append(drawings.locality(cells))
    blocks.append(cell_tables.locality(cells))
    for table in (cell_tables.checks(cells), cell_tables.shortcuts(cells), cell_tables.geometry(cells)):
        blocks += _present(table)
    for cell in cells:
        blocks += drawings.examples(cell) or [Paragraph(f"{cell.architecture}: no example images were stored.")]
    notes = [note for cell in cells for note in _notes(cell)]
    if notes:
        blocks += [Paragraph("What was not measured:"), Listing(tuple(notes))]
    failed = [failure for failure in results.failed if failure.task == cells[0].task]
    blocks += [Paragraph(f"{failure.architecture} failed: {failure.reason}") for failure in failed]
    return Section(f"Task {number}: {cells[0].task_title}", f"task-{number}", tuple(blocks))


def _present(table: Table | None) -> list[Block]:
    return [table] if table is not None and table.rows else []


def _notes(cell: CellRecord) -> list[str]:
    """Families that were not measured and images that were left out, with the reasons."""
    found = [f"{cell.architecture}, {family(name)}: {reason}" for name, reason in cell.missing_families.items()]
    return found + [f"{cell.architecture}, image {name} left out: {reason}" for name, reason in cell.skipped_images.items()]


def _facts(cells: Sequence[CellRecord]) -> tuple[tuple[str, str], ...]:
    """What all cells of a task have in common; where they differ, by architecture."""
    facts = {
        "images perturbed": [numbers.count(cell.images) for cell in cells],
        "classes": [", ".join(cell.classes) or numbers.NOT_AVAILABLE for cell in cells],
        "size of the network's input": [numbers.sizes(cell.spatial_shape) or numbers.NOT_AVAILABLE for cell in cells],
        "leading eigenspace": [selection_text(cell.selection) for cell in cells],
    }
    if any("bundle" in cell.classifier for cell in cells):
        facts["bundle"] = [_bundle(cell) for cell in cells]
    return tuple((name, _together(cells, values)) for name, values in facts.items())


def _bundle(cell: CellRecord) -> str:
    """Name and version of the bundle that a classifier is from."""
    named = [plain(cell.classifier.get(name)) for name in ("bundle", "bundle_version")]
    return " ".join(text for text in named if text != numbers.NOT_AVAILABLE) or numbers.NOT_AVAILABLE


def _together(cells: Sequence[CellRecord], values: Sequence[str]) -> str:
    if len(set(values)) == 1:
        return values[0]
    return "; ".join(f"{cell.architecture}: {value}" for cell, value in zip(cells, values, strict=True))
