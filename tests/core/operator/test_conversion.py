"""`precision=` on networks that keep tensors everywhere, checkpoint themselves, or are TorchScripts gives what the network gives
after .to(dtype), and leaves it as it was."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from monai_ifim.core import NetworkError, decompose
from monai_ifim.core.operator.conversion import converted

TORCHSCRIPT = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
Pair = namedtuple("Pair", ["weight", "name"])
SCRIPTABLE = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(45, 3))


@dataclass
class Held:
    weight: Tensor
    name: str = "kept"


@dataclass(frozen=True, slots=True)
class Slotted:
    weight: Tensor


def _image(batch: int = 2) -> Tensor:
    return torch.randn(batch, 1, 7, 5, generator=torch.Generator().manual_seed(2))


class Checkpointed(nn.Module):
    """Recomputes its convolution in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.reentrant = reentrant
        self.first, self.last = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh()), nn.Linear(4, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(checkpoint(self.first, x, use_reentrant=self.reentrant).mean((2, 3)) + x.mean((2, 3)))
        return logits


class Plain(Checkpointed):
    """The same without checkpoints."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.first(x).mean((2, 3)) + x.mean((2, 3)))
        return logits


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("method", ["exact", "adaptive", "matrix_free"])
@pytest.mark.parametrize("precision", [None, "float64"])
def test_network_that_checkpoints_itself(reentrant: bool, method: Any, precision: Any) -> None:
    dtype = torch.float64 if precision else torch.float32
    truth = decompose(Plain(reentrant).to(dtype), _image().to(dtype), energy=1.0, method="exact")
    found = decompose(Checkpointed(reentrant), _image(), precision=precision, energy=1.0, method=method, rank=2)
    digits = 1e-9 if precision else 1e-4
    torch.testing.assert_close(found.eigenvalues, truth.eigenvalues, rtol=digits, atol=0)
    torch.testing.assert_close(found.high.double(), truth.high.double(), rtol=0, atol=1e3 * digits)


def _keeper(keep: Callable[[nn.Module, Tensor], Callable[[nn.Module], Tensor]]) -> Callable[[torch.dtype], nn.Module]:
    """Networks that multiply by a matrix kept outside of parameters and buffers."""

    class Keeper(nn.Module):
        def __init__(self, dtype: torch.dtype) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.last = nn.Linear(35, 4).to(dtype)
            self.kept = keep(self, torch.randn(4, 3, generator=torch.Generator().manual_seed(5)).to(dtype))
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            return self.last(x.flatten(1)).tanh() @ self.kept(self)

    return Keeper


def _store(name: str, make: Callable[[Tensor], Any], read: Callable[[Any], Tensor]) -> Any:
    def keep(module: nn.Module, weight: Tensor) -> Callable[[nn.Module], Tensor]:
        setattr(module, name, make(weight))
        return lambda module: read(getattr(module, name))

    return keep


def _cyclic(weight: Tensor) -> list[Any]:
    itself: list[Any] = [weight]
    itself.append(itself)
    return itself


def _hidden_module(weight: Tensor) -> list[nn.Module]:
    layer = nn.Linear(*weight.shape, bias=False, dtype=weight.dtype)
    layer.weight.data = weight.T.clone()
    return [layer]


PLACES: dict[str, Any] = {
    "attribute": _store("w", lambda w: w, lambda w: w),
    "with a graph of its own": _store("w", lambda w: w.requires_grad_(True) * 1, lambda w: w),
    "list": _store("w", lambda w: [0, w], lambda w: w[1]),
    "list that holds itself": _store("w", _cyclic, lambda w: w[1][1][0]),
    "tuple in a dictionary": _store("w", lambda w: {"a": (w,)}, lambda w: w["a"][0]),
    "ordered dictionary": _store("w", lambda w: OrderedDict(a=w), lambda w: w["a"]),
    "named tuple": _store("w", lambda w: Pair(w, "name"), lambda w: w.weight),
    "deque": _store("w", lambda w: deque([w], maxlen=3), lambda w: w[0]),
    "dataclass": _store("w", Held, lambda w: w.weight),
    "frozen dataclass with slots": _store("w", Slotted, lambda w: w.weight),
    "namespace": _store("w", lambda w: SimpleNamespace(inner=SimpleNamespace(w=w)), lambda w: w.inner.w),
    "partial function": _store("w", lambda w: partial(torch.mul, w), lambda w: w(torch.ones((), dtype=w.args[0].dtype))),
    "closure": _store("w", lambda w: lambda: w, lambda w: w()),
    "default of a function": _store("w", lambda w: lambda x=w: x, lambda w: w()),
    "bound method": _store("w", lambda w: _Method(w).weighted, lambda w: w()),
    "module in a list": _store("w", _hidden_module, lambda w: w[0].weight.T),
}


class _Method(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def weighted(self) -> Tensor:
        return self.weight


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("own", "other", "digits"), [("float32", "float64", 1e-12), ("float64", "float32", 1e-3)])
def test_tensor_outside_of_parameters_and_buffers(place: str, own: str, other: Any, digits: float) -> None:
    network = _keeper(PLACES[place])
    mine, theirs = getattr(torch, own), getattr(torch, other)
    here = network(mine)
    with torch.no_grad():
        kept = here.kept(here).clone()
    wanted = network(theirs)
    wanted.load_state_dict(here.state_dict())
    if own == "float64":  # else the float32 numbers are the same ones
        truth = decompose(network(torch.float64), _image().double(), energy=1.0)
    else:
        truth = decompose(wanted, _image().to(theirs), energy=1.0)
    found = decompose(here, _image().to(mine), precision=other, energy=1.0)
    assert found.high.dtype == theirs
    torch.testing.assert_close(found.eigenvalues, truth.eigenvalues, rtol=digits, atol=0)
    assert {p.dtype for p in here.parameters()} == {mine}
    torch.testing.assert_close(here.kept(here).detach(), kept, rtol=0, atol=0)
    assert here.kept(here).dtype == mine


def test_plain_functions_around_a_module_are_converted() -> None:
    network = Plain(False)
    truth = decompose(copy.deepcopy(network).double(), _image().double())
    for function in (lambda x: network(x), partial(lambda net, x: net(x), network), Caller(network), network.forward):
        found = decompose(function, _image(), precision="float64")
        torch.testing.assert_close(found.eigenvalues, truth.eigenvalues)
    assert network.last.weight.dtype == torch.float32


class Caller:
    """A network that is no module."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits


class Tied(nn.Module):
    """Two layers with one weight, a list of parameters, a hook that writes the weight, and a lock, which cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first, self.second = nn.Linear(35, 35), nn.Linear(35, 35)
        self.second.weight = self.first.weight
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(35, 35))
        self.hooked = nn.utils.spectral_norm(nn.Linear(35, 35))
        self.memory = nn.LSTM(35, 3, batch_first=True)
        self.lock, self.register = threading.Lock(), [self.first.weight, self.first]
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        assert self.register[0] is self.first.weight
        assert self.register[1].weight is self.second.weight
        with self.lock:
            features = self.hooked(self.normed(self.second(self.first(x.flatten(1)).tanh())))
        return self.memory(features[:, None])[0][:, 0]


def test_tied_weights_stay_tied_and_what_cannot_be_copied_is_shared() -> None:
    network = Tied()
    state = copy.deepcopy(network.state_dict())
    copied = converted(network, torch.float64)
    assert isinstance(copied, Tied)
    assert copied.lock is network.lock
    assert copied.first.weight is copied.second.weight
    assert {p.dtype for p in copied.parameters()} == {torch.float64}
    assert len(list(copied.parameters())) == len(list(network.parameters()))
    found = decompose(network, _image(), precision="float64")
    torch.testing.assert_close(found.eigenvalues, decompose(network, _image()).eigenvalues, rtol=1e-3, atol=0)
    double = Tied().double()
    double.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(found.logits, double(_image().double()))
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_network_without_anything_to_convert_is_not_copied() -> None:
    network = Plain(False)
    assert converted(network, torch.float32) is network
    assert converted(network, None) is network
    table = torch.arange(3)
    network.table = table  # type: ignore[assignment]
    copied = converted(network, torch.float64)
    assert copied is not network
    assert copied.table is table  # type: ignore[attr-defined]


def test_wider_tables_stay_when_weights_narrow() -> None:
    network = Plain(False)
    network.table = torch.ones(2, dtype=torch.float64)  # type: ignore[assignment]
    assert converted(network, torch.float16).table.dtype == torch.float64  # type: ignore[attr-defined]
    assert converted(network.double(), torch.float32).table.dtype == torch.float32  # type: ignore[attr-defined]


def test_complex_weights_become_as_wide() -> None:
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.last = nn.Parameter(torch.randn(7, 3, dtype=torch.complex64)), nn.Linear(35, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.last(torch.fft.irfft2(torch.fft.rfft2(x[:, 0]) * self.weight, s=(7, 5)).flatten(1))
            return logits

    torch.manual_seed(0)
    network = Spectral().eval()
    found = decompose(network, _image(), precision="float64")
    torch.testing.assert_close(found.eigenvalues, decompose(network, _image()).eigenvalues, rtol=1e-4, atol=0)
    assert found.logits.dtype == torch.float64
    assert isinstance(converted(network, torch.float64).weight, nn.Parameter)  # type: ignore[attr-defined]


def test_further_inputs_are_converted() -> None:
    table, network = nn.Linear(2, 3), Plain(False)

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image, self.table = network, table

        def forward(self, x: Tensor, *, values: Tensor) -> Tensor:
            return self.image(x) * self.table(values)

    values = torch.randn(2, 2)
    found = decompose(Both().eval(), _image(), precision="float64", network_kwargs={"values": values})
    truth = decompose(copy.deepcopy(Both()).double().eval(), _image().double(), network_kwargs={"values": values.double()})
    torch.testing.assert_close(found.eigenvalues, truth.eigenvalues)


def test_tensor_born_in_inference_mode_beside_registered_ones() -> None:
    with torch.inference_mode():
        born = _keeper(PLACES["list"])(torch.float32)
    truth = decompose(_keeper(PLACES["list"])(torch.float32), _image())
    torch.testing.assert_close(decompose(born, _image()).eigenvalues, truth.eigenvalues)


SCRIPTS: dict[str, Callable[[nn.Module], torch.jit.ScriptModule]] = {
    "scripted": torch.jit.script,
    "traced": lambda network: torch.jit.trace(network, _image()),  # type: ignore[return-value]
    "frozen": lambda network: torch.jit.freeze(torch.jit.script(network)),
    "frozen trace": lambda network: torch.jit.freeze(torch.jit.trace(network, _image())),  # type: ignore[arg-type]
}


@TORCHSCRIPT
@pytest.mark.parametrize("kind", SCRIPTS)
@pytest.mark.parametrize("nested", [False, True])
def test_torchscripts_are_copied_with_the_constants_of_their_programs(kind: str, nested: bool) -> None:
    torch.manual_seed(6)
    network = copy.deepcopy(SCRIPTABLE).eval()
    truth = decompose(copy.deepcopy(network).double(), _image().double(), energy=1.0)
    script = SCRIPTS[kind](network)
    before = script(_image())
    whole = nn.Sequential(script, nn.Identity()).eval() if nested else script
    for _ in range(3):  # the profiling executor rewrites its graph after the first runs
        found = decompose(whole, _image(), precision="float64", energy=1.0)
        digits = 1e-5 if "frozen" in kind else 1e-12  # freezing folds the normalisation into float32 weights
        torch.testing.assert_close(found.eigenvalues, truth.eigenvalues, rtol=digits, atol=0)
        assert found.logits.dtype == torch.float64
    torch.testing.assert_close(script(_image()), before, rtol=0, atol=0)


WEIGHT = torch.randn(35, 3, generator=torch.Generator().manual_seed(1))


def test_global_tensor_is_out_of_reach_and_the_cure_helps() -> None:
    class Global(nn.Module):
        def __init__(self, cure: bool) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Flatten(), nn.Linear(35, 35), nn.Identity())
            self.cure = cure
            self.inner[2].forward = self.multiplied  # type: ignore[assignment]

        def multiplied(self, x: Tensor) -> Tensor:
            return x @ (WEIGHT.to(x.dtype) if self.cure else WEIGHT)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.inner(x)
            return logits

    torch.manual_seed(2)
    decompose(Global(cure=False).eval(), _image())
    with pytest.raises(
        NetworkError, match=r"layer 'inner.2' \(Identity\).*weight\.to\(x\.dtype\)|the network \(Global\).*weight\.to"
    ) as caught:
        decompose(Global(cure=False).eval(), _image(), precision="float64")
    assert isinstance(caught.value.__cause__, RuntimeError)
    decompose(Global(cure=True).eval(), _image(), precision="float64")


def test_threads_that_share_a_network_in_several_precisions() -> None:
    network = Checkpointed(reentrant=True)
    truth = {dtype: decompose(Plain(True).to(dtype), _image().to(dtype)).eigenvalues for dtype in (torch.float32, torch.float64)}
    found: dict[int, Tensor] = {}

    def run(number: int) -> None:
        precision: Any = "float64" if number % 2 else None
        method: Any = ("exact", "matrix_free")[number // 2 % 2]
        found[number] = decompose(network, _image(), precision=precision, method=method).eigenvalues

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(8))
    for number, eigenvalues in found.items():
        expected, digits = truth[torch.float64 if number % 2 else torch.float32], (1e-9 if number % 2 else 1e-4)
        torch.testing.assert_close(eigenvalues, expected, rtol=digits, atol=0)
