"""A comparison as Markdown: the whole table, or the few columns of docs/engine.md."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.results import Comparison

COLUMNS = ("what", "case", "ratio or value", "bar", "holds?", "details")
FOOT = "Seconds are medians of interleaved rounds of one process, ratios medians over medians; peaks are of fresh processes."


def full_table(comparison: Comparison) -> str:
    """All rows by section, and below them the stamp of each section."""
    lines = [f"# Comparison on {comparison.device}", *_warning(comparison), "", _line(COLUMNS), _line(["---"] * len(COLUMNS))]
    for name, section in comparison.sections.items():
        lines.append(_line([f"**{name}**", "", "", "", "", ""]))
        lines += [_line([row.what, row.case, row.value_text, row.bar_text, row.holds_text, row.details]) for row in section.rows]
    stamps: dict[str, list[str]] = {}
    for name, section in comparison.sections.items():
        stamps.setdefault(section.stamp.line, []).append(name)
    lines += ["", FOOT, ""]
    lines += [f"- {', '.join(names)}: {stamp}" for stamp, names in stamps.items()]
    return "\n".join(lines) + "\n"


def short_table(comparison: Comparison) -> str:
    """The rows that have a bar, without details, and their stamps."""
    lines = [_line(["what", "case", "ratio or value", "bar", "holds?"]), _line(["---"] * 5)]
    for section in comparison.sections.values():
        lines += [
            _line([row.what, row.case, row.value_text, row.bar_text, row.holds_text])
            for row in section.rows
            if row.bar is not None
        ]
    stamps = dict.fromkeys(section.stamp.line for section in comparison.sections.values())
    return "\n".join([*lines, "", *stamps]) + "\n"


def _warning(comparison: Comparison) -> list[str]:
    return ["", "Tiny sizes, to see that everything runs: neither ratios nor bars mean anything."] if comparison.quick else []


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
