"""Volumes with masks against distances written out voxel by voxel, and against the volume without its lesion."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from monai_ifim.evaluation.lumpy.images import LumpyParameters, draw_volume, lesion_template
from monai_ifim.evaluation.lumpy.lesion_masks import LesionMaskDataset

SOLID = LumpyParameters(
    shape=(13, 17, 11), mean_lumps=9, lump_width=2.1, lesion_amplitude=2.5, lesion_width=2.2, margin=4, noise_sigma=0.5
)


def masks(**changes: Any) -> LesionMaskDataset:
    return LesionMaskDataset(**({"parameters": SOLID, "length": 8, "seed": 3, "least_width": 0.8} | changes))


@pytest.mark.parametrize("index", [1, 3, 5, 7])
def test_the_mask_is_the_ball_in_which_the_lesion_adds_half_of_its_amplitude(index: int) -> None:
    drawn = masks().segmented(index)
    radius = drawn.width * math.sqrt(2 * math.log(2))
    inside = np.zeros(SOLID.shape)
    for voxel in np.ndindex(*SOLID.shape):
        inside[voxel] = math.dist(voxel, drawn.place) <= radius
    np.testing.assert_array_equal(drawn.mask.numpy(), inside)
    assert drawn.mask[drawn.place] == 1


@pytest.mark.parametrize("index", [0, 1])
def test_the_image_is_the_volume_without_a_lesion_and_at_odd_places_the_lesion(index: int) -> None:
    dataset = masks()
    drawn = dataset.segmented(index)
    generator = dataset.generator(index)
    torch.rand((), dtype=torch.float64, generator=generator)  # the width
    bare = draw_volume(SOLID, lesion=False, generator=generator)
    lesion = lesion_template(replace(SOLID, lesion_width=drawn.width), drawn.place)
    torch.testing.assert_close(drawn.image.double(), bare.image.double() + index * lesion, rtol=0, atol=1e-5)
    assert bool(drawn.mask.any()) is bool(index)


def test_widths_fill_the_range_evenly() -> None:
    widths = np.array([masks(length=150).segmented(i).width for i in range(150)])
    assert 0.8 <= widths.min() < 0.85
    assert 2.15 < widths.max() <= 2.2
    assert widths.mean() == pytest.approx(1.5, abs=3 * 1.4 / math.sqrt(12 * 150))


def test_an_item_depends_on_seed_and_index_alone() -> None:
    first, again, other = masks(), masks(length=20), masks(seed=4)
    for item, same in ((first[-1], again[7]), (first[2], first[2])):
        assert torch.equal(item["image"], same["image"])
        assert torch.equal(item["label"], same["label"])
    assert not torch.equal(first[2]["image"], other[2]["image"])
    assert (first[1]["image"].shape, first[1]["label"].dtype) == ((1, *SOLID.shape), torch.uint8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": replace(SOLID, lesion_amplitude=0.0)}, "lesion_amplitude is 0; give one above zero"),
        ({"least_width": 0.0}, "give one above 0 and up to lesion_width, 2.2"),
        ({"least_width": 2.3}, "give one above 0 and up to lesion_width, 2.2"),
        ({"least_width": math.nan}, "least_width is nan"),
        ({"length": -1}, "length is -1"),
    ],
)
def test_refuses_what_has_no_mask_and_names_the_cure(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        masks(**changes)
    assert len(masks(parameters=SOLID, least_width=2.2)) == 8


def test_an_index_beyond_the_end_is_refused() -> None:
    with pytest.raises(IndexError, match="index 8 is outside a set of 8 volumes"):
        masks().segmented(8)
