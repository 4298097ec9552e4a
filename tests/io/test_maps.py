"""What a case consists of: names of files and of people's lists, and refusals."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from monai_ifim.io.case_maps import CaseMaps
from monai_ifim.io.maps import MapContent
from monai_ifim.options import CONTENTS


def test_contents_have_names_for_files_and_for_people() -> None:
    assert (MapContent("high").stem, MapContent("high").label) == ("high", "high")
    content = MapContent("eigenvector", 2, 3)
    assert (content.stem, content.label) == ("eigenvector-02_channel-03", "eigenvector 2, channel 3")
    assert (content.whole, content.saved_as) == (MapContent("eigenvector", 2), "eigenvectors")
    assert MapContent.of(asdict(content)) == content


@pytest.mark.parametrize(
    "stated",
    [
        ("halo", None, 1), ("eigenvector", None, 1), ("high", 1, 1), ("eigenvector", 0, 1), ("high", None, 0),
        ("eigenvector", 1.0, 1), ("eigenvector", True, 1), ("high", None, "1"), (["high"], None, 1),
    ],
)  # fmt: skip
def test_other_contents_are_refused(stated: tuple[Any, ...]) -> None:
    with pytest.raises((ValueError, TypeError)):
        MapContent(*stated)


def test_each_content_leads_to_its_own_values() -> None:
    numbers = itertools.count()
    arrays = [np.array([[next(numbers)], [next(numbers)]], float) for _ in range(4)]
    vectors = np.array([[[next(numbers)], [next(numbers)]] for _ in range(3)], float)
    maps = CaseMaps(np.eye(4), *arrays, vectors, sensitivity_scale=0.5)
    contents = list(maps.contents(CONTENTS))
    assert [float(maps.values(each)[0]) for each in contents] == list(range(14))
    assert [each.label for each in contents[-2:]] == ["eigenvector 3", "eigenvector 3, channel 2"]
    assert [maps.scale(each) for each in contents] == [1.0] * 6 + [0.5] * 2 + [1.0] * 6
    assert [each.label for each in maps.contents(["low"])] == ["input", "input, channel 2", "low", "low, channel 2"]
