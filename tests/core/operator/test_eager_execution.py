"""Compiled functions and modules, and reentrant checkpoints, give what the plain network gives; the process is left as it was."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from monai_ifim.core import decompose, locality_radius
from monai_ifim.core.operator.eager_execution import eager_execution


def _counted(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
    """A compiler that counts."""
    _counted.calls += 1  # type: ignore[attr-defined]
    return graph.forward


class Blocks(nn.Module):
    """A network whose block is called through `call`."""

    def __init__(self, call: Callable[[nn.Module], Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.block = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh())
        self.last = nn.Linear(4, 3)
        self.call = call(self.block)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.call(x).mean((2, 3)))
        return logits


def _compiled_in_place(block: nn.Module, **options: Any) -> nn.Module:
    block.compile(**options)
    return block


COMPILED: dict[str, Callable[..., Callable[[nn.Module], Any]]] = {
    "submodule": lambda **options: lambda block: torch.compile(block, **options),
    "function": lambda **options: lambda block: torch.compile(lambda x: block(x), fullgraph=True, **options),
    "method": lambda **options: lambda block: torch.compile(block.forward, **options),
    "module.compile()": lambda **options: lambda block: _compiled_in_place(block, **options),
}


def _image() -> Tensor:
    return torch.randn(2, 1, 7, 5, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module", autouse=True)
def _compiler() -> None:
    """PyTorch's compiler, whose import takes seconds."""
    torch.compile(torch.tanh, backend=_counted)


def _assert_as_written(network: nn.Module, method: Any) -> None:
    _counted.calls = 0  # type: ignore[attr-defined]
    plain = Blocks(lambda block: block)
    truth, found = decompose(plain, _image(), method=method), decompose(network, _image(), method=method)
    torch.testing.assert_close(found.eigenvalues, truth.eigenvalues)
    torch.testing.assert_close(found.high, truth.high)
    torch.testing.assert_close(locality_radius(network, found), locality_radius(plain, truth))
    assert _counted.calls == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", COMPILED)
@pytest.mark.parametrize("method", ["exact", "adaptive", "matrix_free"])
def test_compiled_parts_run_as_they_were_written(kind: str, method: Any) -> None:
    _assert_as_written(Blocks(COMPILED[kind](backend=_counted)), method)


@pytest.mark.parametrize("options", [{"backend": "aot_eager"}, pytest.param({"mode": "reduce-overhead"}, marks=pytest.mark.slow)])
def test_compiler_s_own_limits_do_not_count(options: dict[str, Any]) -> None:
    """aot_eager has no second derivative; reduce-overhead needs a C++ compiler, and takes seconds to import."""
    _assert_as_written(Blocks(COMPILED["submodule"](**options)), "matrix_free")


@pytest.mark.parametrize("kind", COMPILED)
def test_compiled_parts_in_another_precision_and_under_a_budget(kind: str) -> None:
    plain, network = Blocks(lambda block: block), Blocks(COMPILED[kind](backend=_counted))
    truth = decompose(copy.deepcopy(plain).double(), _image().double())
    found = decompose(network, _image(), precision="float64")
    torch.testing.assert_close(found.eigenvalues, truth.eigenvalues)
    lean = decompose(network, _image(), memory_budget="20kB")
    torch.testing.assert_close(lean.eigenvalues, truth.eigenvalues, rtol=1e-4, atol=0)


@pytest.mark.parametrize("compiled", [torch.compile, _compiled_in_place])
def test_network_that_is_compiled_itself(compiled: Callable[..., Any]) -> None:
    truth = decompose(Blocks(lambda block: block), _image(), method="matrix_free")
    network = compiled(Blocks(lambda block: block), backend=_counted)
    _counted.calls = 0  # type: ignore[attr-defined]
    torch.testing.assert_close(decompose(network, _image(), method="matrix_free").eigenvalues, truth.eigenvalues)
    assert _counted.calls == 0  # type: ignore[attr-defined]


def test_the_caller_s_compiler_works_afterwards() -> None:
    network = Blocks(COMPILED["submodule"](backend=_counted))
    decompose(network, _image())
    _counted.calls = 0  # type: ignore[attr-defined]
    network(_image())
    assert _counted.calls == 1  # type: ignore[attr-defined]


def test_switches_hold_until_the_last_of_several_threads_ends() -> None:
    reentrant, compiled = torch.utils.checkpoint.CheckpointFunction, torch.compile(torch.tanh, backend=_counted)
    entered, finish = threading.Event(), threading.Event()

    def other() -> None:
        with eager_execution():
            entered.set()
            finish.wait(10)

    thread = threading.Thread(target=other)
    with eager_execution():
        thread.start()
        assert entered.wait(10)
    _counted.calls = 0  # type: ignore[attr-defined]
    compiled(_image())
    assert _counted.calls == 0  # type: ignore[attr-defined]
    assert torch.utils.checkpoint.CheckpointFunction is not reentrant
    finish.set()
    thread.join(10)
    assert torch.utils.checkpoint.CheckpointFunction is reentrant
    compiled(_image())
    assert _counted.calls == 1  # type: ignore[attr-defined]


def test_switches_are_turned_back_after_an_error() -> None:
    reentrant = torch.utils.checkpoint.CheckpointFunction
    with pytest.raises(ValueError, match="mine"), eager_execution():
        raise ValueError("mine")
    assert torch.utils.checkpoint.CheckpointFunction is reentrant
