"""Modules are found behind callables, so that these too are evaluated in eval mode and left as they were."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import TrainingModeWarning, decompose
from monai_ifim.core.operator.held_modules import module_of

IMAGES = torch.rand(2, 1, 7, 6, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """Answers otherwise in train mode, where it also learns."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(80, 3))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]

    def classify(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class Service:
    """Holds a network and is no module."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, x: Tensor) -> Tensor:
        return self.network(x)  # type: ignore[no-any-return]

    def answer(self, x: Tensor) -> Tensor:
        return self.network(x)  # type: ignore[no-any-return]


shared = Network()


def _of_a_global(x: Tensor) -> Tensor:
    return shared(x)  # type: ignore[no-any-return]


def _through_another(x: Tensor) -> Tensor:
    return _of_a_global(x)


CALLABLES: dict[str, Callable[[nn.Module], Callable[..., Any]]] = {
    "closure": lambda network: lambda x: network(x),
    "partial": lambda network: partial(network),
    "other method": lambda network: network.classify,  # type: ignore[return-value]
    "object": Service,
    "method of an object": lambda network: Service(network).answer,
    "global": lambda network: _of_a_global,
    "function of a global": lambda network: _through_another,
    "list": lambda network: partial(lambda networks, x: networks[0](x), [network]),
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_a_callable_is_evaluated_like_its_network_and_leaves_it_as_it_was(kind: str) -> None:
    network = shared if "global" in kind else Network()
    expected = decompose(Network().eval(), IMAGES).eigenvalues
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.warns(TrainingModeWarning):
        found = decompose(CALLABLES[kind](network), IMAGES).eigenvalues
    torch.testing.assert_close(found, expected)
    assert all(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_all_networks_of_an_ensemble_are_found() -> None:
    first, second = Network(), Network()
    with pytest.warns(TrainingModeWarning):
        decompose(lambda x: first(x) + second(x), IMAGES)
    found = module_of(lambda x: first(x) + second(x))
    assert found is not None
    assert {id(module) for module in found.children()} == {id(first), id(second)}


def test_a_module_is_itself_and_a_function_of_none_has_none() -> None:
    network = Network()
    assert module_of(network) is network
    assert module_of(lambda x: x.flatten(1)) is None


def test_wrappers_that_no_mode_changes_are_no_reason_to_warn() -> None:
    first, second = (nn.Sequential(Network().eval()) for _ in range(2))
    first.training = second.training = True
    decompose(lambda x: first(x) + second(x), IMAGES)
    assert first.training
