"""Requests to stop a run early: from a signal, a lost device, or a disk that can no longer be written to."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

import torch

from monai_ifim.core import IFIMError
from monai_ifim.io.errors import explained, single_line

PATIENCE = 2  # failures of the disk in a row after which the run stops

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_DISK = _NO_ROOM | {errno.EROFS, errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ESTALE}
_NO_MEMORY = re.compile(r"out of memory|CUBLAS_STATUS_ALLOC_FAILED|can't allocate memory", re.IGNORECASE)
_SIZE = re.compile(r"(you )?tried to allocate [\d.]+ \w+", re.IGNORECASE)
_LOST = re.compile(
    r"device-side assert|illegal memory access|illegal instruction|unspecified launch failure|misaligned address|"
    r"launch timed out|ECC error|hardware stack error|context is destroyed|device(\(s\))? is/are busy or unavailable|"
    r"device[ -]?lost|lost device|no \w+-capable device|driver shutting down|\w+ error: unknown error",
    re.IGNORECASE,
)  # CUDA Runtime API, cudaError: the process can no longer use its device


class StoppedError(IFIMError):
    """A run stopped before its last case. Finished cases are kept, and the same command continues."""


class StopRequest:
    """Request that a run starts no further case. Signal handlers and all threads of the run may set it.

    signal: number of the signal that asked for the stop, or None. cause: why no further case can succeed, or "".
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.cause = ""
        self._disk_failures = 0

    @property
    def due(self) -> bool:
        """True if no further case may be started."""
        return self.signal is not None or bool(self.cause)

    def case_written(self) -> None:
        """Reset the count of disk failures: a case was written."""
        self._disk_failures = 0

    def read_failed(self, error: BaseException) -> None:
        """Count a case that could not be read if the folder for temporary files is full."""
        self._count(error, _NO_ROOM)

    def write_failed(self, error: BaseException) -> None:
        """Count a case that could not be written if the disk is the cause."""
        self._count(error, _NO_DISK)

    def compute_failed(self, case: str, error: BaseException, device: str) -> IFIMError | None:
        """Request a stop and return the reason if the error means that the device is lost; otherwise return None."""
        said = loss(error, device)
        if said is None:
            return None
        lost = f"the device {device} is lost ({said}), and no further case can be computed in this process"
        if not self.cause:
            self.cause = f"{case}: {lost}. Where it is always this case, leave it out or take another --device for it."
        return IFIMError(f"{lost}: run the same command again.")

    def _count(self, error: BaseException, numbers: frozenset[int]) -> None:
        refused = next((one for one in _causes(error) if isinstance(one, OSError) and one.errno in numbers), None)
        self._disk_failures = 0 if refused is None else self._disk_failures + 1
        if refused is not None and self._disk_failures == PATIENCE and not self.cause:
            self.cause = f"the disk took none of {PATIENCE} cases in a row. The last: {explained(refused)}"


def loss(error: BaseException, device: str) -> str | None:
    """The device's error message if the device can no longer be used in this process, else None."""
    refusals = [str(one) for one in _causes(error) if isinstance(one, RuntimeError)]
    last = next((said for said in refusals if _LOST.search(said)), None)
    if last is None and refusals and not _answers(device):
        last = refusals[-1]
    return None if last is None else single_line(last.strip().partition("\n")[0].rstrip("."))


def short_of_memory(error: BaseException, device: str) -> IFIMError | None:
    """An IFIMError with the cure if the error means that memory ran out, on the device or elsewhere; else None."""
    for one in _causes(error):
        said = single_line(str(one))
        if isinstance(one, MemoryError):
            return IFIMError(explained(one))
        if isinstance(one, torch.OutOfMemoryError) or (isinstance(one, RuntimeError) and _NO_MEMORY.search(said)):
            size = _SIZE.search(said)
            return IFIMError(
                f"not enough memory on the device {device} ({size[0] if size else said[:100].rstrip('.')}): bound what is held "
                "there with --memory-budget (2GiB, say), give a smaller --batch-size, or take another --device."
            )
    return None


def _answers(device: str) -> bool:
    """True if the device still computes, or only lacks memory."""
    try:
        return float(torch.ones(2, device=device).sum()) == 2
    except RuntimeError as error:
        return bool(_NO_MEMORY.search(str(error)))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its `__cause__` chain."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__
