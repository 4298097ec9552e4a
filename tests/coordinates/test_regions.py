"""Regions on the image's grid and on another, directions, and families by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from monai_ifim.coordinates import Acquisition, Directions, Place, Placement, Regions
from monai_ifim.coordinates.choice import families_of, named_families
from monai_ifim.core import IFIMError

FINE = np.diag([-1.0, -1.0, 2.0, 1.0])


def labels() -> torch.Tensor:
    values = torch.zeros(6, 5, 4)
    values[1:3, 1:4] = 2
    values[4, 2:, 1:] = 7
    return values


def test_a_region_is_offset_alone_and_elsewhere_is_all_the_rest() -> None:
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    family = Regions(labels(), {2: "liver"}).bound(x, Place(modality="CT", raw=True))
    assert (family.names, family.units) == (("liver", "label 7", "elsewhere"), ("HU",) * 3)
    tangents = family.tangents(x, 0, 3)
    for i, number in enumerate((2, 7, 0)):
        assert torch.equal(tangents[i], (labels() == number).expand(2, -1, -1, -1).double())
    assert torch.equal(tangents.sum(0), torch.ones_like(x))
    moved = family.moved(x, [1.0, 0.0, -2.0])
    torch.testing.assert_close(moved, x + tangents[0] - 2 * tangents[2])
    assert Regions(labels()).bound(x, Place()).units == ("unit of the image",) * 3


def test_a_map_on_another_grid_is_carried_by_the_nearest_voxel() -> None:
    coarse = np.diag([-2.0, -2.0, 4.0, 1.0])
    coarse[:3, 3] = (-0.5, -0.5, 1.0)  # each coarse voxel covers 2 x 2 x 2 fine ones
    x = torch.zeros(1, 12, 10, 8)
    family = Regions(labels(), affine=coarse).bound(x, Place(torch.from_numpy(FINE)))
    expected = labels().repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(family.tangents(x, 0, 1)[0, 0], (expected == 2).float())
    same = Regions(labels(), affine=FINE).bound(x[:, :6, :5, :4], Place(torch.from_numpy(FINE)))
    assert torch.equal(same.tangents(x[:, :6, :5, :4], 0, 1)[0, 0], (labels() == 2).float())
    turned = FINE @ np.diag([-1.0, 1.0, 1.0, 1.0])
    turned[0, 3] = -5.0  # runs the other way over the same place
    flipped = Regions(labels(), affine=turned).bound(x[:, :6, :5, :4], Place(torch.from_numpy(FINE)))
    assert torch.equal(flipped.tangents(x[:, :6, :5, :4], 0, 1)[0, 0], (labels().flip(0) == 2).float())


@pytest.mark.parametrize(
    ("values", "affine", "message"),
    [
        (torch.zeros(3, 3), None, "has 0 labels above 0: give one with 1 to 256"),
        (torch.arange(300).reshape(30, 10), None, "has 299 labels"),
        (torch.full((3, 3), 0.4), None, "give a map of labels, not of probabilities"),
        (torch.tensor([[1, -1]]), None, "no whole numbers from 0"),
        (torch.ones(2, 3, 4, 5), None, r"\[H, W\] or \[H, W, D\]"),
        (torch.ones(3, 3), np.zeros((4, 4)), "no invertible matrix"),
    ],
)
def test_maps_that_are_no_label_maps_are_refused(values: torch.Tensor, affine: Any, message: str) -> None:
    with pytest.raises(IFIMError, match=message):
        Regions(values, affine=affine)


def test_a_map_on_an_unknown_grid_is_refused_and_affines_cure_it() -> None:
    x = torch.zeros(1, 12, 10, 8)
    with pytest.raises(IFIMError, match="affine of one of them is not known"):
        Regions(labels(), affine=FINE).bound(x, Place())
    Regions(labels(), affine=FINE).bound(x, Place(torch.from_numpy(FINE)))
    far = FINE.copy()
    far[:3, 3] = 1000.0
    with pytest.raises(IFIMError, match="no region inside of this image"):
        Regions(labels(), affine=far).bound(x, Place(torch.from_numpy(FINE)))


def test_directions_are_the_images_themselves() -> None:
    own = torch.randn(3, 1, 4, 5)
    x = torch.randn(1, 4, 5)
    family = Directions(own, ["a", "b", "dose"], ["1", "1", "%"]).bound(x, Place())
    assert torch.equal(family.tangents(x, 1, 3), own[1:])
    torch.testing.assert_close(family.moved(x, [1.0, 0.0, -0.5]), x + own[0] - 0.5 * own[2])
    with pytest.raises(IFIMError, match=r"images \(1, 4, 5\) and the image is \(1, 5, 4\)"):
        family.bound(torch.zeros(1, 5, 4), Place())
    with pytest.raises(IFIMError, match="m names and m units"):
        Directions(own, ["a"], ["1"])
    with pytest.raises(IFIMError, match="NaN"):
        Directions(own * torch.nan, list("abc"), list("abc"))


def test_families_have_names_and_are_made_again_from_their_descriptions() -> None:
    named = named_families(" placement, acquisition=ct ,")
    assert [type(each) for each in named] == [Placement, Acquisition]
    regions = Regions(labels(), {2: "liver"}, FINE)
    every = (*named, Acquisition(affine=FINE), Placement(FINE), regions)
    described = [each.describe() for each in every]
    assert [each.describe() for each in families_of(described, regions)] == described
    assert named_families(None) == named_families("") == ()
    with pytest.raises(IFIMError, match="unknown coordinates 'dose': choose from placement, acquisition"):
        named_families("dose")
    with pytest.raises(IFIMError, match="unknown coordinates 'acquisition=xray'"):
        named_families("acquisition=xray")
    with pytest.raises(IFIMError, match="give the map again"):
        families_of(described)
    own = Directions(torch.ones(1, 1, 3, 3), ["a"], ["b"]).describe()
    with pytest.raises(IFIMError, match="'directions' were images or code"):
        families_of([own])
    assert Regions(labels(), {2: "liver"}).describe() != Regions(labels().flip(0), {2: "liver"}).describe()
