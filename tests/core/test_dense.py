"""The dense reference against definitions that share none of its algebra."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core.dense import dense_fisher, dense_jacobian, kl_hessian, naive_gram_eigenvalues, top_eigenpairs

Networks = Callable[..., nn.Sequential]
SHAPES = pytest.mark.parametrize("shape", [(3, 5, 4), (1, 3, 4, 5)], ids=["2d", "3d"])


def _image(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@SHAPES
def test_dense_fisher_is_the_hessian_of_the_kl_divergence(cnn: Networks, shape: tuple[int, ...]) -> None:
    network = cnn(shape, 4)
    torch.testing.assert_close(dense_fisher(network, _image(shape)), kl_hessian(network, _image(shape)), rtol=0, atol=1e-12)


@SHAPES
def test_dense_fisher_of_a_linear_softmax_is_the_analytic_matrix(linear: Networks, shape: tuple[int, ...]) -> None:
    network = linear(shape, 5)
    weight, bias = network[1].weight.double(), network[1].bias.double()
    p = (weight @ _image(shape).flatten() + bias).softmax(0)
    truth = weight.T @ (torch.diag(p) - torch.outer(p, p)) @ weight
    torch.testing.assert_close(dense_fisher(network, _image(shape)), truth.detach(), rtol=0, atol=1e-13)
    torch.testing.assert_close(kl_hessian(network, _image(shape)), truth.detach(), rtol=0, atol=1e-13)


def test_categorical_fisher_is_the_expected_outer_product_of_scores(cnn: Networks) -> None:
    network, x = cnn((1, 5, 4), 4).double(), _image((1, 5, 4)).requires_grad_(True)
    truth = torch.zeros(20, 20, dtype=torch.float64)
    for label in range(4):
        log_p = network(x)[0].log_softmax(0)[label]
        score = torch.autograd.grad(log_p, x)[0].flatten()
        truth += log_p.exp().item() * torch.outer(score, score)
    torch.testing.assert_close(dense_fisher(network, x), truth, rtol=0, atol=1e-13)


def test_bernoulli_fisher_is_the_expected_outer_product_of_scores_over_all_label_sets(cnn: Networks) -> None:
    network, x = cnn((1, 5, 4), 3).double(), _image((1, 5, 4)).requires_grad_(True)
    truth = torch.zeros(20, 20, dtype=torch.float64)
    for labels in itertools.product([0.0, 1.0], repeat=3):
        target = torch.tensor(labels, dtype=torch.float64)
        log_p = -nn.functional.binary_cross_entropy_with_logits(network(x)[0], target, reduction="sum")
        score = torch.autograd.grad(log_p, x)[0].flatten()
        truth += log_p.exp().item() * torch.outer(score, score)
    torch.testing.assert_close(dense_fisher(network, x, "bernoulli"), truth, rtol=0, atol=1e-13)


def test_gaussian_fisher_is_the_hessian_of_the_divergence_of_two_normals(cnn: Networks) -> None:
    network, x = cnn((1, 3, 4), 2).double().requires_grad_(False), _image((1, 3, 4))
    covariance = torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    before = torch.distributions.MultivariateNormal(network(x)[0], covariance)

    def divergence(flat: Tensor) -> Tensor:
        after = torch.distributions.MultivariateNormal(network(flat.reshape(x.shape))[0], covariance)
        return torch.distributions.kl_divergence(before, after)

    truth = torch.autograd.functional.hessian(divergence, x.flatten())
    torch.testing.assert_close(dense_fisher(network, x, "gaussian", covariance), truth, rtol=0, atol=1e-11)


def test_dense_jacobian_is_the_central_difference(cnn: Networks) -> None:
    network, x = cnn((1, 3, 4), 3).double().requires_grad_(False), _image((1, 3, 4))
    step = 1e-5 * torch.eye(12, dtype=torch.float64).reshape(12, 1, 3, 4)
    truth = ((network(x + step) - network(x - step)) / 2e-5).T
    torch.testing.assert_close(dense_jacobian(network, x), truth, rtol=0, atol=1e-8)


def test_textbook_gram_form_has_the_dense_eigenvalues_where_nothing_saturates(cnn: Networks) -> None:
    network, x = cnn((1, 5, 4), 4).double(), _image((1, 5, 4))
    truth, _ = top_eigenpairs(dense_fisher(network, x), 3)
    torch.testing.assert_close(naive_gram_eigenvalues(network, x)[:3], truth, rtol=1e-9, atol=0)


def test_dense_reference_leaves_the_network_alone(cnn: Networks) -> None:
    network = cnn((1, 5, 4), 3).train()
    dense_fisher(network, _image((1, 5, 4)))
    assert network.training
    assert all(p.dtype == torch.float32 and p.requires_grad for p in network.parameters())
    assert all(p.grad is None for p in network.parameters())


def test_dense_reference_refuses_an_unknown_head(cnn: Networks) -> None:
    with pytest.raises(ValueError, match="choose 'categorical', 'bernoulli' or 'gaussian'"):
        dense_fisher(cnn((1, 5, 4), 3), _image((1, 5, 4)), "poisson")
