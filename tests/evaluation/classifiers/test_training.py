"""Training: the same seed gives the same weights, and an interruption changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.classifiers.architectures import ARCHITECTURES, build_network
from monai_ifim.evaluation.classifiers.models import TrainedModel, randomised
from monai_ifim.evaluation.classifiers.tasks import LumpyTask
from monai_ifim.evaluation.classifiers.training import TrainingSettings, classification_performance, macro_auroc, train_network
from monai_ifim.evaluation.lumpy.images import LumpyParameters

TASK = LumpyTask(
    name="bright",
    title="Bright lesions",
    parameters=LumpyParameters(shape=(32, 40), lesion_amplitude=6.0, margin=6, place=(16, 20)),
    training_images=64,
    test_images=40,
    seed=1,
)
SETTINGS = TrainingSettings(epochs=3, batch_size=16, learning_rate=2e-3)


class PowerCutError(Exception):
    """Stands for a power cut."""


def test_an_interrupted_training_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    def cut(done: int, total: int) -> None:
        if done == 2:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        train_network(TASK, "ViT", SETTINGS, 0, tmp_path / "cut", cut)
    epochs: list[int] = []
    resumed, _ = train_network(TASK, "ViT", SETTINGS, 0, tmp_path / "cut", lambda done, total: epochs.append(done))
    assert epochs == [2, 3]
    torch.rand(7)  # what the caller drew in between has no part in it
    whole, record = train_network(TASK, "ViT", SETTINGS, 0, tmp_path / "whole", lambda done, total: None)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    kept, kept_record = train_network(TASK, "ViT", SETTINGS, 0, tmp_path / "whole", lambda done, total: pytest.fail("trained"))
    assert kept_record == record
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), whole.parameters(), strict=True))
    assert record["accuracy"] == classification_performance(whole, TASK.testing(), 7)["accuracy"]


def test_other_settings_or_seeds_are_other_weights(tmp_path: Path) -> None:
    for settings, seed in ((TrainingSettings(1), 0), (TrainingSettings(1), 1), (TrainingSettings(1, learning_rate=1e-4), 0)):
        train_network(TASK, "ViT", settings, seed, tmp_path, lambda done, total: None)
    assert len(list(tmp_path.glob("*.pt"))) == 3
    assert not list(tmp_path.glob("*.unfinished.pt"))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(64, 48), (32, 40, 36)])
def test_architectures_take_two_and_three_axes_and_several_channels(name: str, shape: tuple[int, ...]) -> None:
    network = build_network(name, shape, channels=2, classes=3, seed=5)
    image = torch.rand(2, 2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = network(image)
    logits = output[0] if isinstance(output, tuple) else output
    assert logits.shape == (2, 3)
    state = torch.get_rng_state()
    again = build_network(name, shape, channels=2, classes=3, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_a_vision_transformer_refuses_a_shape_that_its_patches_do_not_tile() -> None:
    with pytest.raises(IFIMError, match="divisible by 8"):
        build_network("ViT", (60, 64), 1, 2, 0)
    with pytest.raises(IFIMError, match="choose among"):
        build_network("AlexNet", (64, 64), 1, 2, 0)
    with pytest.raises(IFIMError, match="no epochs for task 'bright'"):
        TrainedModel("ViT", epochs={"other": 3}).classifier(TASK, Path(), lambda done, total: None)


@pytest.mark.parametrize("name", ["DenseNet121", "ViT"])
def test_a_twin_shares_no_weight_with_the_network(name: str) -> None:
    network = build_network(name, (32, 32), 1, 2, seed=5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.37 * torch.rand_like(parameter)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    twin = randomised(network, 11)
    for (key, mine), theirs in zip(network.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, before[key])
        assert not torch.equal(mine, theirs), key
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), randomised(network, 11).parameters(), strict=True))


def test_macro_auroc_counts_won_pairs_of_each_class_against_the_rest() -> None:
    generator = torch.Generator().manual_seed(2)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 2, 1])
    scores = (torch.rand(8, 3, generator=generator, dtype=torch.float64) * 5).round().softmax(1)
    expected = []
    for c in range(3):
        pairs = [(scores[i, c], scores[j, c]) for i in range(8) for j in range(8) if labels[i] == c != labels[j]]
        expected.append(np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]))
    assert macro_auroc(labels, scores) == pytest.approx(np.mean(expected))
    assert macro_auroc(labels.clamp(max=1), scores) is None
