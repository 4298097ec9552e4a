"""The profile of a run: the seconds of its stages and the shares that these are of its time."""

from __future__ import annotations

import pytest

from monai_ifim.run.stage_seconds import StageSeconds, profile_of, with_page


def test_seconds_are_added_up_and_shares_are_of_the_time_that_all_processes_had() -> None:
    profile = profile_of([StageSeconds(1.0, 4.0, 2.0), StageSeconds(reading=0.5), StageSeconds(0.5, 2.0, 1.0)], 6.0, processes=2)
    assert profile["processes"] == 2
    assert profile["seconds"] == {"reading": 2.0, "computing": 6.0, "writing": 3.0}
    assert profile["shares"] == pytest.approx({"reading": 2 / 12, "computing": 0.5, "writing": 0.25})


def test_the_page_is_made_by_one_process_after_the_run() -> None:
    profile = with_page(profile_of([StageSeconds(1.0, 4.0, 2.0)], 5.0, processes=2), 1.5, 5.0)
    assert profile["seconds"]["page"] == 1.5
    assert profile["shares"] == pytest.approx({"reading": 0.1, "computing": 0.4, "writing": 0.2, "page": 0.3})
    again = with_page(profile, 2.0, 5.0)
    assert (again["seconds"]["page"], again["shares"]["page"]) == pytest.approx((2.0, 0.4))


def test_a_run_of_no_time_has_no_shares() -> None:
    assert profile_of([], 0.0)["shares"] == {"reading": 0.0, "computing": 0.0, "writing": 0.0}
    assert StageSeconds(1.0, 2.0, 4.0).total == 7.0
