"""Interleaved timing: every candidate once a round, medians over rounds, ratios from one run; and what it ran on."""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from monai_ifim.version import __version__

Candidates = Mapping[str, Callable[[], object]]

COMPARED_PACKAGES = ("monai", "captum", "plenoptic")


@dataclass(frozen=True)
class Timings:
    """Seconds of each candidate, one number a measured round."""

    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        """Median seconds of a candidate."""
        return statistics.median(self.seconds[name])

    def ratio(self, numerator: str, denominator: str) -> float:
        """Median over median."""
        return self.median(numerator) / self.median(denominator)

    def describe(self) -> str:
        """Medians and numbers of rounds in words."""
        medians = ", ".join(f"{name} {self.median(name):.3g} s" for name in self.seconds)
        rounds = {name: len(values) for name, values in self.seconds.items()}
        if len(set(rounds.values())) == 1:
            return f"{medians}; {count(next(iter(rounds.values())), 'round')}"
        return f"{medians}; " + ", ".join(f"{name} {count(measured, 'round')}" for name, measured in rounds.items())


@dataclass(frozen=True)
class Setting:
    """How a benchmark is run: rounds asked for, device, and whether sizes are the tiny ones of a smoke test."""

    rounds: int
    device: torch.device
    quick: bool = False

    def size(self, full: int, quick: int) -> int:
        """The first, or the second in a smoke test."""
        return quick if self.quick else full

    def measure(
        self,
        candidates: Candidates,
        *,
        rounds: int | None = None,
        limits: Mapping[str, int] | None = None,
        warm_up: bool = True,
    ) -> Timings:
        """Interleaved seconds; `rounds` is the most that is sensible for these candidates, whatever was asked for."""
        most = self.rounds if rounds is None else min(rounds, self.rounds)
        return interleaved(candidates, most, device=self.device, limits=limits, warm_up=warm_up)

    def note(self, text: str) -> None:
        """Say on standard error what is measured now."""
        print(f"  {text}", file=sys.stderr, flush=True)


def interleaved(
    candidates: Candidates,
    rounds: int,
    *,
    device: torch.device | None = None,
    limits: Mapping[str, int] | None = None,
    warm_up: bool = True,
) -> Timings:
    """Seconds of each candidate, all candidates by turns, their order reversed every other round.

    Args:
        candidates: calls by name.
        rounds: measured rounds.
        device: its work is waited for before the clock starts and before it stops; None is the CPU.
        limits: the most rounds of slow candidates, which then have no warm-up round.
        warm_up: one round that is not measured comes first.
    """
    limits = limits or {}
    order = list(candidates)
    seconds: dict[str, list[float]] = {name: [] for name in order}
    for turn in range(0 if warm_up else 1, rounds + 1):
        for name in order if turn % 2 else reversed(order):
            if name in limits and not 1 <= turn <= limits[name]:
                continue
            elapsed = _timed(candidates[name], device)
            if turn:
                seconds[name].append(elapsed)
    return Timings(seconds)


def interleaved_medians(candidates: Candidates, rounds: int) -> dict[str, float]:
    """Median seconds of each candidate on the CPU after one warm-up round."""
    timings = interleaved(candidates, rounds)
    return {name: timings.median(name) for name in candidates}


def environment_stamp(device: torch.device | None = None) -> str:
    """One line on machine and versions: no path, no name of a host."""
    packages = [f"monai_ifim {__version__}", f"torch {torch.__version__}", f"Python {platform.python_version()}"]
    packages += [f"{name} {found}" for name in COMPARED_PACKAGES if (found := _version(name))]
    machine = [platform.machine(), _processor(), f"{torch.get_num_threads()} thread(s)"]
    if device is not None and device.type == "cuda":
        machine += [torch.cuda.get_device_name(device), f"CUDA {torch.version.cuda}"]
        machine += ["TF32 on" if torch.backends.cudnn.allow_tf32 else "TF32 off"]
    return ", ".join(part for part in [*packages, *machine] if part)


def count(number: int, noun: str) -> str:
    """A number and its noun, in the plural where it has to be."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def wait(device: torch.device | None) -> None:
    """Until all that was started on a GPU is done."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def _timed(candidate: Callable[[], object], device: torch.device | None) -> float:
    wait(device)
    start = time.perf_counter()
    result = candidate()
    wait(device)
    elapsed = time.perf_counter() - start
    del result  # freed outside the clock
    return elapsed


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    """The processor's model, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
