"""Converts this package's docstrings to reStructuredText for Sphinx.

The docstrings are plain text. A paragraph lists names of parameters and attributes, each followed by a colon and its shape, unit
and meaning; characters such as * and | are literal. This extension turns the names into fields and escapes the characters.
Sections in Google style (Args:, Returns:, Raises:) are left to napoleon, which runs later.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import inspect as sphinx_inspect

BEFORE_NAPOLEON = 400  # napoleon has Sphinx's default, 500
SPAN = re.compile(r"(``.+?``|(?::[\w:]+:)?`[^`]+`)", flags=re.DOTALL)
SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Attributes|Example|Examples|Note|Notes):$")
RAISES = re.compile(r"(?:(?<=[.;]\s)|^)Raises ((?:[A-Z]\w+(?:, | or | and )?)+)(?=[\s.;])", flags=re.MULTILINE)


@dataclass(frozen=True)
class Names:
    """Names that can become fields: parameters of a function or constructor, attributes of a class."""

    parameters: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, thing: Any) -> Names:
        """Names of a function or class. Fields of a dataclass are attributes, since the package makes most instances itself."""
        if not callable(thing):
            return cls()
        try:
            parameters = frozenset(inspect.signature(thing).parameters)
        except (TypeError, ValueError):
            parameters = frozenset()
        if not inspect.isclass(thing):
            return cls(parameters)
        attributes = frozenset(getattr(thing, "__annotations__", {}))
        return cls(frozenset(), attributes | parameters) if dataclasses.is_dataclass(thing) else cls(parameters, attributes)

    def start(self) -> re.Pattern[str]:
        """Pattern of one or several names, separated by commas, and a colon, at the start of a sentence."""
        longest_first = sorted(map(re.escape, self.parameters | self.attributes), key=len, reverse=True)
        name = f"(?:{'|'.join(longest_first) or '(?!)'})"
        return re.compile(rf"(?:(?<=[.;]\s)|^)({name}(?:, {name})*): ", flags=re.MULTILINE)


def readable(docstring: list[str], names: Names) -> list[str]:
    """Lines of a docstring as reStructuredText: sentences first, then fields."""
    lines: list[str] = []
    fields: list[str] = []
    inside_section = False
    for paragraph in _paragraphs(docstring):
        inside_section = bool(SECTION.match(paragraph[0])) or (inside_section and paragraph[0].startswith(" "))
        if paragraph[0].lstrip().startswith(">>>"):
            lines += [*paragraph, ""]
        elif inside_section:
            lines += [*map(escaped, paragraph), ""]
        else:
            sentences, found = _taken_apart("\n".join(paragraph), names)
            lines += [*sentences, ""] if sentences else []
            fields += found
    return [*lines, *fields, ""]


def escaped(text: str) -> str:
    """Text with literal *, | and trailing _ escaped; text between backticks is unchanged."""
    parts = SPAN.split(text)
    plain = [re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
    return "".join(part for pair in zip(plain, [*parts[1::2], ""], strict=True) for part in pair)


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    paragraph: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield paragraph
            paragraph = []


def _taken_apart(text: str, names: Names) -> tuple[list[str], list[str]]:
    """Splits a paragraph into its introduction and one field per name and exception."""
    marks = sorted([*names.start().finditer(text), *RAISES.finditer(text)], key=lambda mark: mark.start())
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    introduction = re.sub(r";$", ".", text[: marks[0].start()].strip()) if marks else text
    fields: list[str] = []
    for mark, end in zip(marks, ends, strict=False):
        meaning = escaped(" ".join(text[mark.end() : end].split()).strip("; ").removeprefix("."))
        if mark.re is RAISES:
            fields += [f":raises {name}: {meaning}" for name in re.findall(r"[A-Z]\w+", mark[1])]
        else:
            fields += [f":{'param' if name in names.parameters else 'ivar'} {name}: {meaning}" for name in mark[1].split(", ")]
    return escaped(introduction).split("\n") if introduction else [], fields


def _docstring(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = readable(list(lines), Names() if what == "module" else Names.of(thing))
    if what in ("attribute", "property", "data"):
        lines.insert(0, "")  # otherwise napoleon reads the text before the first colon as a type


def _signature(app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str, returns: str) -> Any:
    """Signature of the constructor, for a class whose base has a generic `__new__` (MONAI's MapTransform)."""
    if what != "class" or signature != "(*args, **kwargs)":
        return None
    constructor = sphinx_inspect.signature(thing.__init__, bound_method=True)
    shown = sphinx_inspect.stringify_signature(constructor, show_return_annotation=False, unqualified_typehints=True)
    return shown, returns


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to autodoc, before napoleon."""
    app.connect("autodoc-process-docstring", _docstring, priority=BEFORE_NAPOLEON)
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
