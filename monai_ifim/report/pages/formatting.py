"""Numbers as a reader sees them: three digits, a true minus sign, and n/a where there is no value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from monai_ifim.report.experiment.records import Estimate

__all__ = [
    "NOT_AVAILABLE",
    "count",
    "duration",
    "effect",
    "estimate",
    "fixed",
    "flat_settings",
    "images",
    "number",
    "p_value",
    "percent",
    "plain",
    "proportion",
    "shortened",
    "words",
]

NOT_AVAILABLE = "n/a"
MINUS = "\N{MINUS SIGN}"
FIRM_SPACE = "\N{NO-BREAK SPACE}"  # no line ends here
LONGEST_TEXT = 300  # of a reason or a name on the page
SMALLEST, LARGEST = 1e-4, 1e5  # what is written without a power of ten


def number(value: float | None, digits: int = 3) -> str:
    """Value to `digits` significant digits; powers of ten only where it is below 0.0001 or from 100000 on."""
    if value is None or not math.isfinite(value):
        return NOT_AVAILABLE
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    if SMALLEST <= abs(rounded) < LARGEST:
        return fixed(rounded, digits - 1 - _order(rounded))
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}".replace("-", MINUS)


def fixed(value: float | None, decimals: int) -> str:
    """With this many decimals."""
    if value is None or not math.isfinite(value):
        return NOT_AVAILABLE
    return f"{value:.{max(0, decimals)}f}".replace("-", MINUS)


def proportion(value: float | None) -> str:
    """A number in [0, 1] to three decimals, as accuracies and areas under the curve are read."""
    return fixed(value, 3)


def percent(share: float) -> str:
    """A share in [0, 1] as percent, to one decimal."""
    return f"{fixed(100 * share, 1)}{FIRM_SPACE}%"


def effect(value: float | None) -> str:
    """An effect size to two decimals, with its sign."""
    return _with_sign(value, fixed(value, 2))


def estimate(value: Estimate | None, with_sign: bool = False) -> str:
    """Value and interval, all three to the same number of decimals, mostly three digits of the largest of them."""
    if value is None or value.value is None:
        return NOT_AVAILABLE
    known = [v for v in (value.value, value.low, value.high) if v is not None]
    texts = _alike(value.value, value.low, value.high, known)
    middle = _with_sign(value.value, texts[0]) if with_sign else texts[0]
    ends = NOT_AVAILABLE if NOT_AVAILABLE in texts[1:] else f"{texts[1]},{FIRM_SPACE}{texts[2]}"
    return f"{middle} [{ends}]"


def _alike(value: float, low: float | None, high: float | None, known: Sequence[float]) -> tuple[str, str, str]:
    sizes = sorted(abs(v) for v in known if v)
    if not sizes or sizes[-1] < SMALLEST or sizes[-1] >= LARGEST:
        return number(value), number(low), number(high)
    three = 2 - _order(sizes[-1])
    own = 2 - _order(value) if value else three
    decimals = max(three, min(own, three + 1), min(1 - _order(sizes[0]), three + 3))
    return fixed(value, decimals), fixed(low, decimals), fixed(high, decimals)


def _with_sign(value: float | None, text: str) -> str:
    return f"+{text}" if value is not None and value > 0 and text != NOT_AVAILABLE else text


def _order(value: float) -> int:
    """Power of ten of the first of three digits, after rounding to them."""
    return int(f"{value:.2e}".partition("e")[2])


def p_value(value: float | None) -> str:
    """To two digits, and < 0.0001 below that."""
    if value is not None and value < SMALLEST:
        return f"<{FIRM_SPACE}0.0001"
    return number(value, 2)


def count(value: float | None) -> str:
    """A whole number, with commas between thousands."""
    return NOT_AVAILABLE if value is None or not math.isfinite(value) else f"{int(value):,}"


def images(value: float | None) -> str:
    """How many images."""
    return f"{count(value)} image{'' if value == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Seconds, and above two minutes hours and minutes."""
    if seconds is None or not math.isfinite(seconds):
        return NOT_AVAILABLE
    if seconds < 120:
        return f"{number(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def shortened(text: str, longest: int = LONGEST_TEXT) -> str:
    """A text that is not too long for its place."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def words(value: Any) -> str:
    """A table's text; nothing where it has none."""
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
