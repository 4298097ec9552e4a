"""docs/architecture.md names what exists, and its figure is drawn from the package as it is."""

from __future__ import annotations

import re
import runpy
from functools import reduce
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FLOORS = sorted(path.parent.name for path in (ROOT / "monai_ifim").glob("*/__init__.py"))


def named(name: str) -> Any:
    """The module, function or class of a dotted name below monai_ifim; raises AttributeError where there is none."""
    parts = ["monai_ifim", *name.split(".")]
    longest = max(n for n in range(1, len(parts) + 1) if _is_module(".".join(parts[:n])))
    return reduce(getattr, parts[longest:], import_module(".".join(parts[:longest])))


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is no package
        return False


def test_every_name_on_the_page_exists() -> None:
    names = re.findall(rf"`((?:{'|'.join(FLOORS)})\.[\w.]+)`", PAGE)
    assert len(set(names)) >= 30
    missing = []
    for name in names:
        try:
            named(name)
        except AttributeError:
            missing.append(name)
    assert missing == []


def test_each_walk_takes_ten_steps() -> None:
    walks = PAGE.split("\n## ")[1:]
    assert [re.findall(r"^(\d+)\. ", walk, flags=re.MULTILINE) for walk in walks] == [[str(i) for i in range(1, 11)]] * 2


def test_the_figure_is_drawn_from_the_package_as_it_is() -> None:
    figure = ROOT / "docs" / "figures" / "rooms.svg"
    drawn = runpy.run_path(str(figure.with_suffix(".py")))["draw"]()
    assert figure.read_text(encoding="utf-8") == drawn, "draw it again: python -m docs.figures rooms"
    assert all(f">{floor}</text>" in drawn for floor in FLOORS)
