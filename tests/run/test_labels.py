"""Columns of labels in cases.csv: one for each of independent labels and expected values, checked by `verify`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from monai_ifim.run.labels import MOST_LABEL_COLUMNS
from monai_ifim.run.table import COLUMNS, CaseRow, write_run, write_table
from monai_ifim.run.verification.results import verify_results

LABELS = ("nodule", "effusion, left", 'a "device"')


def row(case: str, head: str = "bernoulli", names: tuple[str, ...] = LABELS, **more: Any) -> CaseRow:
    values = tuple(0.125 * (i + 1) for i in range(len(names)))
    of_head = {"probabilities": values} if head in ("bernoulli", "categorical") else {"means": values}
    return CaseRow(case, "done", head=head, class_names=names, **of_head, **more)


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "cases.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("head", "kind"), [("bernoulli", "probability"), ("volumes", "volume"), ("gaussian", "mean")])
def test_each_label_has_a_column(tmp_path: Path, head: str, kind: str) -> None:
    failed = CaseRow("c", "failed", "why")
    write_table(tmp_path, [row("a", head), failed])
    first, second = read(tmp_path)
    assert [name for name in first if name not in COLUMNS] == [f"{kind}: {name}" for name in LABELS]
    assert [float(first[f"{kind}: {name}"]) for name in LABELS] == [0.125, 0.25, 0.375]
    assert {second[f"{kind}: {name}"] for name in LABELS} == {""}


def test_there_are_none_for_classes_for_different_labels_and_for_too_many(tmp_path: Path) -> None:
    many = tuple(f"label {i}" for i in range(MOST_LABEL_COLUMNS + 1))
    for rows in (
        [row("a", "categorical")],
        [row("a"), row("b", names=("nodule", "mass"))],
        [row("a"), row("b", "volumes")],
        [row("a", names=many)],
        [row("a", names=("twice", "twice"))],
        [row("a", names=("alone",))],
        [],
    ):
        write_table(tmp_path, rows)
        header = (tmp_path / "cases.csv").read_text(encoding="utf-8").splitlines()[0]
        assert header == ",".join(COLUMNS)
    write_table(tmp_path, [row("a", names=many[:-1])])
    assert len(read(tmp_path)[0]) == len(COLUMNS) + MOST_LABEL_COLUMNS


def test_verify_compares_them_with_the_other_table(tmp_path: Path) -> None:
    written = write_table(tmp_path, [row("a"), row("b")])
    write_run(tmp_path, {"written": written})
    said = [finding.text for finding in verify_results(tmp_path).findings if finding.place == "cases.csv"]
    assert said == []
    text = (tmp_path / "cases.csv").read_text(encoding="utf-8")
    (tmp_path / "cases.csv").write_text(text.replace("0.25", "0.75", 1), encoding="utf-8")
    said = [finding.text for finding in verify_results(tmp_path).findings if finding.place == "cases.csv"]
    assert any("says otherwise of a than cases.parquet (probability: effusion, left)" in each for each in said)
