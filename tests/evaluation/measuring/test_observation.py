"""Scalars of one observed image against the dense Fisher information of a linear classifier, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from monai_ifim.core import decompose
from monai_ifim.evaluation.classifiers.tasks import Sample
from monai_ifim.evaluation.measuring import observation
from monai_ifim.evaluation.measuring.observation import ObservationSettings, Observer
from monai_ifim.evaluation.measuring.perturbations import PerturbationSettings

SHAPE = (1, 6, 5)
CLASSES = 5


def linear(seed: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(30, CLASSES)
    with torch.no_grad():
        layer.weight.copy_(0.4 * torch.randn(CLASSES, 30, generator=generator))
        layer.bias.copy_(torch.randn(CLASSES, generator=generator))
    return nn.Sequential(nn.Flatten(), layer).eval()


def fisher(network: nn.Sequential, x: np.ndarray) -> np.ndarray:
    w, b = (part.detach().double().numpy() for part in network[1].parameters())
    p = np.exp(w @ x + b) / np.exp(w @ x + b).sum()
    return w.T @ (np.diag(p) - np.outer(p, p)) @ w


@pytest.fixture(scope="module")
def seen() -> Any:
    """(image [D], scalars, displacement norms of the images that the network was decomposed at)."""
    image = torch.rand(SHAPE, generator=torch.Generator().manual_seed(3))
    settings = ObservationSettings(
        PerturbationSettings((0.0, 0.1), 1, families=("noise_high", "noise_low", "noise_twin")), rank=2, slight_noise=0.02
    )
    sample = Sample("one", image, 1)
    observer = Observer(linear(1), linear(2), (linear(3),), "categorical", settings, sample)
    moved: list[float] = []

    def noted(network: Any, x: Any, **options: Any) -> Any:
        moved.append(float((x[0] - image).norm() / image.norm()))
        return decompose(network, x, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observation, "decompose", noted)
        found = observer.observe(sample, seed=4)
    return image.double().numpy().ravel(), found.scalars, moved


def test_spectrum_and_parts_are_those_of_the_dense_matrix(seen: Any) -> None:
    x, scalars, _ = seen
    values, vectors = np.linalg.eigh(fisher(linear(1), x))
    leading = vectors[:, -2:]
    assert scalars["rank"] == 2
    assert scalars["trace"] == pytest.approx(values.sum(), rel=1e-5)
    assert scalars["eigenvalue"] == pytest.approx(values[-1], rel=1e-5)
    assert scalars["energy_kept"] == pytest.approx(values[-2:].sum() / values.sum(), rel=1e-5)
    assert scalars["norm"] == pytest.approx(np.linalg.norm(x), rel=1e-6)
    assert scalars["high_norm_share"] == pytest.approx(np.linalg.norm(leading.T @ x) / np.linalg.norm(x), rel=1e-4)


def test_the_twin_holds_a_share_of_the_trace_beside_that_of_chance(seen: Any) -> None:
    x, scalars, _ = seen
    own = fisher(linear(1), x)
    twin = np.linalg.eigh(fisher(linear(2), x))[1][:, -2:]
    assert scalars["twin_trace_share"] == pytest.approx(np.trace(twin.T @ own @ twin) / np.trace(own), rel=1e-4)
    assert scalars["chance_trace_share"] == pytest.approx(2 / 30)


def test_agreement_with_another_training_is_that_of_the_leading_subspaces(seen: Any) -> None:
    x, scalars, _ = seen
    first, second = (np.linalg.eigh(fisher(linear(seed), x))[1][:, -2:] for seed in (1, 3))
    assert scalars["agreement_seed"] == pytest.approx(((first.T @ second) ** 2).sum() / 2, rel=1e-3, abs=1e-5)


def test_slight_noise_has_the_stated_norm_relative_to_the_image(seen: Any) -> None:
    _, scalars, moved = seen
    assert sorted({round(norm, 4) for norm in moved}) == [0.0, 0.02]
    assert 0.5 < scalars["agreement_noise"] <= 1.0
