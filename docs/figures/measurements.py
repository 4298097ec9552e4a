"""Sentences and tables of the pages that state what the benchmarks measured, from benchmarks/results."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from docs.figures.catalogue import ROOT

RESULTS = ROOT / "benchmarks" / "results"
COMPARISON = RESULTS / "compare-cpu.json"
RIVALS = RESULTS / "rivals-cpu.json"
SEGMENTATION = RESULTS / "segmentation-cpu.json"

Row = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A line of the table of the benchmarks: words, and the rows that it quotes.

    Args:
        words: what is compared; `{error}` is the row `error`, of the same section.
        section: of the results.
        rows: the beginning of `what` of each row.
        case: what each row's case holds.
        form: of a number: a format, or "range" for the smallest and the largest.
    """

    words: str
    section: str
    rows: tuple[str, ...]
    case: str = ""
    form: str = ".2f"
    error: str = ""


LINES = (
    Line(
        "exact / one forward pass and C - 1 backward passes: DenseNet121 224^2, C = 2, 6, 14, 1000 (one round); ResNet-18 3D "
        "64^3, 96^3; ViT",
        "passes",
        ("exact / bare passes",),
        form="range",
    ),
    Line("form as usually written / exact, C = 2: DenseNet121, ResNet-18 3D", "naive", ("naive form / exact",)),
    Line("plenoptic's fastest method / exact, 64^2, C = 6", "plenoptic", ("plenoptic's fastest method",), form=".0f"),
    Line(
        "Integrated Gradients (50) / exact, SmoothGrad (25) / exact, DenseNet121, C = 6",
        "attributions",
        ("IntegratedGradients", "SmoothGrad"),
        form=".1f",
    ),
    Line(
        "exact / adaptive, 1000 classes of which 10 are likely, tolerance 1e-3 (eigenvalues off by {error})",
        "adaptive-peaked",
        ("exact / adaptive",),
        form=".0f",
        error="largest relative error",
    ),
    Line("exact / adaptive on the MedNIST bundle, 6 classes, tolerance 1e-2", "adaptive-mednist", ("exact / adaptive",)),
    Line(
        "exact / matrix-free, 1000 nearly equal classes, 5 pairs (eigenvalues off by {error})",
        "matrix-free",
        ("exact / matrix_free",),
        form=".0f",
        error="largest relative error",
    ),
    Line(
        "peak memory / budget, ResNet-18 3D 128^3, budget 40 % of plain autograd's peak ({error} times the seconds)",
        "memory-budget",
        ("peak under the budget",),
        error="seconds under the budget",
    ),
    Line(
        "peak memory from 10 to 1000 classes under one budget: above the start, of the whole process",
        "memory-classes",
        ("(largest - smallest", "the same of the whole"),
        form="+.0%",
    ),
    Line("images per second, batch 8 / batch 1, DenseNet 64^2", "batches", ("images/s",), form=".1f"),
)


def comparison_table() -> str:
    """What `python -m benchmarks.compare` measured, a line a comparison; in bold what misses its target."""
    lines = ["| what | ratio or value | target |", "| --- | --- | --- |"]
    for line in LINES:
        section = _rows(COMPARISON, line.section)
        found = [row for start in line.rows for row in section if row["what"].startswith(start)]
        words = line.words.format(error=_short(_row(section, line.error)["value"]) if line.error else "")
        lines.append(f"| {words} | {_values(found, line.form)} | {_targets(found, line.form)} |")
    return "\n" + "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Rival:
    """A method's share of the most that a direction can cost, and its costs as multiples of exact's.

    trained: of a trained network the median over images, and the smallest and the largest; untrained: of one with random weights.
    seconds, memory: None where they could not be measured.
    """

    name: str
    trained: tuple[float, float, float]
    untrained: float
    seconds: float
    memory: float | None


def rivals() -> list[Rival]:
    """What the sections "rivals" and "rivals-memory" measured, the largest share first."""
    rows = _rows(RIVALS, "rivals") + _rows(RIVALS, "rivals-memory")
    by_name: dict[str, dict[str, Row]] = {}
    for row in rows:
        what, _, name = row["what"].partition(", ")
        trained = what == "share" and row["case"].startswith("MedNIST")
        by_name.setdefault(name, {})["trained" if trained else what] = row
    found = [
        Rival(
            name,
            (one["trained"]["value"], *map(float, re.findall(r"from (.+) to (.+)", one["trained"]["details"])[0])),
            one["share"]["value"],
            one["seconds / exact's"]["value"],
            one["peak / exact's"]["value"],
        )
        for name, one in by_name.items()
    ]
    return sorted(found, key=lambda rival: -rival.trained[0])


def rivals_table() -> str:
    """A line a method."""
    lines = [
        "| method | share, trained: median (range) | share, random weights | seconds / exact's | peak memory / exact's |",
        "| --- | --- | --- | --- | --- |",
    ]
    for rival in rivals():
        median, low, high = rival.trained
        memory = "not measured" if rival.memory is None else f"{rival.memory:.2g}"
        cells = (rival.name, f"{median:.3f} ({low:.2g} to {high:.2g})", f"{rival.untrained:.3f}", f"{rival.seconds:.2g}", memory)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n" + "\n".join(lines) + "\n"


def segmentation_sentence() -> str:
    """What a whole scan costs, in forward passes."""
    volumes, budget, pair = (_rows(SEGMENTATION, f"{name}, 256^3") for name in ("volumes", "budget", "pair"))
    whole = _row(volumes, "label volumes / forward pass")
    radii = _cpu(_row(volumes, "locality /"), "") / _cpu(whole, "forward ")
    (limit,) = re.findall(r"budget (.+)", _row(budget, "peak within the budget")["details"])
    within, peak = _row(budget, "label volumes within")["value"], _row(budget, "peak within")["value"]
    products, leading = _row(pair, "products of")["value"], _row(pair, "leading pair /")["value"]
    return f"""
Measured at 256^3 with three labels: {whole["value"]:.1f} forward passes for the label volumes and the radii of their two
components, of which the radii take {radii:.1f} (`--no-locality` leaves these out); {within:.1f} within a budget of {limit}, at a
peak of {peak:.1f} GiB. The leading pair of the answer at every voxel, at tolerance 0.05, takes {products:.0f} products, which
are {leading:.0f} forward passes ([all rows](../benchmarks/results/segmentation-cpu.md)).
"""


def scanner_ratios() -> str:
    """Seconds in scanner space over those of the passes, with and without a resolution."""
    rows = _rows(COMPARISON, "scanner")
    lines = (
        ("resampling to 1 mm, percentiles, padding, resizing, then a 3D DenseNet121 for 96 x 96 x 96 voxels", "DenseNet121"),
        ("`lumpy_lesion_detection_3d`, a tiny network", "lumpy"),
    )
    table = ["| pipeline | without a resolution | at the network's resolution |", "| --- | --- | --- |"]
    for words, case in lines:
        chosen = [_row(rows, what, case)["value"] for what in ("scanner space / passes", "at a resolution / passes")]
        table.append(f"| {words} | {' | '.join(f'{value:.2f}' for value in chosen)} |")
    return "\n" + "\n".join(table) + "\n"


def scanner_memory() -> str:
    """What the first pipeline of `scanner_ratios` needs above the scan, and what its passes need."""
    rows = _rows(COMPARISON, "scanner-memory")
    needed, passes = (_row(rows, what, "densenet121")["value"] for what in ("peak in scanner space", "peak of the passes"))
    return f"{needed:.1f} GiB above the scan, these passes {passes:.1f} GiB"


def _rows(file: Any, section: str) -> list[Row]:
    rows: list[Row] = json.loads(file.read_text(encoding="utf-8"))["sections"][section]["rows"]
    return rows


def _row(rows: Sequence[Row], what: str, case: str = "") -> Row:
    """The first row whose `what` and case begin so."""
    return next(row for row in rows if row["what"].startswith(what) and row["case"].startswith(case))


def _cpu(row: Row, name: str) -> float:
    """CPU seconds in the details of a row."""
    return float(re.findall(rf"{name}([\d.e+]+) s of CPU", row["details"])[0])


def _short(value: float) -> str:
    """An error to one digit, a ratio to two."""
    return f"{value:.0e}".replace("e-0", "e-") if value < 0.01 else f"{value:.1f}"


def _values(rows: Sequence[Row], form: str) -> str:
    if form == "range":
        values = [row["value"] for row in rows]
        return f"{min(values):.2f} to {max(values):.2f}"
    return ", ".join(f"{_number(row['value'], form)}" if _holds(row) else f"**{_number(row['value'], form)}**" for row in rows)


def _number(value: float, form: str) -> str:
    return f"{value:{form}}".replace("%", " %")


def _holds(row: Row) -> bool:
    bar = row["bar"]
    return bar is None or (row["value"] >= bar["limit"] if bar["at_least"] else row["value"] <= bar["limit"])


def _targets(rows: Sequence[Row], form: str) -> str:
    """The target of each row that has one; the same one once."""
    bars = [row["bar"] for row in rows if row["bar"]]
    signs = [f"{'>=' if bar['at_least'] else '<='} {_limit(bar['limit'], form)}" for bar in bars]
    return ", ".join(dict.fromkeys(signs))


def _limit(value: float, form: str) -> str:
    return _number(value, form) if "%" in form else f"{value:g}"
