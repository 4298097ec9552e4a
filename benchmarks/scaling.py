"""Speed of two processes (torchrun ranks, Ray workers) compared with the local engine, one thread each.

python -m benchmarks.scaling [--cases N] [--size N] [--rounds N]

Every figure is the wall time of a whole command, start-up included, on the same synthetic volumes with a 3D network.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.networks.nets import DenseNet

from benchmarks.stamp import take_stamp
from benchmarks.timing import interleaved_medians

CLASSES = 4
NETWORK = {
    "_target_": "DenseNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": CLASSES,
    "init_features": 16,
    "growth_rate": 8,
    "block_config": [3, 3, 3],
}


def write_bundle(root: Path, size: int) -> Path:
    """A bundle with a small 3D DenseNet of random weights for volumes of size^3."""
    (root / "configs").mkdir(parents=True)
    (root / "models").mkdir()
    steps = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Resized", "keys": "image", "spatial_size": [size] * 3},
        {"_target_": "ScaleIntensityd", "keys": "image"},
    ]
    config = {"network_def": NETWORK, "preprocessing": {"_target_": "Compose", "transforms": steps}}
    (root / "configs" / "inference.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(0)
    network = DenseNet(**{name: value for name, value in NETWORK.items() if name != "_target_"})
    torch.save(network.state_dict(), root / "models" / "model.pt")
    return root


def write_scans(folder: Path, count: int, size: int) -> Path:
    """Smooth random volumes a little smaller than what the network sees."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(count):
        values = generator.normal(size=(size - 6, size - 4, size - 9)).cumsum(0).cumsum(1).astype(np.float32)
        nib.save(nib.Nifti1Image(values, np.diag([1.1, 0.9, 1.4, 1.0])), folder / f"scan-{i:03d}.nii.gz")
    return folder


def command(engine: str, words: list[str]) -> list[str]:
    """The command line of an engine with two processes, or of one process."""
    module = ["-m", "monai_ifim.cli.main", "decompose", *words]
    if engine == "torchrun":
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *module]
    return [sys.executable, *module, *(["--engine", "ray", "--workers", "2"] if engine == "ray" else [])]


def runner(engine: str, words: list[str]) -> Callable[[], object]:
    """A call that runs the whole command with one thread a process."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def run() -> None:
        subprocess.run(command(engine, words), env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    return run


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    engines = ("one process", "torchrun", "ray")
    stamp = take_stamp()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = [str(write_scans(folder / "scans", arguments.cases, arguments.size)), "--bundle"]
        words += [str(write_bundle(folder / "bundle", arguments.size)), "--head", "categorical", "--overwrite", "--output"]
        candidates = {engine: runner(engine, [*words, str(folder / engine)]) for engine in engines}
        medians = interleaved_medians(candidates, arguments.rounds)
    print(f"{stamp.line}; {os.cpu_count()} cores, one thread a process, {arguments.cases} volumes of {arguments.size}^3")
    for engine, seconds in medians.items():
        print(f"{engine:12s} {seconds:7.1f} s   {seconds / medians['one process']:.2f} of one process")


if __name__ == "__main__":
    main()
