"""Numbers as they are printed."""

from __future__ import annotations

import math

import pytest

from monai_ifim.report.experiment.records import Estimate
from monai_ifim.report.pages import formatting
from monai_ifim.report.pages.render import _markdown_fence, _markdown_text

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1.00"),
        (-0.123456, f"{MINUS}0.123"),
        (9.999, "10.0"),
        (0.09996, "0.100"),
        (1234.5, "1230"),
        (99949.0, "99900"),
        (123456.0, "1.23e5"),
        (0.000123456, "0.000123"),
        (-0.0000123456, f"{MINUS}1.23e{MINUS}5"),
        (None, "n/a"),
        (math.nan, "n/a"),
        (math.inf, "n/a"),
    ],
)
def test_three_digits(value: float | None, text: str) -> None:
    assert formatting.number(value) == text


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.2325, 0.2014, 0.2671), "+0.233 [0.201, 0.267]"),
        (Estimate(-0.0465, -0.0834, -0.00586), f"{MINUS}0.0465 [{MINUS}0.0834, {MINUS}0.0059]"),
        (Estimate(0.02, 0.0004, 0.09), "+0.02000 [0.00040, 0.09000]"),
        (Estimate(0.831, 0.739, 1.0), "+0.831 [0.739, 1.000]"),
        (Estimate(0.01, None, 0.02), "+0.0100 [n/a]"),
        (Estimate(0.0, 0.0, 0.0), "0 [0, 0]"),
        (Estimate(3e-6, 1e-6, 5e-6), f"+3.00e{MINUS}6 [1.00e{MINUS}6, 5.00e{MINUS}6]"),
        (Estimate(None, 0.1, 0.2), "n/a"),
        (None, "n/a"),
    ],
)
def test_an_estimate_and_its_interval_have_the_same_decimals(estimate: Estimate | None, text: str) -> None:
    assert formatting.estimate(estimate, with_sign=True).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0499, "0.050"), (1.0, "1.0"), (1e-4, "0.00010"), (9e-5, "< 0.0001"), (0.0, "< 0.0001"), (None, "n/a")]
)
def test_p_values(value: float | None, text: str) -> None:
    assert formatting.p_value(value).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.234, "1.23 s"), (119.0, "119 s"), (150.0, "2 min"), (3599.0, "1 h 00 min"), (7384.2, "2 h 03 min"), (None, "n/a")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert formatting.duration(seconds) == text


def test_settings_are_flattened_and_what_is_empty_stays_visible() -> None:
    settings = {"a": {"b": [1, 2.5], "c": {"d": None}}, "e": True, "f": {}, "g": []}
    assert formatting.flat_settings(settings) == [("a.b", "1, 2.5"), ("a.c.d", "n/a"), ("e", "yes"), ("f", ""), ("g", "")]


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
