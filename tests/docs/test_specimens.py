"""Images and bundles that the pictures of the page show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from docs.figures.catalogue import FIGURES, GROUPS, ROOT
from docs.figures.kinds import SHOTS
from docs.figures.specimens import SEEN, drawn_chest, write_cropping_bundle

LARGEST = 200_000  # bytes of a picture of a page


def test_the_drawn_chest_has_two_dark_lungs_a_bright_middle_and_ribs() -> None:
    chest = drawn_chest().astype(float)
    assert chest.shape == (256, 256)
    assert (chest.min(), chest.max()) == (0, 255)
    rows = chest[100:140]
    left, middle, right = rows[:, 60:90].mean(), rows[:, 120:136].mean(), rows[:, 166:196].mean()
    assert max(left, right) < 40 < 120 < middle
    assert chest[160:200, 140:180].mean() > chest[160:200, 76:116].mean()  # the heart is at the picture's right
    assert np.array_equal(drawn_chest(), drawn_chest())


def test_a_cropping_bundle_crops_before_it_resizes(tmp_path: Path) -> None:
    source = ROOT / "bundles" / "mednist_classification"
    made = write_cropping_bundle(source, tmp_path / "bundle")
    config = "configs/inference.yaml"
    before, after = (yaml.safe_load((root / config).read_text("utf-8"))["preprocessing"]["transforms"] for root in (source, made))
    (step,) = [each for each in after if each not in before]
    assert step == {"_target_": "CenterSpatialCropd", "keys": "image", "roi_size": SEEN}
    assert after[after.index(step) + 1]["_target_"] == "Resized"
    with pytest.raises(ValueError, match="has 0 steps that resize"):
        write_cropping_bundle(ROOT / "bundles" / "lumpy_segmentation_3d", tmp_path / "other")


def test_pictures_of_pages_are_all_drawn_and_small() -> None:
    assert sorted(SHOTS) == sorted(GROUPS["kinds"].files)
    assert {name: size for name in SHOTS if (size := (FIGURES / name).stat().st_size) > LARGEST} == {}
