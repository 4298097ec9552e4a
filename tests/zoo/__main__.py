"""Writes docs/zoo.md: `PYTHONPATH=tests python -m zoo` compares every network with its truths, every way (about five minutes)."""

from __future__ import annotations

import logging
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

from zoo.absent import ABSENT
from zoo.comparison import Deviation, Subject
from zoo.entry import Entry
from zoo.table import ZOO
from zoo.tolerances import MAP, ROW, tolerances

PAGE = Path(__file__).resolve().parents[2] / "docs" / "zoo.md"
COLUMNS = "| network | from | image | output | ways | dense Jacobian | difference quotients | verification |"
NAMES = {"matrix_free": "matrix-free", "budget": "budget"}
OUTPUTS = {
    "categorical": "classes",
    "bernoulli": "labels",
    "bernoulli_probabilities": "probabilities of labels",
    "gaussian": "numbers",
    "voxelwise": "classes of each voxel",
}
HEADING = """# Networks that were compared

This page lists networks that decompositions were compared with two independent truths on, and the largest deviations. It is
written by `PYTHONPATH=tests python -m zoo`, which needs the packages of `tests/zoo/requirements.txt`; `pytest -m zoo` makes the
same comparisons as tests.

- **Networks** have random weights in a generic position: batch normalisations with the statistics of random images, gains,
  offsets and layer scales away from 0 and 1. Images are small and random. All is float64.
- **Ways.** Of a row of outputs: the exact, the adaptive and the matrix-free method with every component, and the exact method in
  the smallest memory budget that works (blocks recomputed, activations and rows in files). Of a map of outputs: two components,
  matrix-free.
- **Dense Jacobian**: the larger of the relative deviation of the eigenvalues and the sine of the largest angle between the
  eigenspaces, from the singular values of the whole S^T J, one plain `torch.autograd.grad` for each output. Of a map of outputs:
  from ARPACK, with J v by difference quotients.
- **Difference quotients** use no derivative: v^T F w for v, w among the eigenvectors and three random directions, from central
  differences of the output, relative to the lengths of v and w in F. They would notice a gradient that the network or PyTorch
  gets wrong. Their own rounding is most of what the table shows.
- **Verification** is the outcome in `record["verification"]` of the same decompositions.

Deviations are the largest of all ways. The tolerances are {row} for a row and {map} for a map.

"""


def main() -> int:
    """Compare, print each row and write the page; 1, and no page, if a network is outside of its tolerances."""
    logging.disable(logging.WARNING)
    started, lines, failed = time.monotonic(), [COLUMNS, "| " + " | ".join(["---"] * 8) + " |"], 0
    for number, entry in enumerate(ZOO, 1):
        found = _compared(entry)
        within = all(getattr(d, name) < limit for d in found for name, limit in tolerances(entry).items())
        agrees = all(d.verification != "disagrees" for d in found)
        failed += not (within and agrees)
        lines.append(_line(entry, found))
        mark = "" if within and agrees else "  OUTSIDE OF THE TOLERANCES"
        print(f"{number:3d}/{len(ZOO)} {time.monotonic() - started:5.0f} s  {lines[-1]}{mark}", flush=True)
    if not failed:
        PAGE.write_text(_page(lines), encoding="utf-8")
    return int(failed > 0)


def _compared(entry: Entry) -> list[Deviation]:
    subject = Subject(entry)
    return [subject.compare(way) for way in entry.ways]


def _line(entry: Entry, found: list[Deviation]) -> str:
    dense = max(max(d.eigenvalues, d.overlap) for d in found)
    quotients = max(d.quotients for d in found)
    outcomes = ", ".join(sorted({d.verification for d in found}))
    ways = ", ".join(NAMES.get(way, way) for way in entry.ways)
    shape = " x ".join(map(str, entry.shape))
    cells = (entry.name, entry.source, shape, OUTPUTS[entry.head], ways, f"{dense:.0e}", f"{quotients:.0e}", outcomes)
    return f"| {' | '.join(cells)} |"


def _page(lines: list[str]) -> str:
    limits = {
        name: f"{table['eigenvalues']:.0e} (eigenvalues), {table['overlap']:.0e} (angle) and {table['quotients']:.0e} (quotients)"
        for name, table in (("row", ROW), ("map", MAP))
    }
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "monai"))
    pins = [pin for pin in (Path(__file__).parent / "requirements.txt").read_text(encoding="utf-8").split() if "==" in pin]
    others = ", ".join(pin.replace("==", " ") for pin in pins if pin.startswith(("timm", "torchvision", "transformers")))
    threads = f"{torch.get_num_threads()} thread(s) of a CPU"
    stamp = f"Made with {packages}, {others}, Python {platform.python_version()}, on {threads}.\n"
    absent = "".join(f"| `{name}` | {reason} |\n" for name, reason in ABSENT.items())
    return (
        HEADING.format(**limits) + "\n".join(lines) + f"\n\n{stamp}\n## Networks of MONAI that are not here\n\n"
        f"`tests/zoo/test_completeness.py` fails when `monai.networks.nets` has a name that is in neither table.\n\n"
        f"| name | reason |\n| --- | --- |\n{absent}"
    )


if __name__ == "__main__":
    sys.exit(main())
