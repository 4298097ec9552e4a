"""The caller's network during and after a decomposition: what passes changed is given back, whoever else uses the modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import NetworkError, decompose
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
