"""Pictures of the scenes of the demo, drawn by 3D Slicer's own libraries in an environment of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from docs.figures.catalogue import ROOT, MissingProgramError

JUDGE = ROOT / "tests" / "slicer" / "judge.py"
WIDTH, HEIGHT = "400", "340"  # pixels of a slice view
SCENES = {"scene-slice.png": "mednist_classification", "scene.png": "lumpy_lesion_detection_3d"}


def draw_figures(demo: Path, output: Path) -> None:
    """Write the window of each scene; raises RuntimeError where a scene does not open."""
    python = os.environ.get("IFIM_SLICER_PYTHON")
    if not python:
        raise MissingProgramError("IFIM_SLICER_PYTHON is not set")
    scenes = {name: next((demo / bundle).glob("*/*.mrml")) for name, bundle in SCENES.items()}
    pictures = output / "views"
    pictures.mkdir()
    command = [python, str(JUDGE), str(pictures), WIDTH, HEIGHT, *map(str, scenes.values())]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{JUDGE.name} ended with {ended.returncode}: {ended.stderr[-1000:]}")
    reports = json.loads(ended.stdout)
    for name, scene in scenes.items():
        shutil.copy(reports[str(scene)]["pictures"]["window"], output / name)
