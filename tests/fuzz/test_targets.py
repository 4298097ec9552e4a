"""Short runs of the fuzzer's targets: sound inputs, finds of earlier campaigns, seeded random damage."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest

from fuzz import oracle
from fuzz.mutations import BETWEEN, put_element
from fuzz.sidecar_targets import sound_planes, sound_run, sound_sidecar, sound_volume
from fuzz.targets import TARGETS

WITHOUT_LIMIT = 10**400  # an integer that no floating-point number comes near


def _sidecar(*changes: tuple[tuple[Any, ...], Any]) -> bytes:
    """The sound sidecar with other values at some places."""
    return json.dumps(_put(sound_sidecar(), *changes)).encode()


def _put(tree: Any, *changes: tuple[tuple[Any, ...], Any]) -> Any:
    changed = copy.deepcopy(tree)
    for (*above, last), value in changes:
        holder = changed
        for key in above:
            holder = holder[key]
        holder[last] = value
    return changed


def _dicom(keyword: str, value: bytes) -> bytes:
    """A series whose first slice has this element."""
    first, *others = TARGETS["dicom"].seeds()[0].split(BETWEEN)
    image = pydicom.dcmread(io.BytesIO(first))
    put_element(image, keyword, value)
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=False)
    return BETWEEN.join([buffer.getvalue(), *others])


def _planes(*changes: tuple[tuple[Any, ...], Any], **arrays: Any) -> bytes:
    """The sound pictures, described otherwise, or with other arrays."""
    with np.load(io.BytesIO(sound_planes())) as archive:
        held = {name: archive[name] for name in archive.files}
    description = _put(json.loads(held["description"].tobytes()), *changes)
    held["description"] = np.frombuffer(json.dumps(description).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **(held | arrays))
    return buffer.getvalue()


def _table_with_units(units: bytes) -> bytes:
    table = pq.read_table(io.BytesIO(sound_run()[0]))
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"monai_ifim.units": units}), buffer)
    return buffer.getvalue()


def _overwritten(content: bytes, place: int, value: bytes) -> bytes:
    return content[:place] + value + content[place + len(value) :]


def _replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    assert len(old) == len(new)
    return content.replace(old, new)


# name: (target, input)
FINDS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a DICOM element of a kind that there is not": (
        "dicom",
        lambda: _replaced(TARGETS["dicom"].seeds()[0], b"\x28\x00\x53\x10DS", b"\x28\x00\x53\x10\x53\x02"),
    ),
    "a SOP class of a kind that there is not": (
        "dicom",
        lambda: _replaced(TARGETS["dicom"].seeds()[0], b"\x08\x00\x16\x00UI", b"\x08\x00\x16\x00UH"),
    ),
    "a study's UID of a kind that there is not": (
        "dicom",
        lambda: _replaced(TARGETS["dicom"].seeds()[0], b"\x20\x00\x0d\x00UI", b"\x20\x00\x0d\x00UK"),
    ),
    "a DICOM number of half a length": ("dicom", lambda: _dicom("BitsAllocated", b"0\\.")),
    "several slopes of one DICOM image": ("dicom", lambda: _dicom("RescaleSlope", b"2\\2")),
    "a slope of one blank": ("dicom", lambda: _dicom("RescaleSlope", b" ")),
    "a unit of time that there is not": ("nifti", lambda: _overwritten(TARGETS["nifti"].seeds()[0], 123, b"\x82")),
    "a turn that is no rotation": (
        "nifti",
        lambda: _overwritten(TARGETS["nifti"].seeds()[0], 256, struct.pack("<f", 1e25)),
    ),
    "a content that is a number": ("sidecar", lambda: _sidecar((("files", 0, "kind"), 1.5))),
    "a unit that is nothing": ("sidecar", lambda: _sidecar((("units", "maps"), None))),
    "a window without limit": ("sidecar", lambda: _sidecar((("files", 0, "window"), [0, WITHOUT_LIMIT]))),
    "a space that is a number": ("sidecar", lambda: _sidecar((("space",), 0.5))),
    "a trace that is a text": ("sidecar", lambda: _sidecar((("trace",), "0.5"))),
    "an eigenvalue that is a mapping": ("sidecar", lambda: _sidecar((("eigenvalues", 1), {}))),
    "an error bound that is a text": ("sidecar", lambda: _sidecar((("error_bound",), "x"))),
    "a generator that is a text": ("sidecar", lambda: _sidecar((("generator",), "x"))),
    "a model that is a text": ("sidecar", lambda: _sidecar((("model",), "x"))),
    "a prediction that is a text": ("sidecar", lambda: _sidecar((("prediction",), "x"))),
    "an infinite probability": ("sidecar", lambda: _sidecar((("prediction", "probability", "output 0"), float("inf")))),
    "a probability beyond all percents": ("sidecar", lambda: _sidecar((("prediction", "probability", "output 0"), 1e308))),
    "an eigenvalue beyond all percents": ("sidecar", lambda: _sidecar((("eigenvalues",), [-1e308, 1e-300]))),
    "a schema version of many lines": ("sidecar", lambda: _sidecar((("schema_version",), "x\n" * 2000))),
    "a grid without limit": ("sidecar-uses", lambda: _sidecar((("files", 0, "affine"), [[WITHOUT_LIMIT] * 4] * 4))),
    "a grid that is singular": ("sidecar-uses", lambda: _sidecar((("files", 0, "affine"), [[0.0] * 4] * 4))),
    "a unit that is a list": ("sidecar-uses", lambda: _sidecar((("units", "maps"), ["x"]))),
    "a file's name that is a mapping": ("sidecar-uses", lambda: _sidecar((("files", 1, "file"), {}))),
    "a file's name that is a whole sidecar": ("sidecar-uses", lambda: _sidecar((("files", 1, "file"), sound_sidecar()))),
    "a tolerance that is a whole sidecar": ("sidecar-uses", lambda: _sidecar((("settings", "tolerance"), sound_sidecar()))),
    "a file's name that no file can have": ("sidecar-uses", lambda: _sidecar((("files", 1, "file"), "a" * 300))),
    "pictures of a spacing in words": ("planes", lambda: _planes((("maps", 0, "planes", 0, "spacing"), ["a", "b"]))),
    "pictures of a window of three": ("planes", lambda: _planes((("maps", 0, "window"), [0, 1, 2]))),
    "pictures of a view that is a list": ("planes", lambda: _planes((("maps", 0, "planes", 0, "view"), []))),
    "pictures of a content that is a number": ("planes", lambda: _planes((("maps", 0, "kind"), 1.5))),
    "pictures of a point on a line": ("planes", lambda: _planes((("point",), [1.0]))),
    "pictures of complex numbers": ("planes", lambda: _planes(**{"0-0": np.zeros((3, 4), np.complex64)})),
    "pictures of no pixels": ("planes", lambda: _planes(**{"0-0": np.zeros((0, 4), np.uint8)})),
    "a table whose units are no JSON": ("run-table", lambda: _table_with_units(b"{")),
    "a table whose units are no text": ("run-table", lambda: _table_with_units(b"\xa6")),
    "a table with a text that is none": ("run-table", lambda: _replaced(sound_run()[0], b"output 1", b"output\xa61")),
    "a table with a column that has no name": ("run-table", lambda: _replaced(sound_run()[0], b"seconds", b"s\xa6conds")),
    "voxels that begin nowhere": (
        "viewer-volume",
        lambda: _overwritten(sound_volume(), 108, struct.pack("<f", float("nan"))),
    ),
}


@pytest.mark.parametrize("name", TARGETS)
def test_the_first_seed_is_refused_by_nobody(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "ANSWERS", ())
    TARGETS[name].run(TARGETS[name].seeds()[0], tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_the_other_seeds_are_read_or_refused_in_words(name: str, tmp_path: Path) -> None:
    for i, seed in enumerate(TARGETS[name].seeds()[1:]):
        (tmp_path / str(i)).mkdir()
        TARGETS[name].run(seed, tmp_path / str(i))


@pytest.mark.parametrize(("target", "make"), FINDS.values(), ids=FINDS)
def test_finds_stay_mended(target: str, make: Callable[[], bytes], tmp_path: Path) -> None:
    TARGETS[target].run(make(), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_damage_is_refused_in_words_or_read(name: str, tmp_path: Path) -> None:
    target, chance = TARGETS[name], random.Random(20261126)
    seeds = target.seeds()
    for i in range(target.inputs):
        content = seeds[i % len(seeds)]
        for _ in range(chance.randint(1, 3)):
            content = target.mutate(content, chance)
        (tmp_path / str(i)).mkdir()
        try:
            target.run(content, tmp_path / str(i))
        except Exception as error:
            raise AssertionError(f"{name}, input {i}: {content!r}") from error


@pytest.mark.parametrize("name", TARGETS)
def test_the_same_chance_gives_the_same_damage(name: str) -> None:
    seed, mutate = TARGETS[name].seeds()[0], TARGETS[name].mutate
    changed = [mutate(seed, random.Random(number)) for number in range(20)]
    assert changed == [mutate(seed, random.Random(number)) for number in range(20)]
    assert len(set(changed)) > 10
