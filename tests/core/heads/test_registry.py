"""Every named head is found by its name, describes itself and is made again."""

from __future__ import annotations

import pytest
import torch

from monai_ifim.core.heads import Head
from monai_ifim.core.heads.registry import check_head, head_class, head_from
from monai_ifim.options import HEAD_NAMES, HEADS

ANSWERS = {
    "categorical": ("class", "probability"),
    "bernoulli": ("label", "probability"),
    "gaussian": ("output", "mean"),
    "probabilities": ("class", "probability"),
    "bernoulli_probabilities": ("label", "probability"),
    "volumes": ("output", "mean"),
    "volumes_bernoulli": ("output", "mean"),
    "voxelwise": ("class", "mean_probability"),
    "voxelwise_bernoulli": ("label", "mean_probability"),
}


def test_every_head_has_a_row_here() -> None:
    assert set(ANSWERS) == set(HEADS)
    assert ("auto", *HEADS) == HEAD_NAMES


@pytest.mark.parametrize("name", HEADS)
def test_a_named_head_goes_by_that_name_and_is_made_again(name: str) -> None:
    kind = head_class(name)
    assert (kind.name, kind.answers, kind.values) == (name, *ANSWERS[name])
    assert kind.spatial is name.startswith(("voxelwise", "volumes"))
    assert kind.columns_at_every_voxel is name.startswith("voxelwise")
    description = kind().describe()
    assert description["name"] == name
    assert "class" not in description
    again = head_from(description)
    assert isinstance(again, kind)
    assert head_from(name) == name
    check_head(name)


def test_a_subclass_of_a_named_head_is_not_taken_for_it() -> None:
    class Sharper(head_class("gaussian")):  # type: ignore[misc]
        """The same name, other numbers."""

    assert "class" in Sharper().describe()


def test_a_spatial_head_gives_means_over_voxels_unless_it_says_otherwise() -> None:
    class Counting(Head):
        name = "counting"
        spatial = True

    class Sized(Head):
        name = "sized"
        spatial = True
        values = "mean"

    assert (Counting.values, Sized.values, Head.values) == ("mean_probability", "mean", "probability")


def test_tensors_are_described_as_lists() -> None:
    head = head_class("gaussian")(torch.tensor([1.0, 2.0]))  # type: ignore[call-arg]
    assert head.describe() == {"name": "gaussian", "sigma": [1.0, 2.0], "covariance": None}
