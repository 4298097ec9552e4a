"""This package's docstrings as Sphinx wants them.

They are plain text: names of parameters and attributes, each with a colon and its shape, unit and meaning, run on in a
paragraph, and signs such as * and | stand for themselves. Here the names become fields and the signs are escaped; sections of
the Google style (Args:, Returns:, Raises:) are left to napoleon, which comes after.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx

BEFORE_NAPOLEON = 400  # napoleon has Sphinx's default, 500
SPAN = re.compile(r"(``.+?``|(?::[\w:]+:)?`[^`]+`)", flags=re.DOTALL)
SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Attributes|Example|Examples|Note|Notes):$")
RAISES = re.compile(r"(?:(?<=[.;]\s)|^)Raises ((?:[A-Z]\w+(?:, | or | and )?)+) ")


def fields_of(docstring: list[str], parameters: frozenset[str], attributes: frozenset[str]) -> list[str]:
    """The docstring's lines as reStructuredText.

    parameters, attributes: names that, followed by a colon at the start of a sentence, begin a field.
    """
    lines: list[str] = []
    inside_section = False
    for paragraph in _paragraphs(docstring):
        inside_section = bool(SECTION.match(paragraph[0])) or (inside_section and paragraph[0].startswith(" "))
        if paragraph[0].lstrip().startswith(">>>"):
            lines += paragraph
        elif inside_section:
            lines += [escaped(line) for line in paragraph]
        else:
            lines += _with_fields("\n".join(paragraph), parameters, attributes)
        lines.append("")
    return lines


def escaped(text: str) -> str:
    """Text whose * | and closing _ stand for themselves; what is between backticks is left alone."""
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


def _with_fields(text: str, parameters: frozenset[str], attributes: frozenset[str]) -> list[str]:
    """A paragraph's introduction, then one field for each name and each exception."""
    known = "|".join(sorted(map(re.escape, parameters | attributes), key=len, reverse=True)) or r"(?!)"
    start = re.compile(rf"(?:(?<=[.;]\s)|^)((?:{known})(?:, (?:{known}))*): ", flags=re.MULTILINE)
    marks = sorted([*start.finditer(text), *RAISES.finditer(text)], key=lambda mark: mark.start())
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    if not marks:
        return escaped(text).split("\n")
    introduction = text[: marks[0].start()].strip()
    lines = [*escaped(introduction).split("\n"), ""] if introduction else []
    for mark, end in zip(marks, ends, strict=True):
        meaning = escaped(" ".join(text[mark.end() : end].split()).rstrip(";"))
        if mark.re is RAISES:
            lines += [f":raises {name}: {meaning}" for name in re.findall(r"[A-Z]\w+", mark[1])]
        else:
            lines += [f":{'param' if name in parameters else 'ivar'} {name}: {meaning}" for name in mark[1].split(", ")]
    return lines


def _names_of(thing: Any) -> tuple[frozenset[str], frozenset[str]]:
    """(names of parameters, names of attributes). The fields of a dataclass are attributes: most are made here, not by users."""
    if not callable(thing):
        return frozenset(), frozenset()
    try:
        parameters = frozenset(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        parameters = frozenset()
    attributes = frozenset(getattr(thing, "__annotations__", {})) if inspect.isclass(thing) else frozenset()
    if dataclasses.is_dataclass(thing):
        return frozenset(), attributes | parameters
    return parameters, attributes


def _process(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    if what != "module":
        lines[:] = fields_of(list(lines), *_names_of(thing))
        return
    lines[:] = fields_of(list(lines), frozenset(), frozenset())


def setup(app: Sphinx) -> dict[str, Any]:
    """Read every docstring before napoleon does."""
    app.connect("autodoc-process-docstring", _process, priority=BEFORE_NAPOLEON)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
