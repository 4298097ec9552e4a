"""index.html of a run: what the tables hold, nothing else, whatever the cases are called and however they ended."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import matplotlib
import numpy as np
import pytest
from matplotlib.patches import Rectangle, StepPatch
from PIL import Image

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.io import InputError
from monai_ifim.report.cohort.figures import distribution_figure
from monai_ifim.report.cohort.page import write_cohort
from monai_ifim.report.cohort.records import read_cohort
from monai_ifim.report.pages.style import page_style
from monai_ifim.run.cases import find_cases
from monai_ifim.run.cohort import find_outliers, read_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import COLUMNS, SCHEMA, UNITS, CaseRow, write_run, write_table

Content = dict[str, Any]
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "cohorts.md"
LARGEST = 12_000_000  # 10,000 cases, each to be searched, sorted and opened
RUN: Content = {
    "bundle": {"name": "chest", "version": "1.2.3", "weights_sha256": "f" * 64, "class_names": ["normal", "pneumonia", "mass"]},
    "options": {"head": "auto", "energy": 0.99, "rank": None},
    "batch_size": 4,
    "cases": {"done": 1},
    "started": "2026-02-03T04:05:06Z",
    "versions": {"monai_ifim": "0.1.0", "torch": "2.13.0"},
}
FAILED = CaseRow("broken", "failed", "broken.nii: the file ends early", "broken.nii")


def row(name: str, trace: float | None = 0.5, answer: str = "normal", sure: float | None = 0.9, **more: Any) -> CaseRow:
    kept = () if not trace else (0.75 * trace, 0.25 * trace)
    fields: Content = {
        "input": f"{name}.nii.gz", "prediction": answer, "probability": sure, "rank": len(kept), "energy_kept": 0.995,
        "eigenvalue": kept[0] if kept else 0.0, "trace": trace, "seconds": 1.5, "eigenvalues": kept,
        "class_names": ("normal", "pneumonia", "mass"), "probabilities": (sure, 0.0, 0.0), "norm_high": 3.0, "norm_low": 4.0,
        "head": "categorical", "method": "exact", "space": "native", "unit": "network input intensity",
        "weights_sha256": "f" * 64,
    }  # fmt: skip
    return CaseRow(name, **{"status": "done", **fields, **more})


def make_rows(number: int, seed: int = 0) -> list[CaseRow]:
    """Cases of three classes, log-normal in the trace, the last five failed."""
    generator = np.random.default_rng(seed)
    rows = []
    for i in range(number - 5):
        answer = ("normal", "pneumonia", "mass")[int(generator.choice(3, p=(0.6, 0.3, 0.1)))]
        trace = float(np.exp(generator.normal(-7 + len(answer) / 3, 0.7)))
        sure = float(1 / (1 + np.exp(-generator.normal(2.5, 0.6))))
        status = "kept" if i % 7 == 0 else "done"
        rows.append(row(f"case_{i:04d}", trace, answer, sure, status=status, seconds=float(generator.gamma(4, 0.5))))
    return [*rows, *[replace(FAILED, case=f"broken_{i}") for i in range(5)]]


def make(folder: Path, rows: list[CaseRow], run: Content | None = RUN) -> Path:
    write_table(folder, rows)
    if run is not None:
        write_run(folder, run)
    return write_cohort(folder)


@pytest.fixture
def render_drawn(tmp_path: Path, parse_html: Any) -> Callable[..., Any]:
    """The page of these cases, taken apart by the standard library's parser."""
    return lambda rows, run=RUN: parse_html(make(tmp_path, rows, run).read_text(encoding="utf-8"))


@pytest.fixture
def render(render_drawn: Callable[..., Any], blank_figure: None) -> Callable[..., Any]:
    """The same with a blank figure."""
    return render_drawn


def quantile_tables(page: Any) -> list[Any]:
    """Of all cases, then of each predicted class."""
    return [table for table in page.tables if "The same in numbers" in table.caption]


def text_of(page: Any) -> str:
    return " ".join(page.text[page.text.index("Cohort, monai-ifim") :].split())


def csv_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "cases.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def close(text: str, value: float) -> bool:
    """Whether a number on the page is this one to within half a unit of its last digit."""
    plain = text.replace("\N{MINUS SIGN}", "-").replace(",", "")
    mantissa, _, exponent = plain.partition("e")
    return abs(float(plain) - value) <= 0.5001 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def test_the_heading_counts_cases(render: Callable[..., Any]) -> None:
    rows = [*make_rows(200), *[row(f"zero_{i}", 0.0) for i in range(3)], row("far", 1e4)]
    text = text_of(render(rows))
    kept, done = (sum(r.status == status for r in rows) for status in ("kept", "done"))
    assert "chest 1.2.3: 204 cases" in text
    assert f"{done} done, {kept} kept from an earlier run, 5 failed." in text
    assert "3 cases without sensitivity." in text


def test_quantiles_are_those_of_numpy_over_the_csv(render: Callable[..., Any], tmp_path: Path) -> None:
    page = render([*make_rows(120), row("zero", 0.0)])
    table, by_class = quantile_tables(page)
    made = [r for r in csv_rows(tmp_path) if r["status"] != "failed"]
    columns = {
        "total sensitivity": "trace",
        "strongest component": "eigenvalue",
        "components kept": "rank",
        "confidence": "probability",
    }
    labels = [(label, None, found[1:]) for label in columns for found in table.rows if found[0].startswith(label)]
    labels += [(label, found[1], found[2:]) for label in columns for found in by_class.rows if found[0].startswith(label)]
    assert len(labels) == 4 + 4 * 3
    for label, answer, texts in labels:
        values = [float(r[columns[label]]) for r in made if answer in (None, r["prediction"])]
        assert texts[:2] == [str(len(values)), str(sum(value == 0 for value in values))]
        for text, value in zip(texts[2:], np.percentile(values, [0, 5, 25, 50, 75, 95, 100]), strict=True):
            assert close(text, float(value)), (label, answer)


def test_times_are_those_of_cases_that_this_run_made(render: Callable[..., Any], tmp_path: Path) -> None:
    page = render(make_rows(60))
    (found,) = [found for found in quantile_tables(page)[0].rows if found[0].startswith("time")]
    values = [float(r["seconds"]) for r in csv_rows(tmp_path) if r["status"] == "done"]
    assert found[1] == str(len(values))
    assert close(found[6], float(np.median(values)))


def test_planted_outliers_are_listed_first_with_their_reason(render: Callable[..., Any], tmp_path: Path) -> None:
    rows = make_rows(150)
    rows[20] = replace(rows[20], trace=1e5, prediction="normal")
    rows[30] = replace(rows[30], rank=9)
    rows[40] = replace(rows[40], probability=0.05)
    page = render(rows)
    reasons = {found[0]: found[-1] for found in page.table("lie far from the others").rows}
    assert next(iter(reasons)) == "case_0020"
    assert re.match(r"total sensitivity 1.00e5 is high \(z = \+\d+\.\d among \d+ cases predicted normal\)", reasons["case_0020"])
    assert "components kept 9 is high" in reasons["case_0030"]
    assert "confidence 0.0500 is low (z = \N{MINUS SIGN}" in reasons["case_0040"]
    far = find_outliers(read_cases(tmp_path))
    assert set(reasons) == set(far["case"])
    assert f"{len(reasons)} cases stand out" in text_of(page)


def test_a_clean_cohort_says_that_nothing_stands_out(render: Callable[..., Any]) -> None:
    text = text_of(render([row(f"c{i}", 0.5) for i in range(40)]))
    assert "0 cases stand out; 0 cases without sensitivity." in text
    assert "No case lies far from the others by this rule." in text
    assert "No case is without sensitivity." in text
    assert "No case failed." in text


def test_what_counts_as_an_outlier_is_said(render: Callable[..., Any]) -> None:
    text = text_of(render(make_rows(40)))
    for said in (
        "±3.5",
        "median absolute deviation",
        "20 or more",
        "fewer than 10",
        "10⁻¹²",
        "is a case to look at, not an error",
    ):
        assert said in text


def test_the_ten_least_confident_are_those_of_the_csv(render: Callable[..., Any], tmp_path: Path) -> None:
    table = render(make_rows(80)).table("cases of lowest confidence")
    made = [r for r in csv_rows(tmp_path) if r["status"] != "failed"]
    expected = sorted(made, key=lambda r: float(r["probability"]))[:10]
    assert [found[0] for found in table.rows] == [r["case"] for r in expected]
    assert all(close(found[2], float(r["probability"])) for found, r in zip(table.rows, expected, strict=True))


def test_failures_are_listed_with_input_and_reason(render: Callable[..., Any]) -> None:
    page = render(make_rows(30))
    assert page.table("Cases that failed").rows == [[f"broken_{i}", FAILED.input, FAILED.reason] for i in range(5)]


def test_every_case_is_listed_with_its_numbers(render: Callable[..., Any], tmp_path: Path) -> None:
    table = render(make_rows(40)).table("All cases.")
    assert len(table.rows) == 40
    for found, expected in zip(table.rows, csv_rows(tmp_path), strict=True):
        cells = dict(zip(table.columns, found, strict=True))
        assert (cells["case"], cells["status"]) == (expected["case"], expected["status"])
        if expected["status"] == "failed":
            assert set(found[2:]) == {"n/a"}
            continue
        assert cells["answer"] == expected["prediction"]
        columns = {"confidence": "probability", "components kept": "rank", "total sensitivity": "trace", "time (s)": "seconds"}
        for column, name in columns.items():
            assert close(cells[column], float(expected[name]))
        assert close(cells["sensitivity kept"].rstrip(" %"), 100 * float(expected["energy_kept"]))


def test_how_it_was_made_is_told(render: Callable[..., Any]) -> None:
    text = text_of(render(make_rows(20)))
    said = (
        "name chest",
        "version 1.2.3",
        "f" * 64,
        "options.energy 0.99",
        "batch_size 4",
        "torch 2.13.0",
        "2026-02-03T04:05:06Z",
    )
    assert [word for word in said if word not in text] == []
    assert "The unit of the image that was decomposed: network input intensity." in text


HOSTILE = (
    "<script>alert(1)</script>", '" onmouseover="alert(1)', "javascript:alert(1)", "a b#c?d%2e&e=f", "ümläut 肺", "..", "'><hr>",
    "{{ 7 * 7 }}", "&lt;b&gt;", "new\nline", "back\\slash", "-->", "]]>", "</style>", "$x_1$", "\u202egnp.exe", "\x00\x07",
)  # fmt: skip


@pytest.mark.slow
def test_hostile_names_are_text_and_links_lead_to_their_folders(tmp_path: Path, parse_html: Any) -> None:
    names = [f"{i}{name.replace('/', '|')}" for i, name in enumerate(HOSTILE)]  # no file has a slash in its name
    rows = [row(case, answer=name, input=name, unit=name, head=name) for case, name in zip(names, HOSTILE, strict=True)]
    rows += [row(f"c{i}", answer=HOSTILE[i % 3]) for i in range(60)]
    rows += [CaseRow(f"{case} failed", "failed", name, name) for case, name in zip(names, HOSTILE, strict=True)]
    rows[3] = replace(rows[3], trace=1e9)
    run = {**RUN, "bundle": {"name": HOSTILE[0], "version": HOSTILE[1]}, "<script>": HOSTILE, "half": "\ud800"}
    write_table(tmp_path, rows)
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    page = parse_html(write_cohort(tmp_path).read_text(encoding="utf-8"))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"hr", "link", "iframe", "object", "base", "form"}
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [{"type": "application/json", "id": "records"}, {}]
    assert len(page.images) == 1
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert all(re.fullmatch(r"#[a-z]+(-\d+)?|\./[\w.~%-]+(/[\w.~%-]*)?", link, re.ASCII) for link in links)
    targets = {unquote(link.removeprefix("./")) for link in links}
    for case in rows[:77]:
        assert {f"{case.case}/", f"{case.case}/{case.case}_ifim.json"} <= targets
    assert not [target for target in targets if " failed" in target]
    for name in HOSTILE[:4]:
        assert name in page.text
    assert page.table("Cases that failed").rows[7][1:] == ["{{ 7 * 7 }}"] * 2


def test_the_page_loads_nothing_from_elsewhere(render_drawn: Callable[..., Any], tmp_path: Path) -> None:
    page = render_drawn(make_rows(60))
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert attributes.get("href", "#").startswith(("#", "./"))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = [attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes]
    allowed = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert policy == [f"{allowed}; base-uri 'none'; form-action 'none'"]
    assert not re.search(r"\b(eval|Function|fetch|XMLHttpRequest|import|open)\s*\(\s*[\"'`]", script)
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?://|url\(|@import", text)


def test_anchors_tables_and_figure_are_in_order(render_drawn: Callable[..., Any]) -> None:
    page = render_drawn([*make_rows(60), row("zero", 0.0)])
    anchors = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    inside = {attributes["href"][1:] for _, attributes in page.tags if attributes.get("href", "").startswith("#")}
    assert len(anchors) == len(set(anchors))
    assert inside <= set(anchors)
    captioned = [table for table in page.tables if table.caption]  # those of single cases have a heading instead
    assert all(table.caption.startswith(f"Table {n}.") for n, table in enumerate(captioned, start=1))
    assert all({len(table.columns)} == {len(found) for found in table.rows} for table in captioned)
    (image,) = page.images
    content = base64.b64decode(image["src"].partition(",")[2])
    assert Image.open(io.BytesIO(content)).size == (int(image["width"]), int(image["height"]))
    assert b"tIME" not in content
    assert "3 predicted classes" in image["alt"]


def test_the_figure_has_a_row_for_each_class_and_every_case_in_a_bar(tmp_path: Path) -> None:
    rows = [*make_rows(100), *[row(f"zero_{i}", 0.0, "mass") for i in range(4)]]
    write_table(tmp_path, rows)
    made = [r for r in rows if r.status != "failed"]
    names = sorted({r.prediction for r in made}, key=lambda name: -sum(r.prediction == name for r in made))
    with page_style():
        axes = np.reshape(distribution_figure(read_cohort(tmp_path)).axes, (4, 5))
    for line, name in zip(axes, ["all cases", *names], strict=True):
        cases = [r for r in made if name in ("all cases", r.prediction)]
        assert line[0].texts[0].get_text() == f"{name}\n{len(cases)}"
        drawn = [sum(_heights(patch).sum() for patch in one.patches) for one in line]
        assert drawn == [len(cases)] * 4 + [sum(r.status == "done" for r in cases)]
    hatched = [_heights(patch) for patch in axes[0, 0].patches if patch.get_hatch()]
    assert hatched == [4]
    assert axes[-1, 0].get_xticklabels()[0].get_text() == "0"


def _heights(patch: StepPatch | Rectangle) -> np.ndarray:
    """Of the bars of a histogram, or of the bar of zeros."""
    return np.asarray(patch.get_data().values if isinstance(patch, StepPatch) else patch.get_height())


def test_the_median_is_drawn_where_it_is(tmp_path: Path) -> None:
    rows = [row(f"c{i}", 10.0 ** (i - 5), sure=0.5 + 0.04 * i) for i in range(11)]
    write_table(tmp_path, rows)
    with page_style():
        axes = distribution_figure(read_cohort(tmp_path)).axes
    assert axes[0].lines[0].get_xdata()[0] == pytest.approx(0.0)  # of 1e-5 ... 1e5
    assert axes[3].lines[0].get_xdata()[0] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "The run had no case."),
        ([FAILED], "No case gave a result. The reasons are below."),
        ([row("one")], "Only 1 case gave a result: too few to find outliers."),
        ([row("one", 0.0, sure=1.0)], "1 case without sensitivity."),
        ([row("one", None)], "1 case without sensitivity."),
        (
            [row("one", None, "", None, rank=None, eigenvalue=None, seconds=None, probabilities=None)],
            "Only 1 case gave a result: too few to find outliers.",
        ),
        ([row("one", 5e-324), row("two", 1.7e308)], "2 done, 0 kept from an earlier run, 0 failed."),
        ([row(f"c{i}", 0.0) for i in range(20)], "20 cases without sensitivity."),
        ([row("one", status="kept")], "0 done, 1 kept from an earlier run, 0 failed."),
        ([row("one", status="skipped")], "0 done, 0 kept from an earlier run, 0 failed, 1 skipped."),
    ],
)
@pytest.mark.filterwarnings("error")
def test_odd_cohorts_have_a_page_without_nan(render_drawn: Callable[..., Any], rows: list[CaseRow], said: str) -> None:
    page = render_drawn(rows)
    assert said in text_of(page)
    assert not re.search(r"\b(nan|NaN|inf|None|NA)\b", text_of(page))


def test_failures_are_not_said_to_lack_pictures_for_another_reason(render: Callable[..., Any]) -> None:
    assert "has pictures" not in text_of(render([FAILED]))
    assert "No case of this run has pictures: an earlier version made it" in text_of(render([FAILED, row("old")]))


def test_a_regression_has_no_confidence(render: Callable[..., Any]) -> None:
    rows = [row(f"c{i}", 0.1 + i, "", None, probabilities=None, means=(2.5,), head="gaussian") for i in range(12)]
    page = render(rows)
    assert "No case has a confidence." in text_of(page)
    assert [found[0] for found in quantile_tables(page)[0].rows if "confidence" in found[0]] == []


def test_further_classes_share_a_row(render: Callable[..., Any]) -> None:
    rows = [row(f"c{i}_{j}", answer=f"class {i}") for i in range(12) for j in range(i + 1)]
    table = quantile_tables(render(rows))[1]
    assert [found[1] for found in table.rows[:8]] == [*[f"class {i}" for i in range(11, 4, -1)], "5 other classes"]
    assert table.rows[7][2] == str(1 + 2 + 3 + 4 + 5)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["case_{:05d}", "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 120 + "{:05d}"])
def test_ten_thousand_cases_make_a_small_page_that_says_what_it_leaves_out(tmp_path: Path, parse_html: Any, name: str) -> None:
    generator = np.random.default_rng(0)
    traces = np.exp(generator.normal(-5, 1, 10_000)) * np.where(generator.random(10_000) < 0.05, 1e8, 1.0)
    traces[::40] = 0.0
    rows = [row(name.format(i), float(trace)) for i, trace in enumerate(traces)]
    rows[::50] = [replace(FAILED, case=r.case, reason="long " * 2000, input="x" * 9000) for r in rows[::50]]
    rows += [replace(FAILED, case=f"late_{i}") for i in range(100)]
    path = make(tmp_path, rows)
    assert path.stat().st_size < LARGEST
    page = parse_html(path.read_text(encoding="utf-8"))
    cards = [attributes for tag, attributes in page.tags if tag == "details" and "id" in attributes]
    assert 500 <= len(cards) <= 500 + 2 * 100 + 10
    lengths = {"All cases.": 500, "Cases that failed": 200, "lie far from": 100, "without sensitivity": 100}
    totals = {"All cases.": "10,100", "Cases that failed": "300"}
    for words, length in lengths.items():
        table = page.table(words)
        assert len(table.rows) == length
        assert f"Only the first {length} of {totals.get(words, '')}" in table.caption
        assert "cases.csv and cases.parquet hold all" in table.caption


def test_the_same_records_give_the_same_bytes_and_leave_settings_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = []
    for name, size in (("first", 9.0), ("second", 17.0)):
        monkeypatch.setitem(matplotlib.rcParams, "font.size", size)
        pages.append(make(tmp_path / name, [*make_rows(50), row("zero", 0.0)]).read_bytes())
        assert matplotlib.rcParams["font.size"] == size
    assert pages[0] == pages[1]


def test_the_page_comes_from_the_two_records_alone(tmp_path: Path) -> None:
    rows = make_rows(30)
    first = make(tmp_path / "first", rows)
    (tmp_path / "second").mkdir()
    for name in ("cases.parquet", "run.json"):
        (tmp_path / "second" / name).write_bytes((tmp_path / "first" / name).read_bytes())
    assert write_cohort(tmp_path / "second").read_bytes() == first.read_bytes()
    assert sorted(os.listdir(tmp_path / "second")) == ["cases.parquet", "index.html", "run.json"]


def test_without_run_json_the_page_says_so(render: Callable[..., Any]) -> None:
    page = render(make_rows(20), None)
    text = text_of(page)
    assert "iFIM of 20 cases" in text
    assert "run.json is missing" in text
    assert "f" * 64 in text
    assert "./run.json" not in [attributes.get("href") for _, attributes in page.tags]


def test_cases_of_several_models_show(render: Callable[..., Any]) -> None:
    rows = [row(f"c{i}", weights_sha256=f"{i:064d}") for i in range(7)]
    assert f"{4:064d} and 2 more" in text_of(render(rows))


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b"null"])
def test_a_damaged_run_json_is_refused_and_the_old_page_stays(tmp_path: Path, content: bytes) -> None:
    path = make(tmp_path, [row("a")])
    before = path.read_bytes()
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(InputError, match=r"run\.json: (not valid JSON|not the record of a run).*: run the same command again"):
        write_cohort(tmp_path)
    assert path.read_bytes() == before


def test_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file: pass the folder"):
        write_cohort(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_links_of_a_real_run_lead_to_files(
    tmp_path: Path, make_bundle: Callable[..., Path], write_scan: Callable[..., Path], oblique: Any, parse_html: Any
) -> None:
    for i in range(2):
        write_scan(tmp_path / "in" / f"scan # {i} 100 %.nii.gz", (9, 8, 7), oblique, shift=float(i))
    (tmp_path / "in" / "x.nii.gz").write_bytes(b"no image")
    bundle = load_bundle(make_bundle(tmp_path / "bundle"))
    out = tmp_path / "out"
    run_cases(bundle, find_cases([tmp_path / "in"]), RunSettings(out, CaseSettings("categorical")), lambda row: None)
    page = parse_html(write_cohort(out).read_text(encoding="utf-8"))
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a" and not attributes["href"].startswith("#")]
    assert all((out / unquote(link)).exists() for link in links)
    assert len([link for link in links if link.endswith("_ifim.json")]) == 2 * 2  # in the list and in the card
    for ending in (".mrml", "_ifim_source.nii.gz", "_ifim_high.nii.gz", "_ifim_sensitivity.nii.gz"):
        assert len([link for link in links if link.endswith(ending)]) == 2
    assert len([image for image in page.images if image["src"].startswith("data:image/webp;base64,")]) == 2 * 4 * 3
    assert "tiny 9.8.7: 3 cases" in text_of(page)
    assert "2 done, 0 kept from an earlier run, 1 failed." in text_of(page)


def test_the_document_names_every_column_with_its_unit() -> None:
    lines = re.findall(r"^\| `(\w+)` \| (yes)? ?\| ([^|]+) \| ([^|]*) ?\| [^|]+ \|$", DOCUMENT.read_text(encoding="utf-8"), re.M)
    kinds = {"string": "text", "double": "number", "int64": "whole number"}
    for (name, in_csv, kind, unit), field in zip(lines, SCHEMA, strict=True):
        inner = f"list of {kinds[str(field.type.value_type)]}s" if "list" in str(field.type) else kinds[str(field.type)]
        assert (name, kind, unit.strip()) == (field.name, inner, UNITS.get(name, ""))
        assert bool(in_csv) == (name in COLUMNS)


def test_python_of_the_document_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [replace(r, norm_input=5.0) if r.status != "failed" else r for r in [*make_rows(40), row("zero", 0.0)]]
    write_table(tmp_path / "results", rows)
    write_run(tmp_path / "results", RUN)
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, DOCUMENT.name, "exec"), {})
    said = capsys.readouterr().out
    assert "nats per unit^2" in said
    assert "0.36" in said
    assert "vanishing" in said
    assert (tmp_path / "results" / "index.html").is_file()
