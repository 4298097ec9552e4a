"""A MONAI bundle as a task and a model of an experiment: its network, preprocessing and labelled images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.core import IFIMError
from monai_ifim.core.errors import HeadError
from monai_ifim.core.operator.predictor import Predictor
from monai_ifim.evaluation.classifiers.datalist import list_labelled, read_labelled
from monai_ifim.evaluation.classifiers.labels import Label
from monai_ifim.evaluation.classifiers.models import TWIN_SEED, EvaluatedClassifier, Model, randomised
from monai_ifim.evaluation.classifiers.tasks import Sample, Task, affine_of, balanced
from monai_ifim.evaluation.classifiers.training import Progress
from monai_ifim.io import OpenedSource
from monai_ifim.io.digests import sha256_of_file
from monai_ifim.io.installation import resolve_bundle
from monai_ifim.io.source import Source

__all__ = ["BundleModel", "BundleTask"]


@dataclass(frozen=True)
class _Entry:
    name: str
    path: Path
    label: Label


@dataclass(frozen=True, eq=False)
class BundleTask(Task):
    """Labelled images of a MONAI datalist, as a bundle preprocesses them.

    bundle: its folder, or the name of one that comes with the package. datalist: JSON with labels: class names or their
    indices, or lists with 0, 1 or -1 (unknown) for each of independent labels. section: of the datalist; None for "testing",
    "test" or "validation". base_dir: folder of its relative names, by default its own. class_names: by default those of the
    bundle's metadata, or else "class 0", "class 1" ...
    """

    bundle: str
    datalist: str
    section: str | None = None
    base_dir: str | None = None
    class_names: tuple[str, ...] = ()
    name: str = ""
    title: str = ""
    note: str = ""
    _loaded: Bundle = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for option, value in (("bundle", self.bundle), ("datalist", self.datalist)):
            if not value:
                raise IFIMError(f"no {option} is named: pass --{option}.")
        loaded = load_bundle(resolve_bundle(self.bundle))
        object.__setattr__(self, "_loaded", loaded)
        object.__setattr__(self, "class_names", _class_names(tuple(self.class_names) or loaded.identity.class_names, self))
        object.__setattr__(self, "name", self.name or _identifier(Path(self.datalist).stem))
        object.__setattr__(self, "title", self.title or Path(self.datalist).name)

    @cached_property
    def entries(self) -> Sequence[_Entry]:
        """The datalist's entries."""
        found = read_labelled(Path(self.datalist), self.section, self.class_names, self.base_dir)
        return [_Entry(*entry) for entry in found]

    def training(self, seed: int, epoch: int, epochs: int) -> Dataset[dict[str, Any]]:
        """Raises IFIMError: a bundle has no training images."""
        raise IFIMError("a bundle's task has no training images: evaluate it with BundleModel.")

    def testing(self) -> Sequence[Sample]:
        """All images; raises IFIMError if one cannot be read."""
        return [self._read(entry) for entry in self.entries]

    def chosen(self, count: int, seed: int) -> tuple[list[Sample], dict[str, str]]:
        """See `Task`; reads only the chosen images, and replaces an unreadable one by the next."""
        samples: list[Sample] = []
        unreadable: dict[str, str] = {}
        for entry in balanced(self.entries, len(self.entries), seed):
            if len(samples) == count:
                break
            try:
                samples.append(self._read(entry))
            except IFIMError as error:
                reason = " ".join(str(error).split())
                unreadable[entry.name] = reason.replace(str(entry.path), entry.path.name)  # records hold no paths of folders
        return samples, unreadable

    def describe(self) -> dict[str, Any]:
        """See `Task`; bundle and datalist are identified by their checksums."""
        identity = self._loaded.identity
        return {
            "kind": "bundle",
            "name": self.name,
            "bundle": identity.name,
            "bundle_version": identity.version,
            "bundle_weights_sha256": identity.weights_sha256,
            "datalist": Path(self.datalist).name,
            "datalist_sha256": sha256_of_file(Path(self.datalist)),
            "section": self.section,
            "class_names": list(self.class_names),
        }

    def _read(self, entry: _Entry) -> Sample:
        OpenedSource(Source(entry.path)).check(self._loaded.channels)
        image = self._loaded.preprocess(entry.path)
        return Sample(entry.name, image.as_subclass(Tensor).to(torch.float32).contiguous(), entry.label, affine_of(image))


@dataclass(frozen=True)
class BundleModel(Model):
    """The trained network of a bundle; its twin has the same layers with weights drawn again.

    head: as `decompose` takes it; "auto" for what the bundle's files ask for. name: in tables, by default the bundle's.
    """

    bundle: str
    head: str = "auto"
    name: str = ""

    def __post_init__(self) -> None:
        if not self.bundle:
            raise IFIMError("no bundle is named: pass --bundle.")
        if not self.name:
            object.__setattr__(self, "name", _identifier(resolve_bundle(self.bundle).resolve().name))

    def classifier(self, task: Task, cache: Path, progress: Progress) -> EvaluatedClassifier:
        """See `Model`; nothing is trained."""
        loaded = load_bundle(resolve_bundle(self.bundle))
        parameters = sum(parameter.numel() for parameter in loaded.network.parameters())
        record = {"bundle": loaded.identity.name, "bundle_version": loaded.identity.version, "parameters": parameters}
        record["head_source"] = loaded.head.source(self.head)
        return EvaluatedClassifier(loaded.network, randomised(loaded.network, TWIN_SEED), (), self._head(loaded), record)

    def _head(self, loaded: Bundle) -> str:
        """The head asked for, or the one that the bundle's files ask for; raises IFIMError where they do not say it."""
        try:
            return str(loaded.head.chosen(self.head))
        except HeadError as error:
            raise IFIMError(re.sub(r"\bhead='(\w+)'", r"--set head=\1", str(error))) from error

    def describe(self) -> dict[str, Any]:
        """See `Model`."""
        return {"architecture": self.name, "bundle": resolve_bundle(self.bundle).resolve().name, "head": self.head}


def _class_names(named: tuple[str, ...], task: BundleTask) -> tuple[str, ...]:
    """Names of two or more classes; a single output is the logit of one class against its absence."""
    if len(named) == 1:
        return (f"not {named[0]}", named[0])
    if named:
        return named
    bundle = task._loaded
    paths = (path for _, path, _ in list_labelled(Path(task.datalist), task.section, task.base_dir))
    image = next((bundle.preprocess(path) for path in paths if path.exists()), None)
    if image is None:
        raise IFIMError(f"bundle {bundle.root.name}: its metadata names no classes (channel_def): give class_names.")
    with torch.no_grad():
        outputs = Predictor(bundle.network, batch=1)(image.as_subclass(Tensor)[None]).shape[1]
    return tuple(f"class {index}" for index in range(max(2, outputs)))


def _identifier(text: str) -> str:
    """The text with other characters than letters, digits, - and _ replaced: it names a folder."""
    return "".join(character if character.isalnum() or character in "-_" else "_" for character in text) or "task"
