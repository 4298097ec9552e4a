"""Two truths about a network at one image: the Jacobian of plain PyTorch, and difference quotients of the output alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from monai_ifim.core.operator.batch_norm import correct_gradients

CHANGE = 3e-7  # of the output in the first step, relative to the output
LARGEST_STEP = 1e-3  # of a voxel, root mean square
AGREEMENT = 1e-6  # of quotients of two steps, relative: the smaller step crosses no kink that matters, and rounding is small
STEPS = 4  # each a tenth of the one before

Function = Callable[[Tensor], Tensor]  # images [B, channel, *spatial] -> outputs [B, C, *spatial]


@torch.no_grad()
def slopes(function: Function, image: Tensor, directions: Tensor) -> Tensor:
    """J v for directions v [n, channel, *spatial], [n, *output]: central difference quotients, without any derivative."""
    output = function(image)
    scale = max(1.0, float(output.abs().max()))
    found = []
    for direction in directions:
        longest = LARGEST_STEP / float(direction.square().mean().sqrt())
        first = float((function(image + longest / 1000 * direction) - output).abs().max()) / (longest / 1000)
        found.append(_slope(function, image, direction, min(longest, CHANGE * scale / max(first, 1e-30))))
    return torch.stack(found)


def _slope(function: Function, image: Tensor, direction: Tensor, step: float) -> Tensor:
    """The quotient of the step whose result differs least from that of the step before it."""
    best, least, before = None, float("inf"), None
    for _ in range(STEPS):
        quotient = (function(image + step * direction) - function(image - step * direction))[0] / (2 * step)
        if before is not None:
            change = float((quotient - before).norm() / quotient.norm().clamp(min=1e-300))
            if change < least:
                best, least = quotient, change
            if least < AGREEMENT:
                break
        before, step = quotient, step / 10
    return before if best is None else best


def square_root(head: str, output: Tensor) -> Tensor:
    """S [B, C, r, *spatial] with S S^T the Fisher information of outputs [B, C, *spatial], by the textbook."""
    z = output.double()
    if head in ("categorical", "voxelwise"):
        p = z.softmax(1)
        identity = torch.eye(p.shape[1], dtype=p.dtype).reshape(1, p.shape[1], p.shape[1], *[1] * (p.ndim - 2))
        return identity * p.sqrt()[:, :, None] - p[:, :, None] * p.sqrt()[:, None]
    if head == "probabilities":
        return torch.diag_embed(1 / z.sqrt())
    if head == "gaussian":
        return torch.diag_embed(torch.ones_like(z))
    p = z if head == "bernoulli_probabilities" else z.sigmoid()
    roots = (p * (1 - p)).sqrt()
    return torch.diag_embed(1 / roots if head == "bernoulli_probabilities" else roots)


def products(function: Function, head: str, image: Tensor, directions: Tensor) -> Tensor:
    """S^T J v for directions v [n, channel, *spatial], [n, r * *spatial]: from difference quotients."""
    with torch.no_grad():
        root = square_root(head, function(image))[0]
    moved = slopes(function, image, directions)
    return torch.einsum("cr...,nc...->nr...", root, moved).flatten(1)


def quadratic_forms(function: Function, head: str, image: Tensor, directions: Tensor) -> Tensor:
    """v_i^T F v_j [n, n] from difference quotients."""
    columns = products(function, head, image, directions)
    return columns @ columns.T


def dense_factor(function: Function, head: str, image: Tensor) -> Tensor:
    """A^T = S^T J, [r, D]: one backward pass of plain PyTorch for each output."""
    leaf = image.clone().requires_grad_(True)
    output = function(leaf.clone())
    backward = correct_gradients(output)
    rows = []
    with backward():
        for value in output[0]:
            rows.append(torch.autograd.grad(value, leaf, retain_graph=True)[0].flatten())
    return square_root(head, output.detach())[0].T @ torch.stack(rows)


def dense_pairs(function: Function, head: str, image: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` leading eigenvalues [count] and eigenvectors [count, D] of F, from the singular values of the factor."""
    _, values, vectors = torch.linalg.svd(dense_factor(function, head, image), full_matrices=False)
    return values.square()[:count], vectors[:count]


def leading_pairs(function: Function, head: str, image: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The same for a map of answers, by ARPACK: J v from difference quotients, J^T from backward passes of plain PyTorch."""
    leaf = image.clone().requires_grad_(True)
    output = function(leaf.clone())
    backward = correct_gradients(output)
    root = square_root(head, output.detach())[0]

    def product(vector: object) -> object:
        direction = torch.as_tensor(vector).reshape(image.shape)
        moved = slopes(function, image, direction)[0]
        weighted = torch.einsum("cr...,kr...,k...->c...", root, root, moved)
        with backward():
            (gradient,) = torch.autograd.grad(output, leaf, weighted[None], retain_graph=True)
        return gradient.flatten().numpy()

    size = image.numel()
    operator = LinearOperator((size, size), matvec=product, dtype="float64")
    start = torch.rand(size, generator=torch.Generator().manual_seed(3), dtype=torch.float64).numpy()
    values, vectors = eigsh(operator, k=count, v0=start, tol=1e-8)
    order = values.argsort()[::-1].copy()
    return torch.as_tensor(values[order].copy()), torch.as_tensor(vectors.T[order].copy())
