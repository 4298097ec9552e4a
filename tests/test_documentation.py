"""What is written in docstrings and in the README is executed."""

from __future__ import annotations

import doctest
import re
import warnings
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import monai_ifim

README = Path(__file__).resolve().parent.parent / "README.md"


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


def test_readme_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    first = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
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
