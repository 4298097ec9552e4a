"""What a bundle was made for, from its metadata, and what lies far from that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from monai_ifim.display.numbers import FIRM_SPACE
from monai_ifim.io.intended_use import IntendedUse, SeenImage, far_sentence


def made_for(**image: Any) -> IntendedUse:
    return IntendedUse.of({"intended_use": "a toy\n for tests"}, image)


def far(use: IntendedUse, **seen: Any) -> list[str]:
    return [text.replace(FIRM_SPACE, " ") for text in use.departures(SeenImage(**seen))]


@pytest.mark.parametrize(
    ("stated", "seen", "is_far"),
    [
        ("simulated", "CT", True), ("CT", "CT", False), ("ct", "CT", False), ("CT", "MR", True), ("MRI", "MR", False),
        ("X-ray", "DX", False), ("x-ray", "CT", True), ("any", "CT", False), ("", "CT", False),
        (None, "CT", False), ("CT", "", False),
    ],
)  # fmt: skip
def test_modality(stated: str | None, seen: str, is_far: bool) -> None:
    expected = [f"the modality is {seen}, made for {stated}"] if is_far else []
    assert far(made_for(modality=stated), modality=seen) == expected


@pytest.mark.parametrize(
    ("seen", "is_far"),
    [((0.8, 0.8, 5.0), False), ((5.0, 0.8, 0.8), False), ((2.1, 0.8, 5.0), True), ((0.39, 0.8, 5.0), True), ((0.8, 0.8), False)],
)  # fmt: skip
def test_spacing_within_a_factor_of_two_in_any_order_of_the_axes(seen: tuple[float, ...], is_far: bool) -> None:
    found = far(made_for(spacing=[0.8, 0.8, 5]), spacing=seen)
    assert bool(found) is is_far
    if is_far:
        assert found[0].endswith("mm, made for 0.800 × 0.800 × 5.00 mm")


def test_values_beyond_the_stated_range() -> None:
    use, values = made_for(value_range=[0, 1]), np.linspace(0, 1, 1000)
    assert far(use, values=values) == []
    assert far(use, values=1.09 * values) == []
    assert far(use, values=np.concatenate([values, np.full(9, 40.0)])) == []
    beyond = far(use, values=np.concatenate([values, np.full(1000, -40.0)]))
    assert beyond == ["50.0 % of the values that the network sees lie outside of it, made for values from 0 to 1.00"]
    narrow = far(use, values=values / 200)
    assert narrow == [
        "nearly all values that the network sees lie between 5.00e−5 and 0.00495, made for values from 0 to 1.00"
    ]  # fmt: skip
    assert far(use, values=np.zeros(100)) == []  # a constant image has its own words


@pytest.mark.parametrize(
    "stated",
    [{}, {"value_range": []}, {"value_range": [1, 0]}, {"value_range": ["0", "1"]}, {"spacing": "1 mm", "modality": 7},
     {"spacing": [float("nan")] * 3}, {"value_range": [True, 2]}],
)  # fmt: skip
def test_what_is_not_stated_in_this_form_says_nothing(stated: dict[str, Any]) -> None:
    assert far(made_for(**stated), modality="CT", spacing=(9.0, 9.0, 9.0), values=np.full(9, 1e9)) == []


def test_one_sentence_for_all() -> None:
    assert made_for().text == "a toy for tests"
    assert IntendedUse.of({"intended_use": ["x"]}, {}).text is None
    assert far_sentence(()) == ""
    assert far_sentence(("a", "b")) == "Far from what the bundle was made for: a; b."
