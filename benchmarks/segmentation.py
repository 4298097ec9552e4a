"""A trained segmentation network on a T1 scan of a head: cost of its decompositions in forward passes, peaks of memory, and the
share of a whole run that is spent outside of the engine.

python -m benchmarks.segmentation [--sizes 64 128 256] [--only TASK ...] [--output FOLDER]
python -m benchmarks.segmentation --task TASK --size 64   # one measurement in this process, as JSON

The environment variable IFIM_TEST_DATA names the folder with the weights and the scan. The network sees the scan at 1 mm, its
middle so many voxels along each axis. Every task is a process of its own with one thread, and times forward passes before and
after what it measures. Ratios are of CPU seconds of the process, which other programs on the machine disturb less than seconds
of the clock; both are in the results, segmentation-cpu.json and segmentation-cpu.md in benchmarks/results. 256 takes about 40
minutes and 12 GiB of memory, 64 and 128 together ten minutes.

volumes: a whole `monai-ifim decompose` with the label volumes as answer, stage by stage. budget: the label volumes within a
memory budget. pair: the leading component of the answer at every voxel. differences: the Fisher information of the volumes
against difference quotients of the network in float64.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.memory import MeasurementFailed
from benchmarks.results import Bar, Comparison, Row, Section, read_comparison
from benchmarks.segmentation_tasks import BUDGET, FULL, TASKS, Found, subject_of
from benchmarks.stamp import take_stamp
from benchmarks.tables import full_table

RESULTS = Path(__file__).parent / "results"
GIBIBYTE = 2**30
FULL_ONLY = ("budget",)  # tasks of the full size
SMALL_ONLY = ("differences",)  # tasks whose answer does not depend on the size
SMALL = 64
BARS: dict[str, Bar] = {  # by what a row states
    "label volumes / forward pass": Bar(8.0, False),
    "outside of the engine / whole run": Bar(0.20, False),
    "label volumes within the budget / forward pass": Bar(12.0, False),
    "peak within the budget": Bar(6.0, False),
    "products of the leading pair": Bar(40.0, False),
    "largest relative error against difference quotients": Bar(1e-3, False),
}
ANY_SIZE = ("products of the leading pair", "largest relative error against difference quotients")


def main() -> None:
    """Measure all tasks of all sizes, or one task here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--only", nargs="+", choices=TASKS, metavar="TASK", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--size", type=int, default=SMALL)
    arguments = parser.parse_args()
    if not os.environ.get("IFIM_TEST_DATA"):
        sys.exit("set IFIM_TEST_DATA to the folder that holds networks/meshnet_gw and nifti.")
    if arguments.task:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(asdict(TASKS[arguments.task](subject_of(Path(folder), arguments.size)))))
        return
    comparison = read_comparison(arguments.output / "segmentation-cpu.json", "cpu", False)
    for size in arguments.sizes:
        comparison = _measure(size, arguments.only or list(TASKS), comparison, arguments.output / "segmentation-cpu")


def _measure(size: int, tasks: list[str], comparison: Comparison, stem: Path) -> Comparison:
    """The comparison with the tasks of one size, written after each."""
    for task in tasks:
        if (task in FULL_ONLY and size != FULL) or (task in SMALL_ONLY and size != SMALL):
            continue
        stamp = take_stamp()
        print(f"\n{task}, {size}^3: {stamp.line}", flush=True)
        try:
            rows = _rows(task, size, _alone(task, size))
        except MeasurementFailed as failure:
            rows = [Row(task, _case(size), None, details=str(failure))]
        for row in rows:
            print(f"  {row.what} | {row.value_text} | {row.bar_text} {row.holds_text} | {row.details}", flush=True)
        name = f"{task}, {size}^3"
        comparison = comparison.with_section(name, Section(stamp, tuple(rows)), sorted({*comparison.sections, name}))
        comparison.write(stem.with_name(f"{stem.name}.json"))
        stem.with_name(f"{stem.name}.md").write_text(full_table(comparison), encoding="utf-8")
    return comparison


def _alone(task: str, size: int) -> Found:
    words = [sys.executable, "-m", "benchmarks.segmentation", "--task", task, "--size", str(size)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise MeasurementFailed(f"exit status {done.returncode}")
    return Found(**json.loads(done.stdout.strip().splitlines()[-1]))


def _rows(task: str, size: int, found: Found) -> list[Row]:
    """Rows of a task: ratios to the forward pass of its process, shares, and the numbers that it found."""
    forward = found.cpu("forward")
    peak = Row("peak", _case(size), found.peak / GIBIBYTE, None, "GiB", "of the whole process")
    if task == "volumes":
        engine, verification, whole = (found.cpu(name) for name in ("engine", "verification", "whole"))
        shares = [
            Row(f"{name} / whole run", _case(size), found.cpu(name) / whole, details=found.text(name))
            for name in found.seconds
            if name not in ("forward", "whole")
        ]
        return [
            _row("label volumes / forward pass", size, (engine - verification) / forward, found, "forward", "engine"),
            _row("outside of the engine / whole run", size, 1 - engine / whole, found, "whole", "engine"),
            *shares,
            *_numbers(size, found),
            peak,
        ]
    if task == "budget":
        spent = found.cpu("engine") - found.cpu("verification")
        within = f"budget {BUDGET / GIBIBYTE:g} GiB"
        return [
            _row("label volumes within the budget / forward pass", size, spent / forward, found, "forward", "engine"),
            Row("peak within the budget", _case(size), found.peak / GIBIBYTE, BARS["peak within the budget"], "GiB", within),
            *_numbers(size, found),
        ]
    if task == "pair":
        ratio = _row("leading pair / forward pass", size, found.cpu("engine") / forward, found, "forward", "engine")
        return [ratio, *_numbers(size, found), peak]
    return _numbers(size, found)


def _row(what: str, size: int, value: float, found: Found, *names: str) -> Row:
    bar = BARS.get(what) if size == FULL or what in ANY_SIZE else None
    details = "; ".join(f"{name} {found.text(name)}" for name in names)
    return Row(what, _case(size), value, bar, "", details, {name: found.seconds[name]["clock"] for name in names})


def _numbers(size: int, found: Found) -> list[Row]:
    return [_row(what, size, value, found) for what, value in found.numbers.items()]


def _case(size: int) -> str:
    return f"meshnet_gw, {size}^3"


if __name__ == "__main__":
    main()
