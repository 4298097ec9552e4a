"""`Term`: a word that people are shown, with what it means. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Term", "titled"]


@dataclass(frozen=True)
class Term:
    """A thing that people are shown.

    label: what it is called. meaning: in one to three sentences. technical: its name or symbol in papers, empty if that is the
    label. fields: its names in cases.csv, cases.parquet and sidecars.
    """

    label: str
    meaning: str
    technical: str = ""
    fields: tuple[str, ...] = ()

    @property
    def tip(self) -> str:
        """The meaning and, if it has one, the name in papers, as a tooltip."""
        return f"{self.meaning} In papers: {self.technical}." if self.technical else self.meaning

    @property
    def title(self) -> str:
        """The label with a capital letter, for heads and lists of names and values."""
        return titled(self.label)


def titled(label: str) -> str:
    """A label with a capital first letter: "total sensitivity" is "Total sensitivity"."""
    return label[:1].upper() + label[1:]
