"""The recipes of CONTRIBUTING.md, each followed on one copy of the package: files written, lines added, examples run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPES = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n### ")[1:]
NAMES = [recipe.partition("\n")[0] for recipe in RECIPES]


class Block(NamedTuple):
    """A block of a recipe. file: the file that the paragraph right before it names; "" for code to run."""

    file: str
    language: str
    text: str


def blocks(recipe: str) -> Iterator[Block]:
    """The blocks of a recipe in their order."""
    prose, *fenced = re.split(r"^```", recipe, flags=re.MULTILINE)
    for before, block in zip([prose, *fenced[1::2]], fenced[::2], strict=False):
        language, _, text = block.partition("\n")
        named = re.search(r"`(monai_ifim/[\w/]+\.py)`:\n$", before)
        yield Block(named[1] if named else "", language, text)


def changed(text: str, change: str) -> str:
    """The text after a change whose lines begin with " ", "-" or "+"; its place has to be there once."""
    lines = change.splitlines()
    old = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    new = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    assert text.count(old) == 1, f"{text.count(old)} places for:\n{old}"
    return text.replace(old, new)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package after all recipes."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "monai_ifim", folder / "monai_ifim", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("bundles", "configs"):
        (folder / name).symlink_to(ROOT / name)
    for block in (block for recipe in RECIPES for block in blocks(recipe) if block.file):
        file = folder / block.file
        if block.language == "diff":
            file.write_text(changed(file.read_text(encoding="utf-8"), block.text), encoding="utf-8")
        else:
            assert not file.exists()
            file.write_text(block.text, encoding="utf-8")
    return folder


@pytest.mark.soak
@pytest.mark.parametrize("recipe", RECIPES, ids=NAMES)
def test_recipe_works_as_it_stands(recipe: str, copy: Path, tmp_path: Path) -> None:
    (example,) = [block.text for block in blocks(recipe) if not block.file]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    script = f"import monai_ifim\nassert monai_ifim.__file__.startswith({str(copy)!r})\n{example}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_recipes_are_there_and_each_but_that_of_an_option_writes_a_file() -> None:
    assert NAMES == ["Add a head", "Add a solver", "Add an option of the engine", "Add a reader", "Add an output file"]
    first = {name: next(block for block in blocks(recipe) if block.file) for name, recipe in zip(NAMES, RECIPES, strict=True)}
    assert [name for name, block in first.items() if block.language != "python"] == ["Add an option of the engine"]


def test_an_option_of_the_engine_is_added_in_at_most_five_files() -> None:
    recipe = RECIPES[NAMES.index("Add an option of the engine")]
    assert len({block.file for block in blocks(recipe) if block.file}) <= 5


def test_code_of_the_recipes_keeps_the_rules(copy: Path) -> None:
    """The new files pass ruff, and the package with them its import contracts."""
    pytest.importorskip("ruff", reason="needs the extra lint: pip install '.[lint]'")
    new = [block.file for recipe in RECIPES for block in blocks(recipe) if block.file and block.language == "python"]
    configuration = str(ROOT / "pyproject.toml")
    imports = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    environment = os.environ | {"PYTHONPATH": str(copy)}
    for words in (
        ["-m", "ruff", "check", "--config", configuration, *new],
        ["-m", "ruff", "format", "--check", "--config", configuration, *new],
        ["-c", imports, configuration, "--no-cache"],
    ):
        done = subprocess.run([sys.executable, *words], cwd=copy, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
