"""Any network class as an architecture: what the task fixes is filled in, and what is no classifier is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.classifiers.architectures import build_network
from monai_ifim.evaluation.classifiers.models import TrainedModel
from monai_ifim.evaluation.classifiers.recipes import NetworkRecipe
from monai_ifim.evaluation.classifiers.tasks import LumpyTask
from monai_ifim.evaluation.classifiers.training import TrainingSettings, train_network
from monai_ifim.evaluation.experiment import load_experiment
from monai_ifim.evaluation.lumpy.images import LumpyParameters

NETS = "monai.networks.nets"
SMALL_DENSE = {"_target_": f"{NETS}.DenseNet121", "init_features": 8, "growth_rate": 4, "block_config": [1, 1]}
VIT = {"_target_": "ViT", "patch_size": 8, "hidden_size": 12, "mlp_dim": 8, "num_layers": 1, "num_heads": 2}
CLASSIFIER = {"_target_": "Classifier", "channels": [4, 8], "strides": [2, 2]}
TASK = LumpyTask("bright", "Bright", LumpyParameters(shape=(12, 14), margin=4), training_images=8, test_images=6, seed=1)


def logits_of(network: Any, shape: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        output = network(torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)))
    found: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return found


@pytest.mark.parametrize(
    "config",
    [
        SMALL_DENSE,
        CLASSIFIER,
        {"_target_": f"{NETS}.ResNet", "block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 4, 4, 4]},
        {"_target_": f"{NETS}.SEResNet50", "layers": [1, 1, 1, 1]},  # its own parameters are **kwargs
        {"_target_": f"{NETS}.EfficientNetBN", "model_name": "efficientnet-b0"},
        {**VIT, "classification": True},
    ],
    ids=lambda config: config["_target_"].rpartition(".")[2],
)
@pytest.mark.parametrize("shape", [(2, 32, 40), (1, 32, 40, 32)], ids=["2d", "3d"])
def test_axes_channels_classes_and_sizes_are_filled_in(config: dict[str, Any], shape: tuple[int, ...]) -> None:
    recipe = NetworkRecipe.of(config)
    network = build_network(recipe, shape[1:], shape[0], 3, seed=5)
    assert not network.training
    assert type(network).__name__ == recipe.name
    assert logits_of(network, shape).shape == (2, 3)
    again, other = (build_network(recipe, shape[1:], shape[0], 3, seed=seed) for seed in (5, 6))
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_options_go_before_what_is_filled_in() -> None:
    recipe = NetworkRecipe(f"{NETS}.DenseNet121", {"block_config": [1], "out_channels": 5, "init_features": 6})
    with pytest.raises(IFIMError, match=r"gives \(2, 5\) for two images, where logits \(2, 3\) are needed"):
        recipe.build((32, 32), 1, 3)
    assert recipe.build((32, 32), 1, 5).features.conv0.out_channels == 6


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_target_": f"{NETS}.NoSuchNet"}, "not a class that can be found: give a name such as monai.networks.nets.DenseNet121"),
        ({"init_features": 8}, "give the class as _target_"),
        ({**SMALL_DENSE, "_mode_": "callable"}, "no other special key"),
        ({**SMALL_DENSE, "pretrained": True}, "leave pretrained out"),
    ],
)
def test_recipes_that_name_no_untrained_class_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(IFIMError, match=message):
        TrainedModel(config, epochs=1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_target_": f"{NETS}.resnet18"}, "no parameter for the number of classes"),
        ({"_target_": f"{NETS}.UNet", "channels": [4, 8], "strides": [2]}, "where logits .* are needed: choose a classifier"),
        (VIT, "ViT: classification"),
        ({**VIT, "num_heads": 5, "classification": True}, r"cannot be built for images \[1, 32, 40\].*correct options"),
        ({**SMALL_DENSE, "growth": 3}, "cannot be built.*growth"),
    ],
)  # fmt: skip
def test_networks_that_do_not_classify_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(IFIMError, match=message):
        build_network(NetworkRecipe.of(config), (32, 40), 1, 3, seed=0)


class Pooled(nn.Module):
    """A network of one's own."""

    def __init__(self, in_channels: int, num_classes: int, gain: float = 1.0) -> None:
        super().__init__()
        self.layer, self.gain = nn.Linear(in_channels, num_classes), gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.gain * x.flatten(2).mean(2))  # type: ignore[no-any-return]


def test_weights_are_kept_apart_by_the_options(tmp_path: Path) -> None:
    for gain in (1.0, 2.0, 1.0):  # the same number of parameters
        recipe = NetworkRecipe(f"{Pooled.__module__}.Pooled", {"gain": gain})
        train_network(TASK, recipe, TrainingSettings(1, 4), 0, tmp_path, lambda done, total: None)
    assert len(list(tmp_path.glob("bright-Pooled-0-*.pt"))) == 2


EXPERIMENT = """
growth: 4
tasks:
- {_target_: monai_ifim.evaluation.LumpyTask, name: bright, title: Bright, training_images: 8, test_images: 6, seed: 1,
   parameters: {shape: [12, 14], margin: 4}}
models:
- _target_: monai_ifim.evaluation.TrainedModel
  architecture: {_target_: monai.networks.nets.DenseNet121, init_features: 8, growth_rate: '@growth', block_config: [1, 1]}
  epochs: 1
- _target_: monai_ifim.evaluation.TrainedModel
  architecture: {_target_: Classifier, channels: [4, 8], strides: [2, 2]}
  name: plain
  epochs: 1
- _target_: monai_ifim.evaluation.TrainedModel
  architecture: ResNet18
  epochs: 1
"""


def test_an_experiment_names_classes_by_their_target(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(EXPERIMENT)
    experiment = load_experiment(tmp_path / "own.yaml", {"growth": 6, "models#1#architecture#channels": [3, 5]})
    assert [model.name for model in experiment.models] == ["DenseNet121", "plain", "ResNet18"]
    dense, plain, _ = experiment.models
    assert dense.architecture.options == {"init_features": 8, "growth_rate": 6, "block_config": [1, 1]}
    assert dense.describe()["architecture"] == {
        "target": "monai.networks.nets.DenseNet121",
        "options": dense.architecture.options,
    }
    found = plain.classifier(TASK, tmp_path, lambda done, total: None)
    assert type(found.network).__name__ == type(found.twin).__name__ == "Classifier"
    assert logits_of(found.network, (1, 12, 14)).shape == (2, 2)
    assert not torch.equal(next(found.network.parameters()), next(found.twin.parameters()))
