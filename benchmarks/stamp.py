"""The stamp of a measurement: date, commit, command line, load before measuring, machine and versions."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from monai_ifim.version import __version__

ROOT = Path(__file__).resolve().parents[1]
COMPARED_PACKAGES = ("monai", "captum", "plenoptic")
BUSY = 0.5  # load average above which other programs disturb timings


@dataclass(frozen=True)
class Stamp:
    """When, from which commit, by which command, beside how much load and in which environment a measurement was made.

    commit, command, load: None in results that were recorded without them.
    """

    date: str
    environment: str
    commit: str | None = None
    command: str | None = None
    load: float | None = None

    @property
    def line(self) -> str:
        """All of it in one line."""
        parts = [self.date, None if self.commit is None else f"commit {self.commit}", self.command]
        parts += [None if self.load is None else f"load {self.load:.1f} before", self.environment]
        return "; ".join(part for part in parts if part)


def take_stamp(device: torch.device | None = None) -> Stamp:
    """The stamp of a measurement that begins now: call it before measuring. Warns on standard error about a busy machine."""
    load = os.getloadavg()[0]
    if load > BUSY:
        print(f"other programs keep {load:.1f} cores busy: end them first, or the timings are not fair.", file=sys.stderr)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Stamp(date, environment_line(device), commit(), command_line(), load)


def commit() -> str:
    """`git describe --always --dirty` of the checkout; "unknown" outside of one."""
    words = ["git", "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def command_line() -> str:
    """The command that is running, with the names of files in place of paths."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"python -m {module.name.removesuffix('.__main__')}" if module is not None else f"python {Path(sys.argv[0]).name}"
    return " ".join([program, *(Path(word).name if os.sep in word else word for word in sys.argv[1:])])


def environment_line(device: torch.device | None = None) -> str:
    """Machine and versions in one line, without paths or the name of the host."""
    packages = [f"monai_ifim {__version__}", f"torch {torch.__version__}", f"Python {platform.python_version()}"]
    packages += [f"{name} {found}" for name in COMPARED_PACKAGES if (found := _version(name))]
    machine = [platform.machine(), _processor(), f"{torch.get_num_threads()} thread(s)"]
    if device is not None and device.type == "cuda":
        machine += [torch.cuda.get_device_name(device), f"CUDA {torch.version.cuda}"]
        machine += ["TF32 on" if torch.backends.cudnn.allow_tf32 else "TF32 off"]
    return ", ".join(part for part in [*packages, *machine] if part)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    """The processor's model, where the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
