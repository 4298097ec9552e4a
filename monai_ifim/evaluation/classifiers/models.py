"""The classifiers of an experiment: trained by it, or taken from a bundle."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.classifiers.architectures import Architecture, architecture_name, build_network, known_architecture
from monai_ifim.evaluation.classifiers.tasks import Task
from monai_ifim.evaluation.classifiers.training import Progress, TrainingSettings, train_network

__all__ = ["EvaluatedClassifier", "Model", "TrainedModel"]

TWIN_SEED = 987654321  # of the randomly initialised twin's weights: no training starts from it


@dataclass(frozen=True, eq=False)
class EvaluatedClassifier:
    """The network to evaluate, and the networks it is compared with.

    network: trained, in eval mode. twin: the same architecture with random weights. siblings: trained from other seeds.
    head: as `decompose` takes it. record: accuracy, macro_auroc, seeds and the like as plain data.
    """

    network: nn.Module
    twin: nn.Module
    siblings: tuple[nn.Module, ...]
    head: str
    record: dict[str, Any] = field(repr=False)


class Model(ABC):
    """Provides a classifier for a task. name: in tables, in letters, digits, - and _."""

    name: str

    @abstractmethod
    def classifier(self, task: Task, cache: Path, progress: Progress) -> EvaluatedClassifier:
        """The classifier of a task; may train for long, calling progress(done, total), and keep weights in `cache`."""

    def describe(self) -> dict[str, Any]:
        """How it is made, as plain data for the record, without paths of folders."""
        return {"architecture": self.name}


@dataclass(frozen=True)
class TrainedModel(Model):
    """An architecture, trained for each task from fixed seeds.

    architecture: a key of ARCHITECTURES, or any network class as {"_target_": name, option: value, ...}.
    seeds: of the trainings; the first one is evaluated, the others measure how far components agree between trainings.
    epochs, batch_size, seeds: by the task's name, or one for all. name: in tables, by default that of the architecture.
    Raises IFIMError for an unknown architecture, without a seed, and where a task has no entry.
    """

    architecture: Architecture | Mapping[str, Any]
    epochs: int | Mapping[str, int]
    seeds: Sequence[int] | Mapping[str, Sequence[int]] = (0,)
    learning_rate: float = 2e-3
    batch_size: int | Mapping[str, int] = 32
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    name: str = ""

    def __post_init__(self) -> None:
        architecture = known_architecture(self.architecture)
        object.__setattr__(self, "architecture", architecture)
        object.__setattr__(self, "name", self.name or architecture_name(architecture))
        if not self.seeds or (isinstance(self.seeds, Mapping) and not all(self.seeds.values())):
            raise IFIMError(f"{self.name}: give at least one seed.")

    def classifier(self, task: Task, cache: Path, progress: Progress) -> EvaluatedClassifier:
        """See `Model`."""
        settings, architecture = self._settings(task), known_architecture(self.architecture)
        seeds = self._of_task(task, "seeds")
        trained = [train_network(task, architecture, settings, seed, cache, progress) for seed in seeds]
        shape = tuple(task.testing()[0].image.shape)
        twin = build_network(architecture, shape[1:], shape[0], len(task.class_names), TWIN_SEED)
        networks = [network for network, _ in trained]
        return EvaluatedClassifier(networks[0], twin, tuple(networks[1:]), "categorical", trained[0][1])

    def describe(self) -> dict[str, Any]:
        """See `Model`."""
        return asdict(self)

    def _settings(self, task: Task) -> TrainingSettings:
        epochs, batch_size = (int(self._of_task(task, name)) for name in ("epochs", "batch_size"))
        return TrainingSettings(epochs, batch_size, self.learning_rate, self.weight_decay, self.label_smoothing)

    def _of_task(self, task: Task, name: str) -> Any:
        value = getattr(self, name)
        chosen = value.get(task.name) if isinstance(value, Mapping) else value
        if chosen is None:
            raise IFIMError(f"{self.name}: no {name} for task {task.name!r}.")
        return chosen


def randomised(network: nn.Module, seed: int) -> nn.Module:
    """A deep copy whose weights are drawn again by each layer's own initialisation (Adebayo et al. 2018).

    Parameters of layers without `reset_parameters` are permuted.
    """
    twin = copy.deepcopy(network)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in twin.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for parameter in module.parameters(recurse=False):
                order = torch.randperm(parameter.numel())
                parameter.copy_(parameter.flatten()[order.to(parameter.device)].reshape(parameter.shape))
    return twin.eval()
