"""Datalists: labels as they may be written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.classifiers.datalist import read_labelled


def test_labels_are_names_indices_or_one_element_lists_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "list.json"

    def read(label: Any) -> int:
        path.write_text(json.dumps({"testing": [{"image": "x.png", "label": label}]}))
        return read_labelled(path, "testing", ("cat", "dog"))[0][2]

    assert [read(label) for label in ("dog", 1, 1.0, [1])] == [1, 1, 1, 1]
    for label in ("cow", 2, -1, 0.5, True, [0, 1], None):
        with pytest.raises(IFIMError, match="label"):
            read(label)
    with pytest.raises(IFIMError, match="no section 'validation'"):
        read_labelled(path, "validation", ("cat", "dog"))
