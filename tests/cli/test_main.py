"""The entry point: what is printed where the encoding of the stream lacks a character."""

from __future__ import annotations

import io
import sys

import pytest

from monai_ifim.cli import main as entry
from monai_ifim.display import numbers


def test_numbers_stay_readable_where_the_encoding_lacks_their_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii", write_through=True))
    texts = (numbers.number(4.9e-12), numbers.probability(1 - 6e-13), numbers.percent(0.5), numbers.duration(0.4), "\u00e4\u4e00")
    monkeypatch.setattr(entry, "app", lambda: sys.stdout.write("|".join(texts)))
    entry.main()
    assert printed.getvalue().decode("ascii").strip() == "4.90e-12|1 - 6.00e-13|50.0 %|0.400 s|??"
