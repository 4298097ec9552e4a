"""Every network of the zoo against its truths. Marked zoo: all ways of each; in the gate: one way of each that is quick."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import cycle

import pytest
import torch

from monai_ifim.core import GradientWarning, decompose
from zoo.comparison import Deviation, Subject
from zoo.entry import Entry
from zoo.packages import FOLDER, folder
from zoo.table import ZOO
from zoo.tolerances import tolerances


def _rows() -> Iterator[object]:
    """A row for each network and way; the gate's way changes from network to network."""
    turn = cycle(("exact", "budget", "matrix_free", "adaptive"))
    for entry in ZOO:
        chosen = entry.ways[0] if entry.voxelwise else next(turn)
        for way in entry.ways:
            mark = pytest.mark.slow if way == chosen and not entry.slow else pytest.mark.zoo
            yield pytest.param(entry, way, id=f"{entry.name}-{way}", marks=mark)


@lru_cache(maxsize=1)
def _subject(entry: Entry) -> Subject:
    return Subject(entry)


@pytest.mark.parametrize(("entry", "way"), list(_rows()))
def test_a_decomposition_agrees_with_the_truths(entry: Entry, way: str) -> None:
    if entry.source != "MONAI" and folder() is None:
        pytest.skip(f"set {FOLDER} to a folder with the packages of tests/zoo/requirements.txt to run this test")
    deviation = _subject(entry).compare(way)
    for name, tolerance in tolerances(entry).items():
        assert getattr(deviation, name) < tolerance, deviation
    assert deviation.verification != "disagrees"


@pytest.mark.soak
@pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.name)
def test_verification_never_doubts_a_network_in_single_precision(entry: Entry) -> None:
    if entry.source != "MONAI" and folder() is None:
        pytest.skip(f"set {FOLDER} to a folder with the packages of tests/zoo/requirements.txt to run this test")
    network, options = entry.network().float(), entry.options()
    if entry.voxelwise:
        options |= {"method": "matrix_free", "rank": 1, "tolerance": 0.1}
    for seed in range(20):
        image = torch.rand(1, *entry.shape, generator=torch.Generator().manual_seed(100 + seed))
        found = decompose(network, image, verify="always", seed=seed, **options).record["verification"]
        assert found["outcome"] == "agrees", found


def test_the_quotients_notice_a_wrong_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = next(entry for entry in ZOO if entry.name == "ResNet10, shortcut A")
    monkeypatch.setattr("monai_ifim.core.operator.shortcuts.NAMES", ())
    with pytest.warns(GradientWarning):
        found: Deviation = Subject(entry).compare("exact")
    assert found.eigenvalues < tolerances(entry)["eigenvalues"]  # plain PyTorch is as wrong
    assert found.quotients > 0.1
