"""What an iteration says of itself, and when it ends because it is asked to."""

from __future__ import annotations

import math

import pytest

from monai_ifim.core.solvers.watch import IterationState, steps_left


@pytest.mark.parametrize("rate", [0.9, 0.5])
@pytest.mark.parametrize("tests", [2, 5, 30])
def test_steps_left_continue_a_geometric_decay(rate: float, tests: int) -> None:
    history = [(2 * i, 3.0 * rate ** (2 * i)) for i in range(tests)]
    last = history[-1][0]
    expected = math.log(0.001 / 3.0) / math.log(rate) - last
    assert steps_left(history, 0.001) == max(0, math.ceil(expected - 1e-9))


@pytest.mark.parametrize(
    "history",
    [
        [(2, 1.0)],
        [(2, 1.0), (4, 1.0)],
        [(2, 0.1), (4, 0.2)],
        [(2, 1.0), (4, 0.5), (6, math.inf)],  # of late there are fewer pairs than asked for
        [(2, math.inf), (4, math.inf)],
    ],
)
def test_no_steps_are_foretold_without_a_decay(history: list[tuple[int, float]]) -> None:
    assert steps_left(history, 0.05) is None


def test_old_residuals_do_not_count() -> None:
    slow = [(2 * i, 1.0) for i in range(20)]
    fast = [(40 + 2 * i, 10.0**-i) for i in range(6)]
    assert steps_left(slow + fast, 1e-7) == 4


def test_state_in_words() -> None:
    state = IterationState(40, 152, 3, 1, 0.1834, 0.05, 22)
    assert str(state) == "1 of 3 pair(s), largest residual 0.18 (tolerance 0.05), about 22 to go, at most 152"
    assert str(IterationState(4, 152, 3, 0, math.inf, 0.05)) == (
        "0 of 3 pair(s), largest residual not known yet (tolerance 0.05), at most 152"
    )
