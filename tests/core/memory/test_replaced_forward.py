"""Functions in place of `forward`: in one thread only, in order, and gone afterwards."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import nn

from monai_ifim.core.memory.lean_layers import lean_layers
from monai_ifim.core.memory.replaced_forward import chosen_forms, current_form, current_forms, own_forward, replaceable


def test_another_thread_runs_the_module_as_it_is() -> None:
    module, x, meet = nn.ReLU(), torch.tensor([-1.0, 2.0]), Barrier(2, timeout=20)

    def other() -> list[float]:
        with own_forward({module: lambda input: input + 10}):
            meet.wait()
            found: list[float] = module(x).tolist()
            meet.wait()
            return found

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(other)
        meet.wait()
        assert module(x).tolist() == [0.0, 2.0]
        with own_forward({module: lambda input: input - 1}):
            assert module(x).tolist() == [-2.0, 1.0]
            meet.wait()
            assert running.result() == [9.0, 12.0]
            assert module(x).tolist() == [-2.0, 1.0]
    assert "forward" not in module.__dict__


def test_a_thread_can_take_over_what_another_chose() -> None:
    module, x = nn.ReLU(), torch.tensor([-1.0])
    with own_forward({module: lambda input: input + 10}), ThreadPoolExecutor(1) as pool:
        forms = current_forms()

        def other() -> list[float]:
            with chosen_forms(forms):
                taken: list[float] = module(x).tolist()
            return taken + module(x).tolist()

        assert pool.submit(other).result() == [9.0, 0.0]


def test_functions_are_stacked_and_removed_after_an_error() -> None:
    module, x = nn.ReLU(), torch.tensor([-1.0])

    def fail(_: torch.Tensor) -> None:
        raise ZeroDivisionError

    with own_forward({module: lambda input: input + 10}):
        assert replaceable(module)
        outer = current_form(module)
        with own_forward({module: lambda input: outer(input) * 2}):
            assert module(x).tolist() == [18.0]
        with pytest.raises(ZeroDivisionError), own_forward({module: fail}):
            module(x)
        assert module(x).tolist() == [9.0]
    assert module(x).tolist() == [0.0]
    assert "forward" not in module.__dict__


def test_signature_stays_and_own_instances_are_left_alone() -> None:
    module = nn.ConvTranspose2d(1, 1, 2)
    with lean_layers(module):
        assert list(inspect.signature(module.forward).parameters) == ["input", "output_size"]
    module.forward = lambda input: input  # type: ignore[method-assign]
    assert not replaceable(module)


def test_lean_layers_take_their_input_by_keyword_as_the_layers_do() -> None:
    x = torch.randn(1, 2, 6, 5).requires_grad_()
    for layer in (nn.Conv2d(2, 2, 3), nn.ConvTranspose2d(2, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(2).eval()):
        expected = layer.requires_grad_(False)(input=x)
        with lean_layers(layer):
            torch.testing.assert_close(layer(input=x), expected)
