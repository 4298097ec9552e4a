"""Texts of a page: flattened settings, escaped Markdown."""

from __future__ import annotations

import pytest

from monai_ifim.report.pages.environment import _markdown_fence, _markdown_text
from monai_ifim.report.pages.texts import flat_settings


def test_settings_are_flattened_and_what_is_empty_stays_visible() -> None:
    settings = {"a": {"b": [1, 2.5], "c": {"d": None}}, "e": True, "f": {}, "g": []}
    assert flat_settings(settings) == [("a.b", "1, 2.5"), ("a.c.d", "n/a"), ("e", "yes"), ("f", ""), ("g", "")]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a <b> & c", "a &lt;b&gt; &amp; c"),
        ("x | y", r"x \| y"),
        ("*bold* _word_ x_high `code`", r"\*bold\* \_word\_ x_high \`code\`"),
        ("[text](place)", r"[text\](place)"),
        ("[0.1, 0.2]", "[0.1, 0.2]"),
        ("two\nlines", "two lines"),
        ("1. first", r"1\. first"),
        ("- item", r"\- item"),
        ("# head", r"\# head"),
        (r"back\slash", r"back\\slash"),
    ],
)
def test_markdown_is_escaped(text: str, escaped: str) -> None:
    assert _markdown_text(text) == escaped


def test_a_fence_is_longer_than_what_it_holds() -> None:
    assert _markdown_fence("a ```` b") == "`````\na ```` b\n`````"
