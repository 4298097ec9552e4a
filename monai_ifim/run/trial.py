"""Reads one case in a process of its own, within limits on memory and time, and tells whether that can be done."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess  # nosec B404 # for this module itself
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from monai_ifim.io.limits import Limits
from monai_ifim.io.source import Source, ValueChoice
from monai_ifim.run.cases import Case
from monai_ifim.run.settings import RunSettings

PROGRAM = (sys.executable, "-m", "monai_ifim.run.trial")
STARTING = 300  # seconds for the process to start and to load the bundle, besides those for the case
SHARE = 0.8  # of the memory that is free
LEAST_MEMORY = 2**31  # bytes, which loading the bundle may need
CGROUP = Path("/sys/fs/cgroup")
LEAVE_OUT = "leave it out, or convert it with another program"


def refusal(bundle: Path, case: Case, settings: RunSettings) -> str | None:
    """Why a case cannot be read by the preprocessing of the bundle in that folder; None if it can."""
    name, limits = case.source.path.name, settings.limits
    memory = int(SHARE * available_memory())
    died = (
        f"{name}: an earlier run died while it read this image, and a process of its own with {memory / 2**30:.1f} GiB of memory"
    )
    process = subprocess.Popen(  # nosec B603 # this interpreter, this module, no shell
        PROGRAM,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what a bundle prints may be anything
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,  # Ctrl-C is for the run, which finishes the case in hand
    )
    try:
        said, _ = process.communicate(
            _question(bundle, case, settings, memory), STARTING + limits.seconds if limits.seconds else None
        )
    except subprocess.TimeoutExpired:
        return str(limits.too_slow(f"{died} to read it"))
    finally:
        process.kill()
        process.wait()
    if process.returncode < 0:
        with suppress(ValueError):
            return f"{died} dies of it too ({signal.Signals(-process.returncode).name}): {LEAVE_OUT}."
    if process.returncode != 0:
        return f"{died} ends with status {process.returncode}: {LEAVE_OUT}."
    try:
        reason = json.loads(said)["reason"]
    except (ValueError, LookupError, TypeError):
        return f"{died} gives no answer: {LEAVE_OUT}."
    return None if reason is None else str(reason)


def available_memory() -> int:
    """Bytes of memory that this machine, or the container, has free; LEAST_MEMORY where that is not known."""
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with suppress(OSError, ValueError):
        most, used = ((CGROUP / name).read_text(encoding="ascii") for name in ("memory.max", "memory.current"))
        found.append(int(most) - int(used))
    return max(LEAST_MEMORY, min(found, default=LEAST_MEMORY))


def _question(bundle: Path, case: Case, settings: RunSettings, memory: int) -> bytes:
    source = case.source
    beside = [(key, isinstance(value, Path), str(value) if isinstance(value, Path) else value) for key, value in source.beside]
    return json.dumps(
        {
            "bundle": str(bundle.absolute()),
            "path": str(source.path.absolute()),
            "frame": source.frame,
            "series": source.series,
            "fix_geometry": source.fix_geometry,
            "choice": asdict(source.choice),
            "beside": beside,
            "space": settings.case.space,
            "dicom_pm": settings.case.dicom_pm,
            "limits": asdict(settings.limits),
            "memory": memory,
        },
        default=str,
    ).encode("utf-8", "surrogateescape")


def _answer(question: dict[str, Any]) -> str | None:
    """Read the case in this process; the reason if it fails."""
    from monai_ifim.adapt.bundle import load_bundle
    from monai_ifim.adapt.settings import CaseSettings
    from monai_ifim.core.memory.scratch import ScratchFolder
    from monai_ifim.io import OpenedSource
    from monai_ifim.io.errors import explained
    from monai_ifim.run.reading import read_image
    from monai_ifim.run.stop_request import short_of_memory

    beside = tuple((key, Path(value) if is_path else value) for key, is_path, value in question["beside"])
    choice = ValueChoice(**question["choice"])
    source = Source(Path(question["path"]), question["frame"], question["series"], question["fix_geometry"], beside, choice)
    case = CaseSettings.of(CaseSettings(), {"space": question["space"], "dicom_pm": question["dicom_pm"]})
    bundle = load_bundle(Path(question["bundle"]))
    with ScratchFolder() as scratch:
        settings = RunSettings(scratch, case, limits=Limits(**question["limits"]))
        try:
            read_image(bundle, OpenedSource(source), settings, scratch)
        except Exception as error:
            return explained(short_of_memory(error, "cpu") or error)
    return None


def _bound(memory: int) -> None:
    """Bound the memory of this process; it leaves no image of its memory behind."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def main() -> None:
    """Answer the question on standard input."""
    question = json.loads(sys.stdin.buffer.read())
    answers = os.dup(1)
    with open(os.devnull, "wb") as nothing:  # what a bundle prints is no answer
        os.dup2(nothing.fileno(), 1)
    _bound(question["memory"])
    os.write(answers, json.dumps({"reason": _answer(question)}).encode())


if __name__ == "__main__":
    main()
