"""The Ray engine: workers on a local or an existing cluster decompose the cases; a worker that is lost loses none of them."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_ifim.adapt.bundle import read_state
from monai_ifim.core import IFIMError
from monai_ifim.io import ModelIdentity, atomic, sidecar_path
from monai_ifim.io.model import weights_path
from monai_ifim.run.cases import Case
from monai_ifim.run.cluster.schedule import ATTEMPTS, Allotment, Chunk, Node, Schedule, allot
from monai_ifim.run.cluster.worker import DecomposingWorker, Task, pack_state
from monai_ifim.run.pipeline import failed_row
from monai_ifim.run.run_record import Start, write_outcome
from monai_ifim.run.settings import RunSettings, prepared_folder
from monai_ifim.run.stop_request import Halt
from monai_ifim.run.table import CaseRow

__all__ = ["run_on_ray"]

PATIENCE = 60.0  # seconds without any worker after which it is said what is being waited for
SMALLEST_STORE = 2**27  # bytes of a local cluster's object store, besides the weights

Report = Callable[[CaseRow], None]


def run_on_ray(
    root: Path,
    identity: ModelIdentity,
    cases: Sequence[Case],
    settings: RunSettings,
    report: Report,
    workers: int | None = None,
    halt: Halt | None = None,
) -> list[CaseRow]:
    """As `run_cases`, by workers of the Ray cluster at RAY_ADDRESS, or of a local one that lasts as long as the run.

    The bundle in `root`, the inputs and OUT must be on a file system that all nodes see at the same place, and monai_ifim
    must be installed there. Each node holds the weights once, in memory that its workers share. workers: None for one on
    each GPU, or, where settings.device is not CUDA, on each CPU; more workers than GPUs share these in equal parts. A
    worker computes with OMP_NUM_THREADS threads or else with as many as it has CPUs: files are, byte for byte, those of a
    local run with as many threads.

    The cases of a lost worker are tried again, ATTEMPTS times at most, each alone; one that is then still not done is a
    failed row. report is called with each row as it comes. Raises IFIMError where Ray is missing or cannot be reached,
    where the workers do not fit on the cluster, and where none of them can start; OutputError where OUT cannot be written.
    Where halt comes to be due, workers finish what they have in hand, and cases that nobody has begun have no row.
    """
    began = Start()
    with _connected(root) as ray:
        allotment = allot(_nodes(ray), settings.device, workers, len(cases))
        prepared_folder(settings.output)
        crew = _Crew(ray, allotment, Schedule(cases, allotment.workers, settings.batch_size), settings, report)
        with atomic.partial_file(settings.output) as marker:  # where a run is killed, the next one removes it
            try:
                task = Task(root, identity, settings, Path.cwd(), Path(marker.name).name, _threads(allotment))
                rows = crew.work(task, _shared_state(ray, root), halt or Halt())
            finally:
                crew.dismiss()
        engine = {
            "name": "ray",
            "ray": ray.__version__,
            "workers": allotment.workers,
            "cpus_per_worker": allotment.cpus,
            "gpus_per_worker": allotment.gpus,
            "threads_per_worker": task.threads,
            "restarts": crew.restarts,
        }
    return write_outcome(identity, settings, cases, rows, began, engine)


class _Place:
    """A worker's place: who fills it now, what is awaited of it, and the cases given out and not returned."""

    def __init__(self) -> None:
        self.actor: Any = None
        self.answer: Any = None  # a future; None where the worker is idle, or there is none
        self.started = False
        self.supplied = False  # whether its pipeline may get more before all that it holds is done
        self.held: dict[str, Case] = {}
        self.failures = 0  # workers lost in a row before they were ready


class _Crew:
    """The workers of a run."""

    def __init__(self, ray: Any, allotment: Allotment, schedule: Schedule, settings: RunSettings, report: Report) -> None:
        self._ray, self._schedule, self._settings, self._report = ray, schedule, settings, report
        options = {"num_cpus": allotment.cpus, "num_gpus": allotment.gpus, "max_restarts": 0}
        self._worker = ray.remote(**options)(DecomposingWorker)
        self._places = [_Place() for _ in range(allotment.workers)]
        self._rows: list[CaseRow] = []
        self._found: dict[str, str | None] = {}  # hash of the sidecar that lay there when a case was first given out
        self._refusal: Exception | None = None  # why a worker could not start
        self._deadline = time.monotonic() + PATIENCE
        self.restarts = 0

    def work(self, task: Task, state: Any, halt: Halt) -> list[CaseRow]:
        """Rows of all cases that are begun before halt is due. state: the packed weights in Ray's store, or None."""
        self._arguments = (task, state)
        for place in self._places:
            self._hire(place)
        while True:
            if halt.due:
                self._schedule.drain()
            for place in self._places:
                if place.started and place.answer is None:
                    self._give(place)
            if not self._schedule.left and not any(place.held for place in self._places):
                return self._rows
            if all(place.answer is None for place in self._places):
                self._give_up()
                return self._rows
            for place in self._answered():
                self._take(place)

    def dismiss(self) -> None:
        """End all workers, whatever they are doing."""
        for place in self._places:
            self._end(place)

    def _hire(self, place: _Place) -> None:
        place.actor = self._worker.remote()
        place.answer = place.actor.start.remote(*self._arguments)

    def _end(self, place: _Place) -> None:
        if place.actor is not None:
            with suppress(Exception):  # it is gone already, or so is the cluster
                self._ray.kill(place.actor)
        place.actor = place.answer = None
        place.started = place.supplied = False

    def _answered(self) -> list[_Place]:
        waiting = {place.answer: place for place in self._places if place.answer is not None}
        done, _ = self._ray.wait(list(waiting), timeout=PATIENCE)
        if not done and time.monotonic() > self._deadline and not any(place.started for place in self._places):
            self._deadline = float("inf")
            warnings.warn(
                f"no worker has started in {PATIENCE:.0f} s: Ray waits for free CPUs or GPUs (`ray status` tells who has them).",
                stacklevel=2,
            )
        return [waiting[answer] for answer in done]

    def _take(self, place: _Place) -> None:
        """What a worker answered: that it is ready, rows, or nothing more."""
        try:
            answer = self._ray.get(place.answer)
        except self._ray.exceptions.RayError as error:
            self._lose(place, error)
            return
        place.answer = None
        if not place.started:
            place.started, place.failures = True, 0
            return
        for row in answer:
            del place.held[row.case]
            self._add(self._since_begin(row))
        if place.supplied or place.held:
            self._give(place)

    def _give(self, place: _Place) -> None:
        """What a worker is to do next; one with nothing in hand stays idle where there is nothing to do."""
        chunk: Chunk | None = Chunk((), last=False)  # it has had its last and is asked for rows alone
        if place.supplied:
            chunk = self._schedule.go_on(len(place.held))
            place.supplied = not chunk.last
        elif not place.held:
            chunk = self._schedule.begin()
            place.supplied = chunk is not None and not chunk.last
        if chunk is None:
            return
        for case in chunk.cases:
            place.held[case.name] = case
            if case.name not in self._found:
                self._found[case.name] = self._sidecar_hash(case.name)
        place.answer = place.actor.exchange.remote(chunk.cases, chunk.last)

    def _lose(self, place: _Place, error: Exception) -> None:
        """A worker died or its pipeline broke: another takes its place, except where none can start there."""
        started, held = place.started, list(place.held.values())
        cause = getattr(error, "cause", None)
        reason = cause if isinstance(cause, Exception) else None  # what it raised; None where it died
        self._end(place)
        place.held = {}
        for case in self._schedule.lost(held):
            said = f"the worker process died {ATTEMPTS} times on this case (out of memory?): try fewer --workers."
            self._add(failed_row(case, reason or IFIMError(said)))
        if not started:
            place.failures += 1
            if reason is None and place.failures == ATTEMPTS:
                words = " ".join(str(error).split())[:500]
                reason = IFIMError(f"a worker died {ATTEMPTS} times before it was ready (out of memory?): {words}")
            if reason is not None:
                self._refusal = reason
                warnings.warn(f"one worker less, it could not start: {reason}", stacklevel=2)
                return
        self.restarts += 1
        self._hire(place)

    def _give_up(self) -> None:
        """No worker is left: cases that none has done are failed rows, or, where there are no others, the run has failed."""
        refusal = self._refusal or IFIMError("no worker is left.")
        if not self._rows:
            raise refusal
        for case in self._schedule.drain():
            self._add(failed_row(case, refusal))

    def _add(self, row: CaseRow) -> None:
        self._found.pop(row.case, None)
        self._rows.append(row)
        self._report(row)

    def _since_begin(self, row: CaseRow) -> CaseRow:
        """A lost worker may have finished a case and not said so: found whole by the next, it was done in this run still."""
        if row.status == "kept" and self._schedule.losses(row.case) and self._found[row.case] != self._sidecar_hash(row.case):
            return replace(row, status="done")
        return row

    def _sidecar_hash(self, case: str) -> str | None:
        try:
            content = sidecar_path(self._settings.output, case).read_bytes()
        except OSError:
            return None
        return hashlib.sha256(content).hexdigest()


@contextmanager
def _connected(root: Path) -> Iterator[Any]:
    """Ray, connected; what is started or connected to here is left again, a cluster that was there stays."""
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {}
    if address == "local":
        weights = weights_path(root)
        store = SMALLEST_STORE + (2 * weights.stat().st_size if weights is not None else 0)
        options = {"include_dashboard": False, "object_store_memory": store}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray reports every cluster to its makers
    try:
        ray.init(address=address, logging_level="ERROR", log_to_driver=False, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = "a local Ray cluster cannot be started" if address == "local" else f"no Ray cluster at RAY_ADDRESS={address}"
        cure = "start one with `ray start --head`, or unset RAY_ADDRESS for one that lasts as long as the run"
        raise IFIMError(f"{where} ({str(error).splitlines()[0]}){'' if address == 'local' else ': ' + cure}.") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise IFIMError('--engine ray needs Ray: pip install "monai-ifim[ray]", in a clone pip install ".[ray]".') from error
    return ray


def _nodes(ray: Any) -> list[Node]:
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(found.get("CPU", 0)), int(found.get("GPU", 0))) for found in resources]


def _threads(allotment: Allotment) -> int:
    """What the driver's OMP_NUM_THREADS says, which nodes elsewhere do not know of; else one for each CPU of a worker."""
    stated = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(stated) if stated.isdecimal() and int(stated) else allotment.cpus


def _shared_state(ray: Any, root: Path) -> Any:
    """The weights in Ray's store; None where each worker has to read the file itself (TorchScript, sparse tensors)."""
    state = read_state(root)
    packed = None if state is None else pack_state(state)
    return None if packed is None else ray.put(packed)
