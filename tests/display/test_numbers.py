"""Numbers as text: one table of values, and the same text wherever a value is shown."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from monai_ifim import decompose
from monai_ifim.cli.summary import show_rows
from monai_ifim.display import numbers
from monai_ifim.display.html import notebook_html
from monai_ifim.display.numbers import FIRM_SPACE, MINUS
from monai_ifim.io.slicer.volumes import scene_volumes
from monai_ifim.report.cohort.listing import COLUMNS
from monai_ifim.run.table import CaseRow
from monai_ifim.viewer.cases import ViewedCase, facts

UNKNOWN = (None, math.nan, math.inf, -math.inf)


def plain(text: str) -> str:
    return text.replace(FIRM_SPACE, " ").replace(MINUS, "-")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1.00"),
        (-0.123456, "-0.123"),
        (9.994, "9.99"),
        (9.996, "10.0"),
        (99.96, "100"),
        (0.09996, "0.100"),
        (1234.6, "1235"),
        (-1024.0, "-1024"),
        (99949.0, "99949"),
        (99_999.6, "1.00e5"),
        (123_456.0, "1.23e5"),
        (1.234e6, "1.23e6"),
        (0.000123456, "0.000123"),
        (0.0000999, "9.99e-5"),
        (0.00009999, "0.000100"),
        (-0.0000123456, "-1.23e-5"),
        (1e300, "1.00e300"),
        (5e-324, "4.94e-324"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert plain(numbers.number(value)) == text
    assert float(text) == pytest.approx(value, rel=6e-3)


@pytest.mark.parametrize(("value", "digits", "text"), [(2e-5, 1, "2e-5"), (500.0, 1, "500"), (0.0449, 2, "0.045")])
def test_number_of_other_digits(value: float, digits: int, text: str) -> None:
    assert plain(numbers.number(value, digits)) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1e-12, "< 0.1 %"),
        (0.000499, "< 0.1 %"),
        (0.0005, "0.1 %"),
        (0.0012, "0.1 %"),
        (0.43217, "43.2 %"),
        (0.5799, "58.0 %"),
        (0.9, "90.0 %"),
        (0.9994, "99.9 %"),
        (0.9995, "> 99.9 %"),
        (0.99996, "> 99.9 %"),
        (1 - 2e-9, "> 99.9 %"),
        (1 - 1e-15, "100 %"),
        (1.0, "100 %"),
        (1 + 1e-15, "100 %"),
        (1.02, "102.0 %"),
        (-0.02, "-2.0 %"),
    ],
)
def test_percent(share: float, text: str) -> None:
    assert plain(numbers.percent(share)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (0.0004, "0.0004"),
        (0.0005, "0.001"),
        (3e-7, "< 0.000001"),
        (0.8766, "0.877"),
        (0.9994, "0.999"),
        (0.9996, "0.9996"),
        (0.999996, "0.999996"),
        (1 - 3e-7, "> 0.999999"),
        (1, "1.000"),
    ],
)
def test_proportion(value: float, text: str) -> None:
    assert plain(numbers.proportion(value)) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0, "0"),
        (3e-9, "3.00e-9"),
        (0.25, "0.250"),
        (0.4996, "0.4996"),
        (0.50004, "0.50004"),
        (0.5, "0.500"),
        (0.999, "0.999"),
        (0.9991, "1 - 0.000900"),
        (1 - 2.0**-40, "1 - 9.09e-13"),
        (1.0, "1"),
    ],
)
def test_probability(p: float, text: str) -> None:
    assert plain(numbers.probability(p)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0496, "0.0496"), (0.04999, "0.04999"), (0.05, "0.050"), (0.0501, "0.0501"), (0.0449, "0.045"), (0.00996, "0.00996"),
        (0.000998, "0.000998"), (0.9996, "0.9996"), (1.0, "1.0"), (1e-4, "0.00010"), (9e-5, "< 0.0001"), (0.0, "< 0.0001"),
    ],
)  # fmt: skip
def test_p_value(value: float, text: str) -> None:
    assert plain(numbers.p_value(value)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.234, "1.23 s"), (119.0, "119 s"), (120.0, "2 min"), (150.0, "2 min"), (3599.0, "1 h 00 min"), (7384.2, "2 h 03 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert plain(numbers.duration(seconds)) == text


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        ((0.2325, 0.2014, 0.2671), "+0.233 [0.201, 0.267]"),
        ((-0.0465, -0.0834, -0.00586), "-0.0465 [-0.0834, -0.0059]"),
        ((0.02, 0.0004, 0.09), "+0.02000 [0.00040, 0.09000]"),
        ((0.831, 0.739, 1.0), "+0.831 [0.739, 1.000]"),
        ((1234.6, 1200.0, 1300.4), "+1235 [1200, 1300]"),
        ((0.01, None, 0.02), "+0.0100 [n/a]"),
        ((0.0, 0.0, 0.0), "0 [0, 0]"),
        ((3e-6, 1e-6, 5e-6), "+3.00e-6 [1.00e-6, 5.00e-6]"),
        ((0.2, -4e-7, 0.5), "+0.200000 [-4e-7, 0.500000]"),
        ((None, 0.1, 0.2), "n/a"),
        ((math.nan, 0.1, 0.2), "n/a"),
    ],
)
def test_an_estimate_and_its_interval_have_the_same_decimals(
    estimate: tuple[float | None, float | None, float | None], text: str
) -> None:
    assert plain(numbers.estimate(*estimate, with_sign=True)) == text
    assert plain(numbers.estimate(*estimate)) == text.removeprefix("+")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (numbers.fixed(-0.04, 1), "0.0"),
        (numbers.fixed(-0.06, 1), "-0.1"),
        (numbers.fixed(12.5, -1), "12"),
        (numbers.signed(0.1234, 2), "+0.12"),
        (numbers.signed(-0.1234, 2), "-0.12"),
        (numbers.signed(0.0, 2), "0.00"),
        (numbers.signed(0.004, 2), "0.00"),
        (numbers.signed(-0.004, 2), "0.00"),
        (numbers.as_given(0.05), "0.05"),
        (numbers.as_given(-3.5), "-3.5"),
        (numbers.as_given(1e-6), "1e-6"),
        (numbers.as_given(10.0), "10"),
        (numbers.count(1234567), "1,234,567"),
        (numbers.count(0), "0"),
        (numbers.counted(1, "image"), "1 image"),
        (numbers.counted(0, "image"), "0 images"),
        (numbers.counted(2, "more class"), "2 more classes"),
        (numbers.counted(None, "image"), "n/a images"),
        (numbers.radius(0.25), "0.250"),
        (numbers.radius(None), "infinite"),
        (numbers.radius(math.inf), "infinite"),
        (numbers.radius(math.nan), "n/a"),
        (numbers.bytes_size(1023), "1,023 B"),
        (numbers.bytes_size(1024), "1.00 KiB"),
        (numbers.bytes_size(1.5 * 2**30), "1.50 GiB"),
        (numbers.bytes_size(2**60), "1.05e6 TiB"),
        (numbers.sizes((64, 48, 3)), "64 × 48 × 3"),
        (numbers.unit_text("nats per (unit)^2"), "nats per (unit)²"),
        (numbers.range_text([0.5, 0.25, 0.5]), "0.250 to 0.500"),
        (numbers.range_text([0.97, 0.97], numbers.percent), "97.0 %"),
    ],
)
def test_other_forms(text: str, expected: str) -> None:
    assert plain(text) == expected


@pytest.mark.parametrize(
    "form",
    [
        numbers.number,
        numbers.percent,
        numbers.proportion,
        numbers.probability,
        numbers.p_value,
        numbers.count,
        numbers.duration,
        numbers.as_given,
        numbers.bytes_size,
        lambda value: numbers.fixed(value, 2),
        lambda value: numbers.signed(value, 2),
    ],
)
def test_what_is_unknown_is_never_a_number(form: object) -> None:
    assert [form(value) for value in UNKNOWN] == ["n/a"] * len(UNKNOWN)  # type: ignore[operator]


def test_standard_library_is_enough() -> None:
    """The viewer's process holds VTK and no torch; `--help` answers at once."""
    program = "import sys, monai_ifim.display.numbers; print(*{'torch', 'numpy', 'monai'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# One share and one probability, and every place that shows them.
SHARE, PROBABILITY, EIGENVALUE = 0.99996, 0.99973, 12.345


def _sidecar() -> dict[str, object]:
    file = {"file": "a_ifim_eigenvector-01.nii.gz", "kind": "eigenvector", "component": 1, "channel": 1}
    file |= {"window": [-1.0, 1.0], "scale": 1.0, "unit": "1"}
    return {
        "prediction": {"class": "cat", "probability": {"cat": PROBABILITY, "dog": 1 - PROBABILITY}},
        "eigenvalues": [EIGENVALUE],
        "trace": EIGENVALUE / SHARE,
        "rank": 1,
        "energy_kept": SHARE,
        "units": {"eigenvalues": "nats per (unit)^2", "sensitivity": "nats", "maps": "unit", "eigenvectors": "1"},
        "model": {},
        "input": {"shape": [8, 8]},
        "space": {"name": "network"},
        "files": [file],
    }


def test_one_value_reads_the_same_on_page_console_scene_and_viewer() -> None:
    share, probability = numbers.percent(SHARE), numbers.probability(PROBABILITY)
    row = CaseRow("a", "done", prediction="cat", probability=PROBABILITY, rank=1, energy_kept=SHARE, eigenvalue=EIGENVALUE)
    console = Console(file=io.StringIO(), width=200)
    show_rows(console, [row], Path("out"))
    console_text = console.file.getvalue()  # type: ignore[attr-defined]
    case = {"energy_kept": SHARE, "confidence": PROBABILITY, "eigenvalue": EIGENVALUE}
    page = {
        column.head: column.text(case)
        for column in COLUMNS
        if column.head in ("sensitivity kept", "confidence", "strongest component")
    }
    viewer = facts(ViewedCase("a", (), (), True, _sidecar()))
    (volume,) = scene_volumes(_sidecar(), (100 * SHARE,))
    assert page == {"confidence": probability, "sensitivity kept": share, "strongest component": "12.3"}
    assert [text in console_text for text in (share, probability, "12.3")] == [True] * 3
    assert viewer["answers"][0]["text"] == probability
    assert (viewer["spectrum"][0]["text"], viewer["spectrum"][0]["share"]) == ("12.3", share)
    assert share in {entry["name"]: entry["text"] for entry in viewer["settings"]}["Components kept"]
    assert volume.name == f"Component 1 ({share} of the sensitivity)"


def test_one_value_reads_the_same_in_figure_and_notebook() -> None:
    torch.manual_seed(0)
    d = decompose(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4)).eval(), torch.randn(1, 1, 3, 4), rank=1)
    share = numbers.percent(float(d.energy[0]))
    value = numbers.number(float(d.eigenvalues[0, 0]))
    figure = d.plot()
    drawn = [text.get_text() for text in figure.texts] + [axes.get_title() for axes in figure.axes]
    assert all(any(wanted in text for text in drawn) for wanted in (share, f": {value},"))
    assert share in notebook_html(d)
    assert value in notebook_html(d)
    assert np.isfinite(float(d.trace[0]))
    assert f"{share.replace(numbers.FIRM_SPACE, ' ')} of the sensitivity" in repr(d)  # ASCII alone, for any console
