"""The floors of the package: each imports only itself and what lies below."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import monai_ifim

FLOORS = ["core", "display", "io", "adapt", "run", "evaluation", "report", "viewer", "cli"]  # from the ground up
PACKAGE = Path(monai_ifim.__file__).parent
ROOT_MODULES = {"monai_ifim", "monai_ifim.version"}
MODULES = sorted(PACKAGE.rglob("*.py"))
EACH_MODULE = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


LONGEST_MODULE, LONGEST_FUNCTION = 400, 60
KNOWN = {_name(path) for path in MODULES}


# Where core may name matplotlib: loaded when a picture is drawn, and for the type checker alone.
DRAWING: set[tuple[str, str]] = set()


def _imports(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, at its top, in functions and under TYPE_CHECKING."""
    yield from (name for _, name in _placed_imports(path))


def _placed_imports(path: Path) -> Iterator[tuple[str, str]]:
    """(place, full name) of all modules that a file imports; place: "module", "function", or "types" under TYPE_CHECKING."""
    package = _name(path) if path.name == "__init__.py" else _name(path).rpartition(".")[0]
    for place, node in _placed_nodes(ast.parse(path.read_text()), "module"):
        if isinstance(node, ast.Import):
            yield from ((place, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield place, whole if whole in KNOWN else base


def _placed_nodes(node: ast.AST, place: str) -> Iterator[tuple[str, ast.AST]]:
    """Everything below a node and where it is executed; a class body is where its class is."""
    for child in ast.iter_child_nodes(node):
        below = "function" if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else place
        checked = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        if checked and child in node.body:  # type: ignore[attr-defined]
            below = "types"
        yield below, child
        yield from _placed_nodes(child, below)


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


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").rglob("*.py")), ids=lambda path: path.name)
def test_core_imports_torch_and_the_standard_library_only(path: Path) -> None:
    allowed = {"torch", "monai_ifim", *sys.stdlib_module_names}
    foreign = {(place, name) for place, name in _placed_imports(path) if name.partition(".")[0] not in allowed}
    drawing = {(place, name) for place, name in foreign if name.partition(".")[0] == "matplotlib"}
    assert foreign == drawing
    assert {(path.stem, place) for place, _ in drawing} <= DRAWING


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("import matplotlib", "module"),
        ("try:\n    import matplotlib\nexcept ImportError:\n    pass", "module"),
        ("class A:\n    import matplotlib", "module"),
        ("def f():\n    import matplotlib", "function"),
        ("class A:\n    def f(self):\n        if self:\n            from matplotlib.figure import Figure", "function"),
        ("if TYPE_CHECKING:\n    from matplotlib.figure import Figure", "types"),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import matplotlib", "module"),
    ],
)
def test_place_of_an_import_is_where_it_is_executed(source: str, place: str) -> None:
    nodes = _placed_nodes(ast.parse(source), "module")
    assert [found for found, node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))] == [place]


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


@EACH_MODULE
def test_module_is_read_at_one_sitting(path: Path) -> None:
    """No module is longer than LONGEST_MODULE lines and no function than LONGEST_FUNCTION, what it takes, its docstring and its
    imports (the command line's, which are heavy) not counted."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_MODULE
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert {node.name: lines for node in functions if (lines := _lines(node)) > LONGEST_FUNCTION} == {}


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    imports = [node for node in ast.walk(function) if isinstance(node, (ast.Import, ast.ImportFrom))]
    whole = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
    return whole - sum((node.end_lineno or 0) - node.lineno + 1 for node in imports)


def test_every_folder_of_the_package_is_a_known_floor() -> None:
    folders = {path.parent.relative_to(PACKAGE).parts[0] for path in MODULES if path.parent != PACKAGE}
    assert {"core", "io", "adapt"} <= folders <= set(FLOORS)
