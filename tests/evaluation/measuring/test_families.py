"""The registry of families: one entry is all that a family needs, from the settings to the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import decompose
from monai_ifim.core.projection import split
from monai_ifim.evaluation.analysis.summary import summarise_cell, summarise_experiment
from monai_ifim.evaluation.measuring import families
from monai_ifim.evaluation.measuring.families import FAMILIES, DrawContext, Family, Line, families_of
from monai_ifim.evaluation.measuring.measurements import measure_image
from monai_ifim.evaluation.measuring.perturbations import PerturbationSettings, build_perturbations, redraw
from monai_ifim.evaluation.measuring.subspaces import Subspaces, split_eigenvectors
from monai_ifim.evaluation.records import CellDescription, ExperimentHeader, write_experiment
from monai_ifim.report.experiment.curves import columns_of_controls
from monai_ifim.report.experiment.page import write_report

SHAPE = (1, 7, 5)


def checkerboard(context: DrawContext, generator: np.random.Generator) -> Tensor:
    """Noise on every other pixel."""
    noise = torch.from_numpy(generator.standard_normal(context.subspaces.shape.numel()))
    return noise * (torch.arange(len(noise)) % 2)


NEW = Family(
    "noise_checked", "noise", checkerboard, "every other pixel", "Noise on a checkerboard.", Line("#123456", "solid", "*")
)


def one_cell() -> Any:
    """Measurements and scalars of four images of a linear classifier under all families."""
    import pandas as pd

    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(35, 3)).eval()
    with torch.no_grad():
        network[1].weight.copy_(torch.randn(3, 35, generator=generator))
    settings = PerturbationSettings(relative_norms=(0.0, 0.1), draws=2)
    tables, rows = [], []
    for i in range(4):
        image = torch.rand(SHAPE, generator=generator)
        whole = decompose(network, image[None], head="categorical", energy=1.0)
        leading, trailing = split_eigenvectors(whole, 0, rank=1)
        high, low = (part[0] for part in split(leading[None], image[None]))
        built = build_perturbations(image, high, low, Subspaces(leading, trailing), {}, settings, seed=i)
        head = decompose_head()
        table = measure_image(network, head, image, i % 3, whole, built, settings.relative_norms)
        tables.append(table.assign(image=f"i{i}"))
        rows.append({"image": f"i{i}", "predicted": int(table["predicted"].iloc[0]), "locality_radius": 1.0, "rank": 1})
    return pd.concat(tables, ignore_index=True), pd.DataFrame(rows)


def decompose_head() -> Any:
    from monai_ifim.core import CategoricalHead

    return CategoricalHead()


def test_one_entry_is_drawn_measured_compared_and_on_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(families._REGISTRY, NEW.name, NEW)
    assert NEW.name in PerturbationSettings().families
    tables, images = one_cell()
    rows = tables[tables["family"] == NEW.name]
    assert len(rows) == 4 * 2 * 2
    assert rows["seed"].notna().all()
    description = CellDescription(task="t", architecture="a", task_title="T", classes=("x", "y", "z"), spatial_shape=(7, 5))
    cell = summarise_cell(tables, images, description, seed=0, resamples=99)
    assert cell.comparison("noise_high", NEW.name, "absolute_change") is not None
    assert cell.curve(NEW.name, "divergence") is not None
    assert NEW.name in columns_of_controls()[0][1]
    write_experiment(tmp_path / "results.json", summarise_experiment([cell], ExperimentHeader(name="n")))
    write_report(tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "every other pixel" in page
    assert "Noise on a checkerboard." in page


def test_kinds_decide_what_is_random_and_bounded() -> None:
    assert {name for name, family in FAMILIES.items() if family.is_random} == set(families_of("noise", "pixels"))
    assert {name for name, family in FAMILIES.items() if family.is_bounded} == set(families_of("attenuation", "removal"))
    assert {name for name, family in FAMILIES.items() if family.attribution} == set(families_of("pixels"))
    assert all(name == family.name for name, family in FAMILIES.items())
    assert all((family.line is None) == (family.kind == "removal") for family in FAMILIES.values())
    assert all(family.label and family.meaning.endswith(".") for family in FAMILIES.values())


def test_attributions_of_the_registry_are_those_that_can_be_made() -> None:
    from monai_ifim.evaluation.measuring.attributions import ATTRIBUTIONS

    assert tuple(FAMILIES[name].attribution for name in families_of("pixels")) == ATTRIBUTIONS


def test_draws_of_a_recorded_seed_are_those_of_earlier_versions() -> None:
    """Published tables hold seeds: a change of the order of random numbers would draw other directions from them."""
    rows = torch.eye(35, dtype=torch.float64)[:3].reshape(3, *SHAPE)
    subspaces = Subspaces(rows, rows[:0])
    expected = {
        "noise_high": np.random.default_rng(5).standard_normal(35)[:3],
        "noise_low": np.random.default_rng(5).standard_normal(35)[3:],
    }
    for name, values in expected.items():
        drawn = redraw(name, 5, subspaces, {}).flatten().numpy()
        found = drawn[:3] if name == "noise_high" else drawn[3:]
        np.testing.assert_allclose(found, values / np.linalg.norm(values), atol=1e-15)
