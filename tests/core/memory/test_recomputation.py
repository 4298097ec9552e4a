"""Recomputed blocks: whatever a block writes into, gradients are those of the network without recomputation, or refused."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from monai_ifim.core import NetworkError, decompose
from monai_ifim.core.memory.checkpointing import checkpointed, survey_activations
from monai_ifim.core.memory.lean_layers import lean_layers
from monai_ifim.core.memory.live_memory import LiveMemory
from monai_ifim.core.memory.offload import Offload, SavedActivations

CHANNELS = 3


class _Block(nn.Module):
    """Calls `call(layers, *args, **kwargs)`."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.call = call
        self.layers = nn.Sequential(nn.Tanh(), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.SiLU(), nn.GELU())
        self.act = nn.LeakyReLU(0.3, inplace=True)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(self.layers, *args, **kwargs)


class _Network(nn.Module):
    """A stem, `call(block, features)`, and a head."""

    def __init__(self, block: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.block, self.call = nn.Conv2d(1, CHANNELS, 3), block, call
        self.head = nn.Linear(CHANNELS, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.call(self.block, self.stem(x)).square().mean((2, 3)))


class _Pair(NamedTuple):
    first: Tensor
    second: Tensor


def _in_list(layers: nn.Module, xs: list[Tensor]) -> list[Tensor]:
    for i, x in enumerate(xs):
        xs[i] = layers(x)  # as HRNet's stages
    return [xs[0] + 0.1]


def _in_dictionary(layers: nn.Module, state: dict[str, Any]) -> Tensor:
    state["x"] = layers(state["x"])
    state["inner"]["list"].append(state["x"])
    return state["x"] + state["inner"]["list"][0]


def _first_in_place(activation: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Tensor], Tensor]:
    return lambda layers, x: layers(activation(x))


def _added_inside(layers: nn.Module, x: Tensor) -> Tensor:
    y = layers(x)
    y += x
    return y


def _written_and_returned(layers: nn.Module, x: Tensor) -> Tensor:
    x.mul_(1.5)
    return x + layers(x * 1.0)


def _popped(layers: nn.Module, xs: list[Tensor]) -> Tensor:
    return layers(xs.pop()) + layers(xs.pop())


def _added_after(block: nn.Module, x: Tensor) -> Tensor:
    x += block(x)
    return x


BLOCKS: dict[str, tuple[Callable[..., Any], Callable[[nn.Module, Tensor], Tensor]]] = {
    "list": (_in_list, lambda block, x: block([x])[0]),
    "list that the network uses afterwards": (_in_list, lambda block, x: (xs := [x], block(xs), xs[0])[2]),
    "list that is emptied": (_popped, lambda block, x: block([x, x * 2])),
    "dictionary": (_in_dictionary, lambda block, x: block({"x": x, "inner": {"list": [x]}})),
    "keyword": (_in_dictionary, lambda block, x: block(state={"x": x, "inner": {"list": [x * 2]}})),
    "named tuple": (lambda layers, pair: layers(pair.first) * pair.second, lambda block, x: block(_Pair(x, x + 1))),
    "leaky ReLU": (_first_in_place(nn.LeakyReLU(0.3, inplace=True)), lambda block, x: block(x)),
    "SiLU": (_first_in_place(nn.SiLU(inplace=True)), lambda block, x: block(x)),
    "ELU": (_first_in_place(nn.ELU(inplace=True)), lambda block, x: block(x)),
    "dropout": (_first_in_place(nn.Dropout(0.5, inplace=True).eval()), lambda block, x: block(x)),
    "keyword in place": (lambda layers, *, x: layers(nn.functional.elu_(x)), lambda block, x: block(x=x)),
    "residual inside": (_added_inside, lambda block, x: block(x)),
    "input written and returned": (_written_and_returned, lambda block, x: block(x)),
    "residual after": (lambda layers, x: layers(x * 2), _added_after),
    "one tensor twice": (lambda layers, x, y: layers(x.mul_(2)) + y, lambda block, x: block(x, x)),
    "tensors that share memory": (lambda layers, x, y: layers(x.add_(1)) * y, lambda block, x: block(x, x[:, :, :1])),
    "called twice": (_first_in_place(nn.SiLU(inplace=True)), lambda block, x: block(block(x) * 2)),
    "number and flag": (lambda layers, x, a, on=False: layers(x) * a if on else x, lambda block, x: block(x, 2.0, on=True)),
    "own checkpoint": (lambda layers, x: checkpoint(layers, x, use_reentrant=False), lambda block, x: block(x)),
}


def _made(kind: str) -> _Network:
    torch.manual_seed(3)
    call, use = BLOCKS[kind]
    return _Network(_Block(call), use).double().eval().requires_grad_(False)


def _image() -> Tensor:
    return torch.randn(1, 1, 13, 11, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def _gradients(network: nn.Module, cotangents: Tensor) -> list[Tensor]:
    leaf = _image().requires_grad_()
    output = network(leaf * 1.0)
    return [output.detach()] + [torch.autograd.grad(output, leaf, c, retain_graph=True)[0] for c in cotangents]


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("kind", BLOCKS)
def test_a_block_may_change_its_input(kind: str, lean: bool) -> None:
    network, cotangents = _made(kind), torch.eye(2, dtype=torch.float64)[:, None]
    expected = _gradients(network, cotangents)
    runs = 0

    def count(*_: Any) -> None:
        nonlocal runs
        runs += 1

    network.block.layers[-1].register_forward_pre_hook(count)
    with lean_layers(network if lean else nn.Module()), checkpointed([network.block], network):
        found = _gradients(network, cotangents)
    assert (runs >= 3) == (kind != "tensors that share memory")  # of which copies would not
    for first, second in zip(found, expected, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-14 * float(second.abs().max()))


def test_second_derivatives_of_a_block_that_changes_its_input() -> None:
    network, x = _made("SiLU"), _image()

    def second() -> Tensor:
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(leaf * 1.0).square().sum(), leaf, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), leaf)[0]

    expected = second()
    with checkpointed([network.block], network):
        torch.testing.assert_close(second(), expected, rtol=1e-12, atol=0)


def test_another_thread_may_run_the_backward_pass_as_autograd_does_for_accelerators() -> None:
    network, cotangents = _made("SiLU"), torch.eye(2, dtype=torch.float64)[:, None]
    network.block.layers.append(nn.Conv2d(CHANNELS, CHANNELS, 1).double().requires_grad_(False))
    leaf = _image().requires_grad_()
    expected = [torch.autograd.grad(network(leaf * 1.0), leaf, c)[0] for c in cotangents]
    with lean_layers(network), checkpointed([network.block], network), torch.autocast("cpu", torch.bfloat16, enabled=False):
        output = network(leaf * 1.0)
        with ThreadPoolExecutor(1) as pool:
            for c, gradient in zip(cotangents, expected, strict=True):
                (found,) = pool.submit(torch.autograd.grad, output, leaf, c, retain_graph=True).result()
                torch.testing.assert_close(found, gradient, rtol=1e-12, atol=0)


def test_copies_of_the_arguments_are_all_that_a_block_keeps() -> None:
    network = _made("SiLU")
    leaf = torch.randn(1, 1, 66, 66, dtype=torch.float64).requires_grad_()
    given = CHANNELS * 64 * 64 * 8
    with checkpointed([network.block], network), LiveMemory() as live:
        output = network(leaf * 1.0)
        assert live.current < leaf.nbytes + 2 * given + 2**16  # the copy, and what the square after the block saves
        torch.autograd.grad(output[0, 0], leaf, retain_graph=True)
        assert live.current < 2 * leaf.nbytes + 2 * given + 2**16


def test_copies_are_offloaded_like_other_saved_tensors() -> None:
    network, cotangents = _made("SiLU"), torch.eye(2, dtype=torch.float64)[:, None]
    leaf = torch.randn(1, 1, 130, 66, dtype=torch.float64).requires_grad_()
    kept = SavedActivations(Offload(), 0, set())
    expected = [torch.autograd.grad(network(leaf * 1.0), leaf, c)[0] for c in cotangents]
    with checkpointed([network.block], network), kept.hooks():
        output = network(leaf * 1.0)
    assert kept.moved >= CHANNELS * 128 * 64 * 8
    assert kept.held == 0
    for c, gradient in zip(cotangents, expected, strict=True):
        torch.testing.assert_close(torch.autograd.grad(output, leaf, c, retain_graph=True)[0], gradient, rtol=1e-12, atol=0)


class _Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.01, training=True)


class _Counting(nn.Module):
    def __init__(self, size: float) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(self.size)
        return x * (1 + self.count)


class _Raises(nn.Module):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("once only")
        return x


@dataclass
class _State:
    x: Tensor


class _InObject(nn.Module):
    """Writes into an object that holds a tensor, which is passed on as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Tanh(), nn.Conv2d(CHANNELS, CHANNELS, 1), nn.GELU())

    def forward(self, state: _State) -> _State:
        state.x = self.layers(state.x)
        return state


def test_a_block_that_changes_an_object_is_refused() -> None:
    network = _Network(_InObject(), lambda block, x: block(_State(x)).x).double().requires_grad_(False)
    with checkpointed([network.block], network), pytest.raises(NetworkError, match="block 'block' gives another output"):
        _gradients(network, torch.ones(1, 1, 2, dtype=torch.float64))


@pytest.mark.parametrize("layer", [_Random(), _Counting(1e-3), _Raises()], ids=["random", "counting", "once"])
def test_a_block_that_gives_another_output_is_refused_by_its_path(layer: nn.Module) -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Tanh(), layer, nn.Conv2d(CHANNELS, CHANNELS, 1), nn.GELU())
    network = _Network(nn.Sequential(nn.Identity(), block), lambda block, x: block(x)).double().requires_grad_(False)
    with checkpointed([block], network), pytest.raises(NetworkError, match=r"block 'block\.1' gives another output"):
        _gradients(network, torch.ones(1, 1, 2, dtype=torch.float64))


def test_rounding_is_no_other_output() -> None:
    block = nn.Sequential(nn.Tanh(), _Counting(1e-12), nn.Conv2d(CHANNELS, CHANNELS, 1), nn.GELU())
    network = _Network(block, lambda block, x: block(x)).double().requires_grad_(False)
    with checkpointed([block], network):
        _gradients(network, torch.ones(1, 1, 2, dtype=torch.float64))


class _Overwrites(nn.Module):
    """Autograd refuses its backward pass: what the sigmoid saved is overwritten."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.sigmoid()
        y.add_(1)
        return y.tanh()


@pytest.mark.parametrize("budget", [None, "block", "saved"])
def test_an_overwritten_tensor_is_refused_with_and_without_a_budget(budget: str | None) -> None:
    network = _Network(_Overwrites(), lambda block, x: block(x)).double().requires_grad_(False)
    leaf = torch.randn(1, 1, 130, 66, dtype=torch.float64).requires_grad_()
    kept = SavedActivations(Offload(), 2**30 if budget == "saved" else None, set())
    with checkpointed([network.block] if budget == "block" else [], network):
        with kept.hooks() if budget else torch.enable_grad():
            output = network(leaf * 1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(output.sum(), leaf)


def test_survey_counts_arguments_in_lists_dictionaries_and_keywords() -> None:
    x = _image()
    for kind in ("list", "dictionary", "keyword in place"):
        network = _made(kind)
        leaf = x.clone().requires_grad_()
        survey = survey_activations(lambda network=network, leaf=leaf: network(leaf * 1.0), network, set())
        assert survey.given[network.block] == CHANNELS * 11 * 9 * 8
        assert survey.inside[network.block] > 2 * survey.given[network.block]
        assert not [m for m in network.modules() if "forward" in m.__dict__]


class _Deep(nn.Module):
    """Blocks that write into their list, with much to save inside."""

    def __init__(self, layer: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, CHANNELS, 3, padding=1)
        self.blocks = nn.ModuleList([_Block(_in_list) for _ in range(2)])
        for block in self.blocks:
            block.layers = nn.Sequential(*[m for _ in range(9) for m in (nn.Tanh(), layer(), nn.Conv2d(CHANNELS, CHANNELS, 1))])
        self.head = nn.Linear(CHANNELS, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = self.stem(x)
        for block in self.blocks:
            features = block([features])[0]
        return self.head(features.mean((2, 3)))


def test_budget_with_blocks_that_change_their_input() -> None:
    torch.manual_seed(1)
    network, x = _Deep(nn.Identity).eval(), torch.randn(1, 1, 120, 100)
    runs: list[int] = []
    network.blocks[0].layers[0].register_forward_pre_hook(lambda *_: runs.append(1))
    truth = decompose(network, x, energy=1.0, verify="never")
    assert len(runs) == 1
    found = decompose(network, x, energy=1.0, memory_budget="3MiB", verify="never")
    assert len(runs) > 4  # surveyed, run and recomputed
    torch.testing.assert_close(found.eigenvalues, truth.eigenvalues, rtol=1e-5, atol=0)


def test_refusal_under_a_budget_and_its_cure() -> None:
    torch.manual_seed(1)
    network, x = _Deep(lambda: _Counting(0.1)).eval(), torch.randn(1, 1, 120, 100)
    with pytest.raises(NetworkError, match=r"block 'blocks\.1.*' gives another output.*Leave memory_budget out"):
        decompose(network, x, memory_budget="3MiB", verify="never")
    assert all(float(b) == 0 for b in network.buffers())
