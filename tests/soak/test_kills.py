"""Runs that are killed at random moments lose and damage nothing: a few kills, and a hundred."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from soak.killing import ENGINES, PHASES, Undisturbed, disturb

HUNDRED, PARTS = 100, 4  # kills of each engine, in parts that take a quarter of an hour each


@pytest.mark.parametrize(
    ("engine", "kills", "cases", "seed"),
    [
        pytest.param("local", 1, 4, 3, marks=pytest.mark.soak, id="few"),
        *(
            pytest.param(engine, HUNDRED // PARTS, 50, part, marks=pytest.mark.soak, id=f"a hundred, {engine}, part {part + 1}")
            for engine in ENGINES
            for part in range(PARTS)
        ),
    ],
)
def test_random_kills_lose_and_damage_nothing(
    tmp_path: Path,
    make_bundle: Callable[..., Path],
    write_scan: Callable[..., Path],
    engine: str,
    kills: int,
    cases: int,
    seed: int,
) -> None:
    chance = np.random.default_rng(0)
    for i in range(cases):
        affine = np.diag([1.1, 0.9, 1.4, 1.0])
        write_scan(tmp_path / "scans" / f"scan-{i:03d}.nii.gz", tuple(chance.integers(11, 17, 3)), affine, shift=0.01 * i)
    reference = Undisturbed(tmp_path, tmp_path / "scans", make_bundle(tmp_path / "bundle"), cases, ENGINES[engine])
    tally = disturb(reference, kills, seed)
    assert tally.wrong == []
    assert tally.killed == kills
    assert tally.finished >= 1
    if kills > 1:
        assert all(tally.kills[phase] >= 1 for phase in PHASES), tally.kills


def test_kills_aim_at_every_phase() -> None:
    chance = random.Random(0)
    assert set(chance.choices(list(PHASES), list(PHASES.values()), k=100)) == {"loading", "cases", "tables"}
