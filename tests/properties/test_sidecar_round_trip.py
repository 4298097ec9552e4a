"""Whatever plain data a sidecar holds comes back, numbers that are none as null."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_ifim.display.windows import display_window
from monai_ifim.io import InputError, OutputError, read_sidecar
from monai_ifim.io.older_sidecars import SCHEMA_VERSION
from monai_ifim.io.seal import is_unaltered
from monai_ifim.io.sidecar import SEAL, write_sidecar
from properties.grids import values_of, volumes

NUMBERS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats())
PLAIN = st.recursive(
    st.one_of(NUMBERS, st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.tuples(inner, inner), st.dictionaries(st.text(), inner, max_size=5)),
    max_leaves=20,
)
CONTENT = st.dictionaries(st.text(), PLAIN, max_size=8).map(lambda content: content | {"schema_version": SCHEMA_VERSION})
NOT_PLAIN = st.sampled_from((np.float32(1.0), np.arange(3), Path("a"), {1, 2}, b"bytes", 1j, object()))


def _expected(value: Any) -> Any:
    """As JSON has it: lists for tuples, null for NaN and infinities."""
    if isinstance(value, Mapping):
        return {key: _expected(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_expected(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _typed(value: Any) -> Any:
    """With the type of every number, as 1 == 1.0 == True, and the sign of zero."""
    if isinstance(value, dict):
        return {key: _typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(item) for item in value]
    return (type(value).__name__, repr(value))


@given(CONTENT)
def test_plain_data_come_back(content: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case_ifim.json"
        write_sidecar(path, content)
        assert _typed(read_sidecar(path)) == _typed(_expected(content))
        strict = json.loads(path.read_bytes(), parse_constant=pytest.fail)  # no NaN in it
        del strict["sidecar_sha256"]
        assert strict == _expected(content)
        assert is_unaltered(path.read_bytes(), SEAL)
        assert [file.name for file in Path(folder).iterdir()] == [path.name]


@given(CONTENT, NOT_PLAIN, st.lists(st.text(max_size=3), max_size=3))
def test_other_than_plain_data_are_refused_and_nothing_is_written(content: dict[str, Any], foreign: Any, keys: list[str]) -> None:
    for key in keys:
        foreign = [{key: foreign}]
    with tempfile.TemporaryDirectory() as folder:
        with pytest.raises(OutputError, match="other than plain data"):
            write_sidecar(Path(folder) / "case_ifim.json", content | {"foreign": foreign})
        assert not list(Path(folder).iterdir())


@given(
    st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode), PLAIN.map(lambda value: json.dumps(value).encode()))
)
def test_anything_else_is_refused_in_one_line(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case_ifim.json"
        path.write_bytes(raw)
        with pytest.raises(InputError, match=r"case_ifim\.json") as caught:
            read_sidecar(path)
        assert "\n" not in str(caught.value)


@given(
    st.sampled_from(("source", "input", "high", "low", "sensitivity", "eigenvector")),
    volumes(6),
    st.integers(0, 2**31),
    st.sampled_from((1.0, 1e-30, 1e6, 0.0)),
    st.floats(-1e6, 1e6),
    st.sampled_from(("", "Hounsfield units", "Bq/ml")),
)
def test_a_window_has_two_ends_and_lies_where_its_map_does(
    content: str, shape: tuple[int, int, int], seed: int, spread: float, middle: float, unit: str
) -> None:
    values = (spread * values_of(shape, seed) + middle).astype(np.float32)
    if content == "sensitivity":
        values = np.abs(values)
    low, high = display_window(content, values, unit == "Hounsfield units")
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert low < high
    assert low <= values.max()
    assert high >= values.min()
    if content.startswith(("high", "eigenvector")):
        assert low == -high
    if content == "sensitivity":
        assert low <= 0
