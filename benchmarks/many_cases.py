"""Memory, open files and threads of a run of many tiny cases; then the times of `verify` and of a resume.

python -m benchmarks.many_cases [--cases N] [--folder FOLDER]

The cases are PNG images of 14 x 15 pixels with a network of a few hundred weights, so that whatever grows with the number of
cases shows. One process, the local engine, default settings.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets import Classifier
from PIL import Image

from benchmarks.memory import resident_memory
from benchmarks.stamp import take_stamp
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import CaseRow
from monai_ifim.run.verification.results import verify_results

SIZE = 16
NETWORK = {"in_shape": [1, SIZE, SIZE], "classes": 3, "channels": [4], "strides": [2]}
PER_FOLDER = 1000
RESUMED = 1000  # cases of the resume that is timed


def write_bundle(root: Path) -> Path:
    """A bundle with a tiny classifier of random weights from a fixed seed."""
    (root / "configs").mkdir(parents=True)
    (root / "models").mkdir()
    steps = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Resized", "keys": "image", "spatial_size": [SIZE, SIZE]},
        {"_target_": "ScaleIntensityd", "keys": "image"},
    ]
    network = {"_target_": "monai.networks.nets.Classifier", **NETWORK}
    config = {"network_def": network, "preprocessing": {"_target_": "Compose", "transforms": steps}}
    (root / "configs" / "inference.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(0)
    torch.save(Classifier(**NETWORK).state_dict(), root / "models" / "model.pt")
    return root


def write_images(folder: Path, count: int) -> Path:
    """Grey random images, each another one."""
    generator = np.random.default_rng(0)
    for i in range(count):
        place = folder / f"{i // PER_FOLDER:02d}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (SIZE - 2, SIZE - 1), dtype=np.uint8)).save(place / f"image-{i:05d}.png")
    return folder


class Meter:
    """Prints resident memory, open files and threads at every thousandth case. seen: MiB by number of cases."""

    def __init__(self, total: int) -> None:
        self.total, self.count = total, 0
        self.seen: dict[int, float] = {}

    def __call__(self, row: CaseRow) -> None:
        """Count a row."""
        self.count += 1
        if row.status == "failed":
            raise RuntimeError(f"{row.case}: {row.reason}")
        if self.count % (self.total // 10) == 0:
            self.seen[self.count] = resident_memory() / 2**20
            handles = len(os.listdir("/proc/self/fd"))
            now = f"{handles} open files, {threading.active_count()} threads"
            print(f"{self.count:6d} cases: {self.seen[self.count]:7.1f} MiB, {now}", flush=True)

    @property
    def growth(self) -> float:
        """Memory at the end over that after the first tenth."""
        values = list(self.seen.values())
        return values[-1] / values[0]


def measure(folder: Path, cases: int) -> None:
    """Run, verify and resume; print the figures."""
    print(take_stamp().line)
    scans = write_images(folder / "in", cases)
    bundle = load_bundle(write_bundle(folder / "bundle"))
    settings, meter = RunSettings(folder / "out", CaseSettings("categorical")), Meter(cases)
    start = time.perf_counter()
    run_cases(bundle, find_cases([scans]), settings, meter)
    ran = time.perf_counter() - start
    print(f"run: {ran:.1f} s; memory at the end over that after a tenth of the cases: {meter.growth:.3f}")
    start, cpu = time.perf_counter(), time.process_time()
    found = verify_results(folder / "out", folder / "bundle", [scans])
    verified, used = time.perf_counter() - start, time.process_time() - cpu
    print(f"verify: {verified:.1f} s ({used:.1f} s of CPU), {verified / ran:.2%} of the run; {len(found.findings)} findings")
    for finding in found.findings[:5]:
        print(f"  {finding.line}")
    some = find_cases([scans])[:RESUMED]
    start = time.perf_counter()
    rows = run_cases(bundle, some, settings, lambda row: None)
    resumed = time.perf_counter() - start
    kept = sum(row.status == "kept" for row in rows)
    print(f"resume of {len(some)} whole cases: {resumed:.1f} s, {kept} kept")


def main() -> None:
    """Measure in a temporary folder, or in the one named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="an empty folder for images and results; default: a temporary one")
    arguments = parser.parse_args()
    if arguments.folder is not None:
        measure(arguments.folder, arguments.cases)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), arguments.cases)


if __name__ == "__main__":
    main()
