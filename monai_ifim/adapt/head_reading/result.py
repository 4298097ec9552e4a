"""`HeadReading`: the head that a bundle's files ask for, with its sources."""

from __future__ import annotations

from dataclasses import dataclass

from monai_ifim.adapt.head_reading.statement import Relation, Space
from monai_ifim.core import Head
from monai_ifim.core.errors import HeadError

MOST_PLACES = 3  # of a sentence
WORDS = {
    "exclusive": "classes that exclude one another",
    "independent": "independent labels",
    "amount": "amounts without probabilities",
    "image": "one answer an image",
    "voxel": "an answer at every voxel",
    "logits": "logits",
    "probabilities": "probabilities",
}


@dataclass(frozen=True)
class HeadReading:
    """The head that a bundle's files ask for.

    head: its name; "auto" where nothing says whether classes exclude one another, and the engine takes what is certain.
    relation, space: what the outputs are, None where nothing says. sources: the places that say so. guess: what was assumed,
    empty where all is stated. refusal: why no head can be taken, with the cure; empty where one can.
    """

    head: str = "auto"
    relation: Relation | None = None
    space: Space | None = None
    sources: tuple[str, ...] = ()
    guess: str = ""
    refusal: str = ""

    @property
    def certain(self) -> bool:
        """True if the bundle's files state the head, and nothing was assumed."""
        return not (self.guess or self.refusal)

    def chosen(self, asked: str | Head) -> str | Head:
        """The head asked for, or, for "auto", the one that the files ask for; raises HeadError where that is uncertain."""
        if asked != "auto":
            return asked
        if self.refusal:
            raise HeadError(self.refusal)
        return self.head

    def source(self, asked: str | Head) -> str:
        """Where the head for `asked` comes from, for records: "asked for", "read from ..." or "assumed ..."."""
        if asked != "auto":
            return "asked for"
        if not self.sources:
            return f"assumed, as the bundle does not say it: {self.guess}" if self.guess else "stated nowhere in the bundle"
        more = len(self.sources) - MOST_PLACES
        read = f"read from {'; '.join(self.sources[:MOST_PLACES])}{f' and {more} more' if more > 0 else ''}"
        return f"{read}; assumed: {self.guess}" if self.guess else read

    def told(self, asked: str | Head) -> str:
        """One line on the head for `asked` and its source, with what the bundle says where another head was asked for."""
        source = self.source(asked)
        if asked == "auto":
            meaning = ", ".join(WORDS[word] for word in (self.relation, self.space) if word is not None)
            return f"{self.head}{f' ({meaning})' if meaning and self.head != 'auto' else ''}, {source}"
        named = asked if isinstance(asked, str) else asked.name
        if self.refusal or self.head in ("auto", named):
            return f"{named}, {source}"
        return f"{named}, {source}; the bundle asks for {self.head}, {self.source('auto')}"
