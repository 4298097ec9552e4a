"""Interleaved timing: every candidate once a round, medians over rounds, ratios from one run."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Candidates = Mapping[str, Callable[[], object]]


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
    """How a benchmark is run: number of rounds, device, whether with the tiny sizes of a smoke test, and what tells the time."""

    rounds: int
    device: torch.device
    quick: bool = False
    clock: Callable[[], float] = time.perf_counter

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
        """Interleaved seconds; `rounds` limits the number of rounds for these candidates."""
        most = self.rounds if rounds is None else min(rounds, self.rounds)
        return interleaved(candidates, most, device=self.device, limits=limits, warm_up=warm_up, clock=self.clock)

    def note(self, text: str) -> None:
        """Print on standard error what is measured now."""
        print(f"  {text}", file=sys.stderr, flush=True)


def interleaved(
    candidates: Candidates,
    rounds: int,
    *,
    device: torch.device | None = None,
    limits: Mapping[str, int] | None = None,
    warm_up: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> Timings:
    """Seconds of each candidate, all candidates by turns, their order reversed every other round.

    Args:
        candidates: calls by name.
        rounds: measured rounds.
        device: its work is waited for before the clock starts and before it stops; None is the CPU.
        limits: the most rounds of slow candidates, which then have no warm-up round.
        warm_up: one round that is not measured comes first.
        clock: its seconds are counted.
    """
    limits = limits or {}
    order = list(candidates)
    seconds: dict[str, list[float]] = {name: [] for name in order}
    for turn in range(0 if warm_up else 1, rounds + 1):
        for name in order if turn % 2 else reversed(order):
            if name in limits and not 1 <= turn <= limits[name]:
                continue
            elapsed = _timed(candidates[name], device, clock)
            if turn:
                seconds[name].append(elapsed)
    return Timings(seconds)


def interleaved_medians(candidates: Candidates, rounds: int) -> dict[str, float]:
    """Median seconds of each candidate on the CPU after one warm-up round."""
    timings = interleaved(candidates, rounds)
    return {name: timings.median(name) for name in candidates}


def count(number: int, noun: str) -> str:
    """A number and its noun, in the plural where it has to be."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def wait(device: torch.device | None) -> None:
    """Wait until a GPU has finished its work."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def _timed(candidate: Callable[[], object], device: torch.device | None, clock: Callable[[], float]) -> float:
    wait(device)
    start = clock()
    result = candidate()
    wait(device)
    elapsed = clock() - start
    del result  # freed outside the clock
    return elapsed
