"""Fonts of figures, for names in any script.

matplotlib brings DejaVu Sans (Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew, Arabic). What it lacks is drawn with fonts that
are installed on the computer; characters that none of them has are written as their Unicode numbers, never as empty boxes.
matplotlib is imported when the first such character is met.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

__all__ = ["FIRST_FONT", "font_families", "legible", "undrawn_sentence"]

FIRST_FONT = "DejaVu Sans"
NO_TEXT_FONTS = ("Last Resort", "STIXNonUnicode", "STIXSize", "cm")  # families of matplotlib that hold boxes or other encodings
INVISIBLE = ("Cf", "Zs")  # categories of Unicode that need no glyph: marks of direction, joiners, spaces
HEAVIEST = 500  # weight of a font that is regular


def font_families(texts: Iterable[str]) -> list[str]:
    """Families for matplotlib's `font.family`: FIRST_FONT, and as many installed ones as the texts need."""
    lacking = {sign for text in texts for sign in text if not _is_in(sign, FIRST_FONT)}
    found = [FIRST_FONT]
    for family in _further_families() if lacking else ():
        held = {sign for sign in lacking if _is_in(sign, family)}
        if held:
            found.append(family)
            lacking -= held
        if not lacking:
            break
    return found


def legible(text: str) -> str:
    r"""The text for a figure: characters that no font here has are written as their Unicode numbers.

    >>> legible("müller"), legible("a\ufdd0b")
    ('müller', 'a U+FDD0 b')
    """
    parts = [sign if _can_be_drawn(sign) else f" U+{ord(sign):04X} " for sign in text]
    written = "".join(parts)
    return written if len(written) == len(text) else " ".join(written.split())


def undrawn_sentence(texts: Iterable[str]) -> str:
    """The texts that `legible` had to change and how they stand in the figure; empty where it changed none."""
    changed = [f"{legible(text)} is {text}" for text in dict.fromkeys(texts) if not all(map(_can_be_drawn, text))]
    if not changed:
        return ""
    return (
        f"No font on the computer that drew this figure has all signs of these names, so Unicode numbers stand in it: "
        f"{'; '.join(changed)}."
    )


def _can_be_drawn(sign: str) -> bool:
    return _is_in(sign, FIRST_FONT) or any(_is_in(sign, family) for family in _further_families())


def _is_in(sign: str, family: str) -> bool:
    if sign == "\n" or unicodedata.category(sign) in INVISIBLE:
        return True
    return ord(sign) in _characters(family)


@cache
def _further_families() -> tuple[str, ...]:
    """Installed families besides FIRST_FONT with outlines and a regular style, in the order of their names."""
    return tuple(sorted(family for family in _files() if family != FIRST_FONT))


@cache
def _characters(family: str) -> frozenset[int]:
    """Code points that a family has; none where its file cannot be opened."""
    from matplotlib import font_manager

    file = _files().get(family)
    if file is None:
        return frozenset()
    try:
        font = font_manager.get_font(file)
    except (OSError, RuntimeError):  # damaged, or a format that FreeType does not know
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()  # pictures of letters have one size


@cache
def _files() -> dict[str, str]:
    """The file of each family in its regular style."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    known = {Path(entry.fname).name for entry in fontManager.ttflist}
    for file in sorted(findSystemFonts()):
        if Path(file).name not in known:  # installed since matplotlib last made its list
            try:
                fontManager.addfont(file)
            except (OSError, RuntimeError):
                continue
    regular = [entry for entry in fontManager.ttflist if entry.style == "normal" and int(entry.weight) <= HEAVIEST]
    return {entry.name: entry.fname for entry in reversed(regular) if not entry.name.startswith(NO_TEXT_FONTS)}
