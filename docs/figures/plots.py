"""The figures of docs/notebook.md: its own blocks draw them."""

from __future__ import annotations

import os
import re
from contextlib import chdir
from pathlib import Path
from typing import Any

from docs.figures.catalogue import ROOT

os.environ.setdefault("MPLBACKEND", "agg")


def draw_figures(demo: Path, output: Path) -> None:
    """Run the blocks in the folder for the figures; the demo is not drawn."""
    page = (ROOT / "docs" / "notebook.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    with chdir(output):
        for block in re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL):
            exec(compile(block, "notebook.md", "exec"), names)
