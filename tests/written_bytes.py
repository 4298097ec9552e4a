"""Every byte below a result folder; only the fields that docs/reproducibility.md lists are blanked."""

from __future__ import annotations

import csv
import io
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pydicom

from monai_ifim.report.cohort.page import write_cohort

NUMBER = rb"-?[0-9][0-9.eE+-]*"
TEXT = rb'"[^"]*"'
OBJECT = rb"\{.*?^  \}"
SIDECAR_FIELDS = {b"seconds": NUMBER, b"peak_memory_bytes": NUMBER, b"verification": OBJECT, b"sidecar_sha256": TEXT}
TABLE_FIELDS = {"seconds": pa.float64(), "deviation": pa.float64(), "verified_by": pa.string()}
RUN_FIELDS = {b"seconds": NUMBER, b"started": TEXT, b"profile": OBJECT, b"written": OBJECT, b"run_sha256": TEXT}
ENGINE = re.compile(rb'^  "engine": \{.*?^  \},?$', re.DOTALL | re.MULTILINE)
DICOM_FIELDS = ("InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime", "ContributionDateTime")


def written_bytes(output: Path, scratch: Path, engine: bool = True) -> dict[str, Any]:
    """By path below `output`, what each file holds. engine: whether the record of who ran the cases counts.

    index.html is a picture of the tables, times among them: what counts is the page made from the blanked tables, and that
    the one that lies there is made of its own.
    """
    found: dict[str, Any] = {}
    for path in sorted(output.rglob("*")):
        if path.is_file() and path.name != "index.html":
            found[path.relative_to(output).as_posix()] = _content(path, engine)
    if (output / "index.html").is_file():
        found["index.html"] = _page(output, scratch, engine)
    return found


def _content(path: Path, engine: bool) -> Any:
    if path.name.endswith("_ifim.json"):
        return _blanked(path.read_bytes(), SIDECAR_FIELDS)
    if path.name == "run.json":
        text = _blanked(path.read_bytes(), RUN_FIELDS)
        return text if engine else ENGINE.sub(b"", text)
    if path.name == "cases.csv":
        return _without_seconds(path)
    if path.name == "cases.parquet":
        return _parquet(path)
    return _dicom(path) if path.suffix == ".dcm" else path.read_bytes()


def _blanked(text: bytes, fields: dict[bytes, bytes]) -> bytes:
    """The text with the values of these keys of its outermost level, each of which occurs once, left out."""
    for name, value in fields.items():
        text, count = re.subn(rb'(?ms)^  "' + name + rb'": ' + value, b'  "' + name + b'": -', text)
        assert count == 1, (name, count)
    return text


def _without_seconds(path: Path) -> str:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    place = rows[0].index("seconds")
    text = io.StringIO()
    csv.writer(text).writerows([*row[:place], "", *row[place + 1 :]] if i else row for i, row in enumerate(rows))
    return text.getvalue()


def _parquet(path: Path) -> bytes:
    """The table written again with zeros for seconds and no word on who was verified; its schema and metadata as they are."""
    table = pq.read_table(path)
    for name, kind in TABLE_FIELDS.items():
        place, blank = table.schema.get_field_index(name), 0.0 if pa.types.is_floating(kind) else "-"
        values = pa.array([None if value is None else blank for value in table[name].to_pylist()], kind)
        table = table.set_column(place, table.schema.field(place), values)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _dicom(path: Path) -> bytes:
    dataset = pydicom.dcmread(path)
    blanked = 0
    for element in dataset.iterall():
        if element.keyword in DICOM_FIELDS:
            element.value, blanked = "", blanked + 1
    assert blanked == len(DICOM_FIELDS)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def _page(output: Path, scratch: Path, engine: bool) -> bytes:
    before = (output / "index.html").read_bytes()
    shutil.copytree(output, scratch)
    write_cohort(scratch)
    assert (scratch / "index.html").read_bytes() == before
    (scratch / "cases.parquet").write_bytes(_parquet(output / "cases.parquet"))
    run = _blanked((output / "run.json").read_bytes(), {b"seconds": NUMBER, b"started": rb'"[^"]*"'})
    run = run.replace(b'"seconds": -', b'"seconds": 0').replace(b'"started": -', b'"started": "-"')
    (scratch / "run.json").write_bytes(run if engine else ENGINE.sub(b"", run))
    write_cohort(scratch)
    content = (scratch / "index.html").read_bytes()
    shutil.rmtree(scratch)
    return content
