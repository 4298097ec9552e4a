"""A thread for the files of a run, which can be given up if a task does not end."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

Result = TypeVar("Result")
_Task = tuple["Future[Any]", Callable[[], Any]]


class FileThread:
    """One thread that does tasks in their order. A task that hangs is left to itself, and others go on in a new thread.

    The thread ends with the process, whatever it does then: a hanging library cannot keep the program from ending.
    """

    def __init__(self) -> None:
        self._begun: tuple[Future[Any], float] | None = None
        self._start()

    def submit(self, task: Callable[[], Result]) -> Future[Result]:
        """The future result of a task."""
        future: Future[Result] = Future()
        self._tasks.put((future, task))
        return future

    def result(self, future: Future[Result], seconds: float) -> Result | None:
        """The result of a task, None if it takes longer than `seconds` (0: no limit) and was given up; raises what it raised."""
        while True:
            wait([future], None if not seconds else self._left(future, seconds))
            if future.done():
                return future.result()
            if self._left(future, seconds) <= 0:
                self._give_up()
                return None

    def close(self) -> None:
        """Finish the task in hand and drop those that wait."""
        self._cancel()
        self._tasks.put(None)
        self._thread.join()

    def _start(self) -> None:
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._thread = Thread(target=self._work, args=(self._tasks,), daemon=True)
        self._thread.start()

    def _work(self, tasks: SimpleQueue[_Task | None]) -> None:
        while (entry := tasks.get()) is not None:
            future, task = entry
            if not future.set_running_or_notify_cancel():
                continue
            if tasks is self._tasks:
                self._begun = (future, time.monotonic())
            try:
                future.set_result(task())
            except BaseException as error:  # whoever asks for the result gets it
                future.set_exception(error)
            del future, task, entry  # what a task made is not kept until the next one

    def _left(self, future: Future[Any], seconds: float) -> float:
        """Seconds that a task may still take; all of them if it has not begun."""
        begun = self._begun
        return seconds if begun is None or begun[0] is not future else max(0.0, begun[1] + seconds - time.monotonic())

    def _give_up(self) -> None:
        """Leave the thread to its task; what waits is done in a new one."""
        waiting = self._waiting()
        self._tasks.put(None)
        self._start()
        for entry in waiting:
            self._tasks.put(entry)

    def _cancel(self) -> None:
        for future, _ in self._waiting():
            future.cancel()

    def _waiting(self) -> list[_Task]:
        found: list[_Task] = []
        while True:
            try:
                entry = self._tasks.get_nowait()
            except Empty:
                return found
            if entry is not None:
                found.append(entry)
