"""What the postprocessing of a bundle says of the network's outputs: activations, discretisations, and what is saved of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from typing import Any

from monai_ifim.adapt.head_reading.components import UNKNOWN, Component
from monai_ifim.adapt.head_reading.statement import Relation, Statement

# MONAI gives each dictionary transform three names.
_ACTIVATIONS = ("Activations", "Activationsd", "ActivationsD", "ActivationsDict")
_DISCRETE = ("AsDiscrete", "AsDiscreted", "AsDiscreteD", "AsDiscreteDict")
_OF_IMAGES = ("SaveClassification", "SaveClassificationd", "SaveClassificationD", "SaveClassificationDict", "ClassificationSaver")
_OF_VOXELS = ("Invertd", "InvertD", "InvertDict")
_OF_LABELS = tuple(
    name + suffix
    for name in ("KeepLargestConnectedComponent", "FillHoles", "RemoveSmallObjects", "LabelFilter", "LabelToContour")
    for suffix in ("", "d", "D", "Dict")
)
_SAVERS = ("SaveImage", "SaveImaged", "SaveImageD", "SaveImageDict")
_OVERLAPS = ("MeanDice", "MeanIoUHandler", "HausdorffDistance", "SurfaceDistance", "DiceMetric", "MeanIoU")
_WINDOWS = ("SlidingWindowInferer", "SlidingWindowInfererAdapt", "SliceInferer", "SaliencyInferer")


def said_by_transforms(components: Iterable[Component], outputs: Collection[str]) -> list[Statement]:
    """Statements of the steps after the network, and of inferers and metrics; outputs: names of the network's outputs."""
    found: list[Statement] = []
    listed = list(components)
    for _, steps in groupby(listed, key=lambda one: one.pipeline):
        found.extend(_said_by_steps(list(steps), outputs))
    return found + [
        Statement(one.place, space="voxel", weak=one.name in _WINDOWS)
        for one in listed
        if one.name in _WINDOWS or one.name in _OVERLAPS
    ]


def _said_by_steps(steps: list[Component], outputs: Collection[str]) -> Iterator[Statement]:
    """Statements of one list of steps: a threshold after a softmax or an argmax says nothing of its own."""
    exclusive = False
    for step in steps:
        if step.name in _ACTIVATIONS:
            relation = _activation(step, outputs)
            exclusive = exclusive or relation == "exclusive"
            if relation is not None:
                yield Statement(step.place, relation=relation, scale="logits")
        elif step.name in _DISCRETE:
            if _for_output(step, "argmax", outputs):
                exclusive = True
                yield Statement(step.place, relation="exclusive")
            elif _thresholds(step, outputs) and not exclusive:
                yield Statement(step.place, relation="independent", weak=True)  # the network may end in a softmax
        elif step.name in _OF_IMAGES:
            yield Statement(step.place, space="image")
        elif step.name in _OF_LABELS and _for_output(step, None, outputs):
            yield Statement(step.place, space="voxel")
        elif _saves_a_map(step) and _for_output(step, None, outputs):
            yield Statement(step.place, space="voxel", weak=True)


def _activation(step: Component, outputs: Collection[str]) -> Relation | None:
    if _for_output(step, "sigmoid", outputs):
        return "independent"
    return "exclusive" if _for_output(step, "softmax", outputs) else None


def _thresholds(step: Component, outputs: Collection[str]) -> bool:
    """True if the output is compared with a number; before MONAI 1.0 `threshold_values=True` said so."""
    threshold = _for_output(step, "threshold", outputs)
    old = _for_output(step, "threshold_values", outputs)
    return bool(old) or (threshold is not None and threshold is not False)


def _saves_a_map(step: Component) -> bool:
    """True for a step that treats the output as an image; files of text hold none."""
    if step.name in _SAVERS:
        return step.arguments.get("output_ext") not in (".json", ".csv", ".txt", ".npy")
    return step.name in _OF_VOXELS


def _for_output(step: Component, argument: str | None, outputs: Collection[str]) -> Any:
    """The value of an argument for the network's output, None if the step does not touch that; argument None: True if it does.

    A list of values goes with the list of keys. Steps of array pipelines have no keys.
    """
    keys = step.arguments.get("keys", UNKNOWN)
    value = True if argument is None else step.arguments.get(argument)
    value = None if value is UNKNOWN else value
    if keys is UNKNOWN or UNKNOWN in (listed := keys if isinstance(keys, list) else [keys]):
        return value[0] if isinstance(value, list) and value else value
    for number, key in enumerate(listed):
        if key in outputs:
            if isinstance(value, list) and len(listed) > 1:
                return value[number] if number < len(value) else None
            return value[0] if isinstance(value, list) and value else value
    return None
