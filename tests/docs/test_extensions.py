"""The site's extensions on short texts: docstrings, formulas and links."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("sphinx", reason="needs the extra docs: pip install '.[docs]'")

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "extensions"


def _extension(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as an import would; dataclasses look there
    spec.loader.exec_module(module)
    return module


docstrings = _extension("plain_docstrings")


def _readable(text: str, *parameters: str, attributes: tuple[str, ...] = ()) -> list[str]:
    names = docstrings.Names(frozenset(parameters), frozenset(attributes))
    return [line for line in docstrings.readable(text.split("\n"), names) if line]


def test_names_with_a_colon_become_fields_and_sentences_come_first() -> None:
    found = _readable("Split it.\n\nimage: [B, *spatial]; high, low: the\nparts. It is quick: yes.", "image", "high", "low")
    assert found == [
        "Split it.",
        r":param image: [B, \*spatial]",
        ":param high: the parts. It is quick: yes.",
        ":param low: the parts. It is quick: yes.",
    ]


def test_fields_of_a_result_are_attributes() -> None:
    assert _readable("rank: [B], how many.", attributes=("rank",)) == [":ivar rank: [B], how many."]


def test_exceptions_become_fields_one_each() -> None:
    assert _readable("Read it. Raises InputError or OutputError where it is\nnot there.") == [
        "Read it.",
        ":raises InputError: where it is not there.",
        ":raises OutputError: where it is not there.",
    ]


def test_signs_stand_for_themselves_but_not_in_code() -> None:
    assert docstrings.escaped("|F u| of [B, *s], x_ and a_b, `d | *e`") == r"\|F u\| of [B, \*s], x\_ and a_b, `d | *e`"


def test_examples_are_left_alone_and_sections_go_to_napoleon() -> None:
    text = "Do.\n\nArgs:\n    x: [B, *s].\n\nRaises:\n    IFIMError: no.\n\n>>> f(*x)\n'|'"
    assert _readable(text, "x") == [
        "Do.",
        "Args:",
        r"    x: [B, \*s].",
        "Raises:",
        "    IFIMError: no.",
        ">>> f(*x)",
        "'|'",
    ]


def test_links_that_leave_the_site_become_downloads() -> None:
    links = _extension("repository_files")
    site = Path("/project/docs")
    page = site / "results" / "README.md"
    text = "[a](../theory.md#units) [b](../../benchmarks/x.md#y) ![c](../../c.png) [d](https://example.org)"
    assert links.with_downloads(text, page, site) == text.replace(
        "[b](../../benchmarks/x.md#y)", "{download}`b <../../benchmarks/x.md>`"
    )


def test_a_formula_that_cannot_be_drawn_stays_as_it_was_typed() -> None:
    from docutils import nodes

    formulas = _extension("native_math")
    assert "<mfrac>" in formulas.mathml(nodes.math("", r"\frac{1}{2}"))
    assert formulas.mathml(nodes.math("", r"\nosuch < x")) == r"\nosuch &lt; x"
