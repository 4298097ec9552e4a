"""Figures leave nothing behind: no module of the package draws by pyplot."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import monai_ifim

PACKAGE = Path(monai_ifim.__file__).parent


def imported(path: Path) -> Iterator[str]:
    """Whole names of what a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_module_imports_pyplot() -> None:
    """pyplot keeps every figure alive and chooses a backend for the whole process."""
    sources = sorted(PACKAGE.rglob("*.py"))
    assert len(sources) > 100
    found = [(path.name, name) for path in sources for name in imported(path) if "pyplot" in name or "pylab" in name]
    assert found == []
