"""Compares the methods with their alternatives: speed, memory and accuracy, with the bars they have to pass.

python -m benchmarks.compare [--rounds N] [--only SECTION ...] [--device cpu|cuda] [--output FOLDER] [--quick] [--cpu-seconds]
python -m benchmarks.compare --short

One process; in a section all candidates get the same network and image and are timed by turns, each once a round, after a
round that is not counted; reported are medians and their ratios. Only peak memory is measured in fresh processes. Networks
have random weights from a fixed seed, but for the section on MedNIST, which needs the environment variable IFIM_TEST_DATA
and is left out without it. Nothing else should run on the machine meanwhile: two programs that each use all cores can slow
each other down a hundredfold, and not evenly.

The results go to compare-DEVICE.json and compare-DEVICE.md in benchmarks/results, section by section as they are done; those
of the sections rivals and rivals-memory to rivals-DEVICE.
With --only, earlier results of the other sections are kept. Every section has a stamp: date, commit, command line, load before
measuring, machine and versions. --quick runs everything at tiny sizes to see that it works; its results go to
compare-DEVICE-quick and mean nothing. --cpu-seconds takes one thread, and counts the seconds of the CPU in place of those of
the clock, which other programs disturb least. --short measures nothing: it prints the rows that have a bar, for docs/engine.md.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.approximate import SectionSkipped, adaptive_mednist, adaptive_peaked, matrix_free, voxelwise
from benchmarks.attribution import attributions
from benchmarks.baselines import jacrev, naive, passes
from benchmarks.batch import batches
from benchmarks.cohorts import cohorts
from benchmarks.eigendistortion import eigendistortion
from benchmarks.exact import exact
from benchmarks.native import native
from benchmarks.peaks import memory_budget, memory_classes
from benchmarks.results import Comparison, Row, Section, read_comparison
from benchmarks.rivals import rivals, rivals_memory
from benchmarks.scanner import scanner_memory, scanner_seconds
from benchmarks.stamp import take_stamp
from benchmarks.tables import full_table, short_table
from benchmarks.timing import Setting
from benchmarks.verification import verification

Measured = Callable[[Setting], list[Row]]
SECTIONS: dict[str, Measured] = {
    "exact": exact,
    "passes": passes,
    "naive": naive,
    "jacrev": jacrev,
    "plenoptic": eigendistortion,
    "attributions": attributions,
    "rivals": rivals,
    "rivals-memory": rivals_memory,
    "adaptive-mednist": adaptive_mednist,
    "adaptive-peaked": adaptive_peaked,
    "matrix-free": matrix_free,
    "voxelwise": voxelwise,
    "memory-budget": memory_budget,
    "memory-classes": memory_classes,
    "batches": batches,
    "cohorts": cohorts,
    "verification": verification,
    "native": native,
    "scanner": scanner_seconds,
    "scanner-memory": scanner_memory,
}
RESULTS = Path(__file__).parent / "results"
APART = {"rivals": "rivals", "rivals-memory": "rivals"}  # sections with results in a file apart, which a figure is drawn from
ROUNDS = 5
SEED = 0


def main() -> None:
    """Run the sections asked for, or print the short table; exit with 1 where a section broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help=f"measured rounds (default {ROUNDS}; slow cases take fewer)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--cpu-seconds", action="store_true", help="one thread, and its own seconds: beside other programs")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if arguments.cpu_seconds and device.type != "cpu":
        parser.error("--cpu-seconds does not count what a GPU does: leave it out.")
    if arguments.cpu_seconds:
        torch.set_num_threads(1)
    clock = time.process_time if arguments.cpu_seconds else time.perf_counter
    setting = Setting(arguments.rounds or (1 if arguments.quick else ROUNDS), device, arguments.quick, clock)
    suffix = f"{device_name(device)}{'-quick' if arguments.quick else ''}"
    if arguments.short:
        print(short_table(_known(arguments.output / f"compare-{suffix}.json", device)), end="")
        return
    broken = []
    for prefix, names in _files(arguments.only or list(SECTIONS)).items():
        stem = arguments.output / f"{prefix}-{suffix}"
        comparison = read_comparison(stem.with_name(f"{stem.name}.json"), device_name(device), arguments.quick)
        broken += run_sections(names, setting, comparison, stem)[1]
    if broken:
        sys.exit(f"broke, and nothing was recorded for: {', '.join(broken)}")


def _known(path: Path, device: torch.device) -> Comparison:
    """The results of earlier runs; ends the program where there are none."""
    comparison = read_comparison(path, device_name(device), quick=False)
    if not comparison.sections:
        sys.exit(f"there is no {path.name} yet: run python -m benchmarks.compare first.")
    return comparison


def _files(names: Sequence[str]) -> dict[str, list[str]]:
    """Sections by the beginning of the name of the file that their results go to."""
    files: dict[str, list[str]] = {}
    for name in names:
        files.setdefault(APART.get(name, "compare"), []).append(name)
    return files


def run_sections(
    names: list[str], setting: Setting, comparison: Comparison, stem: Path, sections: Mapping[str, Measured] = SECTIONS
) -> tuple[Comparison, list[str]]:
    """Measure and write section by section; returns the results, and the names of the sections that raised an error."""
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32
    broken = []
    for name in names:
        stamp = take_stamp(setting.device)
        print(f"\n{name}: {stamp.line}", flush=True)
        try:
            with torch.random.fork_rng():
                torch.manual_seed(SEED)
                rows = sections[name](setting)
        except SectionSkipped as reason:
            print(f"  skipped: {reason}", flush=True)
            continue
        except Exception:
            traceback.print_exc()
            broken.append(name)
            continue
        for row in rows:
            print(f"  {row.what} | {row.case} | {row.value_text} | {row.bar_text} {row.holds_text} | {row.details}", flush=True)
        comparison = comparison.with_section(name, Section(stamp, tuple(rows)), list(sections))
        comparison.write(stem.with_name(f"{stem.name}.json"))
        stem.with_name(f"{stem.name}.md").write_text(full_table(comparison), encoding="utf-8")
    return comparison, broken


def device_name(device: torch.device) -> str:
    """cpu, or the GPU's name in small letters and hyphens."""
    if device.type != "cuda":
        return device.type
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(device).lower()).strip("-")


if __name__ == "__main__":
    main()
