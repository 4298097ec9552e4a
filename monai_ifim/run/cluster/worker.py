"""The Ray actor: it loads the bundle, with weights shared by all workers of its node, and decomposes a stream of cases."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.core import IFIMError
from monai_ifim.core.determinism import configure_cublas
from monai_ifim.io import ModelIdentity, identify_bundle
from monai_ifim.run.case_clock import Stage
from monai_ifim.run.cases import Case
from monai_ifim.run.pipeline import decompose_cases
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import CaseRow

TELL_SECONDS = 3.0  # after so long without a row a worker tells how far it is

Packed = dict[str, tuple[npt.NDArray[np.uint8], torch.dtype, tuple[int, ...]]]


@dataclass(frozen=True)
class RunTask:
    """What all workers of a run have in common. folder: the driver's working directory; marker: a file in OUT."""

    root: Path
    identity: ModelIdentity
    settings: RunSettings
    folder: Path
    marker: str
    threads: int


@dataclass(frozen=True)
class Answer:
    """What a worker has to say: rows of finished cases, and how far the computation in hand is, None where that is short."""

    rows: tuple[CaseRow, ...]
    stage: Stage | None


class DecomposingWorker:
    """An actor that takes cases and returns rows. Its pipeline runs in a thread and continues between calls."""

    def __init__(self) -> None:
        self._incoming: SimpleQueue[Case | None] = SimpleQueue()
        self._outgoing: SimpleQueue[CaseRow | BaseException] = SimpleQueue()
        self._pipeline: threading.Thread | None = None
        self._held, self._closed = 0, False
        self._stage: Stage | None = None

    def start(self, task: RunTask, state: Packed | None) -> None:
        """Load the bundle. Raises IFIMError if this node does not see the run's folders, or sees other files there."""
        self._away = _enter(task.folder)
        root, output = self._away / task.root, self._away / task.settings.output
        if not (output / task.marker).is_file():
            raise IFIMError(
                f"{output} on {_node()} is not the folder that the driver sees: OUT must be on a file system shared by all."
            )
        if not root.is_dir():
            raise IFIMError(f"{root} does not exist on {_node()}: the bundle must be on a file system shared by all nodes.")
        device = "cuda:0" if task.settings.device.startswith("cuda") else task.settings.device  # the only GPU that Ray shows it
        self._settings = replace(task.settings, output=output, device=device)
        self._threads = task.threads
        configure_cublas(task.settings.case.deterministic)
        torch.set_num_threads(task.threads)
        if _content(identify_bundle(root)) != _content(task.identity):
            raise IFIMError(f"{root} on {_node()} is not the bundle that the driver loaded: copy the same files to all nodes.")
        self._bundle = load_bundle(root, device, None if state is None else unpack_state(state))

    def exchange(self, cases: Sequence[Case], last: bool) -> Answer:
        """Take more cases and return all finished rows, after waiting for one, at most TELL_SECONDS, if any case is held.

        last: no more cases follow until all rows have been returned. Raises the error that ended the pipeline, if any.
        """
        if self._pipeline is None:
            self._closed = False
            self._pipeline = threading.Thread(target=self._work, args=(self._bundle, self._settings), daemon=True)
            self._pipeline.start()
        self._held += len(cases)
        for case in cases:
            path = self._away / case.source.path
            self._incoming.put(replace(case, source=replace(case.source, path=path)))
        if last:
            self._incoming.put(None)
            self._closed = True
        rows: list[CaseRow] = []
        while self._held and (not rows or not self._outgoing.empty()):
            try:
                rows.append(self._row())
            except Empty:
                break
        if self._closed and not self._held:
            self._pipeline.join()  # let it remove its scratch files
            self._pipeline = None
        return Answer(tuple(rows), self._stage)

    def _work(self, bundle: Bundle, settings: RunSettings) -> None:
        torch.set_num_threads(self._threads)  # the setting is per thread
        try:
            for row in decompose_cases(bundle, iter(self._incoming.get, None), settings, activity=self._tell):
                self._outgoing.put(row)
        except BaseException as error:  # the driver retries the cases elsewhere
            self._outgoing.put(error)

    def _tell(self, stage: Stage | None) -> None:
        self._stage = stage

    def _row(self) -> CaseRow:
        row = self._outgoing.get(timeout=TELL_SECONDS)
        if isinstance(row, BaseException):
            raise row
        self._held -= 1
        return row


def pack_state(state: Mapping[str, Any]) -> Packed | None:
    """The weights as arrays of bytes, which Ray maps into every process of a node without a copy.

    None if they hold anything but dense tensors; each worker then reads the file.
    """
    if not all(
        isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized for value in state.values()
    ):
        return None
    return {name: (_bytes_of(tensor), tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()}


def unpack_state(packed: Packed) -> dict[str, Tensor]:
    """The tensors of `pack_state`, sharing the memory of the arrays. They must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return {name: _tensor_over(*entry) for name, entry in packed.items()}


def _bytes_of(tensor: Tensor) -> npt.NDArray[np.uint8]:
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return np.asarray(plain.view(torch.uint8).numpy())


def _tensor_over(values: npt.NDArray[np.uint8], dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if not values.size:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(values).view(dtype).reshape(shape)


def _enter(folder: Path) -> Path:
    """Change to the driver's working directory, so that relative paths hold; if that fails, return it as the prefix for them."""
    try:
        os.chdir(folder)
    except OSError:
        return folder
    return Path()


def _content(identity: ModelIdentity) -> tuple[Any, ...]:
    return identity.weights_sha256, identity.config_sha256, identity.version, identity.own_files


def _node() -> str:
    return f"node {os.uname().nodename}"
