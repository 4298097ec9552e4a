"""Every public name has a docstring, and the examples of docstrings and of the README are executed."""

from __future__ import annotations

import ast
import doctest
import re
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import monai_ifim

PACKAGE = Path(monai_ifim.__file__).parent
README = Path(__file__).resolve().parents[2] / "README.md"
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def undocumented(node: ast.AST, path: str) -> Iterator[str]:
    """Public modules, classes, functions and methods below a node, itself included, without a docstring."""
    if not ast.get_docstring(node):  # type: ignore[arg-type]
        yield path
    if isinstance(node, (ast.Module, ast.ClassDef)):  # what a function holds is its own business
        for child in definitions(node.body):
            if not child.name.startswith("_"):
                yield from undocumented(child, f"{path}.{child.name}")


def definitions(statements: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions and classes of a body, under `if` and `try` too."""
    for statement in statements:
        if isinstance(statement, DEFINITIONS):
            yield statement
        elif isinstance(statement, (ast.If, ast.Try, ast.With)):
            yield from definitions([child for child in ast.iter_child_nodes(statement) if isinstance(child, ast.stmt)])


def test_every_public_name_has_a_docstring() -> None:
    silent = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        silent += undocumented(ast.parse(path.read_text(encoding="utf-8")), module)
    assert silent == []


@pytest.mark.parametrize(
    ("source", "silent"),
    [
        ('"""Said."""', []),
        ("x = 1", ["m"]),
        ('"""Said."""\ndef f(): ...\ndef _g(): ...', ["m.f"]),
        ('"""Said."""\nclass A:\n    """Said."""\n    def f(self): ...\n    async def g(self): ...', ["m.A.f", "m.A.g"]),
        ('"""Said."""\nclass _A:\n    def f(self): ...', []),
        ('"""Said."""\ndef f():\n    """Said."""\n    def g(): ...', []),
        ('"""Said."""\nif x:\n    class A:\n        """ """', ["m.A"]),
    ],
)
def test_a_missing_docstring_is_found(source: str, silent: list[str]) -> None:
    """The counterpart of the test above."""
    assert list(undocumented(ast.parse(source), "m")) == silent


def modules_with_examples() -> list[str]:
    found = []
    for module in walk_packages(monai_ifim.__path__, "monai_ifim."):
        spec = module.module_finder.find_spec(module.name, None)  # type: ignore[call-arg]
        if spec is not None and spec.origin and ">>>" in Path(spec.origin).read_text(encoding="utf-8"):
            found.append(module.name)
    return found


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstring_examples_print_what_they_say(name: str) -> None:
    result = doctest.testmod(import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_readme_python_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # ITK: an error in the middle of its import would leave it in a state in which the process crashes at its end
        warnings.filterwarnings("ignore", "builtin type", DeprecationWarning)
        exec(compile(first, "README.md", "exec"), {})
    assert "True" in capsys.readouterr().out


def test_readme_names_only_verbs_and_options_that_exist() -> None:
    from typer.main import get_command

    from monai_ifim.cli.main import app

    verbs = get_command(app).commands  # type: ignore[attr-defined]
    for line in re.findall(r"^monai-ifim (.+)$", README.read_text(encoding="utf-8"), flags=re.MULTILINE):
        words = line.split("#")[0].split()
        known = {option for parameter in verbs[words[0]].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known
