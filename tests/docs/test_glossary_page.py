"""docs/glossary.md: its table is the vocabulary, word by word."""

from __future__ import annotations

from pathlib import Path

from monai_ifim.display.vocabulary import GLOSSARY, Term

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "glossary.md").read_text(encoding="utf-8")


def _row(term: Term) -> str:
    cells = (term.label, term.meaning, term.technical, ", ".join(f"`{field}`" for field in term.fields))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def test_table_is_the_vocabulary() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    assert rows[2:] == [_row(term) for term in GLOSSARY]
