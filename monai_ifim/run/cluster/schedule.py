"""Distribution of cases to workers, and the number of workers that fit on a cluster. Plain arithmetic, without Ray."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from monai_ifim.core import IFIMError
from monai_ifim.run.cases import Case
from monai_ifim.run.pipeline import READ_AHEAD, WRITE_BEHIND

ATTEMPTS = 3  # tries of a case whose worker is lost each time
SHARE_STEP = 10_000  # Ray counts GPUs in ten-thousandths


@dataclass(frozen=True)
class Node:
    """CPUs and GPUs of one machine of the cluster."""

    cpus: int
    gpus: int = 0


@dataclass(frozen=True)
class Allotment:
    """Number of workers, and the CPUs and GPUs of each."""

    workers: int
    cpus: int
    gpus: float = 0.0


def allot(nodes: Sequence[Node], device: str, workers: int | None, cases: int) -> Allotment:
    """Divide a cluster among workers so that all of them fit at once; at most one worker per case.

    workers: None for one per GPU (if `device` is CUDA) or per CPU. If there are more workers than GPUs, they share them
    equally. Raises IFIMError if they do not fit.
    """
    shared = device.startswith("cuda")
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    if shared and not gpus:
        raise IFIMError(f"the Ray cluster ({cpus} CPUs) has no GPU: choose --device cpu, or start its nodes with --num-gpus.")
    wanted = (gpus if shared else cpus) if workers is None else workers
    if wanted < 1:
        raise IFIMError(f"{wanted} workers: give a whole number from 1 on, and a Ray cluster that has CPUs.")
    places = _places(nodes, math.ceil(wanted / gpus) if shared else None, cpus=1)
    if wanted > places:
        there = f"{cpus} CPUs and {gpus} GPUs" if shared else f"{cpus} CPUs"
        raise IFIMError(
            f"{wanted} workers do not fit on the Ray cluster ({there}, at least one CPU each): give --workers {places} or fewer."
        )
    used = max(1, min(wanted, cases))
    sharers = math.ceil(used / gpus) if shared else None
    most = max(node.cpus for node in nodes)
    each = next((n for n in range(most, 1, -1) if _places(nodes, sharers, n) >= used), 1)
    return Allotment(used, each, 0.0 if sharers is None else math.floor(SHARE_STEP / sharers) / SHARE_STEP)


def _places(nodes: Iterable[Node], sharers: int | None, cpus: int) -> int:
    """Number of workers of `cpus` CPUs that fit. sharers: workers per GPU, or None for workers without a GPU."""
    rooms = ((node.cpus // cpus, node.gpus) for node in nodes)
    return sum(room if sharers is None else min(room, sharers * gpus) for room, gpus in rooms)


@dataclass(frozen=True)
class Chunk:
    """Cases for one worker. last: it gets no more until it has finished all that it holds."""

    cases: tuple[Case, ...]
    last: bool


class Schedule:
    """Hands out the cases to workers, and again, at most ATTEMPTS times, if a worker is lost.

    A worker gets enough cases to read, compute and write at the same time. The last cases are handed out in small portions,
    so that all workers end at about the same time. If a worker is lost with several cases, the culprit is unknown, so each of
    them is retried alone. Portions are whole batches of consecutive cases.
    """

    def __init__(self, cases: Iterable[Case], workers: int, batch_size: int) -> None:
        self._fresh = deque(cases)
        self._suspects: deque[Case] = deque()
        self._losses: Counter[str] = Counter()
        self._workers, self._batch = workers, batch_size
        held_back = READ_AHEAD + WRITE_BEHIND + batch_size - 1  # cases that a worker may hold before it returns a row
        self._supply = self._whole_batches(held_back + batch_size)
        self._end_game = 2 * workers * batch_size

    @property
    def left(self) -> int:
        """Number of cases not yet handed out."""
        return len(self._suspects) + len(self._fresh)

    def losses(self, case: str) -> int:
        """Number of workers lost while they held this case."""
        return self._losses[case]

    def begin(self) -> Chunk | None:
        """Cases for a worker that holds none; None if nothing is left to hand out."""
        if self._suspects:
            return Chunk((self._suspects.popleft(),), last=True)
        if not self._fresh:
            return None
        if len(self._fresh) >= self._workers * self._supply + self._end_game:
            return Chunk(self._take(self._supply), last=False)
        portion = self._whole_batches(math.ceil(len(self._fresh) / (2 * self._workers)))
        return Chunk(self._take(min(portion, self._supply)), last=True)

    def go_on(self, held: int) -> Chunk:
        """More cases for a worker that still holds `held` cases and whose previous chunk was not marked last."""
        room = (self._supply - held) // self._batch * self._batch
        if len(self._fresh) - room < self._end_game:
            return Chunk((), last=True)
        return Chunk(self._take(room), last=False)

    def lost(self, held: Sequence[Case]) -> list[Case]:
        """Record that a worker was lost with these cases; returns those that have used up their attempts."""
        self._losses.update(case.name for case in held)
        self._suspects.extend(case for case in held if self._losses[case.name] < ATTEMPTS)
        return [case for case in held if self._losses[case.name] >= ATTEMPTS]

    def drain(self) -> list[Case]:
        """Remove and return all cases not yet handed out."""
        left = [*self._suspects, *self._fresh]
        self._suspects.clear()
        self._fresh.clear()
        return left

    def _take(self, count: int) -> tuple[Case, ...]:
        return tuple(self._fresh.popleft() for _ in range(min(count, len(self._fresh))))

    def _whole_batches(self, count: int) -> int:
        return math.ceil(count / self._batch) * self._batch
