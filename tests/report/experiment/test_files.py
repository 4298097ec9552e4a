"""The files of a report: self-contained, escaped, small, and the same bytes every time."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from PIL import Image

from monai_ifim.io import OutputError
from monai_ifim.report.experiment.page import write_report
from monai_ifim.run.cases import find_cases

Content = dict[str, Any]
LARGEST = 150_000


def few_curves(cell: Content) -> Content:
    """The cell with one measure of noise alone, which is drawn quickly."""
    kept = [c for c in cell["curves"] if c["family"].startswith("noise") and c["measure"] == "accuracy"]
    return {**cell, "curves": kept}


def chunks(content: bytes) -> list[bytes]:
    """Types of the chunks of a PNG file."""
    found, place = [], 8
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        found.append(content[place + 4 : place + 8])
        place += 12 + length
    return found


def test_html_loads_nothing_from_elsewhere(experiment: Path, page: Any) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
    text = (experiment / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import", re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text))


def test_links_inside_the_page_lead_somewhere(page: Any) -> None:
    anchors = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(anchors) == len(set(anchors))
    links = {attributes["href"] for _, attributes in page.tags if "href" in attributes}
    assert links
    assert {link.removeprefix("#") for link in links} <= set(anchors)


def test_foreign_words_are_text_and_no_markup(experiment: Path, page: Any, content: Content) -> None:
    known = {"2", "4", "kidney", "noise"}  # <2 cm>, layer <4>, <kidney>, <noise>
    assert not {tag for tag, _ in page.tags} & known
    for word in (content["name"], "<kidney>", "liver & bile", "Lesion <2 cm> & noise, 2D", content["failed"][0]["reason"]):
        assert word in page.text
    markdown = (experiment / "report.md").read_text(encoding="utf-8")
    assert not re.search(r"<(?!br)[A-Za-z/0-9]", markdown)


def test_markdown_tables_keep_their_columns(experiment: Path, page: Any) -> None:
    rows: list[int] = []
    tables: list[list[int]] = []
    for line in [*(experiment / "report.md").read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            rows.append(len(re.findall(r"(?<!\\)\|", line)))
        elif rows:
            tables.append(rows)
            rows = []
    assert len(tables) == len(page.tables)
    for lengths, table in zip(tables, page.tables, strict=True):
        assert set(lengths) == {len(table.columns) + 1}
        assert len(lengths) == len(table.rows) + 2


def test_markdown_says_the_same_numbers(experiment: Path, page: Any) -> None:
    markdown = (experiment / "report.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    cells = {" ".join(text.split()) for row in rows for text in row}
    for table in page.tables:
        for row in table.rows:
            for text in row:
                if re.fullmatch(r"[+\N{MINUS SIGN}]?\d\S* \[.*\]", text):
                    assert text in cells


def test_every_figure_has_its_own_alternative_text(page: Any) -> None:
    texts = [image["alt"] for image in page.images]
    assert len(texts) == len(set(texts)) == 11
    assert all(len(text) > 40 for text in texts)
    assert all(int(image["width"]) > 300 and int(image["height"]) > 100 for image in page.images)


def test_tables_say_what_their_heads_belong_to(page: Any) -> None:
    assert {attributes.get("scope") for tag, attributes in page.tags if tag == "th"} == {"col", "row", "rowgroup"}
    assert all(table.caption.startswith(f"Table {n}.") for n, table in enumerate(page.tables, start=1))
    assert all({len(table.columns)} == {len(row) for row in table.rows} for table in page.tables)


def test_figures_are_small_and_carry_no_time(experiment: Path) -> None:
    figures = sorted((experiment / "figures").iterdir())
    assert len(figures) == 11
    for path in figures:
        content = path.read_bytes()
        assert len(content) < LARGEST
        assert set(chunks(content)) <= {b"IHDR", b"PLTE", b"IDAT", b"IEND"}


def test_html_holds_the_figures_that_lie_beside_it(experiment: Path, page: Any) -> None:
    inside = [base64.b64decode(image["src"].partition(",")[2]) for image in page.images]
    markdown = (experiment / "report.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\((figures/[^)]+)\)", markdown)
    assert inside == [(experiment / name).read_bytes() for name in linked]
    for image, content in zip(page.images, inside, strict=True):
        assert Image.open(io.BytesIO(content)).size == (int(image["width"]), int(image["height"]))


def test_same_results_give_the_same_bytes_and_leave_settings_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cell_content: Callable[..., Content],
    experiment_content: Any,
    example_writer: Callable[..., None],
) -> None:
    cell = few_curves(cell_content("one", "One", "Net", ["a", "b"], [9, 8], 12, 2.0, 5))
    results = experiment_content([cell], [])
    written = []
    for name, size in (("first", 9.0), ("second", 17.0)):
        folder = tmp_path / name
        example_writer(folder, cell, 1)
        (folder / "results.json").write_text(json.dumps(results))
        monkeypatch.setitem(matplotlib.rcParams, "font.size", size)
        monkeypatch.setitem(matplotlib.rcParams, "axes.grid", size > 10)
        written.append({path.relative_to(folder): path.read_bytes() for path in write_report(folder)})
        assert matplotlib.rcParams["font.size"] == size
    assert written[0] == written[1]
    assert len(written[0]) == 6  # forest, curves, controls, examples, two pages


def test_figures_and_examples_in_an_input_are_no_images(
    experiment: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An evaluation was written into the folder of the scans: its pictures are left out, what others put beside them is not."""
    folder = tmp_path / "scans" / "evaluation"
    shutil.copytree(experiment, folder)
    cell = next(folder.glob("cells/*/*"))
    (cell / "identity.json").write_text('{"fingerprint": "1"}')
    planes = sorted((cell / "images").glob("*.npz"))
    for file in planes:
        file.with_suffix(".parquet").touch()
    (own := folder / "figures" / "scan.png").write_bytes(b"a scan")
    (other := cell / "images" / "scan.npz").write_bytes(b"a scan")
    elsewhere = [path for path in folder.glob("cells/*/*/images/*.npz") if path.parent.parent != cell]
    found = {case.source.path for case in find_cases([tmp_path / "scans"])}
    assert found == {own, other, *elsewhere}  # without identity.json it may be anybody's
    assert f"{len(list(folder.glob('figures/*.png'))) - 1 + len(planes)} files are results of earlier runs" in caplog.text
    (folder / "report.md").unlink()
    assert {case.source.path for case in find_cases([folder / "figures"])} == set(folder.glob("figures/*.png"))


def test_figures_are_not_written_through_a_link(
    tmp_path: Path, cell_content: Callable[..., Content], experiment_content: Any
) -> None:
    cell = few_curves(cell_content("a", "One", "net", ["a", "b"], [9, 8], 12, 2.0, 5))
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "results.json").write_text(json.dumps(experiment_content([cell], [])))
    (tmp_path / "out" / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="figures: is a link to another place"):
        write_report(tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_all_files_written_are_named_and_a_second_report_replaces_them(
    tmp_path: Path, cell_content: Callable[..., Content], experiment_content: Any
) -> None:
    cells = [few_curves(cell_content("a b", "One", name, ["a", "b"], [9, 8], 12, 2.0, 5)) for name in ("x/y", "x y")]
    for seed in (1, 2):
        (tmp_path / "results.json").write_text(json.dumps({**experiment_content(cells, []), "seed": seed}))
        written = write_report(tmp_path)
        found = {path for path in tmp_path.rglob("*") if path.is_file()}
        assert found == {tmp_path / "results.json", *written}
        assert len(written) == len(set(written)) == 6  # forest, two of curves, one of controls, two pages
        assert {path.name for path in written} >= {"a_b-x_y-curves.png", "a_b-x_y-curves-2.png"}
        assert f"**seed**: {seed}\n" in (tmp_path / "report.md").read_text(encoding="utf-8")
