"""When a run stops by itself: after failures of the disk in a row, and when the device is lost."""

from __future__ import annotations

import errno

import pytest
import torch

from monai_ifim.core import IFIMError
from monai_ifim.run.stop_request import PATIENCE, StopRequest, loss, short_of_memory

FULL, GONE = OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "Input/output error")


def test_a_signal_is_a_request() -> None:
    request = StopRequest()
    assert not request.due
    request.signal = 15
    assert request.due


def test_failures_of_the_disk_in_a_row_stop_the_run() -> None:
    request = StopRequest()
    for _ in range(PATIENCE - 1):
        request.write_failed(FULL)
    assert not request.due
    request.write_failed(GONE)
    assert request.due
    assert request.cause.startswith(f"the disk took none of {PATIENCE} cases in a row. The last: Input/output error")


@pytest.mark.parametrize("between", ["a case written", "another failure"])
def test_failures_that_do_not_follow_each_other_do_not(between: str) -> None:
    request = StopRequest()
    for _ in range(PATIENCE + 1):
        request.write_failed(FULL)
        if between == "a case written":
            request.case_written()
        else:
            request.write_failed(ValueError("an input like this"))
    assert not request.due


def test_a_reader_counts_a_full_disk_alone() -> None:
    request = StopRequest()
    for _ in range(PATIENCE):
        request.read_failed(GONE)
    assert not request.due
    for _ in range(PATIENCE):
        request.read_failed(FULL)
    assert request.due


def test_causes_of_an_error_count_too() -> None:
    request = StopRequest()
    for _ in range(PATIENCE):
        wrapped = RuntimeError("cannot save")
        wrapped.__cause__ = FULL
        request.write_failed(wrapped)
    assert request.due


def test_a_lost_device_stops_the_run_at_once() -> None:
    request = StopRequest()
    assert request.compute_failed("a", ValueError("of one case"), "cpu") is None
    assert not request.due
    refused = request.compute_failed("b", RuntimeError("CUDA error: an illegal memory access was encountered"), "cpu")
    assert isinstance(refused, IFIMError)
    assert "run the same command again" in str(refused)
    assert request.cause.startswith("b: the device cpu is lost")


def test_memory_that_ran_out_is_no_lost_device() -> None:
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert loss(full, "cpu") is None
    said = short_of_memory(full, "cuda")
    assert said is not None
    assert "Tried to allocate 2.00 GiB" in str(said)
    assert "--memory-budget" in str(said)
    assert short_of_memory(ValueError("else"), "cuda") is None
