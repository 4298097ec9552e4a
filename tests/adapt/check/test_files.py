"""The time that files take, from one that is written."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from monai.data import MetaTensor

from monai_ifim.adapt.check import files
from monai_ifim.adapt.check.files import BESIDE, FileTimes, growth_to, measured_files


@pytest.mark.parametrize(("parallel", "expected"), [(False, 2 * (4 + 3) * 0.5 * 6), (True, 7 * 0.5 * 6)])
def test_every_channel_of_every_map_is_a_file(parallel: bool, expected: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two channels of four maps and three components, half a second each on the small grid, on two processors."""
    monkeypatch.setattr(files.os, "cpu_count", lambda: 2)
    assert FileTimes(0.5, 6.0, 2).of(3, parallel) == pytest.approx(BESIDE + expected)


def test_a_file_of_noise_is_timed_and_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[tuple[int, ...], int]] = []

    def write(path: object, values: object, affine: object) -> str:
        written.append((values.shape, path.parent.exists()))  # type: ignore[attr-defined]
        return ""

    monkeypatch.setattr(files, "write_volume", write)
    found = measured_files(torch.zeros(1, 2, 7, 5, 3))
    assert (found.channels, found.growth) == (2, 1.0)
    assert written == [((7, 5, 3), True)]
    measured_files(torch.zeros(1, 1, 9, 5))
    assert written[-1][0] == (9, 5)


def test_of_a_large_image_some_planes_are_written_and_the_time_is_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST_SAMPLE", 30)
    clock = iter((0.0, 2.0))
    monkeypatch.setattr(files, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(files, "write_volume", lambda path, values, affine: values.shape)
    assert measured_files(torch.zeros(1, 1, 8, 5, 3)).seconds == pytest.approx(2.0 * 8 / 2)


def test_files_lie_on_the_grid_of_the_scan() -> None:
    read = MetaTensor(torch.zeros(1, 4, 4, 4), meta={"spatial_shape": [8, 8, 16]})
    assert growth_to(read) == pytest.approx(8 * 8 * 16 / 64)
    assert growth_to(torch.zeros(1, 4, 4, 4)) == 1.0
