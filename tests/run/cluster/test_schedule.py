"""Which case goes to which worker, and how many workers fit on a cluster; without Ray."""

from __future__ import annotations

import numpy as np
import pytest

from monai_ifim.core import IFIMError
from monai_ifim.run.cases import Case
from monai_ifim.run.cluster.schedule import ATTEMPTS, Allotment, Node, Schedule, allot
from monai_ifim.run.pipeline import READ_AHEAD, WRITE_BEHIND


@pytest.mark.parametrize(
    ("nodes", "device", "workers", "cases", "expected"),
    [
        ([Node(8)], "cpu", None, 100, Allotment(8, 1)),
        ([Node(8)], "cpu", 3, 100, Allotment(3, 2)),
        ([Node(8)], "cpu", None, 2, Allotment(2, 4)),
        ([Node(0), Node(4), Node(4), Node(4)], "cpu", 2, 100, Allotment(2, 4)),
        ([Node(5), Node(3)], "mps", 3, 100, Allotment(3, 2)),
        ([Node(16, 4)], "cuda", None, 100, Allotment(4, 4, 1.0)),
        ([Node(16, 4)], "cuda:1", 8, 100, Allotment(8, 2, 0.5)),
        ([Node(16, 1)], "cuda", 3, 100, Allotment(3, 5, 0.3333)),
        ([Node(16, 1)], "cuda", 6, 100, Allotment(6, 2, 0.1666)),
        ([Node(16, 2), Node(2, 1)], "cuda", 4, 100, Allotment(4, 4, 0.5)),
        ([Node(16, 4)], "cuda", 8, 2, Allotment(2, 8, 1.0)),
        ([Node(64), Node(8, 2)], "cuda", 2, 100, Allotment(2, 4, 1.0)),
    ],
)
def test_workers_fit_on_the_nodes_with_all_that_each_gets(
    nodes: list[Node], device: str, workers: int | None, cases: int, expected: Allotment
) -> None:
    found = allot(nodes, device, workers, cases)
    assert found == expected
    sharers = int(1 / found.gpus) if found.gpus else None
    assert sharers is None or sharers * found.gpus <= 1
    room = [node.cpus // found.cpus if sharers is None else min(node.cpus // found.cpus, sharers * node.gpus) for node in nodes]
    assert sum(room) >= found.workers


@pytest.mark.parametrize(
    ("nodes", "device", "workers", "words"),
    [
        ([Node(4)], "cpu", 5, "give --workers 4 or fewer"),
        ([Node(4)], "cpu", 0, "whole number from 1"),
        ([Node(4)], "cuda", None, "no GPU"),
        ([Node(2, 4)], "cuda", None, "give --workers 2 or fewer"),
        ([Node(64), Node(1, 2)], "cuda", 2, "give --workers 1 or fewer"),
        ([Node(0)], "cpu", None, "has CPUs"),
    ],
)
def test_what_does_not_fit_is_refused(nodes: list[Node], device: str, workers: int | None, words: str) -> None:
    with pytest.raises(IFIMError, match=words):
        allot(nodes, device, workers, 100)


def named(count: int) -> list[Case]:
    return [Case(f"c{i}", None) for i in range(count)]  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [1, 3, 4])
@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 40, 333])
def test_every_case_is_handed_out_once_in_whole_batches_and_no_worker_starves(count: int, workers: int, batch: int) -> None:
    schedule = Schedule(named(count), workers, batch)
    held: list[list[str]] = [[] for _ in range(workers)]
    supplied = [False] * workers
    order = {f"c{i}": i for i in range(count)}
    given: list[str] = []
    finished = 0
    generator = np.random.default_rng(count + workers + batch)
    while finished < count:
        worker = int(generator.integers(workers))
        if supplied[worker]:
            chunk = schedule.go_on(len(held[worker]))
        elif held[worker]:
            chunk = None
        else:
            chunk = schedule.begin()
        if chunk is not None:
            names = [case.name for case in chunk.cases]
            assert all(order[name] % batch == 0 for name in names[::batch])
            assert len(names) % batch == 0 or order[names[-1]] == count - 1
            given += names
            held[worker] += names
            supplied[worker] = not chunk.last
        # a pipeline that waits for more keeps these back
        free = len(held[worker]) - (READ_AHEAD + WRITE_BEHIND + batch - 1 if supplied[worker] else 0)
        assert free > 0 or not held[worker]
        done = int(generator.integers(1, free + 1)) if free > 0 else 0
        finished += done
        del held[worker][:done]
    assert sorted(given, key=order.__getitem__) == list(order)
    assert len(given) == count
    assert schedule.left == 0


def test_suspects_are_tried_alone_and_given_up_after_three_losses() -> None:
    schedule = Schedule(named(40), 2, 1)
    first = schedule.begin()
    assert first is not None
    assert len(first.cases) > 2
    assert not first.last
    assert schedule.lost(first.cases) == []
    guilty = first.cases[0]
    for losses in (2, 3):
        alone = schedule.begin()
        while alone is not None and alone.cases != (guilty,):
            assert alone.last
            assert len(alone.cases) == 1
            alone = schedule.begin()
        assert schedule.lost([guilty]) == ([guilty] if losses == ATTEMPTS else [])
        assert schedule.losses(guilty.name) == losses
    assert all(case != guilty for case in schedule.drain())
