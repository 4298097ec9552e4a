"""Datalists: labels as they may be written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.classifiers.datalist import read_labelled
from monai_ifim.evaluation.classifiers.labels import class_texts


def test_labels_are_names_indices_or_one_element_lists_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "list.json"

    def read(label: Any) -> Any:
        path.write_text(json.dumps({"testing": [{"image": "x.png", "label": label}]}))
        return read_labelled(path, "testing", ("cat", "dog"))[0][2]

    assert [read(label) for label in ("dog", 1, 1.0, [1])] == [1, 1, 1, 1]
    for label in ("cow", 2, -1, 0.5, True, [0, 1, 1], [0, 2], [0, "dog"], None):
        with pytest.raises(IFIMError, match="label"):
            read(label)
    with pytest.raises(IFIMError, match="no section 'validation'"):
        read_labelled(path, "validation", ("cat", "dog"))


def test_lists_of_independent_labels_hold_unknown_ones_in_every_spelling(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    entries = [[1, 0, -1], [True, 0.0, None], [0, 0, float("nan")], [1.0, 1, -1.0]]
    path.write_text(json.dumps({"testing": [{"image": f"{i}.png", "label": label} for i, label in enumerate(entries)]}))
    found = [label for _, _, label in read_labelled(path, "testing", ("cat", "dog", "cow"))]
    assert found == [(1, 0, -1), (1, 0, -1), (0, 0, -1), (1, 1, -1)]


def test_lists_of_another_length_and_mixtures_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.json"

    def read(*labels: Any) -> Any:
        path.write_text(json.dumps({"testing": [{"image": f"{i}.png", "label": label} for i, label in enumerate(labels)]}))
        return read_labelled(path, "testing", ("cat", "dog", "cow", "ant"))

    with pytest.raises(IFIMError, match=r"3 entries, and 4 labels are named \(cat, dog, cow ...\).*in the order of class_names"):
        read([0, 1, 1])
    with pytest.raises(IFIMError, match=r"holds 2: give 0, 1, or -1"):
        read([0, 1, 2, 0])
    with pytest.raises(IFIMError, match=r"label of 1.png is a list and that of 0.png a class"):
        read("dog", [0, 1, 0, 0])


def test_labels_in_words() -> None:
    names = ("cat", "dog", "cow")
    said = [class_texts(label, names) for label in (1, -1, (1, 0, 1), (0, 0, 0), (-1, -1, -1), (0, -1, 1))]
    assert said == ["dog", "unknown", "cat, cow", "none of the labels", "unknown", "cow"]
