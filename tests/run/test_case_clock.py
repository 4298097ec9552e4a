"""The clock of a batch: what it tells of the products that are made and to come, and of the time left."""

from __future__ import annotations

import pytest

from monai_ifim.core.solvers.watch import IterationState
from monai_ifim.io.limits import NO_LIMITS
from monai_ifim.run import case_clock
from monai_ifim.run.case_clock import CaseClock, Stage


class Time:
    """A clock that stands still until it is moved on."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(case_clock, "time", clock)
    return clock


def run(clock: CaseClock, time: Time, counts: list[tuple[int, int | None]], seconds: float = 1.0) -> None:
    for done, expected in counts:
        time.now += seconds
        clock.count(done, expected)


def test_what_takes_less_than_three_seconds_is_not_told_of(time: Time) -> None:
    told: list[Stage | None] = []
    run(CaseClock(NO_LIMITS, ["a.nii"], told.append), time, [(1, 3), (2, 3)], 1.4)
    assert told == []


def test_products_and_the_time_that_the_others_take_are_told(time: Time) -> None:
    """Five products of two seconds each are made; seven more take fourteen seconds."""
    told: list[Stage | None] = []
    clock = CaseClock(NO_LIMITS, ["a.nii", "b.nii"], told.append)
    run(clock, time, [(n, 12) for n in range(1, 6)], 2.0)
    clock.silence()
    assert told[-2] == Stage("a.nii, b.nii", 5, 12, 14.0)
    assert str(told[-2]).replace("\N{NO-BREAK SPACE}", " ") == "a.nii, b.nii: 5 of 12 products, about 14.0 s left"
    assert told[-1] is None


def test_of_a_batch_in_parts_all_products_are_told_and_no_time_left(time: Time) -> None:
    told: list[Stage | None] = []
    run(CaseClock(NO_LIMITS, ["a.nii"], told.append), time, [(1, 2), (2, 2), (1, 2), (2, 2)], 2.0)
    assert told[-1] == Stage("a.nii", 4)
    assert str(told[-1]) == "a.nii: 4 products"


def test_an_iteration_tells_its_pairs_and_the_time_left_by_their_decay(time: Time) -> None:
    told: list[Stage | None] = []
    clock = CaseClock(NO_LIMITS, ["a.nii"], told.append)
    run(clock, time, [(n, None) for n in range(1, 5)], 2.0)
    state = IterationState(products=4, most=40, wanted=3, good=1, residual=0.25, tolerance=0.05, left=6)
    clock.watch.report(state)
    assert told[-1] == Stage("a.nii", 4, 10, 12.0, state)
    assert "4 of 10 products, about" in str(told[-1])
    assert "1 of 3 pair(s)" in str(told[-1])
    run(clock, time, [(5, None)], 2.0)
    assert told[-1] == Stage("a.nii", 5, None, None, state)
