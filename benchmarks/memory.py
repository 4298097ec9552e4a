"""Peak memory of one computation in a process of its own, printed as JSON.

python -m benchmarks.memory {plain,decompose} --dims 3 --size 128 --classes 3 [--budget BYTES] [--rank K] [--method M]

Measured is the largest resident memory (on CUDA: the most memory allocated) less what was resident once network and image
were made, libraries had been used once on a tiny problem and freed memory had gone back to the system. `plain` is autograd
as it comes: one forward pass and C - 1 backward passes, their rows kept. Weights and image come from fixed seeds, so that
processes agree.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.networks import Subject, residual18
from benchmarks.timing import wait
from monai_ifim import decompose

STATUS = Path("/proc/self/status")  # of Linux
CLEAR_REFERENCES = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
SMALL = 8  # voxels along an axis of the tiny problem


@dataclass(frozen=True)
class Measurement:
    """Bytes above the state before (and those before), seconds of the one run, and for `decompose` what it found."""

    peak: int
    seconds: float
    before: int = 0
    eigenvalues: list[float] = field(default_factory=list)
    method: str = ""
    products: int = 0


class MeasurementFailed(Exception):  # noqa: N818
    """The process that was to measure ended with an error."""


def measured_alone(words: Sequence[str], environment: Mapping[str, str] | None = None) -> Measurement:
    """What `python -m benchmarks.memory` with these words prints; raises MeasurementFailed with its last words.

    environment: variables that the process has besides this one's.
    """
    command = [sys.executable, "-m", "benchmarks.memory", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **(environment or {})})
    if done.returncode:
        raise MeasurementFailed((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return Measurement(**json.loads(done.stdout.strip().splitlines()[-1]))


class Peak:
    """The most memory above the start of the `with` block, in bytes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start = self.above = 0

    def __enter__(self) -> Peak:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self.start = torch.cuda.memory_allocated(self.device)
            return self
        with suppress(OSError, AttributeError):  # where the C library is not glibc
            ctypes.CDLL(None).malloc_trim(0)
        with suppress(OSError):  # where the system is not Linux, the largest so far stands, import included
            CLEAR_REFERENCES.write_text(RESET_PEAK, encoding="ascii")
        self.start = resident_memory()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.above = torch.cuda.max_memory_allocated(self.device) - self.start
        else:
            self.above = largest_resident_memory() - self.start


def resident_memory() -> int:
    """Bytes resident now; where the system does not tell, the most so far."""
    return _status("VmRSS") or largest_resident_memory()


def largest_resident_memory() -> int:
    """The most bytes resident so far.

    Linux's ru_maxrss is no use to a process whose parent is large: it starts from the parent's own.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    """Measure once and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=["plain", "decompose"])
    parser.add_argument("--dims", type=int, choices=[2, 3], required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--budget", type=int)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--method", default="auto")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    subject = residual18(arguments.dims, arguments.classes, arguments.size, device)
    _use_libraries(subject.image)
    if arguments.case == "plain":
        result = _plain(subject)
    else:
        settings = {"rank": arguments.rank, "method": arguments.method}
        budget = {} if arguments.budget is None else {"memory_budget": arguments.budget}
        result = _decomposed(subject, {**settings, **budget})
    print(json.dumps(asdict(result)))


def _plain(subject: Subject) -> Measurement:
    with Peak(subject.image.device) as peak:
        start = time.perf_counter()
        leaf = subject.image.clone().requires_grad_(True)
        output = subject.network(leaf)[0]
        last = subject.classes - 2
        rows = [torch.autograd.grad(output[c], leaf, retain_graph=c < last)[0] for c in range(subject.classes - 1)]
        wait(subject.image.device)
        seconds = time.perf_counter() - start
    del rows
    return Measurement(peak.above, seconds, peak.start)


def _decomposed(subject: Subject, settings: Mapping[str, Any]) -> Measurement:
    with Peak(subject.image.device) as peak:
        start = time.perf_counter()
        found = decompose(subject.network, subject.image, head="categorical", **settings)
        wait(subject.image.device)
        seconds = time.perf_counter() - start
    record = found.record
    values = found.eigenvalues[0, : int(found.rank[0])].tolist()
    return Measurement(peak.above, seconds, peak.start, values, record["method"], int(record["jacobian_products"]))


def _use_libraries(image: Tensor) -> None:
    """A tiny network forward and backward, and tiny float64 algebra: what libraries load and set aside at first use."""
    dims = image.ndim - 2
    convolution = (nn.Conv2d if dims == 2 else nn.Conv3d)(1, 2, 3, padding=1)
    normalisation = (nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d)(2)
    network = nn.Sequential(convolution, normalisation, nn.ReLU(), nn.Flatten(), nn.Linear(2 * SMALL**dims, 3))
    small = torch.rand(1, 1, *(SMALL,) * dims, device=image.device, requires_grad=True)
    network.to(image.device).eval()(small).sum().backward()
    matrix = torch.rand(SMALL, SMALL, dtype=torch.float64, device=image.device)
    torch.linalg.eigh(matrix @ matrix.T)
    torch.linalg.qr(matrix)


def _status(name: str) -> int:
    """A memory entry of this process's status in bytes, 0 where there is none."""
    with suppress(OSError):
        for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
