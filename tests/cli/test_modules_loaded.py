"""What a run of one picture loads besides PyTorch and MONAI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PROBE = """
import json, sys
import torch, monai.transforms, monai.bundle
before = set(sys.modules)
from monai_ifim.cli.main import main
sys.argv = ["monai-ifim", *json.loads(sys.argv[1])]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(json.dumps(sorted(set(sys.modules) - before)))
"""
UNUSED = ("ignite", "ray", "matplotlib.pyplot", "matplotlib.figure", "scipy.stats", "itk.itk", "highdicom", "mlflow", "lightning")
FORMATS = "PIL.FliImagePlugin"  # one of many that Pillow loads with all the others


@pytest.mark.slow
def test_a_run_of_one_picture_loads_no_library_that_it_does_not_use(tmp_path: Path) -> None:
    picture = tmp_path / "slice.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(picture)
    words = ["decompose", str(picture), "--bundle", "mednist_classification", "--rank", "1", "-o", str(tmp_path / "out")]
    command = [sys.executable, "-c", PROBE, json.dumps(words)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert "monai_ifim.run.local" in loaded
    assert [name for name in loaded if name.startswith((*UNUSED, FORMATS))] == []
