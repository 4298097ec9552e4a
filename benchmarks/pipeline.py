"""Shares of the time of `monai-ifim decompose` on small images: network passes, file writing, the rest.

python -m benchmarks.pipeline IMAGES_FOLDER [--images N] [--bundle NAME]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import monai_ifim.adapt.saving as saving
from benchmarks.stamp import take_stamp
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.core.operator.predictor import Predictor
from monai_ifim.io import write_case
from monai_ifim.io.installation import resolve_bundle
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings


class Stopwatch:
    """Seconds spent in wrapped functions, by label."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time added to `label`."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[label] = self.seconds.get(label, 0.0) + time.perf_counter() - start

        return timed


@contextmanager
def measured() -> Iterator[Stopwatch]:
    """Network passes (forward and backward) and file writing timed at the functions through which all of them go."""
    watch = Stopwatch()
    with (
        mock.patch.object(Predictor, "__call__", watch.wrap("passes", Predictor.__call__)),
        mock.patch.object(torch.autograd, "grad", watch.wrap("passes", torch.autograd.grad)),
        mock.patch.object(saving, "write_case", watch.wrap("writing", write_case)),
    ):
        yield watch


def main() -> None:
    """Print the shares of one run after a warm-up run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--bundle", default="mednist_classification")
    parser.add_argument("--batch-size", type=int, default=1)
    arguments = parser.parse_args()
    bundle = load_bundle(resolve_bundle(arguments.bundle))
    found = find_cases([arguments.folder])[: arguments.images]
    print(take_stamp().line)
    for label in ("warm-up", "measured"):
        with tempfile.TemporaryDirectory() as folder, measured() as watch:
            options = CaseSettings("categorical", locality=True)
            settings = RunSettings(Path(folder), options, batch_size=arguments.batch_size)
            start = time.perf_counter()
            rows = run_cases(bundle, found, settings, lambda row: None)
            total = time.perf_counter() - start
        if label == "warm-up":
            continue
        print(f"{len(rows)} images in {total:.2f} s; reading and writing run beside the passes, so the shares overlap")
        for name, seconds in watch.seconds.items():
            print(f"{name:10s} {seconds:7.2f} s {seconds / total:6.1%}")


if __name__ == "__main__":
    main()
