"""A floor imports only floors below it, a room only rooms below it, and nothing imports in a circle.

The contracts stand in pyproject.toml, [tool.importlinter], and `lint-imports` checks them. What they cannot express is here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grimp
import pytest

import monai_ifim

PACKAGE = Path(monai_ifim.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
EXCEPTIONS = {
    ("monai_ifim.core.decomposition", "matplotlib"),  # the type that plot() returns
    ("monai_ifim.core.spectrum", "scipy"),  # the eigenproblem of many classes in its matrix's memory
    ("monai_ifim.core.decomposition_file", "safetensors"),  # the format of Decomposition.save and load
}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Who imports whom, in functions and under TYPE_CHECKING too."""
    return grimp.build_graph("monai_ifim", include_external_packages=True, cache_dir=None)


@pytest.fixture(scope="module")
def contracts() -> list[dict[str, Any]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """`lint-imports` on the package that is found from a folder, by this repository's contracts."""
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    words = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {script}"]
    arguments = [str(ROOT / "pyproject.toml"), "--no-cache", "--no-logo"]
    return subprocess.run([*words, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_package_keeps_the_contracts_of_its_floors_and_rooms() -> None:
    result = lint_imports(PACKAGE.parent)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_floor_stands_in_the_contract(contracts: list[dict[str, Any]]) -> None:
    (floors,) = [contract for contract in contracts if contract["id"] == "floors"]
    named = {name for layer in floors["layers"] for name in layer.split(" | ")}
    assert named == {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}


def test_core_imports_torch_and_the_standard_library_only(graph: grimp.ImportGraph) -> None:
    allowed = {"monai_ifim", "torch", *sys.stdlib_module_names}
    modules = graph.find_descendants("monai_ifim.core")
    imports = {(module, name) for module in modules for name in graph.find_modules_directly_imported_by(module)}
    assert {pair for pair in imports if pair[1].partition(".")[0] not in allowed} == EXCEPTIONS


def test_no_module_imports_the_package_that_it_is_in(graph: grimp.ImportGraph) -> None:
    """A package's `__init__` imports its modules, so a module that imports its own package closes a circle."""
    modules = graph.find_descendants("monai_ifim")
    imports = [(module, name) for module in modules for name in graph.find_modules_directly_imported_by(module)]
    assert [pair for pair in imports if pair[0].startswith(f"{pair[1]}.") and pair[1] != "monai_ifim"] == []


def test_root_is_imported_for_its_version_alone() -> None:
    """The root re-exports names of every floor, so importing them from there would hide an import from the contract."""
    found = [(str(path), name) for path in modules() for name in names_from_the_root(path.read_text(encoding="utf-8"))]
    assert [pair for pair in found if pair[1] != "__version__"] == []


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def names_from_the_root(text: str) -> Iterator[str]:
    """What `from monai_ifim import ...` takes; "monai_ifim" where the root itself is imported."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == "monai_ifim" and not node.level:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name == "monai_ifim")


def test_names_from_the_root_are_found() -> None:
    assert [*names_from_the_root("from monai_ifim import decompose\ndef f():\n    import monai_ifim")] == [
        "decompose",
        "monai_ifim",
    ]
