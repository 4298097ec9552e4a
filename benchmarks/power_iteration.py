"""Power iteration for the leading direction of F from gradients of KL(p(x) || p(x + r)), as published code does it.

KL has its minimum at r = 0 and its Hessian there is F, so that its gradient at a small step xi v is about xi F v. Virtual
adversarial training (Miyato et al., arXiv:1704.03976, section 3.3) takes one such step from a random direction, and normalises.
The Hessian-vector product, from differentiating the gradient at r = 0, needs no step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.networks import SEED

STEP = 1e-6  # xi of the published code, as a length of the whole change
MOST_STEPS = 100
TOLERANCE = 1e-3  # length of the difference of two directions in a row that ends the iteration

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PowerIteration:
    """A unit direction [1, channel, *spatial] and the number of products with F that it took."""

    direction: Tensor
    products: int


def by_differences(network: nn.Module, image: Tensor, step: float = STEP, most_steps: int = 1) -> PowerIteration:
    """F v from the gradient of KL(p(x) || p(x + step v)); by default the single step of virtual adversarial training."""
    with torch.no_grad():
        p = network(image).softmax(1)

    def product(v: Tensor) -> Tensor:
        moved = (image + step * v).requires_grad_(True)
        (gradient,) = torch.autograd.grad(_divergence(p, network(moved)), moved)
        return gradient / step

    return _iterated(product, image, most_steps)


def by_double_backward(network: nn.Module, image: Tensor, most_steps: int = MOST_STEPS) -> PowerIteration:
    """F v as the derivative of the gradient of KL at r = 0 along v, from one graph."""
    leaf = image.clone().requires_grad_(True)
    output = network(leaf)
    (gradient,) = torch.autograd.grad(_divergence(output.detach().softmax(1), output), leaf, create_graph=True)

    def product(v: Tensor) -> Tensor:
        return torch.autograd.grad(gradient, leaf, v, retain_graph=True)[0]

    return _iterated(product, image, most_steps)


def _divergence(p: Tensor, logits: Tensor) -> Tensor:
    return functional.kl_div(logits.log_softmax(1), p, reduction="sum")


def _iterated(product: Product, image: Tensor, most_steps: int) -> PowerIteration:
    """v <- F v / |F v| from a random direction, until it settles or the steps are used up; it ends where F v is zero."""
    generator = torch.Generator().manual_seed(SEED + 4)
    v = torch.randn(image.shape, generator=generator).to(image)
    v = v / v.norm()
    for made in range(1, most_steps + 1):
        fresh = product(v)
        length = fresh.norm()
        if not length > 0:
            return PowerIteration(v, made)
        fresh = fresh / length
        settled = min((fresh - v).norm(), (fresh + v).norm()) <= TOLERANCE
        v = fresh
        if settled:
            break
    return PowerIteration(v, made)
