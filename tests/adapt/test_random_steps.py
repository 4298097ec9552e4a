"""Random steps: which count as random, what is left of one that is switched off, and where they are refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Flip,
    FlipD,
    Lambda,
    LoadImaged,
    MapTransform,
    NormalizeIntensity,
    OneOf,
    RandAffine,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlip,
    RandFlipd,
    RandGaussianNoise,
    RandGaussianNoised,
    Randomizable,
    RandomizableTransform,
    RandomOrder,
    RandRotate,
    RandRotate90,
    RandRotate90d,
    RandScaleCrop,
    RandSpatialCrop,
    RandSpatialCropd,
    RandSpatialCropSamples,
    RandZoom,
    ScaleIntensity,
    SomeOf,
    Transform,
)
from monai.transforms.traits import RandomizableTrait
from torch import nn

from monai_ifim import IFIMDecompose, IFIMError, IFIMHandler, IFIMInferer, SaveIFIM, SaveIFIMd
from monai_ifim.adapt.random_steps import RandomStepWarning, drawn_steps, random_parts, without_chance
from monai_ifim.io import InputError


class Shaken(RandomizableTransform):
    """Somebody's augmentation that keeps to MONAI's rules."""

    def __call__(self, img: Any) -> Any:
        self.randomize(None)
        return img + self.R.normal() if self._do_transform else img


class Deaf(RandomizableTransform):
    """One that does not ask whether it was drawn."""

    def __call__(self, img: Any) -> Any:
        return img + self.R.normal()


class Blurred(Randomizable, Transform):
    """One without a chance."""

    def __call__(self, img: Any) -> Any:
        return img * self.R.uniform(0.5, 2.0)


class Numbers(Transform, RandomizableTrait):
    """One that draws from the global states."""

    def __call__(self, img: Any) -> Any:
        return img + np.random.rand() + random.random() + torch.rand(1)


class Named(Randomizable, MapTransform):
    """A deterministic transform of a random kind."""

    def __call__(self, data: Any) -> dict[Any, Any]:
        return {**data, **{key: data[key] * 2 for key in self.keys}}


STILL = [
    RandFlip(prob=0.0),
    RandFlip(prob=1.0, spatial_axis=0),
    RandRotate90(prob=1.0, max_k=1),
    RandSpatialCrop((8, 8, 8), random_center=False, random_size=False),
    RandScaleCrop(0.5, random_center=False, random_size=False),
    OneOf([Flip(0)]),
    Compose([RandFlip(prob=0.0), Compose([ScaleIntensity()], map_items=2)]),
    Named("image"),
    Lambda(lambda image: image),
]
LEFT_OUT = {
    "RandFlip (prob 0.5)": RandFlip(prob=0.5),
    "RandRotate90 (prob 1)": RandRotate90(prob=1.0),
    "RandRotate (prob 0.1)": RandRotate(range_x=1.0),
    "RandGaussianNoised (prob 0.2)": RandGaussianNoised("image", prob=0.2),
    "RandAffine (prob 1)": RandAffine(prob=1.0, rotate_range=1.0, spatial_size=(8, 9, 10)),
    "Shaken (prob 1)": Shaken(),
    "OneOf": OneOf([RandFlip(prob=0.5), RandGaussianNoise(prob=0.5)]),
    "SomeOf": SomeOf([RandFlip(prob=0.5), Shaken()], num_transforms=1),
    "RandomOrder": RandomOrder([RandFlipd("image", prob=0.5), RandAffined("image", prob=0.5)]),
}
REFUSED = [
    RandSpatialCrop((8, 8, 8)),
    RandSpatialCropd("image", (96, 96, 96), random_size=False),
    RandSpatialCropSamples((8, 8, 8), 2),
    RandCropByPosNegLabeld(["image", "label"], "label", (8, 8, 8)),
    RandZoom(prob=0.5, min_zoom=0.5, keep_size=False),
    OneOf([ScaleIntensity(), NormalizeIntensity()]),
    Deaf(0.5),
    Blurred(),
    Numbers(),
    Lambda(RandFlip(prob=0.5)),
    Lambda(Compose([RandFlip(prob=0.5)])),
]


def name_of(value: Any) -> str:
    return type(value).__name__


@pytest.mark.parametrize("step", STILL, ids=name_of)
def test_what_gives_the_same_for_every_draw_is_not_random_and_stays(step: Any) -> None:
    assert random_parts(step) == []
    assert without_chance(step) == (step, [])


@pytest.mark.parametrize(("name", "step"), LEFT_OUT.items(), ids=LEFT_OUT.keys())
def test_an_augmentation_is_left_out_and_what_else_the_step_does_is_not(name: str, step: Any) -> None:
    quiet, names = without_chance(step)
    assert names == [name]
    assert len(random_parts(step)) == 1  # the bundle's own transform is as before
    image = MetaTensor(torch.rand(1, 7, 9, 11))
    found = (
        quiet({"image": image})["image"] if "image" in str(getattr(step, "keys", "")) or name == "RandomOrder" else quiet(image)
    )
    if isinstance(step, RandAffine):
        assert found.shape == (1, 8, 9, 10)
    else:
        assert torch.equal(found.as_tensor(), image.as_tensor())


@pytest.mark.parametrize("step", REFUSED, ids=name_of)
def test_a_step_whose_chance_decides_more_is_refused_with_the_cure(step: Any) -> None:
    with pytest.raises(InputError, match="is random and decides what the network sees .*: replace it by a deterministic"):
        without_chance(step)


def test_all_of_a_nested_compose_are_settled() -> None:
    step = Compose([Compose([RandFlip(prob=0.5), Flip(0)], map_items=2), Shaken(), RandFlip(prob=0.0)])
    quiet, names = without_chance(step)
    assert names == ["RandFlip (prob 0.5)", "Shaken (prob 1)"]
    image = MetaTensor(torch.rand(1, 7, 9, 11))
    assert torch.equal(quiet(image).as_tensor(), image.as_tensor().flip(1))


def test_trying_a_step_leaves_every_random_state_as_it_is() -> None:
    steps = [Numbers(), RandRotate90(prob=1.0), Blurred()]
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state())
    draws = [step.R.get_state()[1].tolist() for step in steps[1:]]
    for step in steps:
        assert random_parts(step) == [step]
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.random.get_rng_state(), before[2])
    assert [step.R.get_state()[1].tolist() for step in steps[1:]] == draws


@pytest.fixture
def augmented(scan: Path) -> tuple[Compose, Path]:
    """A preprocessing that was copied from a training, and a scan."""
    return Compose(
        [LoadImaged("image"), EnsureChannelFirstd("image"), RandRotate90d("image", prob=1.0, max_k=2, spatial_axes=(0, 1))]
    ), scan


def test_whatever_writes_files_or_sees_the_data_set_refuses_a_random_preprocessing(
    augmented: tuple[Compose, Path], make_network: Callable[..., nn.Module], tmp_path: Path
) -> None:
    preprocessing, scan = augmented
    refused = pytest.raises(IFIMError, match=r"RandRotate90d \(prob 1\) in the preprocessing is random, so an augmented image")
    with refused:
        SaveIFIM(tmp_path, preprocessing=preprocessing)
    with refused:
        SaveIFIMd("pred", tmp_path, preprocessing=preprocessing)
    with refused:
        IFIMHandler(output_dir=tmp_path, preprocessing=preprocessing)
    loader = DataLoader(torch.utils.data.Subset(Dataset([{"image": str(scan)}], preprocessing), [0]), batch_size=1)
    evaluator = SupervisedEvaluator(torch.device("cpu"), loader, make_network(), val_handlers=[IFIMHandler()])
    with pytest.raises(IFIMError, match=r"RandRotate90d .*--preprocessing#transforms#N#prob 0"):
        evaluator.run()
    preprocessing.transforms[2].prob = 0.0  # the cure
    evaluator = SupervisedEvaluator(torch.device("cpu"), loader, make_network(), val_handlers=[IFIMHandler()])
    evaluator.run()
    assert evaluator.state.output[0]["ifim_rank"] > 0
    SaveIFIM(tmp_path, preprocessing=preprocessing)


def test_an_augmented_image_is_recognised_by_its_trace(
    augmented: tuple[Compose, Path], make_network: Callable[..., nn.Module], tmp_path: Path
) -> None:
    preprocessing, scan = augmented
    image = preprocessing({"image": str(scan)})["image"]
    assert drawn_steps(image) == ["RandRotate90d"]
    with pytest.warns(RandomStepWarning, match="RandRotate90d changed the image at random"):
        components = IFIMDecompose(make_network())(image)
    with pytest.raises(InputError, match="RandRotate90d changed the image at random"):
        SaveIFIM(tmp_path, space="network")(image, components)
    batch = next(iter(DataLoader(Dataset([{"image": str(scan)}], preprocessing), batch_size=1)))["image"]
    with pytest.warns(RandomStepWarning, match="RandRotate90d"):
        IFIMInferer()(batch, make_network())
    preprocessing.transforms[2].prob = 0.0
    assert drawn_steps(preprocessing({"image": str(scan)})["image"]) == []


def test_a_plain_engine_without_a_data_set_is_left_alone(make_network: Callable[..., nn.Module]) -> None:
    network = make_network()
    engine = Engine(lambda engine, batch: {"pred": network(batch)})
    IFIMHandler(network=network, batch_transform=lambda batch: batch).attach(engine)
    engine.run([torch.rand(1, 1, 9, 8, 7)])
    assert int(engine.state.output["ifim_rank"]) > 0


def test_flips_of_arrays_and_dictionaries_are_told_alike() -> None:
    assert random_parts(Compose([FlipD("image", 0), RandFlipd("image", prob=0.3)]))[0].prob == 0.3
