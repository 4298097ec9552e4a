"""What it costs to verify the results of a run, and to resume a run of which all cases are whole.

python -m benchmarks.provenance [--images N] [--resumed M]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from benchmarks.stamp import take_stamp
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.io.installation import resolve_bundle
from monai_ifim.report.cohort.page import write_cohort
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.verification.results import verify_results

MOST_OF_A_RUN = 0.02  # CPU seconds of verify over those of the run
MOST_SECONDS = 10.0  # of a resume of a thousand whole cases
QUICK = CaseSettings("categorical", rank=1, verify="never", contents="high")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """Seconds of processors, and seconds that passed."""

    processor: float
    clock: float

    def __str__(self) -> str:
        """Both."""
        return f"{self.processor:.2f} s CPU, {self.clock:.2f} s"


def timed(task: Callable[[], Result]) -> tuple[Result, Cost]:
    """The result of a task, and what it cost."""
    processor, clock = time.process_time(), time.perf_counter()
    result = task()
    return result, Cost(time.process_time() - processor, time.perf_counter() - clock)


def write_images(folder: Path, count: int, side: int) -> Path:
    """Grey images of seeded noise."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        Image.fromarray(generator.integers(0, 255, (side, side), dtype=np.uint8)).save(folder / f"image-{i:05d}.png")
    return folder


def measure(place: Path, count: int, side: int, settings: CaseSettings) -> dict[str, Cost]:
    """Cost of a run with its page, of its verification, and of the same command again."""
    bundle = load_bundle(resolve_bundle("mednist_classification"))
    inputs, output = write_images(place / "in", count, side), place / "out"

    def command() -> list[str]:
        rows = run_cases(bundle, find_cases([inputs]), RunSettings(output, settings), lambda row: None)
        write_cohort(output)
        return [row.status for row in rows]

    made, of_run = timed(command)
    found, of_verify = timed(lambda: verify_results(output))
    kept, of_resume = timed(command)
    if made != ["done"] * count or kept != ["kept"] * count or found.findings or found.inputs != count:
        raise RuntimeError(f"not as expected: {[finding.line for finding in found.findings[:5]]}")
    return {"run": of_run, "verify": of_verify, "resume": of_resume}


def main() -> None:
    """Print both costs with their limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100, help="of 64 x 64 pixels, decomposed as by default")
    parser.add_argument("--resumed", type=int, default=1000, help="of 16 x 16 pixels, one component of each")
    arguments = parser.parse_args()
    print(take_stamp().line)
    with tempfile.TemporaryDirectory() as folder:
        costs = measure(Path(folder), arguments.images, 64, CaseSettings("categorical", locality=True))
    share = costs["verify"].processor / costs["run"].processor
    print(f"{arguments.images} images: run {costs['run']}; verify {costs['verify']}: {share:.2%} of the run's CPU seconds")
    print(f"limit {MOST_OF_A_RUN:.0%}: {'met' if share <= MOST_OF_A_RUN else 'MISSED'}")
    with tempfile.TemporaryDirectory() as folder:
        costs = measure(Path(folder), arguments.resumed, 16, QUICK)
    print(f"{arguments.resumed} whole cases: resume with page {costs['resume']}; verify {costs['verify']}")
    print(f"limit {MOST_SECONDS:.0f} s: {'met' if costs['resume'].clock <= MOST_SECONDS else 'MISSED'}")


if __name__ == "__main__":
    main()
