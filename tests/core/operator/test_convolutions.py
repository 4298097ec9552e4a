"""A pass with chosen kernels has PyTorch's output bit for bit, the derivatives of float64, and leaves nothing behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from monai_ifim import decompose
from monai_ifim.core.convolutions import choice, onednn
from monai_ifim.core.convolutions.choice import ChosenKernels
from monai_ifim.core.dense import dense_fisher
from monai_ifim.core.memory.replaced_forward import current_forms
from monai_ifim.core.operator import convolutions
from monai_ifim.core.operator.convolutions import chosen_convolutions


@pytest.fixture(autouse=True)
def _for_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in [name for name in vars(choice) if name.startswith("LEAST_")]:
        monkeypatch.setattr(choice, limit, 0)
    monkeypatch.setattr(onednn, "SMALL_PRODUCT", 0)
    monkeypatch.setattr(convolutions, "SMALLEST", 0)


class Volumes(nn.Module):
    """Layers for which every kernel is chosen, one of them called twice, for images [B, 1, 7, 6, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(1, 8, 3, stride=(2, 1, 1), padding=1)
        self.again = nn.Conv3d(8, 8, 3, padding=1, bias=False)
        self.filters = nn.Conv3d(8, 8, (3, 1, 3), padding=(1, 0, 1), groups=8)
        self.strided = nn.Conv3d(8, 6, 3, stride=2, padding=1)
        self.one_tap = nn.Conv3d(6, 4, 1, stride=(1, 2, 1))
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.softplus(self.stem(x))
        x = self.filters(functional.softplus(self.again(self.again(x))))
        return self.last(self.one_tap(self.strided(x).tanh()).mean((2, 3, 4)))


def _made(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return build().eval().requires_grad_(False)


def _image(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(4))


def _passed(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, int]]:
    """Output, gradient and second derivative with chosen kernels, and how many convolutions took which."""
    kernels, leaf = ChosenKernels(), x.clone().requires_grad_(True)
    with chosen_convolutions(network, leaf, kernels):
        output = network(leaf)
    _assert_nothing_is_left(network)
    return (*_derivatives(output, leaf), kernels.described())


def _assert_nothing_is_left(network: nn.Module) -> None:
    assert not any("forward" in vars(module) for module in network.modules())
    assert not current_forms()


def _derivatives(output: Tensor, leaf: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    w = torch.linspace(-1, 2, output.numel()).to(output).reshape(output.shape).requires_grad_(True)
    (gradient,) = torch.autograd.grad(output, leaf, w, retain_graph=True)
    (twice,) = torch.autograd.grad(output, leaf, w, create_graph=True)
    assert torch.equal(gradient, twice)
    (moved,) = torch.autograd.grad(twice, w, torch.linspace(1, -1, leaf.numel()).to(leaf).reshape(leaf.shape))
    return output.detach(), gradient, moved


def _agree(network: nn.Module, x: Tensor) -> dict[str, int]:
    *found, chosen = _passed(network, x)
    assert torch.equal(found[0], network(x))
    exact, leaf = copy.deepcopy(network).double(), x.double().requires_grad_(True)
    for ours, truth in zip(found[1:], _derivatives(exact(leaf), leaf)[1:], strict=True):
        assert float((ours - truth).abs().max() / truth.abs().max()) < 1e-5
    return chosen


def test_every_kernel_in_one_network_of_volumes() -> None:
    assert _agree(_made(Volumes), _image(1, 1, 7, 6, 5)) == {"autograd": 1, "matrix product": 1, "taps": 1, "turned": 2}


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, int]]] = {
    "1d": (lambda: nn.Conv1d(2, 5, 1), (2, 2, 9), {"matrix product": 1}),
    "2d": (lambda: nn.Conv2d(1, 8, 7, stride=2, padding=3), (1, 1, 13, 10), {"taps": 1}),
    "2d, one filter a channel": (lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6), (1, 6, 7, 9), {"turned": 1}),
    "circular": (lambda: nn.Conv2d(1, 5, 5, padding=2, padding_mode="circular"), (1, 1, 6, 7), {}),
    "same, of an even kernel": (lambda: nn.Conv2d(1, 5, (2, 4), padding="same"), (1, 1, 6, 7), {}),
    "transposed": (lambda: nn.ConvTranspose3d(2, 3, 3, stride=2), (1, 2, 4, 3, 5), {}),
    "parametrised": (lambda: parametrizations.weight_norm(nn.Conv2d(1, 5, 5)), (1, 1, 6, 7), {}),
    "channels last": (
        lambda: nn.Conv2d(1, 5, 5).to(memory_format=torch.channels_last),
        (1, 1, 6, 7),
        {"taps": 1},
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_with_and_without_a_choice(name: str) -> None:
    build, shape, kernels = LAYERS[name]
    assert _agree(_made(build), _image(*shape)) == kernels


def test_an_image_with_its_channels_last_is_left_alone() -> None:
    network = _made(lambda: nn.Sequential(nn.Conv2d(2, 10, 5), nn.Softplus(), nn.Conv2d(10, 2, 1)))
    *_, chosen = _passed(network, _image(2, 2, 6, 7).to(memory_format=torch.channels_last))
    assert chosen == {}


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_differentiated_weights_keep_their_gradient(part: str) -> None:
    layer = _made(lambda: nn.Conv2d(1, 5, 5))
    getattr(layer, part).requires_grad_(True)
    kernels = ChosenKernels()
    x = _image(1, 1, 6, 7).requires_grad_(True)
    with chosen_convolutions(layer, x, kernels):
        layer(x).sum().backward()
    assert kernels.described() == {}
    assert getattr(layer, part).grad is not None


class Checkpointed(nn.Module):
    """A network that repeats its own forward pass in the backward pass, if `reentrant` within another backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.inner, self.reentrant = Volumes(), reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("method", ["exact", "matrix_free"])
def test_a_network_that_checkpoints_itself(reentrant: bool, method: Any) -> None:
    network, image = _made(lambda: Checkpointed(reentrant)), _image(1, 1, 7, 6, 5)
    found = decompose(network, image, head="categorical", rank=2, method=method)
    truth = torch.linalg.eigvalsh(dense_fisher(network.inner, image)).flip(0)[:2]  # type: ignore[arg-type]
    torch.testing.assert_close(found.eigenvalues[0], truth, rtol=1e-4, atol=0.0)


def test_scripts_and_functions_are_left_alone() -> None:
    network, x = _made(lambda: nn.Sequential(nn.Conv2d(1, 5, 5), nn.Tanh(), nn.Flatten(), nn.Linear(30, 3))), _image(1, 1, 6, 7)
    scripted = torch.jit.trace(network, x)  # type: ignore[no-untyped-call]
    found = decompose(network, x, head="categorical")
    assert found.record["computation"]["convolutions"] == {"taps": 1}
    for other in (scripted, lambda x: network(x)):
        d = decompose(other, x, head="categorical")
        assert d.record["computation"]["convolutions"] == {}
        torch.testing.assert_close(d.eigenvalues, found.eigenvalues, rtol=1e-4, atol=0.0)


def test_a_small_image_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = _made(Volumes), _image(1, 1, 7, 6, 5)
    monkeypatch.setattr(convolutions, "SMALLEST", x.numel() + 1)
    assert _passed(network, x)[3] == {}
    assert _passed(network, x.repeat(2, 1, 1, 1, 1))[3] != {}


def test_hooks_of_modules_are_called_and_may_change_gradients() -> None:
    network, x = _made(Volumes), _image(1, 1, 7, 6, 5)
    called: list[str] = []

    def forward_hook(module: nn.Module, args: Any, output: Tensor) -> None:
        called.append("forward")

    def backward_hook(module: nn.Module, before: tuple[Tensor], after: Any) -> tuple[Tensor]:
        called.append("backward")
        return (2 * before[0],)

    plain = _passed(network, x)[1]
    network.stem.register_forward_hook(forward_hook)  # type: ignore[union-attr]
    network.strided.register_full_backward_hook(backward_hook)  # type: ignore[union-attr]
    kernels, leaf = ChosenKernels(), x.clone().requires_grad_(True)
    with chosen_convolutions(network, leaf, kernels):
        output = network(leaf)
    (gradient,) = torch.autograd.grad(output, leaf, torch.linspace(-1, 2, output.numel()).reshape(output.shape))
    torch.testing.assert_close(gradient, 2 * plain)
    assert called == ["forward", "backward"]


def test_an_error_in_the_network_leaves_nothing_behind() -> None:
    network = nn.Sequential(nn.Conv2d(1, 5, 5), nn.Flatten(), nn.Linear(7, 3)).eval()
    with pytest.raises(RuntimeError):
        decompose(network, _image(1, 1, 6, 7))
    _assert_nothing_is_left(network)


@pytest.mark.parametrize(
    ("method", "budget"), [("exact", None), ("exact", "1GiB"), ("adaptive", None), ("matrix_free", None), ("exact", "40KiB")]
)
def test_every_method_takes_them_says_so_and_agrees_with_the_dense_matrix(method: Any, budget: str | None) -> None:
    network, image = _made(Volumes), _image(1, 1, 7, 6, 5)
    truth = torch.linalg.eigvalsh(dense_fisher(network, image)).flip(0)[:2]
    found = decompose(network, image, head="categorical", rank=2, method=method, memory_budget=budget, verify="always")
    torch.testing.assert_close(found.eigenvalues[0], truth, rtol=1e-4, atol=0.0)
    assert found.record["computation"]["convolutions"] == {"autograd": 1, "matrix product": 1, "taps": 1, "turned": 2}
    assert found.record["verification"]["outcome"] == "agrees"
    _assert_nothing_is_left(network)


def test_a_repetition_gives_the_same_bits() -> None:
    network, image = _made(Volumes), _image(2, 1, 7, 6, 5)
    first, second = (decompose(network, image, head="categorical", energy=1.0) for _ in range(2))
    assert torch.equal(first.eigenvectors, second.eigenvectors)
    assert torch.equal(first.eigenvalues, second.eigenvalues)


def test_float64_has_no_choice() -> None:
    found = decompose(_made(Volumes), _image(1, 1, 7, 6, 5), head="categorical", precision="float64")
    assert found.record["computation"]["convolutions"] == {}


@pytest.mark.parametrize("name", onednn.ASKED)
def test_a_pytorch_without_the_names_that_are_asked_computes_as_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = _made(Volumes), _image(1, 1, 7, 6, 5)
    truth = decompose(network, x, rank=1)
    assert truth.record["computation"]["convolutions"]
    monkeypatch.delattr(torch._C, name)
    found = decompose(network, x, rank=1)
    torch.testing.assert_close(found.eigenvalues, truth.eigenvalues)
    assert not found.record["computation"].get("convolutions")
