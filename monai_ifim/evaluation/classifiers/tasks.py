"""Classification tasks: training images, test images and names of classes."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor
from torch.utils.data import Dataset

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.classifiers.datalist import read_labelled
from monai_ifim.evaluation.classifiers.labels import Label
from monai_ifim.evaluation.lumpy.images import LumpyDataset, LumpyParameters, grid_affine, lump_mean, noise_covariance
from monai_ifim.io.geometry import Affine, is_invertible, is_photograph, world_affine

__all__ = ["DatalistTask", "LumpyTask", "Sample", "Task", "balanced", "fingerprint"]

TEST_STREAM = 1  # second word of the seed of test images; training images have 2
TRAINING_STREAM = 2
AUGMENTED_EXAMPLES = 4  # training images whose augmented form tells augmentations apart


@dataclass(frozen=True)
class Sample:
    """One test image as the network sees it.

    image: float32 [channel, *spatial]. label: of a class, -1 where unknown, or of independent labels (`labels.Label`). affine:
    voxel index to RAS mm; None without a world frame.
    """

    name: str
    image: Tensor = field(repr=False)
    label: Label
    affine: Affine | None = field(default=None, repr=False)


class Task(ABC):
    """A classification task. name: letters, digits and underscores; title: for readers; note: remarks that a reader needs."""

    name: str
    title: str
    note: str
    class_names: tuple[str, ...]

    @abstractmethod
    def training(self, seed: int, epoch: int, epochs: int) -> Dataset[dict[str, Any]]:
        """Images of one of `epochs` epochs, {"image": [channel, *spatial], "label": int}; the arguments alone fix them.

        Raises IFIMError if the task has no training images.
        """

    @abstractmethod
    def testing(self) -> Sequence[Sample]:
        """All test images, in a fixed order."""

    def chosen(self, count: int, seed: int) -> tuple[list[Sample], dict[str, str]]:
        """`count` test images (all if fewer), the classes in turn, and why others could not be read, by name."""
        return balanced(self.testing(), count, seed), {}

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The settings that fix the images, as plain data."""


@dataclass(frozen=True)
class LumpyTask(Task):
    """Detection of a Gaussian lesion in a lumpy background, standardised by the background's own mean and deviation.

    parameters: of the images; with a place, the lesion's place is known exactly.
    first_amplitudes: lesion amplitudes of the first half of a training, each for an equal part of it: bright lesions make the
    start of the training easier.
    training_images: per epoch, new ones for each. test_images: half of them with a lesion. seed: of all images.
    """

    name: str
    title: str
    parameters: LumpyParameters
    training_images: int
    test_images: int
    seed: int
    first_amplitudes: tuple[float, ...] = ()
    note: str = ""
    class_names: tuple[str, ...] = ("no lesion", "lesion")

    def __post_init__(self) -> None:
        if isinstance(self.parameters, Mapping):
            object.__setattr__(self, "parameters", LumpyParameters(**self.parameters))
        object.__setattr__(self, "first_amplitudes", tuple(self.first_amplitudes))
        object.__setattr__(self, "class_names", tuple(self.class_names))

    def training(self, seed: int, epoch: int, epochs: int) -> Dataset[dict[str, Any]]:
        """New images, independent of those of other epochs and seeds."""
        parameters = self.parameters
        part = 2 * epoch * len(self.first_amplitudes) // epochs
        if part < len(self.first_amplitudes):
            parameters = replace(parameters, lesion_amplitude=self.first_amplitudes[part])
        return _Standardised(LumpyDataset(parameters, self.training_images, self._stream(TRAINING_STREAM, seed, epoch)), self)

    def testing(self) -> Sequence[Sample]:
        """Images of a random stream of their own."""
        images = _Standardised(LumpyDataset(self.parameters, self.test_images, self._stream(TEST_STREAM)), self)
        affine = grid_affine(len(self.parameters.shape))
        return [Sample(f"image_{i:04d}", images[i]["image"], images[i]["label"], affine) for i in range(self.test_images)]

    def standardise(self, image: Tensor) -> Tensor:
        """Zero mean and unit deviation over the ensemble of lesion-free images."""
        deviation = float(noise_covariance(self.parameters).flatten()[0]) ** 0.5
        return (image - lump_mean(self.parameters)) / deviation

    def describe(self) -> dict[str, Any]:
        """See `Task`."""
        content = {name: value for name, value in asdict(self).items() if name not in ("title", "note")}
        return {"kind": "lumpy", **content}

    def _stream(self, *words: int) -> int:
        return int(np.random.SeedSequence([self.seed, *words]).generate_state(1, np.uint32)[0])


class _Standardised(Dataset[dict[str, Any]]):
    def __init__(self, images: LumpyDataset, task: LumpyTask) -> None:
        self.images, self.task = images, task

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.images[index]
        return {"image": self.task.standardise(item["image"]), "label": item["label"]}


@dataclass(frozen=True, eq=False)
class DatalistTask(Task):
    """Labelled image files of a MONAI datalist with sections "training" and "testing".

    datalist: JSON file. base_dir: folder of its relative names, by default the datalist's own.
    preprocessing: deterministic MONAI transforms from {"image": path, "label": int} to the network's input.
    augmentation: random transforms of training images after that.
    """

    name: str
    title: str
    datalist: str
    class_names: tuple[str, ...]
    preprocessing: Compose
    augmentation: Compose | None = None
    base_dir: str | None = None
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(self.class_names))
        object.__setattr__(self, "_cached", {})

    def training(self, seed: int, epoch: int, epochs: int) -> Dataset[dict[str, Any]]:
        """The preprocessed images, each augmented at random by its seed, epoch and index.

        Raises IFIMError for lists of independent labels.
        """
        if any(isinstance(item["label"], tuple) for item in self._read("training")):
            raise IFIMError(
                f"{self.name}: its labels are lists, and only classifiers of exclusive classes are trained here: train the "
                "network elsewhere and evaluate its bundle (BundleTask, BundleModel)."
            )
        return self._augmented(seed, epoch)

    def testing(self) -> Sequence[Sample]:
        """Images of the section "testing"."""
        return [Sample(item["name"], item["image"], item["label"], item["affine"]) for item in self._read("testing")]

    def describe(self) -> dict[str, Any]:
        """See `Task`; files and transforms are identified by checksums of the datalist and of the images they give."""
        first = [self._augmented(0, 0)[index]["image"] for index in range(min(AUGMENTED_EXAMPLES, len(self._read("training"))))]
        return {
            "kind": "datalist",
            "name": self.name,
            "datalist": Path(self.datalist).name,
            "datalist_sha256": hashlib.sha256(Path(self.datalist).read_bytes()).hexdigest(),
            "preprocessing": _steps(self.preprocessing),
            "augmentation": _steps(self.augmentation),
            "training_images_sha256": _pixels_sha256(item["image"] for item in self._read("training")),
            "augmented_images_sha256": _pixels_sha256(first),
            "test_images_sha256": _pixels_sha256(sample.image for sample in self.testing()),
            "class_names": list(self.class_names),
        }

    def _augmented(self, seed: int, epoch: int) -> _Augmented:
        return _Augmented(self._read("training"), self.augmentation, (seed, epoch))

    def _read(self, section: str) -> list[dict[str, Any]]:
        cached: dict[str, list[dict[str, Any]]] = self._cached  # type: ignore[attr-defined]
        if section not in cached:
            entries = read_labelled(Path(self.datalist), section, self.class_names, self.base_dir)
            cached[section] = [self._preprocessed(name, path, label) for name, path, label in entries]
        return cached[section]

    def _preprocessed(self, name: str, path: Path, label: Label) -> dict[str, Any]:
        image = self.preprocessing({"image": str(path), "label": label})["image"]
        plain = torch.as_tensor(image).as_subclass(Tensor).to(torch.float32).contiguous()
        return {"name": name, "image": plain, "label": label, "affine": affine_of(image)}


def affine_of(image: Any) -> Affine | None:
    """Voxel index to RAS mm of an image with MONAI's metadata; None for a photograph, a bare tensor or a singular affine."""
    if not isinstance(image, MetaTensor) or is_photograph(image.meta):
        return None
    affine = world_affine(image.affine, image.meta)
    return affine if is_invertible(affine) else None


def _steps(transforms: Compose | None) -> list[str]:
    return [] if transforms is None else [type(step).__name__ for step in transforms.flatten().transforms]


def _pixels_sha256(images: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for image in images:
        digest.update(str(tuple(image.shape)).encode())
        digest.update(image.contiguous().numpy().tobytes())
    return digest.hexdigest()


class _Augmented(Dataset[dict[str, Any]]):
    def __init__(self, items: list[dict[str, Any]], augmentation: Compose | None, seeds: tuple[int, int]) -> None:
        self.items, self.augmentation, self.seeds = items, augmentation, seeds

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = {key: self.items[index][key] for key in ("image", "label")}
        if self.augmentation is None:
            return item
        state = np.random.SeedSequence([*self.seeds, index]).generate_state(1, np.uint32)[0]
        self.augmentation.set_random_state(seed=int(state))
        moved = self.augmentation(item)
        return {"image": torch.as_tensor(moved["image"]).as_subclass(Tensor), "label": item["label"]}


class _Labelled(Protocol):
    @property
    def label(self) -> Label:
        """Class index, or 0, 1 or -1 for each of independent labels."""


Labelled = TypeVar("Labelled", bound=_Labelled)


def balanced(samples: Sequence[Labelled], count: int, seed: int) -> list[Labelled]:
    """`count` samples (all if fewer), the classes (or combinations of labels) in turn, each in an order drawn from `seed`."""
    order = np.random.default_rng([seed, len(samples)]).permutation(len(samples))
    by_label: dict[Label, list[Labelled]] = {}
    for index in order:
        by_label.setdefault(samples[index].label, []).append(samples[index])
    queues = [by_label[label] for label in sorted(by_label, key=lambda label: (label,) if isinstance(label, int) else label)]
    longest = max((len(queue) for queue in queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)][:count]


def fingerprint(content: Mapping[str, Any]) -> str:
    """Hexadecimal SHA-256 of plain data, keys in any order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
