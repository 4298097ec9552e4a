"""Trains a classifier from a fixed seed, with a checkpoint per epoch from which an interrupted training continues."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.networks.utils import eval_mode
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.classifiers.architectures import Architecture, architecture_name, build_network
from monai_ifim.evaluation.classifiers.tasks import Sample, Task, fingerprint
from monai_ifim.io.atomic import write_bytes

__all__ = ["TrainingSettings", "classification_performance", "train_network"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TrainingSettings:
    """AdamW with a one-cycle learning rate. epochs: passes over the task's training images."""

    epochs: int
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise IFIMError(f"training of {self.epochs} epochs with batches of {self.batch_size}: give 1 and 2 or more.")


def train_network(
    task: Task, architecture: Architecture, settings: TrainingSettings, seed: int, cache: Path, progress: Progress
) -> tuple[nn.Module, dict[str, Any]]:
    """Train the network of this task, architecture, settings and seed, or read it from `cache`; returns it with its record.

    Weights and unfinished trainings are kept in `cache` under a name that changes with everything they depend on.
    progress is called with the epochs done and their total.
    """
    samples = task.testing()
    shape, classes = tuple(samples[0].image.shape), len(task.class_names)
    network = build_network(architecture, shape[1:], shape[0], classes, seed)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    identity = {
        "task": task.describe(),
        "architecture": architecture if isinstance(architecture, str) else asdict(architecture),
        "parameters": parameters,
        "training": asdict(settings),
        "seed": seed,
        "torch": torch.__version__,
    }
    stem = f"{task.name}-{architecture_name(architecture)}-{seed}-{fingerprint(identity)[:12]}"
    finished = cache / f"{stem}.pt"
    if finished.is_file():
        stored = torch.load(finished, map_location="cpu", weights_only=True)
        network.load_state_dict(stored["model"])
        return network.eval(), stored["record"]
    cache.mkdir(parents=True, exist_ok=True)
    seconds = _train(network, task, settings, seed, cache / f"{stem}.unfinished.pt", progress)
    record = {
        **classification_performance(network, samples, settings.batch_size),
        "training_seed": seed,
        "training_images": len(task.training(seed, 0, settings.epochs)),  # type: ignore[arg-type]
        "epochs": settings.epochs,
        "parameters": parameters,
        "seconds": seconds,
    }
    _save({"model": network.state_dict(), "record": record}, finished)
    (cache / f"{stem}.unfinished.pt").unlink(missing_ok=True)
    return network, record


def _train(network: nn.Module, task: Task, settings: TrainingSettings, seed: int, checkpoint: Path, progress: Progress) -> float:
    """Train in place and return the seconds it took, including those before an interruption."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    steps = len(task.training(seed, 0, settings.epochs)) // settings.batch_size * settings.epochs  # type: ignore[arg-type]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps + 1, pct_start=0.2)
    parts: dict[str, Any] = {"model": network, "optimizer": optimizer, "schedule": schedule}
    first, seconds = 0, 0.0
    if checkpoint.is_file():
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(stored[name])
        first, seconds = stored["epoch"], stored["seconds"]
    for epoch in range(first, settings.epochs):
        progress(epoch, settings.epochs)
        began = time.perf_counter()
        _run_epoch(network, task.training(seed, epoch, settings.epochs), optimizer, schedule, settings, (seed, epoch))
        seconds += time.perf_counter() - began
        states = {name: part.state_dict() for name, part in parts.items()}
        _save({**states, "epoch": epoch + 1, "seconds": seconds}, checkpoint)
    progress(settings.epochs, settings.epochs)
    network.eval()
    return seconds


def _run_epoch(
    network: nn.Module, images: Any, optimizer: Any, schedule: Any, settings: TrainingSettings, seeds: tuple[int, int]
) -> None:
    """One epoch of MONAI's trainer; `seeds` fix what dropout draws, and the caller's random state is restored."""
    generator = torch.Generator().manual_seed(hash_seeds(*seeds))
    loader = DataLoader(images, batch_size=settings.batch_size, shuffle=True, generator=generator, drop_last=True)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=lambda output, label: functional.cross_entropy(
            _logits(output), label, label_smoothing=settings.label_smoothing
        ),
        train_handlers=[LrScheduleHandler(schedule, print_lr=False, epoch_level=False)],
        decollate=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash_seeds(*seeds))
        trainer.run()


def hash_seeds(*words: int) -> int:
    """One 63-bit seed of several words; neighbouring words give unrelated seeds."""
    return int(fingerprint({"words": list(words)})[:15], 16)


def _logits(output: Any) -> Tensor:
    """The logits of an output; MONAI's ViT returns (logits, hidden states)."""
    logits: Tensor = output[0] if isinstance(output, (tuple, list)) else output
    return logits


def classification_performance(network: nn.Module, samples: Sequence[Sample], batch_size: int) -> dict[str, Any]:
    """Accuracy and macro AUROC (one class against the rest) over labelled images of one shape; AUROC None if undefined."""
    outputs = []
    with eval_mode(network):
        for start in range(0, len(samples), batch_size):
            batch = torch.stack([sample.image for sample in samples[start : start + batch_size]])
            outputs.append(_logits(network(batch)))
    probabilities = torch.cat(outputs).double().softmax(1)
    labels = torch.tensor([sample.label for sample in samples])
    return {
        "accuracy": float((probabilities.argmax(1) == labels).double().mean()),
        "macro_auroc": macro_auroc(labels, probabilities),
        "test_images": len(samples),
    }


def macro_auroc(labels: Tensor, probabilities: Tensor) -> float | None:
    """Mean over the classes of the AUROC of each against the rest; None where a class has no image."""
    if len(set(labels.tolist())) < probabilities.shape[1]:
        return None
    if probabilities.shape[1] == 2:
        return float(roc_auc_score(labels, probabilities[:, 1]))
    return float(roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"))


def _save(content: dict[str, Any], path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue(), root=path.parent)
