"""The floors of the package: each imports only itself and what lies below."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import monai_ifim

FLOORS = ["core", "io", "adapt", "run", "evaluation", "report", "cli"]  # from the ground up
PACKAGE = Path(monai_ifim.__file__).parent
ROOT_MODULES = {"monai_ifim", "monai_ifim.version"}
MODULES = sorted(PACKAGE.rglob("*.py"))
EACH_MODULE = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


KNOWN = {_name(path) for path in MODULES}


def _imports(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, at its top, in functions and under TYPE_CHECKING."""
    package = _name(path) if path.name == "__init__.py" else _name(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole in KNOWN else base


def _floor(module: str) -> int:
    return FLOORS.index(module.split(".")[1])


@EACH_MODULE
def test_module_imports_only_its_own_floor_or_lower_ones(path: Path) -> None:
    if _name(path) in ROOT_MODULES:
        return
    ours = [name for name in _imports(path) if name.partition(".")[0] == "monai_ifim"]
    upward = [name for name in ours if name not in ROOT_MODULES and _floor(name) > _floor(_name(path))]
    assert upward == []


@EACH_MODULE
def test_root_is_imported_for_its_version_alone(path: Path) -> None:
    """The root hands out names of every floor, so a module that imports them from there escapes the order."""
    if _name(path) in ROOT_MODULES:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "monai_ifim" and not node.level:
            taken = {alias.name for alias in node.names} - {"__version__", "version", *FLOORS}
            assert taken == set()
        elif isinstance(node, ast.Import):
            assert all(alias.name != "monai_ifim" for alias in node.names)


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=lambda path: path.name)
def test_core_imports_torch_and_the_standard_library_only(path: Path) -> None:
    allowed = {"torch", "monai_ifim", *sys.stdlib_module_names}
    assert {name.partition(".")[0] for name in _imports(path)} <= allowed


@EACH_MODULE
def test_dense_reference_is_imported_by_no_module(path: Path) -> None:
    assert "monai_ifim.core.dense" not in set(_imports(path))


@EACH_MODULE
def test_module_is_named_after_something(path: Path) -> None:
    assert not {*path.relative_to(PACKAGE).with_suffix("").parts} & {"utils", "util", "helpers", "helper", "common", "misc"}


@EACH_MODULE
def test_module_checks_nothing_by_assert(path: Path) -> None:
    """`python -O` drops assert statements, and with them whatever they guard."""
    assert [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)] == []


def test_every_folder_of_the_package_is_a_known_floor() -> None:
    folders = {path.parent.relative_to(PACKAGE).parts[0] for path in MODULES if path.parent != PACKAGE}
    assert {"core", "io", "adapt"} <= folders <= set(FLOORS)
