"""The Ray engine: a pool of workers on a local or an existing cluster. The cases of a lost worker are tried again."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_ifim.adapt.weights import read_state
from monai_ifim.core import IFIMError
from monai_ifim.io import ModelIdentity, OutputError, atomic, read_sidecar, sidecar_path
from monai_ifim.io.case_files import LARGEST_SIDECAR
from monai_ifim.io.written_files import read_regular
from monai_ifim.run.case_clock import Activity, Stage, together, unheard
from monai_ifim.run.cases import Case
from monai_ifim.run.cluster.connection import connected
from monai_ifim.run.cluster.schedule import ATTEMPTS, Allotment, Chunk, Node, Schedule, allot
from monai_ifim.run.cluster.worker import DecomposingWorker, RunTask, pack_state
from monai_ifim.run.output_folder import output_of_run
from monai_ifim.run.pipeline import failed_row
from monai_ifim.run.places import placed
from monai_ifim.run.resume import DAMAGE
from monai_ifim.run.run_record import Start, write_outcome
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.stop_request import StopRequest
from monai_ifim.run.table import CaseRow, row_from_sidecar

__all__ = ["run_on_ray"]

PATIENCE = 60.0  # seconds without any started worker before a warning

Report = Callable[[CaseRow], None]


def run_on_ray(
    root: Path,
    identity: ModelIdentity,
    cases: Sequence[Case],
    settings: RunSettings,
    report: Report,
    workers: int | None = None,
    stop_request: StopRequest | None = None,
    activity: Activity = unheard,
) -> list[CaseRow]:
    """`run_cases` on the Ray cluster at RAY_ADDRESS, or on a local cluster that is stopped after the run.

    The bundle in `root`, the inputs and OUT must be on a file system that all nodes see under the same path, and monai_ifim
    must be installed there. Each node holds the weights once, in memory that its workers share. workers: None for one per
    GPU, or per CPU if settings.device is not CUDA; more workers than GPUs share them equally. A worker uses
    OMP_NUM_THREADS threads, or as many as it has CPUs. The files are, byte for byte, those of a local run with that many
    threads.

    The cases of a lost worker are tried again one by one, at most ATTEMPTS times each, and then fail. report is called with
    each row as it is finished. Once stop_request is due, workers finish the cases that they hold; cases not yet handed out,
    and those that a worker which is lost then had not written, have no row. activity is told how far long computations are, those
    of several workers as one. Raises IFIMError if Ray is missing or cannot be reached, if the workers do not fit on the cluster,
    or if none of them starts; OutputError if OUT cannot be written.
    """
    began, stop_request = Start(), stop_request or StopRequest()
    try:
        with connected(root) as ray:
            allotment = allot(_nodes(ray), settings.device, workers, len(cases))
            with output_of_run(settings, cases):
                cases = placed(cases, settings)
                schedule = Schedule(cases, allotment.workers, settings.batch_size)
                pool = _WorkerPool(ray, allotment, schedule, settings, report, stop_request, activity)
                threads = _threads(allotment)
                with atomic.partial_file(settings.output, root=settings.output) as marker:  # removed by the next run after a kill
                    task = RunTask(root, identity, settings, Path.cwd(), Path(marker.name).name, threads)
                    rows = pool.run(task, _shared_state(ray, root))
                engine = {
                    "name": "ray",
                    "ray": ray.__version__,
                    "workers": allotment.workers,
                    "cpus_per_worker": allotment.cpus,
                    "gpus_per_worker": allotment.gpus,
                    "threads_per_worker": threads,
                    "restarts": pool.restarts,
                }
                return write_outcome(identity, settings, cases, rows, began, engine, allotment.workers)
    except InterruptedError:
        with output_of_run(settings, cases):
            return write_outcome(identity, settings, cases, [], began, {"name": "ray"})


class _Slot:
    """One worker of the pool: its actor, its pending answer, and the cases that it holds."""

    def __init__(self) -> None:
        self.actor: Any = None
        self.answer: Any = None  # a future; None if the worker is idle or absent
        self.started = False
        self.supplied = False  # True while it may be given more cases before those that it holds are done
        self.held: dict[str, Case] = {}
        self.failures = 0  # workers lost in a row before they were ready
        self.stage: Stage | None = None  # how far its computation is


class _WorkerPool:
    """The workers of a run and the cases that each of them holds."""

    def __init__(
        self,
        ray: Any,
        allotment: Allotment,
        schedule: Schedule,
        settings: RunSettings,
        report: Report,
        stop_request: StopRequest,
        activity: Activity = unheard,
    ) -> None:
        self._ray, self._schedule, self._settings, self._report = ray, schedule, settings, report
        self._stop_request, self._activity = stop_request, activity
        options = {"num_cpus": allotment.cpus, "num_gpus": allotment.gpus, "max_restarts": 0}
        self._worker = ray.remote(**options)(DecomposingWorker)
        self._slots = [_Slot() for _ in range(allotment.workers)]
        self._rows: list[CaseRow] = []
        self._left: list[Case] = []  # held by workers that were lost after the request to stop
        self._found: dict[str, str | None] = {}  # hash of the sidecar that existed when a case was first handed out
        self._refusal: Exception | None = None  # why a worker could not start
        self._deadline = time.monotonic() + PATIENCE
        self.restarts = 0

    def run(self, task: RunTask, state: Any) -> list[CaseRow]:
        """Start the workers, return a row per case, and kill the workers. state: the packed weights in Ray's store, or None."""
        self._arguments = (task, state)
        try:
            self._exchange()
        finally:
            for slot in self._slots:
                self._end(slot)
        for case in self._left:
            self._add_written(case)
        return self._rows

    def _exchange(self) -> None:
        """Hand out cases and take rows until none is left, or, after the request to stop, none is held."""
        for slot in self._slots:
            self._start(slot)
        while True:
            if self._stop_request.due:
                self._schedule.drain()
            for slot in self._slots:
                if slot.started and slot.answer is None:
                    self._give(slot)
            if not self._schedule.left and not any(slot.held for slot in self._slots):
                return
            if all(slot.answer is None for slot in self._slots):
                self._give_up()
                return
            for slot in self._answered():
                self._take(slot)

    def _start(self, slot: _Slot) -> None:
        slot.actor = self._worker.remote()
        slot.answer = slot.actor.start.remote(*self._arguments)

    def _end(self, slot: _Slot) -> None:
        if slot.actor is not None:
            with suppress(Exception):  # the worker or the cluster is gone already
                self._ray.kill(slot.actor)
        slot.actor = slot.answer = None
        slot.started = slot.supplied = False
        slot.stage = None

    def _answered(self) -> list[_Slot]:
        waiting = {slot.answer: slot for slot in self._slots if slot.answer is not None}
        done, _ = self._ray.wait(list(waiting), timeout=PATIENCE)
        if not done and time.monotonic() > self._deadline and not any(slot.started for slot in self._slots):
            self._deadline = float("inf")
            warnings.warn(
                f"no worker has started in {PATIENCE:.0f} s: Ray waits for free CPUs or GPUs (`ray status` shows who uses them).",
                stacklevel=2,
            )
        return [waiting[answer] for answer in done]

    def _take(self, slot: _Slot) -> None:
        """Process a worker's answer: it is ready, or it returns rows."""
        try:
            answer = self._ray.get(slot.answer)
        except self._ray.exceptions.RayError as error:
            self._lose(slot, error)
            return
        slot.answer = None
        if not slot.started:
            slot.started, slot.failures = True, 0
            return
        for row in answer.rows:
            del slot.held[row.key]
            self._add(self._as_of_this_run(row))
        slot.stage = answer.stage if slot.held else None
        self._activity(together([each.stage for each in self._slots if each.stage is not None]))
        if slot.supplied or slot.held:
            self._give(slot)

    def _give(self, slot: _Slot) -> None:
        """Hand out the next cases to a worker. It stays idle if it holds no case and none is left."""
        chunk: Chunk | None = Chunk((), last=False)  # no more cases for it: only ask for rows
        if slot.supplied:
            chunk = self._schedule.go_on(len(slot.held))
            slot.supplied = not chunk.last
        elif not slot.held:
            chunk = self._schedule.begin()
            slot.supplied = chunk is not None and not chunk.last
        if chunk is None:
            return
        for case in chunk.cases:
            slot.held[case.name] = case
            if case.name not in self._found:
                self._found[case.name] = self._sidecar_hash(case.name)
        slot.answer = slot.actor.exchange.remote(chunk.cases, chunk.last)

    def _lose(self, slot: _Slot, error: Exception) -> None:
        """Replace a worker that died or whose pipeline broke, unless no worker can start in its slot."""
        started, held = slot.started, list(slot.held.values())
        if self._stop_request.due:  # what stopped the run may have ended the worker too
            self._end(slot)
            self._left += held
            slot.held = {}
            return
        cause = getattr(error, "cause", None)
        reason = cause if isinstance(cause, Exception) else None  # the exception that it raised; None if the process died
        self._end(slot)
        slot.held = {}
        for case in self._schedule.lost(held):
            said = f"the worker process died {ATTEMPTS} times on this case (out of memory?): try fewer --workers."
            self._add(failed_row(case, reason or IFIMError(said)))
        if not started:
            slot.failures += 1
            if reason is None and slot.failures == ATTEMPTS:
                words = " ".join(str(error).split())[:500]
                reason = IFIMError(f"a worker died {ATTEMPTS} times before it was ready (out of memory?): {words}")
            if reason is not None:
                self._refusal = reason
                warnings.warn(f"the run goes on with one worker less, which could not start: {reason}", stacklevel=2)
                return
        self.restarts += 1
        self._start(slot)

    def _give_up(self) -> None:
        """Fail the remaining cases because no worker is left; raise the reason if no case has a row."""
        refusal = self._refusal or IFIMError("no worker is left.")
        if not self._rows:
            raise refusal
        for case in self._schedule.drain():
            self._add(failed_row(case, refusal))

    def _add(self, row: CaseRow) -> None:
        self._found.pop(row.key, None)
        self._rows.append(row)
        self._report(row)

    def _add_written(self, case: Case) -> None:
        """Add the row of a case that a worker wrote in this run and could not report, if it did."""
        if self._found[case.name] != self._sidecar_hash(case.name):
            with suppress(*DAMAGE):
                content = read_sidecar(sidecar_path(self._settings.output, case.name))
                self._add(row_from_sidecar(case.name, "done", content).of_listed(case.name, case.given))

    def _as_of_this_run(self, row: CaseRow) -> CaseRow:
        """The row with "done" for "kept" if a lost worker wrote the case in this run without reporting it."""
        if row.status != "kept" or row.case != row.key:
            return row
        if self._schedule.losses(row.key) and self._found[row.key] != self._sidecar_hash(row.case):
            return replace(row, status="done")
        return row

    def _sidecar_hash(self, case: str) -> str | None:
        output = self._settings.output
        try:
            content = read_regular(sidecar_path(output, case), output, LARGEST_SIDECAR)
        except (OSError, OutputError):
            return None
        return hashlib.sha256(content).hexdigest()


def _nodes(ray: Any) -> list[Node]:
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(found.get("CPU", 0)), int(found.get("GPU", 0))) for found in resources]


def _threads(allotment: Allotment) -> int:
    """Threads of a worker: the driver's OMP_NUM_THREADS, which other nodes do not see, or one per CPU of the worker."""
    stated = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(stated) if stated.isdecimal() and int(stated) else allotment.cpus


def _shared_state(ray: Any, root: Path) -> Any:
    """The weights in Ray's object store; None if each worker has to read the file (TorchScript, sparse tensors)."""
    state = read_state(root)
    packed = None if state is None else pack_state(state)
    return None if packed is None else ray.put(packed)
