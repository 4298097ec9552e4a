"""The notebooks are up to date with their scripts, and run from the first cell to the last."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the extra test: pip install '.[test]'")
nbclient = pytest.importorskip("nbclient", reason="needs the extra test: pip install '.[test]'")
pytest.importorskip("ipykernel", reason="needs the extra test: pip install '.[test]'")

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"
SAYS = {
    "an_image": ("(1, 1, 64, 64)", "outside: the answer is CXR", "direction 4:", "image/png", "text/html"),
    "a_scan": ("NormalizeIntensityd", "high + low is the scan: True", "12 mm: leading eigenvalue", "image/png"),
}


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """docs/notebooks/make.py as a module."""
    spec = importlib.util.spec_from_file_location("make_notebooks", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_notebooks_are_what_the_scripts_make(maker: ModuleType) -> None:
    assert sorted(f"{name}.py" for name in SAYS) == sorted(maker.SCRIPTS)
    for name in SAYS:
        stored = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
        assert stored == maker.notebook_of(FOLDER / f"{name}.py"), "run python docs/notebooks/make.py"
        assert all(not cell.get("outputs") for cell in nbformat.reads(stored, as_version=4).cells)


@pytest.mark.soak
@pytest.mark.parametrize("name", SAYS)
def test_notebook_runs_and_shows_what_its_text_speaks_of(name: str, tmp_path: Path) -> None:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, kernel_name="python3", timeout=120, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [key for output in outputs for key in output.get("data", {})]
    texts = [output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs]
    assert [said for said in SAYS[name] if said not in "\n".join(texts + shown)] == []
    assert shown.count("image/png") == (2 if name == "an_image" else 1)
