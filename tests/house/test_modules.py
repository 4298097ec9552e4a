"""Every module of the package: name, length, and no assert statements."""

from __future__ import annotations

import ast
from pathlib import Path

import monai_ifim

PACKAGE = Path(monai_ifim.__file__).parent
TEXTS = {path.relative_to(PACKAGE): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {path: ast.parse(text) for path, text in TEXTS.items()}
LONGEST_MODULE, LONGEST_FUNCTION = 400, 60  # lines
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Length of a function's body without its docstring and its imports (the command line's, which are heavy)."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    imports = [node for node in ast.walk(function) if isinstance(node, (ast.Import, ast.ImportFrom))]
    whole = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
    return whole - sum((node.end_lineno or 0) - node.lineno + 1 for node in imports)


def test_no_module_has_an_empty_name() -> None:
    assert [path for path in TEXTS if EMPTY_NAMES & set(path.with_suffix("").parts)] == []


def test_no_module_is_longer_than_400_lines() -> None:
    assert {path: length for path, text in TEXTS.items() if (length := len(text.splitlines())) > LONGEST_MODULE} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    functions = [
        (path, node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    assert [(path, node.name) for path, node in functions if lines(node) > LONGEST_FUNCTION] == []


def test_no_module_checks_anything_by_assert() -> None:
    """`python -O` drops assert statements, and the checks with them."""
    asserts = [(path, node.lineno) for path, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert asserts == []


def test_lines_of_a_function_leave_out_its_docstring_and_imports() -> None:
    (function,) = ast.parse('def f():\n    """Say.\n\n    More."""\n    import os\n\n    a = 1\n    return a').body
    assert isinstance(function, ast.FunctionDef)
    assert lines(function) == 3
