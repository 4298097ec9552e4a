"""What `python -m monai.bundle run` does, in the process of the tests: a program takes ten seconds to start."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

import fire
import torch
from monai.bundle import run


def run_bundle(root: Path, *words: str) -> None:
    """Run the bundle in `root` with these words of the command line, in one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with chdir(root):
            fire.Fire({"run": run}, command=["run", *words])
    finally:
        torch.set_num_threads(threads)
