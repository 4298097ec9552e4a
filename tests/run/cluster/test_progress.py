"""How far the cases in hand of a cluster are: what workers tell, and what the driver makes of it; no cluster is started."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.io import Source
from monai_ifim.run.case_clock import Stage, together
from monai_ifim.run.cases import Case
from monai_ifim.run.cluster import worker
from monai_ifim.run.cluster.driver import _WorkerPool
from monai_ifim.run.cluster.schedule import Allotment, Schedule
from monai_ifim.run.cluster.worker import DecomposingWorker
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.stop_request import StopRequest
from monai_ifim.run.table import CaseRow

PRODUCTS = 5


def slow_cases(bundle: Any, cases: Iterator[Case], settings: RunSettings, activity: Callable[..., None]) -> Iterator[CaseRow]:
    """Stands for `decompose_cases`: each case takes some products, and tells of them."""
    for case in cases:
        for made in range(1, PRODUCTS + 1):
            activity(Stage(case.name, made, PRODUCTS, float(PRODUCTS - made)))
            time.sleep(0.1)
        activity(None)
        yield CaseRow(case.name, "done").of_listed(case.name, "")


class InProcess(DecomposingWorker):
    """A worker without a bundle."""

    def start(self, task: Any, state: Any) -> None:
        self._bundle, self._settings, self._threads, self._away = None, None, 1, Path()  # type: ignore[assignment]


class Future:
    """An answer that is there already."""

    def __init__(self, value: Any) -> None:
        self.value = value


def actor() -> SimpleNamespace:
    own = InProcess()
    methods = {"start": own.start, "exchange": own.exchange}
    return SimpleNamespace(
        **{name: SimpleNamespace(remote=lambda *given, call=call: Future(call(*given))) for name, call in methods.items()}
    )


def fake_ray() -> SimpleNamespace:
    """What of Ray the pool calls, with workers in this process."""
    return SimpleNamespace(
        remote=lambda **_: lambda cls: SimpleNamespace(remote=actor),
        wait=lambda waiting, timeout: (waiting, []),
        get=lambda answer: answer.value,
        kill=lambda _: None,
        exceptions=SimpleNamespace(RayError=ConnectionError),
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "decompose_cases", slow_cases)
    monkeypatch.setattr(worker, "TELL_SECONDS", 0.05)


def make_cases(count: int) -> list[Case]:
    return [Case(f"c{i}", Source(Path(f"c{i}.nii.gz"))) for i in range(count)]


@pytest.mark.usefixtures("quick")
def test_a_worker_without_a_row_tells_how_far_it_is() -> None:
    own = InProcess()
    own.start(None, None)
    (case,) = make_cases(1)
    answers = [own.exchange([case], last=True)]
    while not answers[-1].rows:
        answers.append(own.exchange([], last=False))
    told = [answer.stage.products for answer in answers if answer.stage is not None]
    assert len(told) >= 2
    assert told == sorted(told)
    assert [row.case for row in answers[-1].rows] == ["c0"]
    assert answers[-1].stage is None


@pytest.mark.usefixtures("quick")
def test_the_driver_hears_of_products_and_time_left_and_of_the_end(tmp_path: Path) -> None:
    cases = make_cases(4)
    rows: list[CaseRow] = []
    heard: list[Stage | None] = []
    settings, schedule = RunSettings(tmp_path, CaseSettings("auto", rank=1)), Schedule(cases, 2, 1)
    pool = _WorkerPool(fake_ray(), Allotment(2, 1), schedule, settings, rows.append, StopRequest(), heard.append)
    found = pool.run(SimpleNamespace(), None)  # type: ignore[arg-type]
    assert sorted(row.case for row in found) == sorted(row.case for row in rows) == [case.name for case in cases]
    stages = [stage for stage in heard if stage is not None]
    assert any(stage.names in {case.name for case in cases} and stage.expected == PRODUCTS for stage in stages)
    assert any(stage.names == "2 computations" and stage.expected == 2 * PRODUCTS for stage in stages)
    assert heard[-1] is None


def test_several_computations_are_added_up_where_all_of_them_know() -> None:
    one, other = Stage("a", 3, 10, 7.0), Stage("b", 4, 20, 2.5)
    assert together([]) is None
    assert together([one]) == one
    assert together([one, other]) == Stage("2 computations", 7, 30, 7.0)
    assert together([one, Stage("b", 4)]) == Stage("2 computations", 7, None, None)
