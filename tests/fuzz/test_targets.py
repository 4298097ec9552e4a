"""What the fuzzer does for long, for seconds: sound inputs, the finds of earlier campaigns, damage drawn with a fixed seed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def _load_targets() -> Any:
    """The module beside this one, which the campaign imports by the same name."""
    spec = importlib.util.spec_from_file_location("targets", Path(__file__).with_name("targets.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["targets"] = module
    spec.loader.exec_module(module)
    return module


targets = _load_targets()
TARGETS = targets.TARGETS
DAMAGES = 150  # inputs a target
INTERESTING = (
    b"\x00",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"-1",
    b"nan",
    b"1e999",
    b"9" * 30,
    b"null",
    b"[]",
    b"{}",
    b'"',
    b"\\",
    b"../",
)


def _seed(target: str, number: int = 0) -> bytes:
    seed: bytes = TARGETS[target].seeds()[number]
    return seed


def _replaced(target: str, old: bytes, new: bytes, number: int = 0) -> bytes:
    seed = _seed(target, number)
    assert old in seed
    return seed.replace(old, new, 1)


def _with_byte(target: str, place: int, value: int) -> bytes:
    seed = bytearray(_seed(target))
    seed[place] = value
    return bytes(seed)


# name: (target, input)
FINDS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "an element of a kind that there is not": (
        "dicom-files",
        lambda: _replaced("dicom-files", b"\x28\x00\x53\x10DS", b"\x28\x00\x53\x10\x53\x02"),
    ),
    "a number of half a length": ("dicom-headers", lambda: b"0@0\\."),
    "a unit of time that there is not": ("nifti", lambda: _with_byte("nifti", 123, 0x82)),
}


def damaged(content: bytes, generator: np.random.Generator) -> bytes:
    """One to four changes: a byte, a part repeated or left out, something interesting put in, the end cut off."""
    found = bytearray(content)
    for _ in range(generator.integers(1, 5)):
        place, length = int(generator.integers(0, len(found) + 1)), int(generator.integers(1, 40))
        kind = generator.integers(0, 5)
        if kind == 0 and found:
            found[place % len(found)] = int(generator.integers(0, 256))
        elif kind == 1:
            del found[place : place + length]
        elif kind == 2:
            found[place:place] = found[place : place + length]
        elif kind == 3:
            found[place : place + length] = INTERESTING[generator.integers(0, len(INTERESTING))]
        else:
            del found[place:]
    return bytes(found)


@pytest.mark.parametrize("name", TARGETS)
def test_the_first_sound_input_is_refused_by_nobody(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "refusing", nullcontext)
    TARGETS[name].run(_seed(name), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_the_other_seeds_are_read_or_refused_in_words(name: str, tmp_path: Path) -> None:
    for i, seed in enumerate(TARGETS[name].seeds()):
        (tmp_path / str(i)).mkdir()
        TARGETS[name].run(seed, tmp_path / str(i))


@pytest.mark.parametrize(("target", "make"), FINDS.values(), ids=FINDS)
def test_finds_stay_mended(target: str, make: Callable[[], bytes], tmp_path: Path) -> None:
    TARGETS[target].run(make(), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_damage_is_refused_in_words_or_read(name: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(20261126)
    seeds = TARGETS[name].seeds()
    for i in range(DAMAGES):
        content = damaged(seeds[i % len(seeds)], generator)
        (tmp_path / str(i)).mkdir()
        try:
            TARGETS[name].run(content, tmp_path / str(i))
        except Exception as error:
            raise AssertionError(f"{name}, input {i}: {content!r}") from error
