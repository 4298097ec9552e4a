"""index.html by axe-core for WCAG 2.2 AA, and what no program can judge alone: names of any script, the width, the search."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accessibility import Axe
from monai_ifim.io.layers import Layer
from monai_ifim.io.planes import CasePlanes, cut_planes
from monai_ifim.io.segmentation import ShownLabel
from monai_ifim.report.cohort.page import write_cohort
from monai_ifim.run.table import CaseRow

SCHEMES = ("light", "dark")
AFFINE, SHAPE, INDEX = np.diag([0.9, 0.9, 4.0, 1.0]), (21, 34, 13), (5, 20, 9)
NAMES = {"german": "Müller, Jürgen", "hebrew": "ריאה", "arabic": "رئة", "chinese": "肺炎", "long": "chest_" + "abcdefgh_" * 9}


def segmented(seed: int) -> CasePlanes:
    """Planes of a volume with two labels."""
    generator = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[3:9, 12:25, 4:11] = 1
    labels[5:7, 15:20, 7:10] = 2
    image = generator.uniform(-1000, 400, SHAPE)
    layers = [
        Layer("source", image, (-1000.0, 400.0), "Hounsfield units"),
        Layer("labels", labels, (0.0, 2.0), ""),
        Layer("sensitivity", np.abs(image), (0.0, 1000.0), "nats per (Hounsfield unit)^2"),
    ]
    shown = (ShownLabel(1, "ריאה", 400, ml=12.3), ShownLabel(2, "tumour", 60, ml=1.5))
    return cut_planes(layers, AFFINE, INDEX, labels=shown)


def colour_picture() -> CasePlanes:
    """The only plane of a picture file, which has no place in the world."""
    image = np.random.default_rng(0).uniform(0, 255, (19, 27))
    layers = [
        Layer("source", image, (0.0, 255.0), "grey values"),
        Layer("high", image - 128, (-128.0, 128.0), "grey values"),
        Layer("sensitivity", image, (0.0, 255.0), "nats per (grey value)^2"),
    ]
    return cut_planes(layers, np.diag([-1.0, -1.0, 1.0, 1.0]), (4, 9), photograph=True)


@pytest.fixture(scope="module")
def pages(
    case_row: Callable[..., CaseRow],
    case_planes: Callable[..., CasePlanes],
    case_run: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    """index.html of a run: of several cases, of one, of a segmentation, of a colour picture."""
    several = [case_row(name, prediction=NAMES[name]) for name in NAMES]
    several += [case_row(f"case_{i:02d}", trace=0.4 + 0.01 * i) for i in range(24)]
    several[7] = replace(several[7], trace=1e7)
    several[9] = CaseRow(several[9].case, "failed", "the file ends early", "x.nii")
    volume: dict[str, Any] = {row.case: case_planes(AFFINE, SHAPE, INDEX, i) for i, row in enumerate(several[:4])}
    one = case_row("alone")
    runs: dict[str, tuple[list[CaseRow], dict[str, CasePlanes]]] = {
        "several": (several, volume),
        "one": ([one], {"alone": case_planes(AFFINE, SHAPE, INDEX)}),
        "segmentation": ([replace(one, head="voxelwise_categorical")], {"alone": segmented(3)}),
        "picture": ([replace(one, input="alone.png")], {"alone": colour_picture()}),
    }
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = write_cohort(case_run(tmp_path_factory.mktemp(name), *runs[name]))
        return made[name]

    return make


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("several", "dark"),
        ("segmentation", "light"),
        *(
            pytest.param(name, scheme, marks=pytest.mark.soak)
            for name in ("several", "one", "segmentation", "picture")
            for scheme in SCHEMES
        ),
    ],
)
def test_page_and_open_case_keep_the_rules_of_wcag(axe: Axe, pages: Callable[[str], Path], name: str, scheme: str) -> None:
    for anchor in ("", "#case-1"):
        found = axe.open(pages(name), anchor, scheme).report()
        assert found.violations == []
        assert {"color-contrast", "image-alt"} <= found.passed
        assert int(found.version.split(".")[0]) >= 4


def test_axe_finds_what_is_wrong(axe: Axe, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<html><title>bad</title><img src=x><p style='color:#999;background:#bbb'>faint</p>")
    found = axe.open(tmp_path / "bad.html").report().violations
    assert {text.partition(":")[0] for text in found} == {"html-has-lang", "image-alt", "color-contrast"}


@pytest.mark.parametrize("anchor", ["", "#case-5"])
def test_nothing_is_wider_than_a_window_of_1280_pixels_and_no_word_of_a_name_is_broken(
    axe: Axe, pages: Callable[[str], Path], anchor: str
) -> None:
    axe.open(pages("several"), anchor)
    assert axe.wider_than_window() == []
    assert axe.broken_names("#cases, #viewer[open]", [*NAMES, *NAMES.values(), "case_00"]) == []


@pytest.mark.parametrize("form", ["NFC", "NFD", pytest.param("NFKD", marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "asked", ["MÜLLER", "ריאה", pytest.param("müller", marks=pytest.mark.soak), pytest.param("肺", marks=pytest.mark.soak)]
)
def test_the_search_finds_a_name_in_every_form_of_unicode(axe: Axe, pages: Callable[[str], Path], asked: str, form: str) -> None:
    axe.open(pages("several"))
    found = axe.run(
        "const box = document.querySelector('input[type=search]');"
        "box.value = arguments[0]; box.dispatchEvent(new Event('input'));"
        "return document.querySelector('#found').innerText;",
        unicodedata.normalize(form, asked),
    )
    assert found.startswith("1 of ")
