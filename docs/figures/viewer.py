"""Pictures of `monai-ifim view` with cases of the demo, in the light and in the dark."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docs.figures.browser import chromium, photograph
from docs.figures.catalogue import ROOT, MissingProgramError

SIZE = (1400, 900)
PATIENCE, DRAWN = 90.0, 8.0  # seconds until it has started; until all views are drawn
SHOTS = {"viewer.png": ("lumpy_lesion_detection_3d", "light"), "viewer-slice.png": ("mednist_classification", "dark")}


def draw_figures(demo: Path, output: Path) -> None:
    """Write both."""
    for name, (bundle, scheme) in SHOTS.items():
        with _address(demo / bundle) as address, chromium(*SIZE, scheme) as driver:
            driver.get(address)
            time.sleep(DRAWN)
            photograph(driver, output / name)


@contextmanager
def _address(run: Path) -> Iterator[str]:
    """The address of a viewer of the run, which is ended afterwards."""
    python = os.environ.get("IFIM_SLICER_PYTHON")
    if not python:
        raise MissingProgramError("IFIM_SLICER_PYTHON is not set")
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "TRAME_ARGS")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "VTK_DEFAULT_OPENGL_WINDOW": "vtkEGLRenderWindow"}
    start = "import typer; from monai_ifim.cli.view import view; typer.run(view)"
    said = run.parent / f"viewer-{run.name}.txt"
    with said.open("w") as stdout:
        command = [python, "-c", start, str(run), "--no-browser"]
        process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL, env=environment)
    try:
        end = time.monotonic() + PATIENCE
        while not (found := re.search(r"http://\S+", said.read_text(encoding="utf-8"))):
            if time.monotonic() > end or process.poll() is not None:
                raise RuntimeError("the viewer did not start")
            time.sleep(0.2)
        yield found[0]
    finally:
        process.kill()
        process.wait()
