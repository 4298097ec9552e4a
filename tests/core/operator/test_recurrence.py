"""Recurrent layers whose kernels refuse a backward pass in eval mode, as cuDNN's do.

No GPU is needed: PyTorch's own kernels stand in, with the refusals of cuDNN while it is enabled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import rnn

from monai_ifim import decompose
from monai_ifim.core import NetworkError, locality_radius
from monai_ifim.core.dense import dense_fisher
from monai_ifim.core.operator import recurrence
from monai_ifim.core.operator.recurrence import differentiable_recurrence
from ways import WAYS

cudnn = torch.backends.cudnn
LAYERS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
FUNCTIONS = ("lstm", "gru", "rnn_tanh")


class Refusing(torch.autograd.Function):
    """The backward pass of cuDNN's kernels in eval mode; says what it says."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise RuntimeError("cudnn RNN backward can only be called in training mode")


class Recurrent(nn.Module):
    """A convolution, a recurrent layer over the rows of the image, and three classes from its last state."""

    def __init__(self, layer: Callable[..., nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.convolution = nn.Conv2d(1, 2, 3, padding=1)
        self.memory = layer(2 * 5, 4, num_layers=2, batch_first=True, dropout=0.3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.convolution(x).movedim(1, 2).flatten(2)
        states: Tensor = self.memory(rows)[0]
        answer: Tensor = self.head(states[:, -1])
        return answer


@pytest.fixture
def enabled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether cuDNN was enabled in each pass of a recurrent layer; the CPU counts as a device whose kernels refuse."""
    seen: list[bool] = []
    for name in FUNCTIONS:
        monkeypatch.setattr(rnn._VF, name, _as_cudnn(getattr(rnn._VF, name), seen), raising=False)
    monkeypatch.setattr(recurrence, "DEVICES", ("cpu",))
    yield seen
    assert cudnn.enabled


def _as_cudnn(function: Callable[..., Any], seen: list[bool]) -> Callable[..., Any]:
    def run(input: Tensor, hx: Any, weights: Any, bias: bool, layers: int, dropout: float, train: bool, *rest: Any) -> Any:
        seen.append(cudnn.enabled)
        states, *others = function(input, hx, weights, bias, layers, dropout, train, *rest)
        refuses = cudnn.enabled and not train and torch.is_grad_enabled()
        return (Refusing.apply(states) if refuses else states, *others)  # type: ignore[no-untyped-call]

    return run


def _image() -> Tensor:
    return torch.rand(2, 1, 7, 5, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_agrees_with_the_dense_matrix(enabled: list[bool], layer: str, way: str) -> None:
    network, image = Recurrent(LAYERS[layer]).double().eval(), _image()
    if way == "float64":
        network, image = network.float(), image.float()
    d = decompose(network, image, energy=None if "rank" in WAYS[way] else 1.0, **WAYS[way])
    assert False in enabled
    assert "forward" not in vars(network.memory)
    enabled.clear()
    with cudnn.flags(enabled=False):
        for b in range(2):
            values = torch.linalg.eigvalsh(dense_fisher(network.double(), image[b : b + 1].double())).flip(0)[:2]
            torch.testing.assert_close(d.eigenvalues[b, :2], values, rtol=1e-7, atol=0)


def test_convolutions_keep_cudnn_and_the_switch_is_turned_back_after_an_error(enabled: list[bool]) -> None:
    network, during = Recurrent(nn.LSTM).double().eval(), []
    network.convolution.register_forward_hook(lambda *_: during.append(cudnn.enabled))
    decompose(network, _image(), verify="never")
    assert during
    assert all(during)
    assert not any(enabled)

    def fail(*_: Any) -> None:
        raise ValueError("no pass today")

    network.memory.register_forward_hook(fail)
    with pytest.raises(ValueError, match="no pass today"):
        decompose(network, _image())
    assert cudnn.enabled
    assert "forward" not in vars(network.memory)


def test_it_stays_off_where_the_caller_turned_it_off(enabled: list[bool]) -> None:
    with cudnn.flags(enabled=False):
        decompose(Recurrent(nn.GRU).double().eval(), _image())
        assert not cudnn.enabled


def test_another_thread_that_is_done_does_not_turn_it_back(enabled: list[bool]) -> None:
    inside, over = threading.Event(), threading.Event()
    network = Recurrent(nn.LSTM).eval()

    def slow() -> None:
        with recurrence._CUDNN_OFF.held():
            inside.set()
            over.wait(10)

    thread = threading.Thread(target=slow)
    thread.start()
    assert inside.wait(10)
    with differentiable_recurrence(network, _image()):
        network(_image().float())
        assert not cudnn.enabled
    over.set()
    thread.join()
    assert cudnn.enabled


@pytest.mark.parametrize("devices", [("cuda",), ()])
def test_other_devices_keep_their_kernels(enabled: list[bool], monkeypatch: pytest.MonkeyPatch, devices: tuple[str, ...]) -> None:
    monkeypatch.setattr(recurrence, "DEVICES", devices)
    network = Recurrent(nn.LSTM).double().eval()
    with pytest.raises(NetworkError, match="the network has no backward pass|layer 'memory'"):
        decompose(network, _image())
    assert all(enabled)


def test_a_layer_that_cannot_be_replaced_is_refused_with_a_cure_that_works(enabled: list[bool]) -> None:
    network = Recurrent(nn.LSTM).double().eval()
    own = network.memory.forward
    network.memory.forward = lambda *args: own(*args)  # as libraries that wrap layers do
    with pytest.raises(NetworkError) as refused:
        decompose(network, _image())
    said = str(refused.value)
    assert "layer 'memory' (LSTM) has no backward pass: cudnn RNN backward can only be called in training mode" in said
    cure = "with torch.backends.cudnn.flags(enabled=False): decompose(...)"
    assert cure in said
    with torch.backends.cudnn.flags(enabled=False):
        d = decompose(network, _image(), energy=1.0)
    del network.memory.forward
    torch.testing.assert_close(d.eigenvalues, decompose(network, _image(), energy=1.0).eigenvalues)


def test_passes_without_a_graph_need_nothing(enabled: list[bool]) -> None:
    network, image = Recurrent(nn.LSTM).double().eval(), _image()
    d = decompose(network, image, energy=1.0, verify="never")
    enabled.clear()
    assert bool((locality_radius(network, d) > 0).all())
    assert all(enabled)
