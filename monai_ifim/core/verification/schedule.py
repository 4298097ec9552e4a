"""Which images of a process are verified: the first of each network, shape and setting, and every 20th after it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from monai_ifim.options import Verify

EVERY = 20


@dataclass
class _History:
    """Images of one network, shape and setting so far, and the figures of the latest one that was verified."""

    images: int = 0
    latest: Mapping[str, Any] | None = None


@dataclass
class VerificationSchedule:
    """Counts the images of each network, shape and setting. What verification finds belongs to the network, so a sample suffices.

    Networks are held by weak references; images of a callable that allows none are all verified.
    """

    _histories: weakref.WeakKeyDictionary[Any, dict[Hashable, _History]] = field(default_factory=weakref.WeakKeyDictionary)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_images(self, network: Callable[..., Any], kind: Hashable, batch: int, verify: Verify) -> tuple[list[int], int]:
        """(indices of the images of this batch to verify, number of its first image, from 1 on)."""
        with self._lock:
            history = self._history(network, kind)
            start = history.images
            history.images += batch
            if verify == "never":
                return [], start + 1
            if verify == "always":
                return list(range(batch)), start + 1
            due = list(range(-start % EVERY, batch, EVERY))
            return ([0] if history.latest is None and 0 not in due else []) + due, start + 1

    def keep(self, network: Callable[..., Any], kind: Hashable, figures: Mapping[str, Any]) -> None:
        """Keep the figures of an image that was verified, for the records of those after it."""
        with self._lock:
            self._history(network, kind).latest = figures

    def latest(self, network: Callable[..., Any], kind: Hashable) -> dict[str, Any] | None:
        """Figures of the latest image of the network, shape and setting that was verified, if there is one."""
        with self._lock:
            latest = self._history(network, kind).latest
        return None if latest is None else dict(latest)

    def _history(self, network: Callable[..., Any], kind: Hashable) -> _History:
        try:
            return self._histories.setdefault(network, {}).setdefault(kind, _History())
        except TypeError:  # without weak references
            return _History()


SCHEDULE = VerificationSchedule()  # of this process
