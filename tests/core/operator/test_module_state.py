"""The caller's network during and after a decomposition: what passes changed is given back, whoever else uses the modules."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import NetworkError, TrainingModeWarning, decompose
from monai_ifim.core.operator.module_state import evaluation_mode

X = torch.rand(1, 2, 7, 5, generator=torch.Generator().manual_seed(1))


class _Busy(nn.Module):
    """A network whose passes change it: `change` says how; its answer does not depend on that."""

    def __init__(self, change: Callable[[Any, Tensor], object]) -> None:
        super().__init__()
        self.change = change
        self.inner = nn.Module()
        self.inner.register_buffer("mean", torch.tensor([1.0, float("nan"), 3.0]))
        self.inner.register_buffer("count", torch.tensor(0))
        self.inner.plain = torch.ones(3)
        self.inner.number, self.inner.items, self.inner.cache = 1, [torch.zeros(2)], {"a": 1}
        self.top = nn.Linear(70, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.change(self.inner, x)
        return self.top(x.flatten(1))


def _assign(**values: Any) -> Callable[[Any, Tensor], object]:
    return lambda inner, x: [setattr(inner, name, value) for name, value in values.items()]


CHANGES: dict[str, tuple[Callable[[Any, Tensor], object], str]] = {
    "buffer in place": (lambda inner, x: inner.mean.mul_(0.9), "inner.mean"),
    "buffer through .data": (lambda inner, x: inner.mean.data.add_(1), "inner.mean"),
    "scalar buffer": (lambda inner, x: inner.count.add_(1), "inner.count"),
    "buffer re-assigned": (_assign(mean=torch.zeros(3)), "inner.mean"),
    "buffer of another shape": (lambda inner, x: inner.mean.resize_(5), "inner.mean"),
    "buffer tied to the graph": (lambda inner, x: inner.mean.add_(x.mean()), "inner.mean"),
    "buffer added": (lambda inner, x: inner.register_buffer("late", torch.ones(1)), "inner.late"),
    "buffer removed": (lambda inner, x: inner._buffers.pop("count", None), "inner.count"),
    "tensor in place": (lambda inner, x: inner.plain.add_(1), "inner.plain"),
    "tensor re-assigned": (_assign(plain=torch.zeros(3)), "inner.plain"),
    "number": (lambda inner, x: setattr(inner, "number", inner.number + 1), "inner.number"),
    "attribute added": (_assign(features=X), "inner.features"),
    "attribute removed": (lambda inner, x: inner.__dict__.pop("number", None), "inner.number"),
    "list": (lambda inner, x: inner.items.append(x), "inner.items"),
    "tensor in a list": (lambda inner, x: inner.items[0].add_(1), "inner.items[0]"),
    "dictionary": (lambda inner, x: inner.cache.update(b=x), "inner.cache"),
    "submodule": (lambda inner, x: inner.add_module("late", nn.ReLU()), "inner.late"),
    "hook": (lambda inner, x: inner.register_forward_hook(lambda *_: None), "inner._forward_hooks"),
}


def _state(network: nn.Module) -> dict[str, Any]:
    """Everything of the modules, with copies of tensors, lists and dictionaries."""
    found: dict[str, Any] = {}
    for path, module in network.named_modules():
        for name, value in module.__dict__.items():
            entries = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else [value])
            for key, entry in entries:
                found[f"{path}.{name}.{key}"] = entry.detach().clone() if isinstance(entry, Tensor) else entry
    return found


def _assert_alike(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(value, expected[name], rtol=0, atol=0, equal_nan=True)
        else:
            assert value is expected[name], name


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("fails", [False, True])
def test_what_passes_change_is_named_and_given_back(kind: str, fails: bool) -> None:
    change, name = CHANGES[kind]
    network = _Busy(change).eval()
    before, identities = _state(network), {path: id(b) for path, b in network.named_buffers()}
    try:
        with evaluation_mode(network) as state:
            assert state.changes() == ()
            with torch.enable_grad():
                network(X.clone().requires_grad_())
            assert state.changes() == (name,)
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert fails
    assert state.not_restored == ()
    _assert_alike(_state(network), before)
    assert {path: id(b) for path, b in network.named_buffers()} == identities
    assert not any(buffer.requires_grad for buffer in network.buffers())


def test_nothing_changes_in_a_usual_network() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(45, 3)).eval()
    with evaluation_mode(network) as state:
        network(X.clone())
        assert state.changes() == ()
        assert not any(p.requires_grad for p in network.parameters())
    assert state.not_restored == ()
    assert all(p.requires_grad for p in network.parameters())


class _Masked(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        with torch.no_grad():
            self.weight.clamp_(-1, 1)
        return super().forward(input)


def test_forward_that_writes_into_a_parameter_is_refused_by_its_name() -> None:
    network = nn.Sequential(nn.Flatten(), _Masked(70, 3)).eval()
    with pytest.raises(NetworkError, match=r"wrote into '1\.weight'.*load its weights again"):
        decompose(network, X)


def test_the_cure_of_that_refusal() -> None:
    class Cured(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            weight = self.weight.clamp(-1, 1)
            return nn.functional.linear(input, weight, self.bias)

    assert decompose(nn.Sequential(nn.Flatten(), Cured(70, 3)).eval(), X).rank.item() > 0


class _Meeting(nn.Module):
    """A network whose first pass in another thread waits, in its middle, until the main thread lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten())
        self.top = nn.Linear(45, 3)
        self.meeting, self.first = threading.Barrier(2, timeout=20), True

    def forward(self, x: Tensor) -> Tensor:
        features = self.body[:2](x)
        if self.first and threading.current_thread() is not threading.main_thread():
            self.first = False
            self.meeting.wait()
            self.meeting.wait()
        return self.top(self.body[2:](features))


def _meeting(train: bool) -> _Meeting:
    torch.manual_seed(4)
    network = _Meeting()
    network.body[1].running_var.uniform_(0.5, 2)
    return network.train(train)


@pytest.mark.filterwarnings("ignore::monai_ifim.core.TrainingModeWarning")
@pytest.mark.parametrize("methods", [("exact", "matrix_free"), ("matrix_free", "exact")])
@pytest.mark.parametrize("train", [False, True])
def test_two_threads_use_one_network_at_the_same_time(train: bool, methods: tuple[str, str]) -> None:
    truth = decompose(_meeting(False), X, rank=2)
    network, settings = _meeting(train), {"rank": 2, "tolerance": 1e-7}
    before = _state(network)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(decompose, network, X, method=methods[0], **settings)
        network.meeting.wait()  # the other thread is in the middle of a pass
        mine = decompose(network, X, method=methods[1], **settings)
        assert not any(module.training for module in network.modules())
        assert not any(p.requires_grad for p in network.parameters())
        network.meeting.wait()
        for found in (mine, other.result()):
            torch.testing.assert_close(found.eigenvalues, truth.eigenvalues, rtol=1e-4, atol=0)
    _assert_alike(_state(network), before)
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.filterwarnings("ignore::monai_ifim.core.TrainingModeWarning")
def test_a_layer_of_two_networks_stays_as_it_is_until_both_are_done() -> None:
    shared = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    networks = [nn.Sequential(shared, nn.Flatten(), nn.Linear(45, 2)).train() for _ in range(2)]
    outer, inner = (evaluation_mode(network) for network in networks)
    outer.__enter__()
    inner.__enter__()
    networks[1](X)
    outer.__exit__(None, None, None)
    assert not shared.training
    assert not shared[0].weight.requires_grad
    state = shared[1].running_mean.clone()
    networks[1](X)
    torch.testing.assert_close(shared[1].running_mean, state, rtol=0, atol=0)
    inner.__exit__(None, None, None)
    assert all(m.training for network in networks for m in network.modules())
    assert all(p.requires_grad for network in networks for p in network.parameters())


def test_decomposition_inside_a_decomposition() -> None:
    network = _meeting(False)
    expected = decompose(network, X, rank=1).eigenvalues
    found: list[Tensor] = []

    def hook(*_: Any) -> None:
        if not found:
            found.append(expected)
            found.append(decompose(network, X, rank=1, method="matrix_free", tolerance=1e-7).eigenvalues)

    handle = network.register_forward_pre_hook(hook)
    torch.testing.assert_close(decompose(network, X, rank=1, method="matrix_free", tolerance=1e-7).eigenvalues, expected)
    handle.remove()
    torch.testing.assert_close(found[1], expected, rtol=1e-5, atol=0)
    assert all(p.requires_grad for p in network.parameters())
    assert not [m for m in network.modules() if "forward" in m.__dict__]


@pytest.mark.parametrize("place", ["warning", "eval", "pass"])
def test_a_failure_leaves_nothing_behind(place: str) -> None:
    class Fails(nn.Module):
        def train(self, mode: bool = True) -> Any:
            if place == "eval" and not mode:
                raise ZeroDivisionError
            return super().train(mode)

        def forward(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError

    network = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm2d(2), Fails())
    with warnings.catch_warnings():
        warnings.simplefilter("error" if place == "warning" else "ignore", TrainingModeWarning)
        with pytest.raises((ZeroDivisionError, TrainingModeWarning)):
            decompose(network, X)
    assert all(m.training for m in network.modules())
    assert all(p.requires_grad for p in network.parameters())
    with warnings.catch_warnings(), evaluation_mode(nn.Sequential(network[0], network[1]).eval()) as state:
        assert state.changes() == ()  # nobody counts as a user any more
    assert not network[0].training


def test_what_an_own_eval_did_its_train_undoes() -> None:
    class Merged(nn.Linear):
        """As adapters that add themselves to the weights in eval mode."""

        merged = False

        def train(self, mode: bool = True) -> Any:
            if mode == self.merged:
                self.weight.data += -1 if mode else 1
                self.merged = not mode
            return super().train(mode)

    network = nn.Sequential(nn.Flatten(), Merged(70, 3))
    weight = network[1].weight.detach().clone()
    with pytest.warns(TrainingModeWarning):
        decompose(network, X)
    torch.testing.assert_close(network[1].weight.detach(), weight)
    assert network[1].training
    assert not network[1].merged


class _Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(3))
        self.top, self.count, self.seen = nn.Linear(70, 3), 0, torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = self.mean * 0.9
        self.count += 1
        self.seen.add_(1.0)
        return self.top(x.flatten(1))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("kind", ["scripted", "loaded", "frozen"])
def test_attributes_of_a_script_are_given_back(kind: str) -> None:
    network = torch.jit.script(_Scripted()).eval()
    if kind == "frozen":
        network = torch.jit.freeze(network, preserved_attrs=["count", "mean", "seen"])
    if kind == "loaded":
        file = io.BytesIO()
        torch.jit.save(network, file)
        network = torch.jit.load(io.BytesIO(file.getvalue()))
    with evaluation_mode(network) as state:
        network(X)
        assert set(state.changes()) == {"mean", "count", "seen"}
    assert state.not_restored == ()
    assert network.count == 0
    assert network.mean.tolist() == [1.0] * 3
    assert network.seen.tolist() == [0.0]
