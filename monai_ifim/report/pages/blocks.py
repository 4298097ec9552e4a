"""Blocks of a page, independent of its format: paragraphs, lists, tables, pictures, folded parts."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import ClassVar

from monai_ifim.display.numbers import NOT_AVAILABLE

__all__ = [
    "ABSENT",
    "Block",
    "Definitions",
    "Entry",
    "Fold",
    "Listing",
    "Page",
    "Paragraph",
    "Picture",
    "Section",
    "Table",
    "TableRow",
    "Verbatim",
]


@dataclass(frozen=True)
class Entry:
    """A field of a table. kind: its CSS class: "number", "long" (a number that may be broken into lines), "text", "words", or a
    verdict: "holds", "reverse", "open", "absent", "failed"."""

    text: str
    kind: str = "number"


ABSENT = Entry(NOT_AVAILABLE, "absent")


@dataclass(frozen=True)
class TableRow:
    """heads: row heads; entries: the other fields."""

    heads: tuple[str, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Table:
    """A table with a caption. columns: column heads, those above row heads first; number: in the page, from 1."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    number: int = 0
    kind: ClassVar[str] = "table"

    @property
    def heads(self) -> int:
        """Number of columns of row heads; these come first."""
        return len(self.rows[0].heads) if self.rows else 0

    def groups(self) -> list[tuple[TableRow, ...]]:
        """Consecutive rows with the same first head, if rows have several heads; otherwise all rows."""
        if self.heads < 2:
            return [self.rows]
        return [tuple(rows) for _, rows in groupby(self.rows, key=lambda row: row.heads[0])]


@dataclass(frozen=True)
class Picture:
    """A PNG picture. file: its path below the folder of the page; alt: its text for readers who cannot see it."""

    file: str
    content: bytes = field(repr=False)
    size: tuple[int, int]
    alt: str
    caption: str
    number: int = 0
    kind: ClassVar[str] = "picture"

    @property
    def data_uri(self) -> str:
        """The picture as a data URI, for self-contained pages."""
        return f"data:image/png;base64,{base64.b64encode(self.content).decode('ascii')}"


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Listing:
    """A list of short texts."""

    items: tuple[str, ...]
    kind: ClassVar[str] = "listing"


@dataclass(frozen=True)
class Definitions:
    """Terms and their meanings."""

    entries: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "definitions"


@dataclass(frozen=True)
class Verbatim:
    """Preformatted text, such as a command."""

    text: str
    kind: ClassVar[str] = "verbatim"


@dataclass(frozen=True)
class Fold:
    """Blocks that the reader unfolds; print shows them all."""

    title: str
    blocks: tuple[Block, ...]
    kind: ClassVar[str] = "fold"


Block = Table | Picture | Paragraph | Listing | Definitions | Verbatim | Fold


@dataclass(frozen=True)
class Section:
    """A section. anchor: the target of links to it."""

    title: str
    anchor: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A whole page: title, question, answers, then sections."""

    title: str
    question: str
    answers: tuple[str, ...]
    sections: tuple[Section, ...]

    def numbered(self) -> Page:
        """The page with tables and pictures numbered from 1 in reading order."""
        numbers = {"table": 0, "picture": 0}
        return replace(self, sections=tuple(replace(s, blocks=_numbered(s.blocks, numbers)) for s in self.sections))

    def pictures(self) -> list[Picture]:
        """All pictures in reading order."""
        return [picture for section in self.sections for picture in _pictures(section.blocks)]


def _numbered(blocks: Iterable[Block], numbers: dict[str, int]) -> tuple[Block, ...]:
    done: list[Block] = []
    for block in blocks:
        if isinstance(block, Fold):
            done.append(replace(block, blocks=_numbered(block.blocks, numbers)))
        elif isinstance(block, (Table, Picture)):
            numbers[block.kind] += 1
            done.append(replace(block, number=numbers[block.kind]))
        else:
            done.append(block)
    return tuple(done)


def _pictures(blocks: Iterable[Block]) -> list[Picture]:
    found: list[Picture] = []
    for block in blocks:
        if isinstance(block, Picture):
            found.append(block)
        elif isinstance(block, Fold):
            found += _pictures(block.blocks)
    return found
