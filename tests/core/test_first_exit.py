"""The search for the first exit of a curve from a band, against a dense scan of the curve, and how many values it takes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from monai_ifim.core.first_exit import FirstExit

BAND, PRECISION = 0.1, 0.03
Curve = Callable[[float], float]


def _searched(curve: Curve, first: float = 0.025) -> tuple[float, list[float]]:
    """The radius found, and the steps looked at."""
    search, steps = FirstExit(first, BAND, PRECISION), list[float]()
    while (step := search.next_step()) is not None:
        search.add(step, curve(step))
        steps.append(step)
    return search.radius, steps


def _scanned(curve: Curve, top: float) -> float:
    """The first of 4000 steps up to `top` outside of the band; infinite where all are inside."""
    steps = (top * i / 4000 for i in range(1, 4001))
    return next((step for step in steps if abs(curve(step)) > BAND), math.inf)


def _softmax(slope: float) -> Curve:
    """The deviation of the divergence of an improbable class whose logit changes by slope e."""
    return lambda e: 2 * (math.exp(slope * e) - 1 - slope * e) / (slope * e) ** 2 - 1


def _cubic(chance: random.Random) -> Curve:
    a, b, c = chance.gauss(0, 0.33), chance.gauss(0, 0.3), chance.gauss(0, 0.2)
    return lambda e: a * e + b * e**2 + c * e**3


def _two_waves(chance: random.Random) -> Curve:
    waves = [(chance.gauss(0, 0.4), chance.uniform(0.5, 4), chance.uniform(0, 6)) for _ in range(2)]
    return lambda e: sum(a * (math.sin(w * e + p) - math.sin(p)) for a, w, p in waves)


def _kinked(chance: random.Random) -> Curve:
    """The deviation of a binary answer whose logit bends at 60 kinks on the way, as one of a network with ReLU does."""
    kinks = sorted(chance.uniform(0, 1.5) for _ in range(60))
    bends, sign, q = [chance.gauss(0, 0.2 / 60**0.5) for _ in kinks], chance.choice((-1, 1)), 0.03

    def curve(e: float) -> float:
        t = sign * e + sum(bend * (e - kink) for bend, kink in zip(bends, kinks, strict=True) if e > kink)
        return (math.log1p(q * math.expm1(t)) - q * t) / (e**2 * q * (1 - q) / 2) - 1

    return curve


def test_a_curve_with_many_kinks_takes_more_values_and_its_first_exit_is_found() -> None:
    chance, counts = random.Random(5), list[int]()
    for _ in range(12):
        curve = _kinked(chance)
        found, steps = _searched(curve)
        truth = _scanned(curve, 3 * found)
        assert truth / 1.04 <= found <= truth * 1.001, (found, truth)
        counts.append(len(steps))
    assert sum(counts) <= 12 * len(counts)


@pytest.mark.parametrize("make", [_cubic, _two_waves])
def test_the_radius_is_where_a_dense_scan_of_a_curve_with_turns_leaves_the_band(make: Callable[[random.Random], Curve]) -> None:
    chance, counts = random.Random(7), list[int]()
    for _ in range(60):
        curve = make(chance)
        found, steps = _searched(curve)
        truth = _scanned(curve, 3 * found if math.isfinite(found) else 25.0)
        assert found == truth or truth / 1.04 <= found <= truth * 1.001, (found, truth)
        counts.append(len(steps))
    assert sorted(counts)[len(counts) // 2] <= 6


@pytest.mark.parametrize("slope", [-3.0, -1.0, -0.2, 0.2, 1.0, 3.0])
def test_the_divergence_of_a_softmax_takes_five_values(slope: float) -> None:
    found, steps = _searched(_softmax(slope))
    truth = _scanned(_softmax(slope), 3 * found)
    assert truth / 1.031 <= found <= truth
    assert len(steps) <= 5


@pytest.mark.parametrize(("centre", "width"), [(0.07, 0.04), (0.2, 0.06), (0.2, -0.06)])
def test_an_excursion_that_the_values_foretell_is_not_jumped_over(centre: float, width: float) -> None:
    """Leaves the band and comes back between two steps of the search for a straight line."""

    def curve(e: float) -> float:
        return 0.05 * e + math.copysign(0.14, width) * (
            math.exp(-(((e - centre) / width) ** 2)) - math.exp(-((centre / width) ** 2))
        )

    found, _ = _searched(curve)
    assert found == pytest.approx(_scanned(curve, 1.0), rel=0.04)


def test_a_curve_that_is_outside_at_once_and_inside_farther_out_has_radius_zero() -> None:
    assert _searched(lambda e: 0.16 - 2 * e)[0] == 0.0


def test_a_curve_outside_at_the_first_step_is_followed_inwards() -> None:
    found, _ = _searched(lambda e: 40 * e)
    assert 0.0025 / 1.03 <= found <= 0.0025


def test_a_curve_that_never_leaves_is_looked_at_far_out_and_has_an_infinite_radius() -> None:
    found, steps = _searched(lambda e: 1e-9 * math.sin(e))
    assert found == math.inf
    assert max(steps) >= 1e6
    assert len(steps) <= 16


def test_a_jump_is_enclosed_and_values_that_are_not_finite_are_outside() -> None:
    found, steps = _searched(lambda e: 0.01 if e < 0.777 else math.inf)
    assert 0.777 / 1.03 <= found < 0.777
    assert len(steps) <= 14


def test_a_point_given_before_the_first_step_is_used() -> None:
    search = FirstExit(0.01, BAND, PRECISION)
    search.add(0.04, 0.04)
    assert search.next_step() == 0.01
    search.add(0.01, 0.01)
    assert search.next_step() == pytest.approx(0.1, rel=0.02)
