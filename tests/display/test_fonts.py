"""Names of any script in figures: drawn with a font that has them, or written as numbers; never an empty box."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from monai_ifim.display import fonts
from monai_ifim.display.fonts import font_families, legible, undrawn_sentence
from monai_ifim.display.style import drawing

LUNGS = "肺炎"
SHIPPED = ("Müller", "Mu\u0308ller", "Πνεύμονας", "лёгкое", "ריאה", "رئة", "თირკმელი", "թոք", "ß € ² \N{MINUS SIGN}")


@pytest.fixture
def no_further_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A computer with the fonts of matplotlib alone."""
    own = [entry for entry in font_manager.fontManager.ttflist if "mpl-data" in entry.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    yield from _forgotten()


@pytest.fixture
def square_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_further_fonts: None) -> Iterator[None]:
    """The same with one more: a font that was just installed and draws the two signs of LUNGS as black squares."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 900), (900, 900), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(sign): "square" for sign in LUNGS})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Black Squares", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(tmp_path / "squares.ttf")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(tmp_path / "squares.ttf")])
    yield from _forgotten()


def _forgotten() -> Iterator[None]:
    """What is remembered of fonts is forgotten before and after."""
    remembered = (fonts._files, fonts._characters, fonts._further_families)
    for function in remembered:
        function.cache_clear()
    yield
    for function in remembered:
        function.cache_clear()


def black(text: str) -> int:
    """Black pixels of a text in the style of figures; a character without a glyph is an error."""
    with warnings.catch_warnings(), drawing(names=[text]):
        warnings.simplefilter("error")
        figure = Figure(figsize=(4, 1), dpi=50)
        canvas = FigureCanvasAgg(figure)
        figure.text(0.05, 0.3, legible(text), fontsize=20)
        canvas.draw()
    return int((np.asarray(canvas.buffer_rgba())[..., :3].max(2) < 100).sum())


@pytest.mark.usefixtures("no_further_fonts")
@pytest.mark.parametrize("name", SHIPPED)
def test_scripts_that_matplotlib_ships_are_drawn_as_they_are(name: str) -> None:
    assert legible(name) == name
    assert undrawn_sentence([name]) == ""
    assert black(name) > 10


@pytest.mark.usefixtures("no_further_fonts")
@pytest.mark.parametrize(
    ("name", "written"),
    [
        (LUNGS, "U+80BA U+708E"),
        ("left 肺 (CT)", "left U+80BA (CT)"),
        ("bell\x07", "bell U+0007"),
        ("half \udc80", "half U+DC80"),
        ("\ufdd0", "U+FDD0"),
    ],
)
def test_what_no_font_has_is_written_as_its_unicode_number(name: str, written: str) -> None:
    assert legible(name) == written
    assert undrawn_sentence(["liver", name, name]).endswith(f"so Unicode numbers stand in it: {written} is {name}.")
    assert black(name) > 10


@pytest.mark.usefixtures("square_font")
def test_an_installed_font_draws_what_matplotlib_lacks() -> None:
    assert font_families(["liver"]) == ["DejaVu Sans"]
    assert font_families(["liver", LUNGS]) == ["DejaVu Sans", "Black Squares"]
    assert legible(LUNGS) == LUNGS
    assert undrawn_sentence([LUNGS]) == ""
    side = 0.9 * 20 * 50 / 72  # of a square, in pixels
    assert black(LUNGS) == pytest.approx(2 * side**2, rel=0.25)


@pytest.mark.usefixtures("square_font")
def test_marks_of_direction_and_joiners_need_no_glyph() -> None:
    for sign in ("\u200f", "\u200d", "\u2066", "\u3000"):
        assert unicodedata.category(sign) in ("Cf", "Zs")
        assert legible(f"a{sign}b") == f"a{sign}b"


def test_a_damaged_font_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"\x00\x01\x00\x00no font")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(tmp_path / "broken.ttf")])
    for _ in _forgotten():
        assert legible("a\ufdd0") == "a U+FDD0"
