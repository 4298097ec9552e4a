"""Lean layers give PyTorch's outputs bit for bit, and its first and second derivatives; the products of a frozen network need
neither inputs nor outputs of convolutions."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core.memory import lean_layers as lean

CONVOLUTIONS: dict[str, Callable[[], nn.Module]] = {
    "2d": lambda: nn.Conv2d(2, 4, 3),
    "2d, padding beyond the reach": lambda: nn.Conv2d(2, 3, (3, 2), padding=(4, 1)),
    "2d, unequal kernel and dilation, groups": lambda: nn.Conv2d(2, 6, (3, 2), padding=(1, 2), dilation=(1, 3), groups=2),
    "2d, stride": lambda: nn.Conv2d(2, 4, 3, stride=(2, 1), padding=1),
    "2d, more weights than values": lambda: nn.Conv2d(2, 8, (7, 9)),
    "2d, pointwise": lambda: nn.Conv2d(2, 5, 1),
    "2d, transposed": lambda: nn.ConvTranspose2d(2, 4, 3, padding=1),
    "2d, transposed, groups": lambda: nn.ConvTranspose2d(2, 6, (3, 2), dilation=(2, 1), groups=2),
    "2d, transposed, stride": lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=(1, 0)),
    "2d, transposed, output padding": lambda: nn.ConvTranspose2d(2, 3, 3, dilation=2, padding=1, output_padding=1),
    "3d": lambda: nn.Conv3d(2, 3, 3, padding=1),
    "3d, dilation": lambda: nn.Conv3d(2, 5, 3, padding=(2, 1, 3), dilation=(2, 1, 3)),
    "3d, stride": lambda: nn.Conv3d(2, 3, (2, 3, 2), stride=(1, 2, 3), padding=(1, 1, 0)),
    "3d, transposed": lambda: nn.ConvTranspose3d(2, 3, (2, 3, 2), stride=(2, 1, 1), padding=(0, 1, 0)),
}


def _made(name: str) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layer = CONVOLUTIONS[name]().double().requires_grad_(False)
    size = (7, 9) if name.startswith("2d") else (5, 7, 6)
    return layer, torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def _derivatives(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output, J^T c and J u of a layer followed by a square, whose second derivative is not zero."""
    leaf = x.clone().requires_grad_(True)
    output = layer(leaf)
    generator = torch.Generator().manual_seed(5)
    w = torch.randn(output.shape, generator=generator, dtype=x.dtype).requires_grad_(True)
    tangent = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    (gradient,) = torch.autograd.grad(output.square(), leaf, w, create_graph=True)
    (moved,) = torch.autograd.grad(gradient, w, tangent)
    return output.detach(), gradient.detach(), moved


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_derivatives_of_convolutions_are_those_of_pytorch(name: str) -> None:
    layer, x = _made(name)
    truth = _derivatives(layer, x)
    with lean.lean_layers(layer):
        found = _derivatives(layer, x)
    assert torch.equal(found[0], truth[0])
    for ours, theirs in zip(found[1:], truth[1:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "turned"),
    [("2d", True), ("3d, dilation", True), ("2d, transposed, groups", False), ("2d, stride", False)]
    + [("2d, more weights than values", False), ("2d, padding beyond the reach", False)],
)
def test_a_backward_pass_without_strides_is_a_plain_convolution(name: str, turned: bool) -> None:
    layer, x = _made(name)
    with lean.lean_layers(layer), mock.patch.object(lean, "turned", wraps=lean.turned) as turning:
        leaf = x.clone().requires_grad_(True)
        layer(leaf).sum().backward()
    assert (turning.call_count > 0) == turned


def _saved(run: Callable[[], object]) -> int:
    """Bytes that autograd saves for backward passes of `run`."""
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(sizes)


def test_a_frozen_network_saves_one_byte_for_each_rectified_value() -> None:
    network = nn.Sequential(nn.Conv3d(1, 5, 3, padding=2, dilation=2), nn.ReLU(), nn.Conv3d(5, 5, 3, padding=1), nn.ReLU())
    network.eval().requires_grad_(False)
    x = torch.rand(1, 1, 9, 8, 7, requires_grad=True)
    signs = 2 * 5 * 9 * 8 * 7
    with lean.lean_layers(network):
        output = network(x)
        w = torch.ones(output.shape, requires_grad=True)
        first = _saved(lambda: network(x))
        second = _saved(lambda: torch.autograd.grad(output, x, w, create_graph=True))
    assert (first, second) == (signs, signs)
