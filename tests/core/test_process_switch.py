"""Switches of the process that several threads hold."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier

import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import decompose
from monai_ifim.core.memory.stepped_attention import STEPPED_ATTENTION
from monai_ifim.core.process_switch import ProcessSwitch


def test_the_last_holder_turns_it_back() -> None:
    events: list[str] = []

    @contextmanager
    def turned() -> Iterator[None]:
        events.append("on")
        yield
        events.append("off")

    switch, meet = ProcessSwitch(turned), Barrier(2, timeout=20)

    def other() -> None:
        with switch.held():
            meet.wait()
            meet.wait()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(other)
        meet.wait()
        with pytest.raises(ZeroDivisionError), switch.held():
            raise ZeroDivisionError
        assert events == ["on"]
        assert switch.on
        meet.wait()
        running.result()
    assert events == ["on", "off"]
    assert not switch.on


class _Attention(nn.Module):
    """Attention whose fused kernel has neither forward mode nor second derivatives."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.projection, self.top = nn.Conv2d(1, 8, 3, 2), nn.Linear(8, 24), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x).flatten(2).transpose(1, 2)
        q, k, v = (part[:, None] for part in self.projection(tokens).chunk(3, -1))
        return self.top(nn.functional.scaled_dot_product_attention(q, k, v)[:, 0].mean(1))


def test_threads_that_take_attention_in_steps_leave_the_kernels_as_they_were() -> None:
    torch.manual_seed(0)
    network, x = _Attention().eval(), torch.randn(1, 1, 24, 20)
    truth = decompose(network, x, rank=2).eigenvalues
    before = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()

    def work(budget: str | None) -> Tensor:
        return decompose(network, x, rank=2, method="matrix_free", memory_budget=budget).eigenvalues

    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(work, [None, "40MiB", None, "40MiB", None]):
            torch.testing.assert_close(found, truth, rtol=1e-4, atol=0)
    assert not STEPPED_ATTENTION.on
    assert before == (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled())
