"""Makes the notebooks of this folder from the scripts beside them: python docs/notebooks/make.py

A line `# %%` starts a code cell, `# %% [markdown]` a text cell, whose lines are comments. Outputs are not stored.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

FOLDER = Path(__file__).resolve().parent
SCRIPTS = ("an_image.py", "a_scan.py")
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def notebook_of(script: Path) -> str:
    """Notebook of a script as JSON text; deterministic."""
    marks = re.split(r"^# %%(.*)\n", script.read_text(encoding="utf-8"), flags=re.MULTILINE)
    cells = []
    for number, (kind, text) in enumerate(zip(marks[1::2], marks[2::2], strict=True)):
        if kind.strip() == "[markdown]":
            cell = new_markdown_cell(re.sub(r"^# ?", "", text.strip(), flags=re.MULTILINE))
        else:
            cell = new_code_cell(text.strip())
        cell["id"] = f"cell-{number}"
        cells.append(cell)
    return nbformat.writes(new_notebook(cells=cells, metadata=METADATA), version=4) + "\n"


if __name__ == "__main__":
    for name in SCRIPTS:
        (FOLDER / name).with_suffix(".ipynb").write_text(notebook_of(FOLDER / name), encoding="utf-8")
