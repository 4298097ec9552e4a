"""Networks of which PyTorch's own gradient is wrong: the channels of a normalised batch of one lie last in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_ifim import decompose
from monai_ifim.core.dense import dense_fisher
from monai_ifim.core.operator.batch_norm import correct_gradients

STEP = 1e-5
NORMALISATIONS: dict[str, Callable[[int], nn.Module]] = {
    "BatchNorm2d": nn.BatchNorm2d,
    "BatchNorm3d": nn.BatchNorm3d,
    "InstanceNorm2d": nn.InstanceNorm2d,
    "InstanceNorm3d": nn.InstanceNorm3d,
}


class Stem(nn.Module):
    """A convolution, a normalisation, and tokens from there on: the gradient of the normalised image has its channels last."""

    def __init__(self, normalisation: Callable[[int], nn.Module], axes: int) -> None:
        super().__init__()
        convolution = nn.Conv2d if axes == 2 else nn.Conv3d
        self.convolution, self.normalisation = convolution(2, 5, 3, padding=1), normalisation(5)
        self.token, self.answer = nn.Linear(5, 7), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.tanh(self.normalisation(self.convolution(x)) * 2.0).flatten(2).transpose(1, 2)
        answer: Tensor = self.answer(torch.tanh(self.token(tokens)).square().mean(1))
        return answer


class TokensFirst(nn.Module):
    """A normalisation of tokens seen as an image, whose own channels lie last."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.normalisation, self.answer = nn.Linear(3, 5), nn.BatchNorm2d(5), nn.Linear(150, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.token(x.flatten(2).transpose(1, 2))
        image = self.normalisation(tokens.transpose(1, 2).reshape(1, 5, x.shape[2], x.shape[3]))
        answer: Tensor = self.answer(torch.tanh(0.1 * image.flatten(1)))
        return answer


def made(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(4)
    for tensor in [*network.parameters(), *network.buffers()]:
        if tensor.is_floating_point():
            tensor.data = 0.4 + torch.rand(tensor.shape, generator=generator)
    return network.double().eval().requires_grad_(False)


def image_of(*shape: int) -> Tensor:
    return torch.randn(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def jacobian_by_differences(network: nn.Module, image: Tensor) -> Tensor:
    """[C, D], without any backward pass."""
    steps = STEP * torch.eye(image.numel(), dtype=torch.float64).reshape(-1, *image.shape[1:])
    with torch.no_grad():
        return torch.cat([(network(image + s) - network(image - s)) / (2 * STEP) for s in steps.split(1)]).T


CASES = {name: (made(Stem(norm, axes := int(name[-2]))), image_of(2, *(5, 6, 4)[:axes])) for name, norm in NORMALISATIONS.items()}
CASES["tokens first"] = (made(TokensFirst()), image_of(3, 5, 6))
FORMS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "eager": lambda network, image: network,
    "scripted": lambda network, image: torch.jit.script(network),
    "traced": torch.jit.trace,
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("settings", [{}, {"memory_budget": "50MiB"}, {"method": "matrix_free", "rank": 3}], ids=str)
def test_spectrum_is_that_of_difference_quotients(name: str, form: str, settings: dict[str, Any]) -> None:
    network, image = CASES[name]
    jacobian = jacobian_by_differences(network, image)
    p = network(image).softmax(1)[0]
    expected = torch.linalg.eigvalsh(jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian).flip(0)[:3]
    asked = FORMS[form](network, image)
    for _ in range(3):  # TorchScript compiles again after its first runs
        found = decompose(asked, image, **settings)
        torch.testing.assert_close(found.spectrum[0, :3], expected, rtol=1e-6, atol=1e-9 * float(expected[0]))


@pytest.mark.parametrize("name", CASES)
def test_the_dense_reference_is_that_of_difference_quotients(name: str) -> None:
    network, image = CASES[name]
    jacobian = jacobian_by_differences(network, image)
    p = network(image).softmax(1)[0]
    expected = jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
    torch.testing.assert_close(dense_fisher(network, image), expected, rtol=1e-6, atol=1e-7 * float(expected.abs().max()))


def test_gradients_of_usual_layouts_are_left_to_the_bit_as_they_are() -> None:
    network = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.InstanceNorm2d(4))
    network.eval().requires_grad_(False)
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf = torch.randn(3, 2, 9, 8, generator=torch.Generator().manual_seed(6)).contiguous(memory_format=layout)
        leaf.requires_grad_(True)
        output = network(leaf)
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(7))
        (plain,) = torch.autograd.grad(output, leaf, weights, retain_graph=True)
        correct_gradients(output)
        (corrected,) = torch.autograd.grad(output, leaf, weights)
        assert torch.equal(corrected, plain)
