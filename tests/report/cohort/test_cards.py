"""Every case on the page of a run: its numbers, its files, and its pictures as far as the page may weigh."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from monai_ifim.display.numbers import number, probability
from monai_ifim.io.planes import CasePlanes
from monai_ifim.report.cohort.page import write_cohort
from monai_ifim.report.cohort.pictures import WORDS_WEIGHT, choose_pictures
from monai_ifim.report.cohort.planes import draw_picture_grid
from monai_ifim.report.cohort.records import read_cohort
from monai_ifim.run.coordinate_table import CoordinateRow
from monai_ifim.run.table import CaseRow

Row = Callable[..., CaseRow]
Planes = Callable[..., CasePlanes]
AFFINE, SHAPE, INDEX = np.diag([0.9, 0.9, 4.0, 1.0]), (21, 34, 13), (5, 20, 9)
pytestmark = pytest.mark.usefixtures("blank_figure")


def card(text: str, position: int) -> str:
    """What the page holds of one case, for browsers with and without scripts."""
    (found,) = re.findall(rf'<details id="case-{position}">(.*?)</noscript>', text, re.DOTALL)
    return str(found)


def words(markup: str) -> str:
    within_words = re.sub(r"</?(?:bdi|wbr)\b[^>]*>", "", markup)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", within_words)).split())


def records(text: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="records">(.*?)</script>', text, re.DOTALL)
    content: dict[str, Any] = json.loads(found)
    return content


@pytest.fixture
def render(tmp_path: Path, case_run: Callable[..., Path]) -> Callable[..., str]:
    def make(rows: list[CaseRow], planes: dict[str, CasePlanes] | None = None) -> str:
        return write_cohort(case_run(tmp_path, rows, planes or {})).read_text(encoding="utf-8")

    return make


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "derivatives agree with differences of the output within 1.5 %, compared on this image"),
        ({"verified_by": "two"}, "within 1.5 %, compared on two"),
        ({"verification": "disagrees", "deviation": 0.93}, "DISAGREE with differences of the output by 93.0 %, compared on this"),
        ({"verification": "inconclusive", "deviation": None}, "differences of the output say nothing, tried on this image"),
        ({"verification": "never", "deviation": None, "verified_by": "never"}, "not compared with differences of the output"),
    ],
)
def test_a_card_tells_how_the_derivatives_compare(
    fields: dict[str, Any], said: str, render: Callable[..., str], case_row: Row
) -> None:
    assert said in words(card(render([case_row("one", **fields)]), 1))


def test_a_card_tells_what_was_guessed_in_reading(render: Callable[..., str], case_row: Row) -> None:
    said = "The slice states no Slice Thickness: 1 mm is assumed."
    assert f"Reading: {said}" in words(card(render([case_row("one", warnings=said)]), 1))
    assert "Reading:" not in render([case_row("one")])


def test_a_card_tells_what_saturated_means(render: Callable[..., str], case_row: Row) -> None:
    text = render([case_row("one", saturated="yes", saturation=1.5e-14), case_row("two", saturated="no", saturation=3.0)])
    assert "a change as large as the image's whole contrast would cost 1.50e−14 nats" in words(card(text, 1))
    assert "Saturated" not in words(card(text, 2))
    assert "1 case saturated: nothing here moves the answer." in words(text)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, None])
def test_one_eigenvalue_that_is_not_finite_costs_neither_page_nor_card(
    render: Callable[..., str], case_row: Row, odd: float | None
) -> None:
    text = render([case_row("one", eigenvalues=(odd, 0.125), eigenvalue=odd, trace=odd), case_row("two")])
    assert "1 n/a n/a 5.0 % of |x|, 0.0125 rms 2 0.125 n/a infinite" in words(card(text, 1))
    assert "1 0.375 75.0 %" in words(card(text, 2))


def test_a_card_of_an_earlier_version_tells_nothing_of_it(render: Callable[..., str], case_row: Row) -> None:
    row = case_row("one", verification="", deviation=None, verified_by="", norms_grid="", locality_share=None, locality_rms=None)
    text = render([row])
    assert "differences of the output" not in text
    said = words(card(text, 1))
    assert "1 0.375 75.0 % 0.250 2 0.125" in said  # the radius
    assert "size of the sensitive part 3.00 units in the files" in said


@pytest.mark.parametrize(("channels", "said"), [("tied", "channels one grey image"), ("each", "channels each channel"), ("", "")])
def test_a_card_tells_what_was_done_with_channels(render: Callable[..., str], case_row: Row, channels: str, said: str) -> None:
    found = words(card(render([case_row("one", channels=channels)]), 1))
    assert said in found
    assert ("channels" in found) == bool(said)


def test_a_card_tells_answer_spectrum_numbers_and_files(
    render: Callable[..., str], case_row: Row, case_planes: Planes, tmp_path: Path, parse_html: Any
) -> None:
    text = render([case_row("one"), case_row("two", frame=3)], {"one": case_planes(AFFINE, SHAPE, INDEX)})
    first = card(text, 1)
    said = words(first)
    for wanted in ("one: normal, 0.900", "normal confidence 0.900", "pneumonia 0.070", "mass 0.030"):
        assert wanted in said
    assert "1 0.375 75.0 % 5.0 % of |x|, 0.0125 rms 2 0.125 25.0 % infinite" in said
    for wanted in (
        "2 components, 99.5 % of the sensitivity",
        "total sensitivity 0.500 nats per unit²",
        "size of the sensitive part 3.00 units on the network's grid",
        "size of the insensitive part 4.00 units on the network's grid",
        "exact, 2 products",
        "e" * 64,
        "f" * 64,
    ):
        assert wanted in said
    assert 'aria-label="Sensitivity by component: 2 components, from 0.375 down to 0.125 nats per unit²."' in first
    assert "volume of it 3, counted from 0" in words(card(text, 2))
    links = [attributes["href"] for tag, attributes in parse_html(first).tags if tag == "a"]
    names = ["one.mrml", "one_ifim.json", "one_ifim_source.nii.gz", "one_ifim_high.nii.gz", "one_ifim_eigenvector-01.nii.gz", ""]
    assert links == [*(f"./one/{name}" for name in names), "#making"]
    assert all((tmp_path / unquote(link)).exists() for link in links[:-1])


def test_a_card_has_twelve_pictures_each_with_words_bar_and_letters(
    render: Callable[..., str], case_row: Row, case_planes: Planes, parse_html: Any
) -> None:
    found = card(render([case_row("one")], {"one": case_planes(AFFINE, SHAPE, INDEX)}), 1)
    page, said = parse_html(found), words(found)
    sizes = [(21, 34), (21, 13), (34, 13)] * 4
    assert len(page.images) == 12
    for image, size in zip(page.images, sizes, strict=True):
        content = base64.b64decode(image["src"].removeprefix("data:image/webp;base64,"))
        assert Image.open(io.BytesIO(content)).size == size == (int(image["width"]), int(image["height"]))
        assert "patient's" in image["alt"]
    assert [attributes["class"] for _, attributes in page.tags if attributes.get("class", "").startswith("edge")] == [
        f"edge {side}" for side in ("left", "right", "top", "bottom")
    ] * 12
    minus = "\N{MINUS SIGN}"
    for wanted in (
        f"{minus}1000 {minus}300 400 Hounsfield units",
        f"{minus}0.250 0 0.250 network input intensity",
        "0 0.000150 0.000300 nats per (network input intensity)²",
        "axial, S 36.0 mm R L A P 5 mm coronal, A 18.0 mm R L S I 5 mm sagittal, R 4.5 mm A P S I 10 mm",
        "planes through the most sensitive point, R 4.5 mm, A 18.0 mm, S 36.0 mm",
    ):
        assert wanted in said
    shapes = [attributes["style"] for _, attributes in page.tags if attributes.get("class") == "plane"]
    ratios = [float(style.rpartition(":")[2]) for style in shapes[:3]]
    np.testing.assert_allclose(ratios, [21 / 34, 21 * 0.9 / 52, 34 * 0.9 / 52], rtol=1e-3)


def test_a_case_without_planes_says_so_and_has_no_picture(render: Callable[..., str], case_row: Row, parse_html: Any) -> None:
    text = render([case_row("old")])
    assert "There are no pictures of this case (old_planes.npz is missing): run the case again" in words(card(text, 1))
    assert "No case of this run has pictures" in text
    assert parse_html(card(text, 1)).images == []
    assert records(text)["columns"][-1]["texts"] == ["none"]


def test_damaged_planes_cost_no_page(render: Callable[..., str], case_row: Row, case_planes: Planes, tmp_path: Path) -> None:
    for name, content in (("cut", b"PK\x03\x04"), ("empty", b"")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}_planes.npz").write_bytes(content)
    text = render([case_row("cut"), case_row("good"), case_row("empty")], {"good": case_planes(AFFINE, SHAPE, INDEX)})
    for position, name in ((1, "cut"), (3, "empty")):
        assert f"{name}_planes.npz: not a readable record of planes" in words(card(text, position))
    assert card(text, 2).count("data:image/webp") == 12
    assert "Pictures of 1 case are on this page" in text


def test_a_failed_case_has_its_reason_and_neither_pictures_nor_links(
    render: Callable[..., str], case_row: Row, case_planes: Planes
) -> None:
    failed = CaseRow("bad", "failed", "bad.nii: the file ends early", "bad.nii")
    found = card(render([failed, case_row("good")], {"bad": case_planes(AFFINE, SHAPE, INDEX)}), 1)
    assert "bad: failed" in words(found)
    assert "reason bad.nii: the file ends early" in words(found)
    assert "data:image" not in found
    assert 'href="./' not in found


def test_outliers_then_the_least_confident_have_pictures_first(
    tmp_path: Path, case_run: Callable[..., Path], case_row: Row, large_planes: Callable[[int], CasePlanes]
) -> None:
    generator = np.random.default_rng(0)
    rows = [
        case_row(f"c{i:02d}", trace=float(np.exp(generator.normal(0, 0.3))), probability=0.9 - 0.001 * ((7 * i) % 30))
        for i in range(30)
    ]
    rows[17] = case_row("c17", trace=1e6)
    run = case_run(tmp_path, rows, {f"c{i:02d}": large_planes(i) for i in range(30)})
    cohort = read_cohort(run)
    assert set(cohort.outliers["case"]) == {"c17"}
    doubtful = sorted((row.probability or 1.0, row.case) for row in rows)[:10]
    rest = [row.case for row in rows]
    expected = list(dict.fromkeys(["c17", *(name for _, name in doubtful), *rest]))
    least = draw_picture_grid(large_planes(29), 1).weight
    for cases in (3, 20):
        largest = int((cases + 0.5) * (least + 5000))
        found = choose_pictures(run, cohort, largest)
        assert abs(len(found.grids) - cases) <= 1
        assert list(found.grids) == expected[: len(found.grids)]
        assert sum(grid.weight for grid in found.grids.values()) <= largest
        assert list(found.beside) == expected[len(found.grids) :]
        assert found.beside
        assert not found.left_out


def test_texts_of_a_case_count_towards_the_limit(
    tmp_path: Path, case_run: Callable[..., Path], case_row: Row, large_planes: Callable[[int], CasePlanes]
) -> None:
    run = case_run(tmp_path, [case_row("one")], {"one": large_planes(1)})
    least = draw_picture_grid(large_planes(1), 1).weight
    cohort = read_cohort(run)
    assert set(choose_pictures(run, cohort, least + WORDS_WEIGHT).grids) == {"one"}
    assert choose_pictures(run, cohort, least + WORDS_WEIGHT - 1).beside == ("one",)


def test_heavy_cases_get_pages_of_their_own(
    render: Callable[..., str],
    case_row: Row,
    large_planes: Callable[[int], CasePlanes],
    monkeypatch: pytest.MonkeyPatch,
    parse_html: Any,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("monai_ifim.report.cohort.page.choose_pictures", partial(choose_pictures, largest=300_000))
    names = [f"c{i}" for i in range(12)]
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "case-99.html").write_text("of an earlier page")
    (tmp_path / "pages" / "notes.html").write_text("the user's own")
    text = render([case_row(name) for name in names], {name: large_planes(i) for i, name in enumerate(names)})
    content = records(text)
    column = content["columns"][-1]
    shown = column["texts"].count("yes")
    assert column["head"] == "pictures"
    assert column["texts"] == ["yes"] * shown + ["own page"] * (12 - shown)
    assert 0 < shown < 12
    assert content["pages"] == [""] * shown + [f"pages/case-{i + 1}.html" for i in range(shown, 12)]
    assert f"{12 - shown} cases have pages of their own in the folder pages" in text
    assert sorted(path.name for path in (tmp_path / "pages").iterdir()) == sorted(
        [*(f"case-{i + 1}.html" for i in range(shown, 12)), "notes.html"]
    )
    assert all(picture.startswith("data:image/webp;base64,") for picture in content["thumbnails"])
    own = (tmp_path / "pages" / "case-12.html").read_text(encoding="utf-8")
    page = parse_html(own)
    assert own.count("data:image/webp") == 12
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert {"../index.html", "../c11/c11.mrml", "../index.html#making", "case-11.html"} <= set(links)
    assert all((tmp_path / "pages" / unquote(link.partition("#")[0])).exists() for link in links)
    policy = [attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes]
    (script,) = re.findall(r"<script>(.*?)</script>", own, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy[0]
    still = parse_html(text)
    assert "./pages/case-12.html" in [attributes["href"] for tag, attributes in still.tags if tag == "a"]


def test_each_case_has_a_sentence_and_a_thumbnail(render: Callable[..., str], case_row: Row, case_planes: Planes) -> None:
    rows = [
        case_row("step", eigenvalue=0.2, norm_input=50.0, locality_radius=(None,)),  # 1 unit costs 0.1 nats
        case_row("near", eigenvalue=0.2, norm_input=50.0, locality_radius=(0.5,)),  # and only half of that is described
        case_row("flat", eigenvalue=1e-9, norm_input=5.0, locality_radius=(None,)),
        case_row("none", eigenvalue=0.0),
        case_row("part", volume_sentence="One unit along component 1 raises the volume of liver by 2 ml."),
        CaseRow("bad", "failed", "bad.nii: the file ends early", "bad.nii"),
    ]
    content = records(render(rows, {"step": case_planes(AFFINE, SHAPE, INDEX)}))
    assert [said.replace("\N{NO-BREAK SPACE}", " ") for said in content["sentences"]] == [
        "A change of 2.0 % of the image along component 1 moves the answer by 0.10 nats.",
        "A change of 1.0 % of the image along component 1 moves the answer by 0.025 nats.",
        "No change along component 1 that is smaller than the image itself moves the answer by 0.10 nats.",
        "",
        "One unit along component 1 raises the volume of liver by 2 ml.",
        "Failed: bad.nii: the file ends early",
    ]
    assert [bool(picture) for picture in content["thumbnails"]] == [True, *[False] * 5]
    picture = Image.open(io.BytesIO(base64.b64decode(content["thumbnails"][0].partition(",")[2])))
    assert max(picture.size) == 144
    assert picture.size[0] / picture.size[1] == pytest.approx(21 / 34, rel=0.02)


def test_the_list_for_the_script_is_the_table(render: Callable[..., str], case_row: Row, parse_html: Any) -> None:
    rows = [case_row(f"c{i}", trace=10.0 ** (i - 30), rank=i) for i in range(60)]
    rows[7] = CaseRow("c7", "failed", "why not", "c7.nii")
    text = render(rows)
    content = records(text)
    table = parse_html(text).table("All cases.")
    heads = [column["head"] for column in content["columns"]]
    assert table.columns == [*heads, "sidecar"]
    for n, column in enumerate(content["columns"]):
        shown = [found[n] for found in table.rows]
        filled = column["texts"] if column["head"] == "stands out" else [said or "n/a" for said in column["texts"]]
        assert [a for a, b in zip(shown, filled, strict=True) if " ".join(b.split()) != a and a != "n/a"] == []
    traces = content["columns"][heads.index("total sensitivity")]["values"]
    assert traces[7] is None
    np.testing.assert_allclose([x for x in traces if x is not None], [r.trace for r in rows if r.trace is not None], rtol=1e-8)
    assert content["searched"][7] == "why not"


def test_thousand_classes_and_components_are_cut(render: Callable[..., str], case_row: Row) -> None:
    names = tuple(f"class {i}" for i in range(1000))
    chances = np.random.default_rng(0).dirichlet(np.ones(1000) * 0.02)
    values = tuple(float(v) for v in 0.99 ** np.arange(999))
    text = render([case_row("one", class_names=names, probabilities=tuple(map(float, chances)), eigenvalues=values)])
    said = words(card(text, 1))
    best = np.argsort(-chances, kind="stable")[:8]
    assert re.search(r"\s".join(rf"class {i} {number(chances[i])}" for i in best), said)
    assert "and 992 more classes, in cases.parquet" in said
    assert "and 991 more components, in the sidecar" in said
    assert len(card(text, 1)) < 60_000


def test_every_one_of_two_hundred_independent_labels_is_on_the_page(render: Callable[..., str], case_row: Row) -> None:
    names = tuple(f"finding <{i}>" for i in range(200))
    chances = np.random.default_rng(1).beta(0.3, 2.0, 200)
    more: dict[str, Any] = {"head": "bernoulli", "class_names": names, "probabilities": tuple(map(float, chances))}
    order = np.argsort(-chances, kind="stable")
    text = render([case_row("one", prediction=names[order[0]], probability=float(chances.max()), **more)])
    (page,) = re.findall(r'<details id="case-1">(.*?)</noscript>', text, re.DOTALL)
    (table,) = re.findall(r'<table class="outputs">(.*?)</table>', page, re.DOTALL)
    rows = re.findall(r'<th scope="row" dir="auto">(.*?)</th><td>(.*?)</td>', table)
    assert [(html.unescape(name), said) for name, said in rows] == [(names[i], probability(chances[i])) for i in order[:12]]
    (folded,) = re.findall(r"<summary>further labels</summary><p>(.*?)</p>", page, re.DOTALL)
    assert html.unescape(folded).split("; ") == [f"{names[i]} {probability(chances[i])}" for i in order[12:]]
    assert "likeliest of independent labels: each has a probability of its own, and several or none may hold" in words(page)
    assert '<th scope="col">label</th>' in table


def test_exclusive_classes_are_called_by_their_answer_alone(render: Callable[..., str], case_row: Row) -> None:
    found = card(render([case_row("one")]), 1)
    assert "likeliest of" not in found
    assert '<th scope="col">class</th>' in found


def test_a_regression_shows_what_it_predicts(render: Callable[..., str], case_row: Row) -> None:
    more: dict[str, Any] = {
        "prediction": "",
        "probability": None,
        "probabilities": None,
        "means": (2.5,),
        "class_names": ("age",),
    }
    found = card(render([case_row("one", head="gaussian", **more)]), 1)
    assert "predicted value age 2.50" in words(found)
    assert 'class="meter"' in found
    assert "<span style" not in found


def test_the_page_with_pictures_is_the_same_bytes_every_time(
    tmp_path: Path, case_run: Callable[..., Path], case_row: Row, large_planes: Callable[[int], CasePlanes]
) -> None:
    names = [f"c{i}" for i in range(20)]
    pages = []
    for folder in ("first", "second"):
        run = case_run(
            tmp_path / folder, [case_row(name) for name in names], {name: large_planes(i) for i, name in enumerate(names)}
        )
        pages.append(write_cohort(run).read_bytes())
    assert pages[0] == pages[1]


def test_how_to_read_the_pictures_is_said(render: Callable[..., str], case_row: Row) -> None:
    text = words(render([case_row("one")]))
    for said in (
        "bright means that small changes there move the network's answer",
        "no segmentation, no map of disease",
        "no proof of what caused the answer",
        "holds for small changes of this image",
    ):
        assert said in text


def test_a_part_of_nothing_but_rounding_is_called_zero(render: Callable[..., str], case_row: Row) -> None:
    rows = [
        case_row("blind", norm_input=1.3e4, norm_high=1.2e-4, norm_low=1.3e4),
        case_row("small", norm_input=1.3e4, norm_high=1.2, norm_low=1.3e4),
    ]
    text = render(rows)
    assert " units on the network's grid, zero to rounding: more or less contrast does not move the answer" in words(
        card(text, 1)
    )
    assert "rounding" not in words(card(text, 2))


def coordinate(name: str, unit: str, nats: float | None, slope: float | None, of: str = "log-probability") -> CoordinateRow:
    step = None if not nats else (0.1 / nats) ** 0.5
    return CoordinateRow(name, unit, nats, 0.0, step, 1.0, "input", of, (("Hand", slope), ("<b>CXR</b>", None)))


def test_a_card_begins_with_what_moves_the_answer_most_in_the_readers_units(render: Callable[..., str], case_row: Row) -> None:
    rows = (
        coordinate("offset", "HU", 0.0004, 0.02),
        coordinate("shift S", "mm", 0.07, -0.08),
        coordinate("<i>odd</i>", "%", None, None),
        coordinate("zoom", "%", 10.0, 2.0),
    )
    row = case_row("one", prediction="Hand", probability=0.5, coordinates=rows)
    text = render([row, case_row("two")])
    said = words(card(text, 1))
    assert "0.10 % of zoom: 0.10 nats, raises P(Hand) by 0.10." in said
    assert "Predicted from derivatives, which hold for small moves; moves of these sizes were not tried." in said
    assert "1 mm towards the head: 0.070 nats, lowers P(Hand) by 0.040." in said
    order = ["of zoom 10", "towards the head 0.070", "of offset 0.0004"]
    places = [said.index(f"1 {unit} {each}") for unit, each in zip(("%", "mm", "HU"), order, strict=True)]
    assert places == sorted(places)
    assert "the scan is moved" in said
    widths = re.findall(r'class="meter" aria-hidden="true"><span style="width:([\d.]+)%"', card(text, 1))
    assert widths[-4:] == ["100.0", "0.7", "0.0", "0.0"]
    assert "<i>odd" not in text
    assert "In your units" not in words(card(text, 2))


def test_a_card_of_a_saturated_answer_does_not_begin_with_moves(render: Callable[..., str], case_row: Row) -> None:
    rows = (coordinate("shift S", "mm", 2e-16, -1e-9),)
    given = {"prediction": "Hand", "probability": 1.0, "saturation": 1.5e-14, "coordinates": rows}
    said = [words(card(render([case_row("one", saturated=saturated, **given)]), 1)) for saturated in ("no", "yes")]
    assert ["lowers P(Hand)" in each for each in said] == [True, False]
    assert ["moves of these sizes" in each for each in said] == [True, False]
    assert all("1 mm towards the head" in each for each in said)  # in the table


def test_a_card_of_volumes_tells_of_the_label_that_a_move_changes_most(render: Callable[..., str], case_row: Row) -> None:
    row = CoordinateRow("shift P", "mm", 0.02, 0.0, 2.2, 1.0, "network", "volume", (("edema", 0.1), ("lesion", -0.7)))
    said = words(card(render([case_row("one", prediction="", probability=None, coordinates=(row,))]), 1))
    assert "1 mm towards the back: 0.020 nats, lowers lesion by 0.70." in said
    assert "what the network sees is moved" in said
