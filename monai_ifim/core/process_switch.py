"""Switches of the whole process, PyTorch's among them, that several threads turn at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager


class ProcessSwitch:
    """A switch that any number of threads may hold: the first one turns it, the last one turns it back.

    turned: makes the context in which it is turned.
    """

    def __init__(self, turned: Callable[[], AbstractContextManager[object]]) -> None:
        self._turned, self._lock, self._holders, self._stack = turned, threading.Lock(), 0, ExitStack()

    @property
    def on(self) -> bool:
        """True while it is held."""
        return self._holders > 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Context in which the switch is turned."""
        with self._lock:
            if self._holders == 0:
                self._stack.enter_context(self._turned())
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0:
                    self._stack.close()
