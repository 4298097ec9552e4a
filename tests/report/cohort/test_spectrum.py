"""The drawing of a spectrum: every eigenvalue at its height on a logarithmic axis, labels at round values."""

from __future__ import annotations

import math
import re

import pytest

from monai_ifim.report.cohort.spectrum import SpectrumDrawing, draw_spectrum


def dots(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"M([\d.]+) ([\d.]+)h0", path)]


def drawn(eigenvalues: list[float]) -> SpectrumDrawing:
    found = draw_spectrum(eigenvalues)
    assert found is not None
    return found


@pytest.mark.parametrize("eigenvalues", [[0.178], [4.02, 0.027], [3.1, 2.9, 2.2], [10.0 ** (2 - i) for i in range(9)]])
def test_heights_follow_the_labels(eigenvalues: list[float]) -> None:
    spectrum = drawn(eigenvalues)
    ticks = [(tick.place, float(tick.text.replace("\N{MINUS SIGN}", "-").replace(",", ""))) for tick in spectrum.rows]
    assert len(ticks) >= 2
    (first, low), (last, high) = ticks[0], ticks[-1]
    decade = (last - first) / math.log10(high / low)
    for (_, y), value in zip(dots(spectrum.dots), eigenvalues, strict=True):
        assert y == pytest.approx(first + decade * math.log10(value / low), abs=0.15)
    left, top, right, bottom = spectrum.frame
    assert all(left < x < right and top <= y < bottom for x, y in dots(spectrum.dots))


def test_the_place_of_an_unknown_eigenvalue_stays_empty() -> None:
    whole, holed = drawn([4.0, 2.0, 1.0]), draw_spectrum([4.0, None, 1.0])
    assert holed is not None
    assert dots(holed.dots) == [dots(whole.dots)[0], dots(whole.dots)[2]]
    assert draw_spectrum([None]) is None


def test_components_stand_in_order_and_their_numbers_below_them() -> None:
    spectrum = drawn([2.0**-i for i in range(37)])
    across = [x for x, _ in dots(spectrum.dots)]
    assert across == sorted(across)
    assert [tick.text for tick in spectrum.columns] == ["1", "5", "10", "15", "20", "25", "30", "35"]
    assert all(tick.place == across[int(tick.text) - 1] for tick in spectrum.columns)


@pytest.mark.parametrize("number", [1, 2, 8, 9, 20, 100, 999])
def test_labels_are_few_and_inside(number: int) -> None:
    spectrum = drawn([0.9**i for i in range(number)])
    assert len(dots(spectrum.dots)) == number
    assert 1 <= len(spectrum.columns) <= 10
    assert 2 <= len(spectrum.rows) <= 8


def test_zeros_are_crosses_on_the_axis() -> None:
    spectrum = drawn([0.5, 0.0, 0.0])
    assert len(dots(spectrum.dots)) == 1
    assert spectrum.zeros.count("M") == 2
    assert drawn([0.0]).rows == ()


@pytest.mark.parametrize("value", [5e-324, 1e-310, 1.7e308])
def test_the_smallest_and_largest_numbers_have_a_place(value: float) -> None:
    assert len(dots(drawn([value]).dots)) == 1


def test_none_has_no_drawing_and_words_say_what_there_is() -> None:
    assert draw_spectrum([]) is None
    assert drawn([0.25]).alt == "Sensitivity by component: one component, 0.250 nats per unit²."
    assert drawn([0.25, 0.1, 0.05]).alt == "Sensitivity by component: 3 components, from 0.250 down to 0.0500 nats per unit²."
