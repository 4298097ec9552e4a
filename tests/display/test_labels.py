"""Labels are plain words: none of page, viewer, scene, terminal, figure and report is a word of papers without its plain one."""

from __future__ import annotations

import ast
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from monai_ifim import decompose
from monai_ifim.cli.summary import show_rows
from monai_ifim.display import vocabulary as words
from monai_ifim.display.vocabulary import GLOSSARY, ONE_NAT, Term, term_of
from monai_ifim.report.cohort.glossary import terms_of
from monai_ifim.report.cohort.page import write_cohort
from monai_ifim.report.cohort.records import read_cohort
from monai_ifim.report.experiment.examples import TITLES
from monai_ifim.report.experiment.wording import QUANTITIES
from monai_ifim.run.table import COLUMNS, SCHEMA, CaseRow, write_run, write_table
from monai_ifim.viewer.cases import ViewedCase, facts
from synthetic_case import write_scene_file, write_synthetic_case

OF_PAPERS: dict[str, Term] = {
    r"eigenvectors?": words.COMPONENT,
    r"rank": words.COMPONENTS_KEPT,
    r"eigenvalues?": words.SENSITIVITY_ALONG,
    r"spectrum": words.BY_COMPONENT,
    r"traces?": words.TOTAL_SENSITIVITY,
    r"energy": words.SENSITIVITY_KEPT,
    r"x_high|high component": words.HIGH,
    r"x_low|low component": words.LOW,
    r"locality( radius)?": words.HOLDS_UP_TO,
    r"(vector-)?jacobian products?": words.PRODUCTS,
    r"diag(onal)?": words.SENSITIVITY_MAP,
    r"kullback-leibler|divergence": words.NAT,
    r"likelihood": words.HEAD,
}
HEADS = {"th", "dt", "h1", "h2", "h3", "summary", "legend", "figcaption", "caption", "label", "option", "button", "text", "b"}
ROW = CaseRow(
    "scan", "done", input="scan.nii.gz", prediction="tumour", probability=0.9, rank=2, energy_kept=0.9, eigenvalue=3.0, trace=4.0,
    seconds=2.0, eigenvalues=(3.0, 0.96), class_names=("tumour", "none"), probabilities=(0.9, 0.1), norm_input=5.0, norm_high=3.0,
    norm_low=4.0, norms_grid="network", locality_radius=(0.5, None), locality_share=(0.1, None), locality_rms=(0.01, None),
    head="categorical", method="matrix_free", jacobian_products=9, verification="agrees", verified_by="itself", unit="intensity",
    convergence="not converged", residual=0.25, trace_error=0.1, stopped="steps", locality_is_lower_bound="yes",
)  # fmt: skip


def of_papers(labels: Iterable[str]) -> list[str]:
    """Labels with a word of papers that its plain word does not stand beside."""
    found = []
    for label in labels:
        for pattern, term in OF_PAPERS.items():
            if re.search(rf"(?<![\w-])({pattern})(?![\w-])", label, re.IGNORECASE) and term.label not in label.lower():
                found.append(label)
    return found


class Labels(HTMLParser):
    """Texts of the elements in HEADS, and names for programs that read aloud; the glossary explains, and is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []
        self.is_glossary = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.is_glossary = self.is_glossary or given.get("id") == "glossary"
        self.found += [text for name in ("aria-label", "placeholder") if (text := given.get(name))]
        if tag in HEADS:
            self.open.append(tag)
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        if self.open and tag == self.open[-1]:
            self.open.pop()
        self.is_glossary = self.is_glossary and tag != "section"

    def handle_data(self, data: str) -> None:
        if self.open and not self.is_glossary:
            self.found[-1] += data


def page_of(folder: Path, rows: list[CaseRow]) -> str:
    write_table(folder, rows)
    write_run(folder, {"bundle": {"name": "chest"}, "batch_size": 1})
    return write_cohort(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "label", ["trace", "share of trace (%)", "Spectrum", "High component", "|x_high|", "mean locality radius"]
)
def test_a_word_of_papers_is_found(label: str) -> None:
    assert of_papers([label]) == [label]


def test_each_word_of_papers_is_in_the_glossary_under_its_plain_one() -> None:
    told = {term: term.technical for term in GLOSSARY}
    words_found = {pattern for pattern, term in OF_PAPERS.items() if re.search(pattern, told[term], re.IGNORECASE)}
    assert words_found == set(OF_PAPERS)
    assert of_papers(term.label for term in GLOSSARY) == []


def test_page(tmp_path: Path) -> None:
    far = [replace(ROW, case=f"c{i}", trace=4.0 + i / 100) for i in range(30)]
    text = page_of(tmp_path, [*far, replace(ROW, case="far", trace=1e9), CaseRow("bad", "failed", "torn", "bad.nii")])
    parser = Labels()
    parser.feed(text)
    assert len([label for label in parser.found if label.strip()]) > 100
    assert of_papers(parser.found) == []
    heads = re.findall(r'<th scope="col"[^>]*><abbr title="([^"]+)">([^<]+)</abbr>', text)
    assert {words.TOTAL_SENSITIVITY.tip, words.COMPONENTS_KEPT.tip} <= {tip for tip, _ in heads}
    assert text.index(ONE_NAT) < text.index('id="gallery"') < text.index("moves the answer by")  # before the first number in nats


def test_the_page_ends_with_the_glossary_of_its_own_words(tmp_path: Path) -> None:
    text = page_of(tmp_path, [ROW])
    glossary = text[text.index('id="glossary"') :]
    shown = terms_of(read_cohort(tmp_path))
    assert words.CONVERGENCE in shown
    assert words.EXPECTED_VOLUME not in shown
    listed = re.findall(r'<dt dir="auto">([^<]+)</dt>', glossary[: glossary.index("</section>")])
    assert listed == [*(term.label for term in shown), "n/a"]
    assert "<details>" in glossary[: glossary.index("<dl>")]
    assert "In papers: trace of F. In files: trace, trace_error." in glossary
    (tmp_path / "other").mkdir()
    page_of(tmp_path / "other", [replace(ROW, residual=None, head="bernoulli")])
    others = terms_of(read_cohort(tmp_path / "other"))
    assert words.LABEL in others
    assert words.CONVERGENCE not in others


@pytest.mark.parametrize("field", [*SCHEMA.names])
def test_each_column_of_the_tables_has_one_plain_label(field: str) -> None:
    assert field in term_of(field).fields
    assert sum(field in term.fields for term in GLOSSARY) == 1
    assert set(COLUMNS) <= set(SCHEMA.names)


def test_terminal() -> None:
    console = Console(file=io.StringIO(), width=160, record=True)
    show_rows(console, [ROW], Path("out"))
    text = console.export_text()
    assert of_papers(text.splitlines()) == []
    assert ONE_NAT in text


def test_scene_and_its_table(tmp_path: Path) -> None:
    scene = write_scene_file(tmp_path / "case", write_synthetic_case(tmp_path / "case", (9, 12, 10), np.eye(4), (4, 5, 6)))
    names = [
        node.attrib[key]
        for node in ET.parse(scene).getroot().iter()
        for key in ("name", "title", "titleText", "xAxisTitle", "yAxisTitle")
        if key in node.attrib
    ]
    table = scene.with_name("case_spectrum.tsv").read_text(encoding="utf-8").splitlines()[0].split("\t")
    assert len(names) > 10
    assert of_papers([*names, *table]) == []


def test_figure_and_line() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(35, 4)).eval()
    d = decompose(network, torch.rand(1, 1, 7, 5))
    texts = [text.get_text() for text in d.plot().findobj(lambda artist: hasattr(artist, "get_text"))]
    assert of_papers([*texts, repr(d), *re.findall(r"<th[^>]*>([^<]+)", d._repr_html_())]) == []
    assert "of the sensitivity" in repr(d)


def test_viewer(tmp_path: Path) -> None:
    """Texts of the widgets, from the source; rows of the panel, from a sidecar."""
    tree = ast.parse((Path(words.__file__).parents[1] / "viewer" / "page.py").read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    labels = [text for text in texts if text[:1].isupper() and "\n" not in text]
    assert len(labels) > 20
    sidecar: dict[str, Any] = {
        "prediction": {"class": "a", "probability": {"a": 0.9, "b": 0.1}}, "eigenvalues": [2.0, 1.0], "trace": 4.0,
        "units": {"eigenvalues": "nats per unit^2"}, "model": {"bundle": "x", "head": "categorical", "weights_sha256": "f" * 64},
        "input": {"shape": [3, 4]}, "method": "exact", "rank": 2, "energy_kept": 0.75, "status": "converged", "error_bound": 0.0,
        "locality_radius": [0.5, None], "locality_share": [0.1, None], "locality_rms": [0.01, None], "space": {"name": "native"},
        "locality_is_lower_bound": True,
    }  # fmt: skip
    found = facts(ViewedCase("case", (), (), True, sidecar))
    rows = {row["name"]: row["text"] for row in found["settings"]}
    assert of_papers([*labels, *rows]) == []
    assert rows[words.HOLDS_UP_TO.title].startswith("at least 10.0")


def test_report_of_an_experiment() -> None:
    assert of_papers([*QUANTITIES.values(), *TITLES.values()]) == []
