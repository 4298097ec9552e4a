"""Deterministic algorithms: on inside, as before afterwards, and what is said of an operation that has no such form."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import IFIMError, decompose
from monai_ifim.core.determinism import WORKSPACE, configure_cublas, deterministic_algorithms, refused_operation

cudnn = torch.backends.cudnn


def state() -> tuple[int, bool, bool]:
    return torch.get_deterministic_debug_mode(), cudnn.deterministic, cudnn.benchmark


@pytest.fixture(params=["plain", "benchmark", "warn only"])
def before(request: pytest.FixtureRequest) -> Iterator[tuple[int, bool, bool]]:
    """What a caller may have set."""
    plain = state()
    cudnn.benchmark = request.param == "benchmark"
    torch.use_deterministic_algorithms(request.param == "warn only", warn_only=True)
    yield state()
    torch.set_deterministic_debug_mode(plain[0])
    cudnn.deterministic, cudnn.benchmark = plain[1:]


def test_they_are_on_inside_and_as_before_afterwards(before: tuple[int, bool, bool]) -> None:
    with deterministic_algorithms(True):
        assert state() == (2, True, False)
    assert state() == before
    with pytest.raises(KeyError), deterministic_algorithms(True):
        raise KeyError
    assert state() == before
    with deterministic_algorithms(False):
        assert state() == before


class Unpooled(nn.Module):
    """A network with an operation that has no deterministic form, on the CPU either."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(16, 3)

    def forward(self, image: Tensor) -> Tensor:
        pooled, places = nn.functional.max_pool2d(image.tanh(), 2, return_indices=True)
        return self.last(nn.functional.max_unpool2d(pooled, places, 2).flatten(1))


def test_an_operation_without_such_a_form_is_named_with_the_cure() -> None:
    image = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert not decompose(Unpooled().eval(), image).record["computation"]["deterministic"]
    with deterministic_algorithms(True):
        with pytest.raises(RuntimeError) as caught:
            decompose(Unpooled().eval(), image)
        said = refused_operation(caught.value)
        wrapped = ValueError("the network fails")
        wrapped.__cause__ = caught.value
        assert str(refused_operation(wrapped)) == str(said)
        assert refused_operation(RuntimeError("something else")) is None
    assert "max_unpooling2d" in str(said)
    assert "leave --deterministic out" in str(said)
    assert "--device cpu" in str(said)
    assert refused_operation(caught.value) is None  # the caller's own switch is the caller's own matter


def test_the_record_says_what_decides_the_last_digits() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    with deterministic_algorithms(True):
        found = decompose(network, torch.rand(2, 1, 4, 4)).record["computation"]
    assert (found["deterministic"], found["batch"], found["threads"]) == (True, 2, torch.get_num_threads())
    assert torch.backends.cpu.get_cpu_capability() in found["processor"]


@pytest.mark.parametrize("value", [None, ":0:0"])
def test_cublas_has_to_be_told_before_python_starts(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False) if value is None else monkeypatch.setenv(WORKSPACE, value)
    plain = state()
    with pytest.raises(IFIMError, match=rf"{WORKSPACE}=:4096:8 .*start Python again"), deterministic_algorithms(True, "cuda:0"):
        pass
    assert state() == plain


def test_programs_tell_it_and_keep_what_their_user_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, "")
    told: list[Callable[[], None]] = [lambda: configure_cublas(False), lambda: configure_cublas(True)]
    monkeypatch.delenv(WORKSPACE)
    for tell in told:
        tell()
    with deterministic_algorithms(True, "cuda"):
        pass
    monkeypatch.setenv(WORKSPACE, ":16:8")
    configure_cublas(True)
    with deterministic_algorithms(True, "cuda"):
        pass
