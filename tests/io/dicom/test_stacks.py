"""Stacks along one line, which no even grid holds together, are volumes of their own; a Stack ID divides nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from monai_ifim.io.dicom.planes import Plane, planes_of
from monai_ifim.io.dicom.stacks import stacks_of
from monai_ifim.io.opened_source import OpenedSource
from monai_ifim.io.source import Source
from synthetic_series import GAP, ORIENTATIONS, Series, write

LUMBAR, NECK = [0.0, 3.0, 6.0], [50.0, 53.0, 56.0]


def planes(heights: Sequence[float], stacks: Sequence[str | None]) -> list[Plane]:
    found = []
    for height, stack in zip(heights, stacks, strict=True):
        header = Dataset()
        header.ImagePositionPatient, header.ImageOrientationPatient = [1, 2, height], [1, 0, 0, 0, 1, 0]
        if stack is not None:
            header.StackID = stack
        found += planes_of(Path(f"{height}"), header)
    return found


@pytest.mark.parametrize(
    ("heights", "stacks", "sizes"),
    [
        (LUMBAR + NECK, ["1"] * 3 + ["2"] * 3, [3, 3]),
        (NECK + LUMBAR, ["2", "1", "2", "1", "2", "1"], [3, 3]),  # the header decides, not the places
        (LUMBAR + NECK + LUMBAR, ["1"] * 3 + ["2"] * 3 + ["1"] * 3, [6, 3]),  # two times of one
        (LUMBAR + [9.0, 12.0], ["1"] * 3 + ["2"] * 2, [5]),  # they go on evenly: one volume
        (LUMBAR + [9.09, 12.0], ["1"] * 3 + ["2"] * 2, [5]),
        (LUMBAR + [9.11, 12.0], ["1"] * 3 + ["2"] * 2, [3, 2]),
        (LUMBAR + NECK, list("123456"), [6]),  # one for each slice
        (LUMBAR + NECK, ["1"] * 6, [6]),
        (LUMBAR + NECK, ["1"] * 3 + [None] * 3, [6]),
        (LUMBAR + LUMBAR, ["1"] * 3 + ["2"] * 3, [6]),  # at the same places: `separation` tells them apart
    ],
)
def test_stacks_are_divided_only_where_no_even_grid_holds_them(heights: list[float], stacks: list[str], sizes: list[int]) -> None:
    assert [len(part) for part in stacks_of(planes(heights, stacks))] == sizes


def test_each_stack_of_a_series_is_read_at_its_own_place(tmp_path: Path) -> None:
    series = Series(ORIENTATIONS["oblique"])
    series.places[3:] += 40.0
    slices = series.slices()
    for number, image in enumerate(slices):
        image.StackID = f"{1 + number // 3}"
    folder = write(tmp_path / "spine", slices)
    for frame in (0, 1):
        opened = OpenedSource(Source(folder, frame=frame))
        opened.check(channels=1)
        assert opened.volume.positions is not None
        np.testing.assert_allclose(
            opened.volume.positions[0], series.origin + (0, 3 * GAP + 40.0)[frame] * series.axes[:, 2], atol=1e-3
        )
        assert opened.reading.volumes == 2
