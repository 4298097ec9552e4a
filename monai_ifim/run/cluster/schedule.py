"""Which case goes to which worker, and how many workers a cluster holds. Plain arithmetic, without Ray."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from monai_ifim.core import IFIMError
from monai_ifim.run.cases import Case
from monai_ifim.run.pipeline import READ_AHEAD, WRITE_BEHIND

ATTEMPTS = 3  # how often a case is tried whose worker was lost
SHARE_STEP = 10_000  # Ray counts GPUs in ten-thousandths


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, by its CPUs and GPUs."""

    cpus: int
    gpus: int = 0


@dataclass(frozen=True)
class Allotment:
    """How many workers there are, and what each of them gets."""

    workers: int
    cpus: int
    gpus: float = 0.0


def allot(nodes: Sequence[Node], device: str, workers: int | None, cases: int) -> Allotment:
    """What each of `workers` gets of the cluster, so that all of them fit at once; no more workers than cases.

    workers: None for as many as there are GPUs (where `device` is CUDA) or CPUs. Workers share a GPU in equal parts where
    there are more of them. Raises IFIMError where they do not fit.
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
    """How many workers of `cpus` CPUs there is room for; sharers: how many may share a GPU, None for workers without one."""
    rooms = ((node.cpus // cpus, node.gpus) for node in nodes)
    return sum(room if sharers is None else min(room, sharers * gpus) for room, gpus in rooms)


@dataclass(frozen=True)
class Chunk:
    """Cases for one worker. last: no more will follow until these and all before them are done."""

    cases: tuple[Case, ...]
    last: bool


class Schedule:
    """Hands out every case, again where its worker was lost, ATTEMPTS times at most.

    A worker is kept supplied, so that it reads, computes and writes at the same time, until what is left is shared out in
    small portions and all end at about the same time. Which case of several in a worker's hands was its death cannot be
    told: each of them is then tried alone, so that no other is blamed. Portions are whole batches of consecutive cases.
    """

    def __init__(self, cases: Iterable[Case], workers: int, batch_size: int) -> None:
        self._fresh = deque(cases)
        self._suspects: deque[Case] = deque()
        self._losses: Counter[str] = Counter()
        self._workers, self._batch = workers, batch_size
        held_back = READ_AHEAD + WRITE_BEHIND + batch_size - 1  # what a worker may hold without giving any row
        self._supply = self._whole_batches(held_back + batch_size)
        self._end_game = 2 * workers * batch_size

    @property
    def left(self) -> int:
        """How many cases nobody has in hand."""
        return len(self._suspects) + len(self._fresh)

    def losses(self, case: str) -> int:
        """How often a worker was lost that had this case."""
        return self._losses[case]

    def begin(self) -> Chunk | None:
        """For a worker with empty hands; None where nothing is left to hand out now."""
        if self._suspects:
            return Chunk((self._suspects.popleft(),), last=True)
        if not self._fresh:
            return None
        if len(self._fresh) >= self._workers * self._supply + self._end_game:
            return Chunk(self._take(self._supply), last=False)
        portion = self._whole_batches(math.ceil(len(self._fresh) / (2 * self._workers)))
        return Chunk(self._take(min(portion, self._supply)), last=True)

    def go_on(self, held: int) -> Chunk:
        """For a worker whose last chunk was not its last one, and that still has `held` cases."""
        room = (self._supply - held) // self._batch * self._batch
        if len(self._fresh) - room < self._end_game:
            return Chunk((), last=True)
        return Chunk(self._take(room), last=False)

    def lost(self, held: Sequence[Case]) -> list[Case]:
        """A worker was lost with these cases in its hands; those that are not tried again are returned."""
        self._losses.update(case.name for case in held)
        self._suspects.extend(case for case in held if self._losses[case.name] < ATTEMPTS)
        return [case for case in held if self._losses[case.name] >= ATTEMPTS]

    def drain(self) -> list[Case]:
        """All cases that nobody has in hand, which will then not be handed out."""
        left = [*self._suspects, *self._fresh]
        self._suspects.clear()
        self._fresh.clear()
        return left

    def _take(self, count: int) -> tuple[Case, ...]:
        return tuple(self._fresh.popleft() for _ in range(min(count, len(self._fresh))))

    def _whole_batches(self, count: int) -> int:
        return math.ceil(count / self._batch) * self._batch
