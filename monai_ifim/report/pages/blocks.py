"""What a page is made of, whatever it is written in: paragraphs, lists, tables, pictures, folded parts."""

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
    """A field of a table. kind: "number", "long" (lines may end in it), "text", or a verdict: "holds", "reverse", "open",
    "absent", "failed"."""

    text: str
    kind: str = "number"


ABSENT = Entry(NOT_AVAILABLE, "absent")


@dataclass(frozen=True)
class TableRow:
    """heads: what the row is about; entries: its fields."""

    heads: tuple[str, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Table:
    """columns: heads of all columns, those of the row heads first."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    number: int = 0
    kind: ClassVar[str] = "table"

    @property
    def heads(self) -> int:
        """How many columns, the first ones, are row heads."""
        return len(self.rows[0].heads) if self.rows else 0

    def groups(self) -> list[tuple[TableRow, ...]]:
        """Rows that follow each other and have the same first of several heads; with one head, all of them."""
        if self.heads < 2:
            return [self.rows]
        return [tuple(rows) for _, rows in groupby(self.rows, key=lambda row: row.heads[0])]


@dataclass(frozen=True)
class Picture:
    """A PNG file. file: its path below the report's folder; alt: what a reader who cannot see it is told."""

    file: str
    content: bytes = field(repr=False)
    size: tuple[int, int]
    alt: str
    caption: str
    number: int = 0
    kind: ClassVar[str] = "picture"

    @property
    def data_uri(self) -> str:
        """The picture itself as an address, so that a page needs no other file."""
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
    """Terms and what they mean."""

    entries: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "definitions"


@dataclass(frozen=True)
class Verbatim:
    """Text that is shown as it is, such as a command."""

    text: str
    kind: ClassVar[str] = "verbatim"


@dataclass(frozen=True)
class Fold:
    """Blocks that a reader opens on demand; all are shown in print."""

    title: str
    blocks: tuple[Block, ...]
    kind: ClassVar[str] = "fold"


Block = Table | Picture | Paragraph | Listing | Definitions | Verbatim | Fold


@dataclass(frozen=True)
class Section:
    """A part of the page; anchor: what links name it by."""

    title: str
    anchor: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """question and answers open the page; sections follow."""

    title: str
    question: str
    answers: tuple[str, ...]
    sections: tuple[Section, ...]

    def numbered(self) -> Page:
        """The same with tables and pictures numbered from 1 in reading order."""
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
