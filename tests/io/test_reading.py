"""What was decided in reading an input: as the opened source states it, and as the sidecar does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_ifim.io import InputIdentity, ModelIdentity, OpenedSource, Source
from monai_ifim.io.reading import Reading
from monai_ifim.io.sidecar import CaseFacts, compose_sidecar
from tests.synthetic_series import ORIENTATIONS, Series, write

MODEL = ModelIdentity("tiny", "1", "a" * 64, "b" * 64, ("0", "1"))


def sidecar_of(reading: Reading) -> dict[str, object]:
    facts = CaseFacts(InputIdentity("scan", None, (3, 3, 3), [], None, reading=reading), MODEL, "network", {})
    return compose_sidecar("scan", facts, [])


def test_largest_distance_of_a_slice_from_the_even_grid_is_stated(tmp_path: Path) -> None:
    slices = Series(ORIENTATIONS["oblique"], slices=6).slices()
    slices[2].ImagePositionPatient = [*(np.array(slices[2].ImagePositionPatient, float) + [0.012, 0.0, 0.016])]
    reading = OpenedSource(Source(write(tmp_path / "series", slices))).reading
    assert reading.largest_distance_mm == pytest.approx(0.02, abs=2e-4)  # positions are written with few decimals
    assert sidecar_of(reading)["input"]["reading"] == {  # type: ignore[index]
        "largest_distance_mm": reading.largest_distance_mm,
        "slice_step": "positions",
        "pixel_spacing": "Pixel Spacing",
        "values": "stored values with rescale",
    }


def test_entries_that_do_not_apply_are_absent(tmp_path: Path) -> None:
    (tmp_path / "photograph.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    reading = OpenedSource(Source(tmp_path / "photograph.png")).reading
    content = sidecar_of(reading)
    assert content["input"]["reading"] == {}  # type: ignore[index]
    assert content["warnings"] == []
