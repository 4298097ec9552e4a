"""Reference: F as a dense matrix by textbook formulas, for tests and readers. No other module imports this one.

Every function takes one image [1, channel, *spatial] and uses a float64 copy of the network, an eager module, unless stated.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from monai_ifim.core.operator.batch_norm import correct_gradients
from monai_ifim.core.operator.shortcuts import whole_shortcuts


def dense_jacobian(network: nn.Module, image: Tensor) -> Tensor:
    """J = dz/dx, [C, D] float64."""
    function, point = _function(network, image)
    jacobian: Tensor = torch.autograd.functional.jacobian(function, point)  # type: ignore[no-untyped-call]
    return jacobian


def dense_fisher(network: nn.Module, image: Tensor, head: str = "categorical", covariance: Tensor | None = None) -> Tensor:
    """F = J^T M J, [D, D] float64, with M the Fisher information of the output (arXiv:2606.16362).

    M is diag(p) - p p^T ("categorical"), diag(p (1 - p)) ("bernoulli"), or the inverse covariance ("gaussian").
    """
    function, point = _function(network, image)
    jacobian = dense_jacobian(network, image)
    output = function(point)
    if head == "categorical":
        p = output.softmax(0)
        middle = torch.diag(p) - torch.outer(p, p)
    elif head == "bernoulli":
        p = output.sigmoid()
        middle = torch.diag(p * (1 - p))
    elif head == "gaussian":
        identity = torch.eye(output.numel(), dtype=torch.float64)
        middle = identity if covariance is None else torch.linalg.inv(covariance.to(torch.float64))
    else:
        raise ValueError(f"no dense reference for head {head!r}: choose 'categorical', 'bernoulli' or 'gaussian'.")
    return jacobian.T @ middle @ jacobian


def kl_hessian(network: nn.Module, image: Tensor) -> Tensor:
    """Hessian of d -> KL(p(x) || p(x + d)) at d = 0 by double backward, [D, D] float64; equal to F."""
    function, point = _function(network, image)
    log_p = function(point).log_softmax(0).detach()

    def divergence(step: Tensor) -> Tensor:
        moved = function(point + step).log_softmax(0)
        return (log_p.exp() * (log_p - moved)).sum()

    hessian: Tensor = torch.autograd.functional.hessian(divergence, torch.zeros_like(point))  # type: ignore[no-untyped-call]
    return hessian


def naive_gram_eigenvalues(network: nn.Module, image: Tensor) -> Tensor:
    """Eigenvalues of K = G^T G, G = [sqrt(p_c) grad log p_c]_c, in the network's own dtype, [C] descending.

    The usual form: C products, p and log p from the softmax in that dtype. It shows the digits that the stable form keeps.
    """
    network = copy.deepcopy(network).eval()
    point = image.detach().clone().requires_grad_(True)
    output = network(point)[0]
    log_p = output.log_softmax(0)
    with correct_gradients(log_p)():
        columns = [torch.autograd.grad(log_p[c], point, retain_graph=True)[0].flatten() for c in range(output.numel())]
    factor = log_p.detach().exp().sqrt()[:, None] * torch.stack(columns)
    values: Tensor = torch.linalg.eigvalsh(factor @ factor.T)
    return values.flip(0)


def top_eigenpairs(fisher: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` leading eigenvalues [count] and eigenvectors [count, D] of a dense F."""
    values, vectors = torch.linalg.eigh(fisher)
    return values.flip(0)[:count], vectors.flip(1)[:, :count].T


def _function(network: nn.Module, image: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """(flat image [D] -> logits [C], the flat image), both float64."""
    wide = copy.deepcopy(network).to(torch.float64).eval().requires_grad_(False)
    shape = image.shape

    def function(flat: Tensor) -> Tensor:
        with whole_shortcuts(wide):
            output: Tensor = wide(flat.reshape(shape))
        correct_gradients(output)
        return output[0]

    return function, image.detach().to(torch.float64).flatten()
