"""Numbers as text: one rule each for console, figures, notebooks, pages and the viewer.

Every function takes None and what is not finite, and gives "n/a" for it. Signs are true minus signs; a number and its unit are
joined by a no-break space. Standard library only, so that the viewer's process and `--help` load neither torch nor MONAI.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

__all__ = [
    "FIRM_SPACE",
    "MINUS",
    "NOT_AVAILABLE",
    "TIMES",
    "as_given",
    "bytes_size",
    "count",
    "counted",
    "duration",
    "estimate",
    "fixed",
    "number",
    "p_value",
    "percent",
    "probability",
    "proportion",
    "radius",
    "range_text",
    "signed",
    "sizes",
    "steps",
    "unit_text",
    "with_error",
]

NOT_AVAILABLE = "n/a"
MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
FIRM_SPACE = "\N{NO-BREAK SPACE}"  # no line ends here
SMALLEST, LARGEST = 1e-4, 1e5  # magnitudes between these are written without a power of ten
SMALLEST_P = 1e-4
LEVELS = (0.001, 0.01, 0.05, 1.0)  # of p-values, on one side of which they must be seen to lie
MOST_DIGITS = 17  # of a float64
ROUNDING = 1e-9  # of a share: what float arithmetic may leave missing from a whole one
NEAR_ONE = 0.999  # probabilities from here on are written by what is missing to 1
UNITS_OF_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")


def number(value: float | None, digits: int = 3) -> str:
    """The value to `digits` significant digits; digits before the point are never rounded away below 100000.

    Magnitudes below 0.0001 and from 100000 on are written with a power of ten.

    >>> number(0.12345), number(1234.5), number(99.96), number(1.2e7), number(0.0)
    ('0.123', '1234', '100', '1.20e7', '0')
    """
    if value is None or not math.isfinite(value):
        return NOT_AVAILABLE
    if value == 0:
        return "0"
    text = f"{value:.{digits - 1}e}"
    if not SMALLEST <= abs(float(text)) < LARGEST:
        return _with_power(text)
    return fixed(value, digits - 1 - int(text.partition("e")[2]))


def _with_power(text: str) -> str:
    """Python's 1.20e+07 as 1.20e7."""
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}".replace("-", MINUS)


def fixed(value: float | None, decimals: int) -> str:
    """The value with this many decimals, none where it is negative."""
    if value is None or not math.isfinite(value):
        return NOT_AVAILABLE
    text = f"{value:.{max(0, decimals)}f}"
    return (text if float(text) else text.removeprefix("-")).replace("-", MINUS)


def signed(value: float | None, decimals: int) -> str:
    """The value with this many decimals and its sign, plus included: effect sizes, differences, z scores."""
    return _with_plus(value, fixed(value, decimals))


def _with_plus(value: float | None, text: str) -> str:
    """The text with a plus before it, but for zero, negative and unknown values, and for what rounds to zero."""
    is_positive = value is not None and value > 0 and text != NOT_AVAILABLE
    return f"+{text}" if is_positive and any(digit in text for digit in "123456789") else text


def _shown(text: str) -> float:
    """The value that a text shows."""
    return float(text.replace(MINUS, "-"))


def _is_apart(value: float, text: str, thresholds: Sequence[float]) -> bool:
    """True if the text lies on the value's own side of every threshold."""
    shown = _shown(text)
    return all((value > each) == (shown > each) and (value < each) == (shown < each) for each in thresholds)


def _deciding(value: float, digits: int, thresholds: Sequence[float]) -> str:
    """`number`, with as many digits more as it takes not to round to or across a threshold."""
    texts = (number(value, more) for more in range(digits, MOST_DIGITS))
    return next((text for text in texts if _is_apart(value, text, thresholds)), number(value, MOST_DIGITS))


def as_given(value: float | None) -> str:
    """A number that somebody chose, such as a step of a grid, in its shortest form: 0.05, 10, 1e−6."""
    if value is None or not math.isfinite(value):
        return NOT_AVAILABLE
    text = f"{value:.6g}"
    return _with_power(text) if "e" in text else text.replace("-", MINUS)


def range_text(values: Sequence[float], form: Callable[[float], str] = number) -> str:
    """The smallest and the largest of the values as `form` writes them, one text where both read the same."""
    low, high = form(min(values)), form(max(values))
    return low if low == high else f"{low} to {high}"


def percent(share: float | None) -> str:
    """A share in percent to one decimal. "100 %" is 1 up to rounding, and "0 %" is exactly zero.

    >>> percent(0.5).replace(FIRM_SPACE, " "), percent(0.99996).replace(FIRM_SPACE, " "), percent(1.0).replace(FIRM_SPACE, " ")
    ('50.0 %', '> 99.9 %', '100 %')
    """
    if share is None or not math.isfinite(share):
        return NOT_AVAILABLE
    if abs(share - 1) <= ROUNDING:
        return f"100{FIRM_SPACE}%"
    return f"{'0' if share == 0 else _inside(100 * share, 100, 1)}{FIRM_SPACE}%"


def proportion(value: float | None) -> str:
    """A number in [0, 1] to three decimals, such as an accuracy; "1.000" and "0.000" are exact.

    Up to six decimals where fewer would round to these, and beyond that "<" or ">".

    >>> proportion(0.8766), proportion(0.9996), proportion(1.0)
    ('0.877', '0.9996', '1.000')
    """
    if value is None or not math.isfinite(value):
        return NOT_AVAILABLE
    if value == 0 or abs(value - 1) <= ROUNDING:
        return fixed(value, 3)
    texts = (fixed(value, decimals) for decimals in range(3, 7))
    return next((text for text in texts if _is_apart(value, text, (0.0, 1.0))), _inside(value, 1, 6))


def _inside(value: float, whole: int, decimals: int) -> str:
    """The value with decimals; "< " or "> " a step where rounding would reach 0 or the whole."""
    step = 10.0**-decimals
    if 0 < value < step / 2:
        return f"<{FIRM_SPACE}{fixed(step, decimals)}"
    if whole - step / 2 <= value < whole:
        return f">{FIRM_SPACE}{fixed(whole - step, decimals)}"
    return fixed(value, decimals)


def probability(p: float | None) -> str:
    """A probability to three digits; above 0.999 as 1 minus a small number, so that only 1 itself reads 1; with more digits
    where three would round it to a half, above which a label holds.

    >>> probability(0.25), probability(0.9996).split(FIRM_SPACE), probability(1.0), probability(0.4996)
    ('0.250', ['1', '−', '0.000400'], '1', '0.4996')
    """
    if p is None or not math.isfinite(p):
        return NOT_AVAILABLE
    if not NEAR_ONE < p <= 1:
        return _deciding(p, 3, (0.5,))
    return "1" if p == 1 else f"1{FIRM_SPACE}{MINUS}{FIRM_SPACE}{number(1 - p)}"


def p_value(value: float | None) -> str:
    """A p-value to two digits, with more where these would round it to or across one of LEVELS; "< 0.0001" below that.

    >>> p_value(0.0449), p_value(0.0496), p_value(0.05)
    ('0.045', '0.0496', '0.050')
    """
    if value is None or not math.isfinite(value):
        return NOT_AVAILABLE
    return f"<{FIRM_SPACE}{as_given(SMALLEST_P)}" if 0 <= value < SMALLEST_P else _deciding(value, 2, LEVELS)


def count(value: float | None) -> str:
    """A whole number with commas between thousands."""
    return NOT_AVAILABLE if value is None or not math.isfinite(value) else f"{int(value):,}".replace("-", MINUS)


def counted(value: float | None, noun: str) -> str:
    """A count and its noun in the right number.

    >>> counted(1, "image"), counted(1200, "class")
    ('1 image', '1,200 classes')
    """
    plural = "" if value == 1 else "es" if noun.endswith("s") else "s"
    return f"{count(value)} {noun}{plural}"


def duration(seconds: float | None) -> str:
    """Seconds up to two minutes, then minutes, then hours and minutes."""
    if seconds is None or not math.isfinite(seconds):
        return NOT_AVAILABLE
    if seconds < 120:
        return f"{number(seconds)}{FIRM_SPACE}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def estimate(value: float | None, low: float | None, high: float | None, with_sign: bool = False) -> str:
    """A value and its interval with one number of decimals, such that the largest magnitude has three digits.

    One decimal more where the value itself has fewer digits, and up to three more where an end of the interval would vanish.

    >>> estimate(0.2325, 0.2014, 0.2671).replace(FIRM_SPACE, " ")
    '0.233 [0.201, 0.267]'
    """
    if value is None or not math.isfinite(value):
        return NOT_AVAILABLE
    middle, *ends = _alike(value, low, high)
    interval = NOT_AVAILABLE if NOT_AVAILABLE in ends else f"{ends[0]},{FIRM_SPACE}{ends[1]}"
    return f"{_with_plus(value, middle) if with_sign else middle} [{interval}]"


def _alike(value: float, low: float | None, high: float | None) -> tuple[str, str, str]:
    magnitudes = sorted(abs(v) for v in (value, low, high) if v and math.isfinite(v))
    if not magnitudes or not SMALLEST <= magnitudes[-1] < LARGEST:
        return number(value), number(low), number(high)
    three = 2 - _order(magnitudes[-1])
    own = 2 - _order(value) if value else three
    decimals = max(three, min(own, three + 1), min(1 - _order(magnitudes[0]), three + 3))
    return _nonzero(value, decimals), _nonzero(low, decimals), _nonzero(high, decimals)


def _nonzero(value: float | None, decimals: int) -> str:
    """`fixed`; a value that this would round to zero to one digit, so that an interval is seen to hold zero or not."""
    text = fixed(value, decimals)
    return number(value, 1) if value and text != NOT_AVAILABLE and _shown(text) == 0 else text


def _order(value: float) -> int:
    """The power of ten of the first digit, after rounding to three."""
    return int(f"{value:.2e}".partition("e")[2])


def with_error(value: float | None, error: float | None) -> str:
    """A value and its standard error: 0.233 ± 0.021; without one the value alone.

    >>> with_error(0.2325, 0.0214), with_error(0.2325, 0.0), with_error(0.2325, None)
    ('0.233 ± 0.0214', '0.233', '0.233')
    """
    if not error or value is None or not math.isfinite(error) or not math.isfinite(value):
        return number(value)
    return f"{number(value)} \N{PLUS-MINUS SIGN} {number(error)}"


def radius(value: float | None) -> str:
    """A locality radius to three digits, "infinite" where the records of a case have null."""
    return "infinite" if value is None or value == math.inf else number(value)


def steps(
    radii: Sequence[float | None], shares: Sequence[float | None], changes: Sequence[float | None], *, at_least: bool = False
) -> list[str]:
    """How far each eigenvalue holds, all on one grid: as a share of |x| and as an rms change of the values.

    shares, changes: of the radii, in records since schema 2.4; without them, the radius. at_least: the radii are lower bounds.

    >>> steps([0.5, None], [0.02, None], [0.0125, None])[0].replace(FIRM_SPACE, " ")
    '2.0 % of |x|, 0.0125 rms'
    """
    known, least = len(shares) == len(changes) == len(radii), "at least " if at_least else ""
    texts = []
    for i, value in enumerate(radii):
        if value is None or value == math.inf or not known:
            texts.append(radius(value) if value is None or value == math.inf else f"{least}{radius(value)}")
        else:
            texts.append(f"{least}{percent(shares[i])} of |x|, {number(changes[i])}{FIRM_SPACE}rms")
    return texts


def bytes_size(size: float | None) -> str:
    """A number of bytes in the largest unit that leaves at least one of it: 1.50 GiB."""
    if size is None or not math.isfinite(size):
        return NOT_AVAILABLE
    power = min(len(UNITS_OF_BYTES) - 1, int(math.log2(abs(size)) // 10) if abs(size) >= 1 else 0)
    text = count(size) if power == 0 else number(size / 1024**power)
    return f"{text}{FIRM_SPACE}{UNITS_OF_BYTES[power]}"


def sizes(shape: Sequence[int | str]) -> str:
    """The sizes of an image: 64 × 48."""
    return f" {TIMES} ".join(map(str, shape))


def unit_text(unit: str) -> str:
    """A unit with squares as a reader expects them: "unit^2" is "unit²"."""
    return unit.replace("^2", "\N{SUPERSCRIPT TWO}")
