"""All that has to be measured on a GPU, in one run of less than five minutes.

python -m benchmarks.gpu [--rounds N] [--only SECTION ...] [--output FOLDER]
python -m benchmarks.gpu --device cpu --quick   # tiny sizes, to see that it runs: its numbers mean nothing

Exactness against float64 on the CPU, for every method and for recurrent layers; times beside those of the passes that are
needed and of other methods, as `python -m benchmarks.compare` takes them; a volume of 128^3; images a second by batch; peaks of
memory under budgets; what batched cotangents, CUDA graphs and channels-last layouts would give; how often the loop over the
columns waits for the device. The results go to gpu-DEVICE.json and gpu-DEVICE.md in benchmarks/results, section by section. A
section that would begin after four minutes is left out, and named.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.attribution import attributions
from benchmarks.baselines import jacrev, naive, passes
from benchmarks.compare import RESULTS, device_name, run_sections
from benchmarks.gpu.budgets import budgets
from benchmarks.gpu.exactness import exactness, recurrent
from benchmarks.gpu.speed import throughput, volume
from benchmarks.gpu.waits import waits
from benchmarks.gpu.ways import ways
from benchmarks.results import Row, read_comparison
from benchmarks.timing import Setting

SECTIONS: dict[str, Callable[[Setting], list[Row]]] = {
    "exactness": exactness,
    "recurrent": recurrent,
    "volume": volume,
    "throughput": throughput,
    "budgets": budgets,
    "ways": ways,
    "waits": waits,
    "naive": naive,
    "jacrev": jacrev,
    "attributions": attributions,
    "passes": passes,
}
ROUNDS = 5
LAST_START = 240.0  # seconds after which no section begins


def main(words: list[str] | None = None) -> None:
    """Run the sections; exit with 1 where one broke or was left out, and where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help=f"measured rounds (default {ROUNDS})")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, on any device")
    given = parser.parse_args(words)
    device = torch.device(given.device)
    if device.type != "cuda" and not given.quick:
        sys.exit(f"{device} is no GPU: leave --device out, or add --quick to see that everything runs.")
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no CUDA device: run this on a machine with one, or try --device cpu --quick.")
    setting = Setting(given.rounds or (1 if given.quick else ROUNDS), device, given.quick)
    name = f"gpu-{device_name(device)}{'-quick' if given.quick else ''}"
    comparison = read_comparison(given.output / f"{name}.json", device_name(device), given.quick)
    started, missing = time.monotonic(), []
    for section in given.only or list(SECTIONS):
        if time.monotonic() - started > LAST_START:
            missing.append(f"{section} (no time left: --only {section})")
            continue
        comparison, broken = run_sections([section], setting, comparison, given.output / name, SECTIONS)
        missing += broken
    if missing:
        sys.exit(f"nothing was recorded for: {', '.join(missing)}")


if __name__ == "__main__":
    main()
