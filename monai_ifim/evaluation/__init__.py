"""Perturbation experiments on classifiers, and lumpy tasks with their ideal observers."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "BundleModel": "monai_ifim.evaluation.classifiers.bundles",
    "BundleTask": "monai_ifim.evaluation.classifiers.bundles",
    "DatalistTask": "monai_ifim.evaluation.classifiers.tasks",
    "LumpyParameters": "monai_ifim.evaluation.lumpy.images",
    "LumpyTask": "monai_ifim.evaluation.classifiers.tasks",
    "TrainedModel": "monai_ifim.evaluation.classifiers.models",
    "load_experiment": "monai_ifim.evaluation.experiment",
    "run_experiment": "monai_ifim.evaluation.experiment",
}

__all__ = [
    "BundleModel",
    "BundleTask",
    "DatalistTask",
    "LumpyParameters",
    "LumpyTask",
    "TrainedModel",
    "load_experiment",
    "run_experiment",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'monai_ifim.evaluation' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
