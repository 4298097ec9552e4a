"""Texts of a page: truncation, and nested settings as a list of names and values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from monai_ifim.display.numbers import NOT_AVAILABLE
from monai_ifim.display.term import Term

__all__ = ["breakable", "explained", "flat_settings", "plain", "shortened", "words"]

LONGEST_TEXT = 300  # characters of a reason or a name on the page


def shortened(text: str, longest: int = LONGEST_TEXT) -> str:
    """The text, cut to `longest` characters with an ellipsis."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def breakable(name: str) -> Markup:
    """A name as HTML in which lines may end after its separators, so that none ends inside of a word.

    >>> breakable("left_lung<1>.nii")
    Markup('left_<wbr>lung&lt;1&gt;.<wbr>nii')
    """
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_.-])(?=.)", name))


def explained(term: Term, label: str = "") -> Markup:
    """The label of a term as HTML, with its meaning as the tooltip; label: in place of its own, such as one with a unit."""
    return Markup('<abbr title="{}">{}</abbr>').format(term.tip, label or term.label)


def words(value: Any) -> str:
    """A text from a table of cases; empty where there is none."""
    return value if isinstance(value, str) else ""


def plain(value: Any) -> str:
    """Any JSON value in one line."""
    if value is None:
        return NOT_AVAILABLE
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(entry) for entry in value)
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {plain(entry)}" for name, entry in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def flat_settings(content: Mapping[str, Any], above: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(dotted name, value) of every setting, however deep."""
    found: list[tuple[str, str]] = []
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            found += flat_settings(value, (*above, str(name)))
        else:
            found.append((".".join((*above, str(name))), plain(value)))
    return found
