"""Heads: the square root squares to the Fisher information, scores are gradients, divergences match many digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import mpmath
import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import BernoulliHead, CategoricalHead, GaussianHead, Head, HeadError, SquareRoot, decompose, locality_radius
from monai_ifim.core.dense import dense_jacobian
from monai_ifim.core.heads.choice import resolve_head
from monai_ifim.core.heads.outputs import last_operation
from monai_ifim.core.heads.probabilities import CategoricalProbabilityHead
from monai_ifim.core.heads.voxelwise import VoxelwiseHead

Networks = Callable[..., nn.Sequential]


def _logits(batch: int = 3, outputs: int = 5, spread: float = 2.0) -> Tensor:
    return spread * torch.randn(batch, outputs, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def _matrix(root: SquareRoot) -> Tensor:
    """S^T [B, r, C]."""
    return root.scales[..., None] * root.cotangents(0, root.columns)


def _square(root: SquareRoot) -> Tensor:
    return _matrix(root).mT @ _matrix(root)


def _categorical(p: Tensor) -> Tensor:
    return torch.diag_embed(p) - p[:, :, None] * p[:, None]


def test_categorical_root_squares_to_diag_p_minus_p_p_transposed() -> None:
    z = _logits()
    torch.testing.assert_close(_square(CategoricalHead().square_root(z)), _categorical(z.softmax(1)), rtol=0, atol=1e-15)


def test_bernoulli_root_squares_to_the_variances_of_the_labels() -> None:
    p = _logits().sigmoid()
    truth = torch.diag_embed(p * (1 - p))
    torch.testing.assert_close(_square(BernoulliHead().square_root(_logits())), truth, rtol=0, atol=1e-15)


def test_gaussian_root_squares_to_the_inverse_covariance() -> None:
    root = torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    covariance = root @ root.T + torch.eye(5)
    square = _square(GaussianHead(covariance=covariance).square_root(_logits()))
    torch.testing.assert_close(square @ covariance, torch.eye(5).double().expand(3, 5, 5), rtol=0, atol=1e-12)


def test_gaussian_sigma_of_each_output_is_a_diagonal_covariance() -> None:
    sigma = torch.tensor([0.1, 2.0, 1.0, 5.0, 0.5], dtype=torch.float64)
    square = _square(GaussianHead(sigma).square_root(_logits()))
    torch.testing.assert_close(square, torch.diag(1 / sigma.square()).expand(3, 5, 5), rtol=1e-14, atol=1e-14)


def test_softmax_root_behind_the_softmax_is_that_of_the_logits() -> None:
    p = _logits().softmax(1)
    head = resolve_head("probabilities", p)
    softmax_jacobian = _categorical(p)
    square = softmax_jacobian @ _square(head.square_root(p)) @ softmax_jacobian
    torch.testing.assert_close(square, _categorical(p), rtol=0, atol=1e-15)


@pytest.mark.parametrize("outputs", [1, 4])
def test_sigmoid_root_behind_the_sigmoid_is_that_of_the_logits(outputs: int) -> None:
    p = _logits(outputs=outputs).sigmoid()
    slope = torch.diag_embed(p * (1 - p))
    square = slope @ _square(resolve_head("probabilities", p).square_root(p)) @ slope
    torch.testing.assert_close(square, slope, rtol=0, atol=1e-15)


ROOTS: dict[str, tuple[Head, Tensor]] = {
    "categorical": (CategoricalHead(), _logits()),
    "bernoulli": (BernoulliHead(), _logits()),
    "gaussian": (GaussianHead(0.3), _logits()),
    "softmax": (resolve_head("probabilities", _logits().softmax(1)), _logits().softmax(1)),
    "sigmoid": (resolve_head("probabilities", _logits().sigmoid()), _logits().sigmoid()),
}


@pytest.mark.parametrize("name", ROOTS)
def test_cotangents_have_unit_length_come_in_any_slice_and_the_heaviest_first(name: str) -> None:
    head, output = ROOTS[name]
    root = head.square_root(output)
    whole = root.cotangents(0, root.columns)
    torch.testing.assert_close(whole.norm(dim=2), torch.ones(3, root.columns).double())
    torch.testing.assert_close(torch.cat([root.cotangents(0, 2), root.cotangents(2, root.columns)], dim=1), whole)
    assert whole.dtype == root.scales.dtype == torch.float64


@pytest.mark.parametrize("name", ["categorical", "bernoulli", "gaussian"])
def test_heaviest_column_comes_first(name: str) -> None:
    head, output = ROOTS[name]
    scales = head.square_root(output).scales
    assert bool((scales[:, :-1] >= scales[:, 1:] * (1 - 1e-12)).all())


@pytest.mark.parametrize("spread", [0.5, 3.0, 30.0])
def test_categorical_score_is_the_gradient_of_the_predicted_log_probability(spread: float) -> None:
    z = _logits(spread=spread).requires_grad_(True)
    root = CategoricalHead().square_root(z)
    (truth,) = torch.autograd.grad(z.log_softmax(1).max(1).values.sum(), z)
    torch.testing.assert_close((root.score[:, None] @ _matrix(root))[:, 0], truth, rtol=1e-12, atol=1e-15)


def test_bernoulli_score_is_the_gradient_of_the_log_probability_of_the_predicted_labels() -> None:
    z = _logits().requires_grad_(True)
    root = BernoulliHead().square_root(z)
    (truth,) = torch.autograd.grad(nn.functional.logsigmoid(z.abs()).sum(), z)
    torch.testing.assert_close((root.score[:, None] @ _matrix(root))[:, 0], truth, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("link", "name"), [(torch.nn.Softmax(1), "softmax"), (torch.nn.Sigmoid(), "sigmoid")])
def test_probability_scores_are_gradients_through_the_link(link: nn.Module, name: str) -> None:
    z = _logits().requires_grad_(True)
    p = link(z)
    root = resolve_head("probabilities", p).square_root(p)
    (found,) = torch.autograd.grad(p, z, (root.score[:, None] @ _matrix(root))[:, 0], retain_graph=True)
    log_p = p.max(1).values.log() if name == "softmax" else torch.maximum(p, 1 - p).log()
    (truth,) = torch.autograd.grad(log_p.sum(), z)
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-14)


@pytest.mark.parametrize("gap", [25.0, 75.0, 150.0])
def test_categorical_root_keeps_every_entry_of_a_saturated_matrix(gap: float) -> None:
    z = torch.tensor([[-gap, 0.0, -0.7 * gap, -1.2 * gap]], dtype=torch.float64)
    with mpmath.workdps(300):
        weights = [mpmath.exp(v) for v in z[0].tolist()]
        p = [w / sum(weights) for w in weights]
        rows = [[float(p[i] * ((i == j) - p[j])) for j in range(4)] for i in range(4)]
    truth = torch.tensor(rows, dtype=torch.float64)
    torch.testing.assert_close(_square(CategoricalHead().square_root(z))[0], truth, rtol=1e-12, atol=0)


def test_underflowed_class_carries_nothing_and_breaks_nothing() -> None:
    p = torch.tensor([[0.75, 0.0, 0.25]], dtype=torch.float64)
    root = resolve_head("probabilities", p).square_root(p)
    jacobian = _categorical(p)
    torch.testing.assert_close(jacobian @ _square(root) @ jacobian, jacobian, rtol=0, atol=1e-15)


def _softmax_divergence(z: list[float], moved: list[float]) -> mpmath.mpf:
    def log_probabilities(values: list[float]) -> list[mpmath.mpf]:
        partition = mpmath.log(sum(mpmath.exp(mpmath.mpf(v)) for v in values))
        return [mpmath.mpf(v) - partition for v in values]

    before, after = log_probabilities(z), log_probabilities(moved)
    return sum(mpmath.exp(b) * (b - a) for b, a in zip(before, after, strict=True))


CHANGES = pytest.mark.parametrize("change", [1e-6, 1e-2, 1.0, 15.0, 30.0, 100.0, 400.0])
TINY = pytest.mark.parametrize("gap", [0.0, 25.0, 150.0])


@TINY
@CHANGES
def test_categorical_divergence_has_six_digits(gap: float, change: float) -> None:
    z = _logits(batch=6)
    z[:, 2] += gap
    moved = z + change * torch.randn(6, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    with mpmath.workdps(400):
        truth = [float(_softmax_divergence(a, b)) for a, b in zip(z.tolist(), moved.tolist(), strict=True)]
    found = CategoricalHead().divergence(z, moved)
    torch.testing.assert_close(found, torch.tensor(truth, dtype=torch.float64), rtol=1e-6, atol=0)


@TINY
@CHANGES
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_bernoulli_divergence_has_six_digits(gap: float, change: float, side: float) -> None:
    z = side * (_logits(batch=6, outputs=2) + gap)
    moved = z + change * torch.randn(6, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    with mpmath.workdps(400):
        pairs = zip(z.tolist(), moved.tolist(), strict=True)
        truth = [float(sum(_softmax_divergence([0.0, s], [0.0, t]) for s, t in zip(*pair, strict=True))) for pair in pairs]
    found = BernoulliHead().divergence(z, moved)
    torch.testing.assert_close(found, torch.tensor(truth, dtype=torch.float64), rtol=1e-6, atol=0)


def test_gaussian_divergence_is_that_of_two_normals() -> None:
    covariance = torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    z, moved = _logits(outputs=2), _logits(outputs=2).flip(0)
    before, after = (torch.distributions.MultivariateNormal(mean, covariance) for mean in (z, moved))
    truth = torch.distributions.kl_divergence(before, after)
    torch.testing.assert_close(GaussianHead(covariance=covariance).divergence(z, moved), truth)


@pytest.mark.parametrize("link", [torch.nn.Softmax(1), torch.nn.Sigmoid()])
def test_probability_divergence_is_that_of_the_logits(link: nn.Module) -> None:
    z, moved = _logits(), _logits().flip(0)
    head = CategoricalHead() if isinstance(link, nn.Softmax) else BernoulliHead()
    found = resolve_head("probabilities", link(z)).divergence(link(z), link(moved))
    torch.testing.assert_close(found, head.divergence(z, moved), rtol=1e-10, atol=0)


RESHAPED: dict[str, tuple[Callable[[Tensor], Tensor], str | None]] = {
    "sigmoid": (lambda z: z.sigmoid(), "sigmoid"),
    "softmax": (lambda z: z.softmax(1), "softmax"),
    "reshaped": (lambda z: z.sigmoid().reshape(-1), "sigmoid"),
    "flattened": (lambda z: z.softmax(1).unsqueeze(-1).flatten(1), "softmax"),
    "sliced": (lambda z: z.sigmoid()[:, 1:], "sigmoid"),
    "converted": (lambda z: z.sigmoid().double().transpose(0, 1).contiguous(), "sigmoid"),
    "logits": (lambda z: z, None),
    "log-softmax": (lambda z: z.log_softmax(1), None),
    "scaled": (lambda z: 2 * z.sigmoid(), None),
    "gated": (lambda z: z * z.sigmoid(), None),
    "detached": (lambda z: z.sigmoid().detach(), None),
}


@pytest.mark.parametrize("rows", [[[0.2, 0.5, 0.2]], [[0.6, -0.1, 0.5]], [[1.0]]])
def test_probabilities_that_are_none_are_refused(rows: list[list[float]]) -> None:
    with pytest.raises(HeadError, match="do not sum to one: pass head='categorical' for logits"):
        CategoricalProbabilityHead().validate(torch.tensor(rows), None)


def test_columns_of_a_segmentation_are_not_made_one_by_one() -> None:
    root = VoxelwiseHead().square_root(torch.randn(1, 3, 4, 5))
    assert root.scales[0].numel() == 2 * 4 * 5
    with pytest.raises(HeadError, match="use method='matrix_free'"):
        root.cotangents(0, 2)


@pytest.mark.parametrize("name", RESHAPED)
def test_last_operation_is_seen_through_reshapes_and_nothing_else(name: str) -> None:
    function, expected = RESHAPED[name]
    assert last_operation(function(_logits().float().requires_grad_(True) * 1)) == expected


class PoissonHead(Head):
    """Counts with output = log rate: the Fisher information of a log rate is the rate."""

    name: ClassVar[str] = "poisson"

    def square_root(self, output: Tensor) -> SquareRoot:
        scales = (0.5 * output.detach().double()).exp()
        identity = torch.eye(output.shape[1], dtype=torch.float64).expand(output.shape[0], -1, -1)
        return SquareRoot(scales, torch.zeros_like(scales), lambda start, stop: identity[:, start:stop])

    def probabilities(self, output: Tensor) -> Tensor:
        return output.detach().double().exp()

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        change = moved.double() - output.double()
        return (output.double().exp() * (torch.expm1(change) - change)).sum(1)


def test_a_head_of_one_s_own_equals_its_dense_matrix(cnn: Networks, image: Tensor) -> None:
    network = cnn((1, 7, 5), 3).double()
    d = decompose(network, image, head=PoissonHead(), energy=1.0)
    for b in range(3):
        jacobian = dense_jacobian(network, image[b : b + 1])
        truth = jacobian.T @ torch.diag(network(image[b : b + 1])[0].detach().exp()) @ jacobian
        vectors = d.eigenvectors[b].flatten(1)
        torch.testing.assert_close(vectors.T @ (d.eigenvalues[b, :, None] * vectors), truth, rtol=0, atol=1e-13)
        torch.testing.assert_close(d.sensitivity[b].flatten(), truth.diagonal(), rtol=1e-10, atol=0)
    assert d.record["head"] == "poisson"
    assert d.record["settings"]["head"] == {"name": "poisson", "class": f"{__name__}:PoissonHead"}


def test_a_head_of_one_s_own_has_a_locality_radius(linear: Networks, image: Tensor) -> None:
    """A log rate that changes by d costs rate (e^d - 1 - d) in place of rate d^2 / 2."""
    network = linear((1, 7, 5), 1).double()
    d = decompose(network, image, head=PoissonHead(), energy=1.0)
    slopes = d.eigenvectors.flatten(1) @ network[1].weight.detach()[0]
    changes = locality_radius(network, d, head=PoissonHead())[:, 0] * slopes
    for change in changes.tolist():
        deviation, start = (0.1, 0.3) if change > 0 else (-0.1, -0.3)
        truth = mpmath.findroot(lambda t, off=deviation: (mpmath.exp(t) - 1 - t) / (t * t / 2) - 1 - off, start)
        assert change == pytest.approx(float(truth), rel=0.04)


def test_a_head_that_leaves_a_promise_out_cannot_be_built() -> None:
    class Half(PoissonHead):
        divergence = Head.divergence

    with pytest.raises(TypeError, match="divergence"):
        Half()
