"""The entries that the network's input is made of, and those that need not be read."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from monai.apps.nuclick.transforms import AddLabelAsGuidanced
from monai.transforms import (
    Compose,
    ConcatItemsd,
    CopyItemsd,
    CropForegroundd,
    DeleteItemsd,
    EnsureChannelFirstd,
    Lambda,
    Lambdad,
    LoadImaged,
    MapTransform,
    MaskIntensityd,
    MeanEnsembled,
    NormalizeIntensityd,
    ResampleToMatchd,
    Resized,
    SelectItemsd,
    SplitDimd,
    Transform,
)

from monai_ifim.adapt.input_keys import input_keys, lenient

BOTH = ["image", "label"]


class Joined(MapTransform):
    """Somebody's transform that puts all its keys into the first."""

    def __call__(self, data: Any) -> dict[Any, Any]:
        return {**data, self.keys[0]: torch.cat([data[key] for key in self.keys])}


class Masked(MapTransform):
    """One that takes an entry which none of its arguments names."""

    def __call__(self, data: Any) -> dict[Any, Any]:
        return {**data, **{key: self.by_mask(data, data[key]) for key in self.keys}}

    def by_mask(self, data: Any, image: Any) -> Any:
        return image * data["label"]


class Whole(Transform):
    """One of whole dictionaries."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, data: Any) -> dict[Any, Any]:
        return {**data, "image": data["image"] + data[self.name]}


def with_entry(data: Any, name: str) -> Any:
    return {**data, "image": data["image"] * data[name]}


ALONE = {
    "each key for itself": [Resized(["label", "image"], (4, 4), mode=["nearest", "bilinear"]), NormalizeIntensityd(BOTH)],
    "deleted": [DeleteItemsd("label")],
    "selected": [SelectItemsd(BOTH)],
    "copied": [CopyItemsd(BOTH, names=["image_0", "label_0"])],
    "joined elsewhere": [ConcatItemsd(BOTH, name="both")],
    "cropped by the image": [CropForegroundd(BOTH, source_key="image")],
    "a function of one key": [Lambdad(BOTH, func=lambda image: image * 2)],
    "a function of the dictionary": [lambda data: {**data, "image": data["image"] * 2}],
    "somebody's transform of the label": [Joined("label")],
    "split": [SplitDimd("label")],
}
JOINED = {
    "joined": [ConcatItemsd(BOTH, name="image")],
    "joined, and passed on": [ConcatItemsd(BOTH, name="both"), DeleteItemsd("image"), CopyItemsd("both", names="image")],
    "guidance": [AddLabelAsGuidanced("image", source="label")],
    "cropped by the label": [CropForegroundd("image", source_key="label")],
    "masked": [MaskIntensityd("image", mask_key="label")],
    "resampled to it": [ResampleToMatchd("image", key_dst="label")],
    "a mean": [MeanEnsembled(BOTH, output_key="image")],
    "somebody's": [Joined(BOTH)],
    "somebody's, by a name in its code": [Masked("image")],
    "an array transform of dictionaries": [Whole("label")],
    "a function": [lambda data: {**data, "image": data["image"] + data["label"]}],
    "a function with a default": [Lambda(lambda data, name="label": with_entry(data, name))],
    "a part of a function": [functools.partial(with_entry, name="label")],
    "a function of every entry": [lambda data: {"image": sum(value for value in data.values())}],
    "in a Compose of its own": [Compose([ConcatItemsd(BOTH, name="image")], map_items=2)],
}


def steps(further: list[Any]) -> list[Any]:
    return [LoadImaged(BOTH), EnsureChannelFirstd(BOTH), *further]


@pytest.mark.parametrize("further", ALONE.values(), ids=ALONE.keys())
def test_a_label_that_the_image_does_not_depend_on_is_not_needed(further: list[Any]) -> None:
    assert input_keys(steps(further), "image").needed == {"image"}


@pytest.mark.parametrize("further", JOINED.values(), ids=JOINED.keys())
def test_a_label_that_the_image_is_made_of_is_needed(further: list[Any]) -> None:
    found = input_keys(steps(further), "image")
    assert found.needed == {"image", "label"}
    assert found.why["label"] in {type(further[0]).__name__, "ConcatItemsd"}


def test_an_entry_without_a_file_is_taken_where_a_step_names_it() -> None:
    found = input_keys(steps([lambda data: {**data, "image": data["image"] * data["dose"]}]), "image")
    assert found.needed == {"image"}
    assert "dose" in found.wanted


def test_parameters_of_each_key_stay_with_it_where_a_key_is_not_read() -> None:
    step = Resized(["label", "image"], (4, 4), mode=["nearest", "bilinear"])
    image = torch.rand(1, 7, 9)
    found = lenient(step, frozenset({"label"}))({"image": image})
    torch.testing.assert_close(found["image"], Resized("image", (4, 4), mode="bilinear")({"image": image})["image"])
    assert not step.allow_missing_keys
    assert lenient(step, frozenset({"mask"})) is step
