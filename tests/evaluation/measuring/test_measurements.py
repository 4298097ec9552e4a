"""Measured answers against closed forms: linear classifiers in numpy, and a network that is blind by construction."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from scipy.special import expit, log_softmax, logsumexp
from torch import Tensor, nn

from monai_ifim.core import (
    BernoulliHead,
    CategoricalHead,
    Decomposition,
    GaussianHead,
    Head,
    HeadError,
    IFIMError,
    NetworkError,
    decompose,
)
from monai_ifim.core.heads.probabilities import BernoulliProbabilityHead, CategoricalProbabilityHead
from monai_ifim.core.projection import split
from monai_ifim.evaluation.classifiers.labels import Label
from monai_ifim.evaluation.measuring.attributions import ATTRIBUTIONS, attribute
from monai_ifim.evaluation.measuring.end_points import measured_columns
from monai_ifim.evaluation.measuring.families import FAMILIES
from monai_ifim.evaluation.measuring.measurements import measure_image
from monai_ifim.evaluation.measuring.perturbations import Perturbation, PerturbationSettings, build_perturbations
from monai_ifim.evaluation.measuring.subspaces import Subspaces, split_eigenvectors

Array = npt.NDArray[np.float64]
SHAPES = {"2d": (1, 7, 5), "2d-3channels": (3, 5, 7), "3d": (1, 5, 3, 4)}
SETTINGS = PerturbationSettings(relative_norms=(0.0, 0.01, 0.1, 1.0), draws=2, pixel_share=0.2)
# A convolutional network is Grad-CAM's only kind; linear ones do without.
MAPS = tuple(name for name in ATTRIBUTIONS if name != "gradcam")


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def shape(request: pytest.FixtureRequest) -> tuple[int, ...]:
    """[channel, *spatial], odd and unequal."""
    chosen: tuple[int, ...] = request.param
    return chosen


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def linear_classifier(shape: tuple[int, ...], outputs: int, gain: float = 0.3) -> nn.Sequential:
    """z = W x + b, in float64."""
    layer = nn.Linear(math.prod(shape), outputs, dtype=torch.float64)
    layer.weight.data = gain * normal((outputs, math.prod(shape)), 3)
    layer.bias.data = normal((outputs,), 4)
    return nn.Sequential(nn.Flatten(), layer).eval()


def weights_of(network: nn.Sequential) -> tuple[Array, Array]:
    return network[1].weight.detach().numpy(), network[1].bias.detach().numpy()


def all_perturbations(
    network: nn.Module, whole: Decomposition, settings: PerturbationSettings = SETTINGS, rank: int = 2
) -> list[Perturbation]:
    image = whole.image[0]
    leading, trailing = split_eigenvectors(whole, 0, rank=rank)
    twin = torch.linalg.qr(normal((image.numel(), 2), 6)).Q.T.reshape(2, *image.shape)
    high, low = (part[0] for part in split(leading[None], image[None]))
    maps = {name: attribute(network, whole.image, 0, name, network) for name in MAPS}
    return build_perturbations(image, high, low, Subspaces(leading, trailing, twin), maps, settings, seed=7)


def measured(
    network: nn.Module,
    head: Head,
    image: Tensor,
    label: Label | None = 1,
    settings: PerturbationSettings = SETTINGS,
    rank: int = 2,
) -> tuple[pd.DataFrame, list[Perturbation], Decomposition]:
    whole = decompose(network, image[None], head=head, energy=1.0)
    perturbations = all_perturbations(network, whole, settings, rank)
    table = measure_image(network, head, image, label, whole, perturbations, settings.relative_norms, batch_size=5)
    return table, perturbations, whole


def displacements(table: pd.DataFrame, perturbations: list[Perturbation]) -> Array:
    """d [rows, D] of every row, from the recorded family, draw and norm."""
    directions = {(p.family, p.draw): p.direction.flatten().numpy() for p in perturbations}
    return np.stack([r.norm * directions[r.family, r.draw] for r in table.itertuples()])


def test_linear_softmax_classifier_is_measured_as_its_closed_form_says(shape: tuple[int, ...]) -> None:
    network, image = linear_classifier(shape, 4), normal(shape, 0)
    table, perturbations, _ = measured(network, CategoricalHead(), image)
    assert set(table.family) == {*FAMILIES} - {"pixels_gradcam"}
    w, b = weights_of(network)
    d, z = displacements(table, perturbations), w @ image.flatten().numpy() + b
    before, after = log_softmax(z), log_softmax(z + d @ w.T, axis=1)
    c = int(np.argmax(z))
    p = np.exp(before)
    np.testing.assert_allclose(table[["p00", "p01", "p02", "p03"]], np.exp(after), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(table.probability_change, np.exp(after[:, c]) - p[c], rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(table.absolute_change, np.abs(np.exp(after[:, c]) - p[c]), rtol=1e-10, atol=1e-14)
    divergence = logsumexp(z + d @ w.T, axis=1) - logsumexp(z) - d @ w.T @ p
    np.testing.assert_allclose(table.divergence, divergence, rtol=1e-10, atol=1e-14)
    fisher = w.T @ (np.diag(p) - np.outer(p, p)) @ w
    np.testing.assert_allclose(table.predicted_divergence, 0.5 * np.einsum("ni,ij,nj->n", d, fisher, d), rtol=1e-10, atol=1e-18)
    np.testing.assert_array_equal(table.flipped, (after.argmax(1) != c).astype(float))
    np.testing.assert_array_equal(table.correct, (after.argmax(1) == 1).astype(float))
    np.testing.assert_allclose(table.negative_log_likelihood, -after[:, 1], rtol=1e-12)
    assert (table.predicted == c).all()
    assert 0 < table.flipped.mean() < 1


def test_independent_labels_are_measured_one_by_one_and_averaged() -> None:
    shape, true = (1, 7, 5), (1, -1, 0, 1)
    network, image = linear_classifier(shape, 4), normal(shape, 0)
    table, perturbations, _ = measured(network, BernoulliHead(), image, label=true)
    w, b = weights_of(network)
    d, z = displacements(table, perturbations), w @ image.flatten().numpy() + b
    moved = z + d @ w.T
    before, after, yes = expit(z), expit(moved), z > 0
    np.testing.assert_allclose(table[["p00", "p01", "p02", "p03"]], after, rtol=1e-12)
    assert (table[["y00", "y01", "y02", "y03"]].to_numpy() == np.array(true)).all()
    np.testing.assert_allclose(table.absolute_change, np.abs(after - before).mean(1), rtol=1e-10, atol=1e-14)
    answer = np.where(yes, after - before, before - after)  # change of the probability of each answer, yes or no
    np.testing.assert_allclose(table.probability_change, answer.mean(1), rtol=1e-10, atol=1e-14)
    np.testing.assert_array_equal(table.flipped, ((moved > 0) != yes).mean(1))
    told = [0, 2, 3]
    truth = np.array(true)[told]
    np.testing.assert_allclose(table.correct, ((moved[:, told] > 0) == truth).mean(1))
    losses = -np.log(np.where(truth == 1, after[:, told], expit(-moved[:, told])))
    np.testing.assert_allclose(table.negative_log_likelihood, losses.mean(1), rtol=1e-10)
    fisher = w.T @ np.diag(before * (1 - before)) @ w
    np.testing.assert_allclose(table.predicted_divergence, 0.5 * np.einsum("ni,ij,nj->n", d, fisher, d), rtol=1e-9, atol=1e-18)
    assert (table.predicted == -1).all()
    assert 0 < table.flipped.mean() < 1
    unknown = measured(network, BernoulliHead(), image, label=None)[0]
    assert unknown[["correct", "negative_log_likelihood"]].isna().all(axis=None)


def test_a_label_of_another_kind_than_the_answers_is_refused_with_the_cure() -> None:
    network, image = linear_classifier((1, 7, 5), 4), normal((1, 7, 5), 0)
    with pytest.raises(IFIMError, match="exclusive classes: give the number or name of one class, or --set head=bernoulli"):
        measured(network, CategoricalHead(), image, label=(1, 0, 0, 1))
    with pytest.raises(IFIMError, match="4 independent labels: give a list with 0, 1 or -1"):
        measured(network, BernoulliHead(), image, label=1)
    with pytest.raises(IFIMError, match="3 entries, and the network 4 outputs: give one for each"):
        measured(network, BernoulliHead(), image, label=(1, 0, 1))


@pytest.mark.parametrize("label", [0, 1])
def test_one_logit_counts_as_the_classes_absent_and_present(label: int) -> None:
    shape = (1, 7, 5)
    network, image = linear_classifier(shape, 1), normal(shape, 0)
    table, perturbations, _ = measured(network, BernoulliHead(), image, label=label)
    w, b = weights_of(network)
    d, z = displacements(table, perturbations), (w @ image.flatten().numpy() + b)[0]
    moved = z + (d @ w.T)[:, 0]
    both = np.stack([expit(-moved), expit(moved)], axis=1)
    c = int(z > 0)
    p = expit(z)
    np.testing.assert_allclose(table[["p00", "p01"]], both, rtol=1e-12)
    np.testing.assert_allclose(table.probability_change, both[:, c] - (p if c else 1 - p), rtol=1e-10, atol=1e-14)
    divergence = p * (np.log(p) - np.log(both[:, 1])) + (1 - p) * (np.log(1 - p) - np.log(both[:, 0]))
    np.testing.assert_allclose(table.divergence, divergence, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(table.predicted_divergence, 0.5 * p * (1 - p) * (moved - z) ** 2, rtol=1e-9, atol=1e-18)
    np.testing.assert_array_equal(table.correct, (both.argmax(1) == label).astype(float))
    np.testing.assert_allclose(table.negative_log_likelihood, -np.log(both[:, label]), rtol=1e-9)
    assert (table.predicted == c).all()
    assert "noise_trailing" not in set(table.family)


@pytest.mark.parametrize(
    ("outputs", "final", "on_logits", "on_probabilities"),
    [
        (3, nn.Softmax(dim=1), CategoricalHead(), CategoricalProbabilityHead()),
        (1, nn.Sigmoid(), BernoulliHead(), BernoulliProbabilityHead()),
    ],
    ids=["softmax", "sigmoid"],
)
def test_probabilities_out_of_the_network_are_measured_as_its_logits_are(
    outputs: int, final: nn.Module, on_logits: Head, on_probabilities: Head
) -> None:
    shape = (1, 7, 5)
    network, image = linear_classifier(shape, outputs), normal(shape, 0)
    settings = PerturbationSettings(SETTINGS.relative_norms, 2, families=("noise_high", "noise_low", "step_plus"))
    logits, *_ = measured(network, on_logits, image, settings=settings)
    probabilities, *_ = measured(nn.Sequential(*network, final).eval(), on_probabilities, image, settings=settings)
    pd.testing.assert_frame_equal(probabilities, logits, rtol=1e-7, atol=1e-12)


class BlindNetwork(nn.Module):
    """Logits that look at an image through a few linear measurements alone, nonlinearly; blind to all orthogonal to them."""

    def __init__(self, shape: tuple[int, ...], measurements: int, classes: int) -> None:
        super().__init__()
        basis = torch.linalg.qr(normal((math.prod(shape), measurements), 3)).Q.T
        self.register_buffer("seen", basis)
        self.first = nn.Linear(measurements, 6, dtype=torch.float64)
        self.last = nn.Linear(6, classes, dtype=torch.float64)
        for n, parameter in enumerate(self.parameters()):
            parameter.data = normal(tuple(parameter.shape), 20 + n)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.tanh(self.first(x.flatten(1) @ self.seen.T)))
        return out


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-14), (torch.float32, 1e-5)], ids=str)
def test_noise_in_a_known_blind_subspace_changes_nothing(shape: tuple[int, ...], dtype: torch.dtype, rounding: float) -> None:
    """As many measurements as nonzero eigenvalues: the complement of all eigenvectors is the blind subspace itself."""
    network = BlindNetwork(shape, measurements=2, classes=3).to(dtype).eval()
    table, perturbations, _ = measured(network, CategoricalHead(), normal(shape, 0).to(dtype), rank=2)
    blind = table[table.family.isin(["noise_low", "attenuate_low", "remove_low"])]
    seeing = table[table.family.isin(["noise_high"]) & (table.relative_norm > 0)]
    assert blind.absolute_change.max() < rounding
    assert blind.divergence.max() < rounding**2 + 1e-15
    assert blind.predicted_divergence.max() < rounding**2
    assert blind.flipped.max() == 0
    assert blind.relative_norm.max() == 1.0
    assert seeing.divergence.min() > 1e-6
    measurements = network.seen.double().flatten(1)
    for perturbation in perturbations:
        if perturbation.family == "noise_low":
            assert float((measurements @ perturbation.direction.flatten()).abs().max()) < 10 * rounding


def test_low_noise_contains_the_blind_subspace_whatever_the_cut(shape: tuple[int, ...]) -> None:
    """Every blind direction is orthogonal to the kept eigenvectors, so the projection onto their complement keeps it."""
    network = BlindNetwork(shape, measurements=4, classes=3).eval()
    whole = decompose(network, normal(shape, 0)[None], energy=1.0)
    blind = torch.linalg.qr(torch.cat([network.seen.T, torch.eye(network.seen.shape[1]).double()], dim=1)).Q[:, 4:]
    for rank in (1, 2):
        leading = Subspaces(*split_eigenvectors(whole, 0, rank=rank)).leading.flatten(1)
        assert leading.shape[0] == rank
        assert float((leading @ blind).abs().max()) < 1e-13


def test_a_blind_direction_of_any_length_changes_nothing() -> None:
    shape = (1, 7, 5)
    network, image = BlindNetwork(shape, measurements=3, classes=4).eval(), normal(shape, 0)
    seen = network.seen
    other = normal(shape, 9).flatten()
    hidden = other - seen.T @ (seen @ other)
    blind = Perturbation("noise_low", 0, 1, (hidden / hidden.norm()).reshape(shape))
    whole = decompose(network, image[None], energy=1.0)
    table = measure_image(network, CategoricalHead(), image, None, whole, [blind], (0.0, 1.0, 100.0))
    assert table.absolute_change.max() < 1e-13
    assert table.predicted_divergence.max() < 1e-22


def test_measured_and_predicted_divergence_agree_for_small_steps_of_a_nonlinear_network(shape: tuple[int, ...]) -> None:
    network = BlindNetwork(shape, measurements=5, classes=4).eval()
    grid = (0.0, 1e-5, 1e-4)
    settings = PerturbationSettings(grid, 2, families=("noise_high", "noise_low", "noise_trailing", "step_plus", "step_minus"))
    table, *_ = measured(network, CategoricalHead(), normal(shape, 0), settings=settings)
    moved = table[table.relative_norm > 0]
    np.testing.assert_allclose(moved.divergence, moved.predicted_divergence, rtol=2e-2)
    ratio = (moved.divergence / moved.predicted_divergence - 1).abs().groupby(moved.relative_norm).max()
    assert ratio[1e-4] == pytest.approx(10 * ratio[1e-5], rel=0.3)


def test_the_predicted_class_gains_along_the_positive_step_and_loses_along_the_negative_one(shape: tuple[int, ...]) -> None:
    table, *_ = measured(linear_classifier(shape, 4), CategoricalHead(), normal(shape, 0))
    small = table[table.relative_norm == 0.01].set_index("family").probability_change
    assert small["step_minus"] < 0 < small["step_plus"]


def test_columns_have_their_names_types_and_order() -> None:
    shape = (1, 7, 5)
    table, perturbations, whole = measured(linear_classifier(shape, 3), CategoricalHead(), normal(shape, 0), label=2)
    names = ["label", "predicted", "family", "draw", "seed", "relative_norm", "norm", *measured_columns(), "p00", "p01", "p02"]
    assert list(table.columns) == names
    assert str(table.seed.dtype) == "Int64"
    assert {str(table[name].dtype) for name in ("label", "predicted", "draw")} == {"int64"}
    assert {str(table[name].dtype) for name in (*names[5:7], *measured_columns(), "p00")} == {"float64"}
    assert (table.label == 2).all()
    random = {(p.family, p.draw): p.seed for p in perturbations if p.seed is not None}
    seeded = table.dropna(subset="seed")
    assert {(r.family, r.draw): r.seed for r in seeded.itertuples()} == random
    assert (table[table.seed.isna()].draw == 0).all()
    np.testing.assert_allclose(table.norm, table.relative_norm * float(whole.image.norm()), rtol=1e-14)


def test_a_family_has_one_row_a_draw_and_norm() -> None:
    shape = (1, 7, 5)
    table, perturbations, whole = measured(linear_classifier(shape, 3), CategoricalHead(), normal(shape, 0))
    length = float(whole.image.norm())
    for perturbation in perturbations:
        rows = table[(table.family == perturbation.family) & (table.draw == perturbation.draw)]
        if perturbation.family.startswith("remove_"):
            assert rows.norm.tolist() == [0.0, perturbation.largest]
            assert rows.relative_norm.tolist() == [0.0, perturbation.largest / length]
        else:
            assert rows.relative_norm.tolist() == [e for e in SETTINGS.relative_norms if e * length <= perturbation.largest]
    assert table[table.family == "attenuate_high"].relative_norm.max() < 1.0


def test_a_norm_that_equals_the_largest_but_for_rounding_is_kept() -> None:
    shape = (1, 7, 5)
    network, image = linear_classifier(shape, 3), normal(shape, 0)
    whole = decompose(network, image[None], energy=1.0)
    direction = normal(shape, 1)
    largest = 0.3 * float(image.norm()) * (1 - 1e-15)
    perturbation = Perturbation("attenuate_high", 0, None, direction / direction.norm(), largest)
    table = measure_image(network, CategoricalHead(), image, 0, whole, [perturbation], (0.0, 0.1, 0.3, 0.5))
    assert table.relative_norm.tolist() == [0.0, 0.1, 0.3]
    assert table.norm.max() == largest


def test_complete_removal_leaves_the_other_part_of_the_image() -> None:
    shape = (1, 7, 5)
    network, image = linear_classifier(shape, 3), normal(shape, 0)
    table, _, whole = measured(network, CategoricalHead(), image)
    leading, _ = split_eigenvectors(whole, 0, rank=2)
    _, low = split(leading[None], image[None])
    p = network(low).softmax(1)[0].detach().numpy()
    end = table[(table.family == "remove_high") & (table.norm > 0)]
    np.testing.assert_allclose(end[["p00", "p01", "p02"]].to_numpy()[0], p, rtol=1e-12)


def test_nothing_has_changed_at_step_zero_even_in_single_precision_and_in_other_batch_sizes() -> None:
    shape = (1, 9, 7)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(280, 3)).eval()
    image = normal(shape, 0).float()
    whole = decompose(network, image[None], energy=1.0)
    perturbations = all_perturbations(network, whole)
    for batch_size in (1, 7, 64):
        table = measure_image(network, CategoricalHead(), image, 1, whole, perturbations, (0.0, 0.1), batch_size)
        zero = table[table.relative_norm == 0]
        assert len(zero) == len(perturbations)
        assert (zero[["probability_change", "absolute_change", "divergence", "predicted_divergence", "flipped"]] == 0).all(
            axis=None
        )


def test_the_table_does_not_depend_on_the_batch_size() -> None:
    shape = (1, 7, 5)
    network, image = BlindNetwork(shape, 5, 4).eval(), normal(shape, 0)
    whole = decompose(network, image[None], energy=1.0)
    perturbations = all_perturbations(network, whole)
    tables = [measure_image(network, CategoricalHead(), image, 1, whole, perturbations, (0.0, 0.1, 0.3), n) for n in (1, 4, 999)]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], rtol=1e-12, atol=1e-13)


def test_batches_hold_at_most_the_size_asked_for_and_no_gradients() -> None:
    shape = (1, 7, 5)
    network, image = linear_classifier(shape, 3), normal(shape, 0)
    seen: list[int] = []

    def predict(images: Tensor) -> Tensor:
        seen.append(images.shape[0])
        assert not torch.is_grad_enabled()
        return network(images)

    whole = decompose(network, image[None], energy=1.0)
    perturbations = all_perturbations(network, whole)
    table = measure_image(predict, CategoricalHead(), image, 1, whole, perturbations, (0.0, 0.1), 6)
    assert max(seen) == 6
    assert sum(seen) == 1 + int((table.norm > 0).sum())


def test_without_a_label_correctness_and_likelihood_are_missing() -> None:
    shape = (1, 7, 5)
    known, *_ = measured(linear_classifier(shape, 3), CategoricalHead(), normal(shape, 0), label=2)
    table, *_ = measured(linear_classifier(shape, 3), CategoricalHead(), normal(shape, 0), label=None)
    assert (table.label == -1).all()
    assert table[["correct", "negative_log_likelihood"]].isna().all(axis=None)
    rest = [name for name in table.columns if name not in ("label", "correct", "negative_log_likelihood")]
    pd.testing.assert_frame_equal(table[rest], known[rest])


def test_likelihood_of_a_hopeless_class_stays_finite() -> None:
    """A logit gap of thousands underflows the probability, not its logarithm."""
    shape = (1, 3, 5)
    network, image = linear_classifier(shape, 2), normal(shape, 0)
    network[1].bias.data = torch.tensor([2000.0, 0.0], dtype=torch.float64)
    whole = decompose(network, image[None], energy=1.0)
    assert int(whole.rank) == 0
    direction = image / image.norm()
    table = measure_image(network, CategoricalHead(), image, 1, whole, [Perturbation("noise_low", 0, 1, direction)], (0.0, 0.1))
    assert table.negative_log_likelihood.between(1900, 2100).all()
    assert (table.predicted_divergence == 0).all()


def test_no_perturbations_give_a_table_without_rows() -> None:
    shape = (1, 7, 5)
    network, image = linear_classifier(shape, 3), normal(shape, 0)
    whole = decompose(network, image[None], energy=1.0)
    table = measure_image(network, CategoricalHead(), image, 1, whole, [], (0.0, 0.1))
    full, *_ = measured(network, CategoricalHead(), image)
    assert len(table) == 0
    assert list(table.columns) == list(full.columns)


def test_the_image_is_left_untouched_by_a_network_that_writes_into_its_input() -> None:
    shape = (1, 7, 5)
    linear = linear_classifier(shape, 3)
    network = nn.Sequential(nn.ReLU(inplace=True), *linear).eval()
    image = normal(shape, 0)
    kept = image.clone()
    whole = decompose(network, image[None], energy=1.0)
    perturbation = Perturbation("noise_low", 0, 1, image / image.norm())
    table = measure_image(network, CategoricalHead(), image, 1, whole, [perturbation], (0.0, 0.5))
    assert torch.equal(image, kept)
    expected = linear((1.5 * kept).clamp_min(0)[None]).softmax(1)[0].detach().numpy()
    np.testing.assert_allclose(table[["p00", "p01", "p02"]].to_numpy()[1], expected, rtol=1e-12)


@pytest.mark.parametrize("outputs", [3, 1])
def test_heads_without_classes_are_refused(outputs: int) -> None:
    shape = (1, 7, 5)
    network, image = linear_classifier(shape, outputs), normal(shape, 0)
    whole = decompose(network, image[None], head=GaussianHead(), energy=1.0)
    with pytest.raises(HeadError, match="gives no classes: measure classifiers, with head 'categorical'"):
        measure_image(network, GaussianHead(), image, 0, whole, [], (0.0, 0.1))


def refuse(match: str, error: type[IFIMError] = IFIMError, **changes: object) -> None:
    shape = (1, 7, 5)
    network, image = linear_classifier(shape, 4), normal(shape, 0)
    arguments: dict[str, object] = {
        "predict": network,
        "head": CategoricalHead(),
        "image": image,
        "label": 1,
        "decomposition": decompose(network, image[None], energy=1.0),
        "perturbations": [Perturbation("noise_low", 0, 1, image / image.norm())],
        "relative_norms": (0.0, 0.1),
    }
    call: Callable[..., object] = measure_image
    with pytest.raises(error, match=match):
        call(**{**arguments, **changes})


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_that_is_no_class_is_refused(label: int) -> None:
    refuse("is none of the 4 classes", label=label)


def test_the_decomposition_of_another_image_is_refused() -> None:
    network, image = linear_classifier((1, 7, 5), 4), normal((1, 7, 5), 1)
    refuse("of another image", decomposition=decompose(network, image[None], energy=1.0))
    refuse("of another image", decomposition=decompose(network, normal((2, 1, 7, 5), 0), energy=1.0))


def test_a_decomposition_that_lacks_eigenvectors_is_refused() -> None:
    network, image = linear_classifier((1, 7, 5), 4), normal((1, 7, 5), 0)
    refuse("energy=1.0", decomposition=decompose(network, image[None], rank=1))


def test_a_zero_image_is_refused() -> None:
    network, image = linear_classifier((1, 7, 5), 4), torch.zeros(1, 7, 5, dtype=torch.float64)
    refuse("zero everywhere", image=image, decomposition=decompose(network, image[None], energy=1.0))


def test_outputs_that_are_not_finite_or_not_a_matrix_are_refused() -> None:
    refuse("NaN or infinite", NetworkError, predict=lambda x: torch.full((x.shape[0], 4), torch.nan))
    refuse("is needed", NetworkError, predict=lambda x: torch.zeros(x.shape[0], 4, 1))


def test_an_empty_batch_size_is_refused() -> None:
    refuse("batch_size", batch_size=0)
