"""docs/reproducibility.md: its commands run as they stand, and its list of varying fields is that of the tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_ifim.io.installation import resolve_bundle
from written_bytes import DICOM_FIELDS, RUN_FIELDS, SIDECAR_FIELDS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reproducibility.md").read_text(encoding="utf-8")


def row(file: str) -> set[str]:
    """What the page's table says of a file, the words in code alone."""
    [line] = [line for line in PAGE.splitlines() if line.startswith(f"| `{file}`")]
    return set(re.findall(r"`([^`]+)`", line.rpartition(" | ")[2]))


def test_what_differs_is_what_the_tests_leave_out() -> None:
    assert row("CASE_ifim.json") == {name.decode() for name in SIDECAR_FIELDS}
    assert row("run.json") == {name.decode() for name in RUN_FIELDS} | {"engine"}
    assert row("CASE_ifim_*.dcm") == set(DICOM_FIELDS)


@pytest.mark.soak
def test_the_commands_run_and_the_repetition_agrees(
    write_scan: Callable[..., Path], turned: Callable[..., Any], tmp_path: Path
) -> None:
    shutil.copytree(resolve_bundle("lumpy_lesion_detection_3d"), tmp_path / "my_bundle")
    write_scan(tmp_path / "scans" / "s0.nii.gz", (12, 9, 14), turned((1.1, 2.3, 3.1), (0.2, 0.1, -0.3)))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(ROOT)
    said = ""
    for command in re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL):
        words = ["bash", "-e", "-c", command]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
        said = done.stdout
    assert said.splitlines()[-1] == "s0 agrees bit for bit"
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL):
        exec(compile(code, "docs/reproducibility.md", "exec"), {})
