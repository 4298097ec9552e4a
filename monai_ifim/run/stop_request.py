"""Why a run ends before its last case: it was asked to, its device is lost, or its disk takes nothing more."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

import torch

from monai_ifim.core import IFIMError
from monai_ifim.io.errors import explained, one_line

PATIENCE = 2  # cases in a row that the disk did not take, after which none is tried

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_DISK = _NO_ROOM | {errno.EROFS, errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ESTALE}
_NO_MEMORY = re.compile(r"out of memory|CUBLAS_STATUS_ALLOC_FAILED|can't allocate memory", re.IGNORECASE)
_SIZE = re.compile(r"(you )?tried to allocate [\d.]+ \w+", re.IGNORECASE)
_LOST = re.compile(
    r"device-side assert|illegal memory access|illegal instruction|unspecified launch failure|misaligned address|"
    r"launch timed out|ECC error|hardware stack error|context is destroyed|device(\(s\))? is/are busy or unavailable|"
    r"device[ -]?lost|lost device|no \w+-capable device|driver shutting down|\w+ error: unknown error",
    re.IGNORECASE,
)  # after these a process can compute nothing more on its device (CUDA Runtime API, cudaError)


class StoppedError(IFIMError):
    """A run ended before its last case; what is whole stays, and the same command goes on."""


class Halt:
    """Whether a run is to end once what is in hand is done. Signals and all threads of the run may write to it.

    signal: number of the signal that asked for it; None where none did. cause: why to go on is of no use, "" where it is.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.cause = ""
        self._not_taken = 0

    @property
    def due(self) -> bool:
        """Whether no further case is to be begun."""
        return self.signal is not None or bool(self.cause)

    def taken(self) -> None:
        """The disk took a case."""
        self._not_taken = 0

    def not_read(self, error: BaseException) -> None:
        """A case could not be read; count it where the folder for temporary files is what is full."""
        self._count(error, _NO_ROOM)

    def not_written(self, error: BaseException) -> None:
        """A case could not be written; count it where that was the disk's fault."""
        self._count(error, _NO_DISK)

    def not_computed(self, case: str, error: BaseException, device: str) -> IFIMError | None:
        """A case could not be computed; where no other could on this device, the run is over, and that is what is returned."""
        said = loss(error, device)
        if said is None:
            return None
        lost = f"the device {device} is lost ({said}), and no further case can be computed in this process"
        if not self.cause:
            self.cause = f"{case}: {lost}. Where it is always this case, leave it out or take another --device for it."
        return IFIMError(f"{lost}: run the same command again.")

    def _count(self, error: BaseException, numbers: frozenset[int]) -> None:
        refused = next((one for one in _causes(error) if isinstance(one, OSError) and one.errno in numbers), None)
        self._not_taken = 0 if refused is None else self._not_taken + 1
        if refused is not None and self._not_taken == PATIENCE and not self.cause:
            self.cause = f"the disk took none of {PATIENCE} cases in a row. The last: {explained(refused)}"


def loss(error: BaseException, device: str) -> str | None:
    """What a device said last, where after this error it computes nothing more in this process; None where it does."""
    refusals = [str(one) for one in _causes(error) if isinstance(one, RuntimeError)]
    last = next((said for said in refusals if _LOST.search(said)), None)
    if last is None and refusals and not _answers(device):
        last = refusals[-1]
    return None if last is None else one_line(last.strip().partition("\n")[0].rstrip("."))


def short_of_memory(error: BaseException, device: str) -> IFIMError | None:
    """The same in our words where memory ran out, on the device or elsewhere; else None."""
    for one in _causes(error):
        said = one_line(str(one))
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
    """Whether the device still adds two numbers."""
    try:
        return float(torch.ones(2, device=device).sum()) == 2
    except RuntimeError as error:
        return bool(_NO_MEMORY.search(str(error)))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it arose from."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__
