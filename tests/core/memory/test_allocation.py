"""Large pages: what is asked for lies inside the tensor, and values, layout and gradients are those of an ordinary copy."""

from __future__ import annotations

import mmap

import pytest
import torch

from monai_ifim.core.memory import allocation
from monai_ifim.core.memory.allocation import SMALLEST, copy_of, in_large_pages


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """(address, length, advice) of every call to the kernel."""
    calls: list[tuple[int, int, int]] = []
    monkeypatch.setattr(allocation, "_madvise", lambda: lambda *call: calls.append(call))
    return calls


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="needs Linux: elsewhere nothing is asked for")
@pytest.mark.parametrize("size", [SMALLEST, SMALLEST + 12, 3 * SMALLEST + 4 * 1021])
def test_all_whole_pages_of_a_large_tensor_are_asked_for_and_none_beyond_it(size: int, asked: list[tuple[int, int, int]]) -> None:
    fresh = in_large_pages(torch.empty(size // 4))
    ((start, length, advice),) = asked
    before, after = start - fresh.data_ptr(), fresh.data_ptr() + size - (start + length)
    assert 0 <= before < mmap.PAGESIZE
    assert 0 <= after < mmap.PAGESIZE
    assert start % mmap.PAGESIZE == 0
    assert length % mmap.PAGESIZE == 0
    assert advice == mmap.MADV_HUGEPAGE


def test_a_small_tensor_is_left_alone(asked: list[tuple[int, int, int]]) -> None:
    in_large_pages(torch.empty(SMALLEST // 4 - 1))
    assert asked == []


@pytest.mark.parametrize("shape", [(3, 5, 7, 11), (2, 3, 1021, 1031)], ids=["small", "large"])
def test_a_copy_has_the_values_and_layout_of_its_original_and_lets_gradients_through(shape: tuple[int, ...]) -> None:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    leaf = values.to(memory_format=torch.channels_last).requires_grad_(True)
    copy = copy_of(leaf)
    assert torch.equal(copy, values)
    assert copy.stride() == leaf.stride()
    weights = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((copy.mul_(2.0) * weights).sum(), leaf)  # written into, as a network may
    assert torch.equal(gradient, 2.0 * weights)
    assert torch.equal(leaf, values)
