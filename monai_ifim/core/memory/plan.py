"""The plan by which a decomposition stays inside a memory budget: what is kept, computed again, or moved elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from monai_ifim.core.errors import IFIMError
from monai_ifim.core.memory.blocks import LARGEST_BLOCK
from monai_ifim.core.memory.checkpointing import ActivationSurvey, choose_blocks, survey_activations
from monai_ifim.core.memory.lean_layers import lean_layers
from monai_ifim.core.memory.live_memory import storages_of

BACKWARD = 1.5  # bytes alive at once in a backward pass over those in a forward pass, of what is not kept
SPECTRAL = 64  # bytes an entry of the Gram matrix takes while its eigenpairs are found: it and seven temporaries
MEBIBYTE = 2**20


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that may stay in memory, None for all of them.

    activations: of what autograd saves; rows: of Jacobian rows; blocks: modules computed again in each backward pass; batch:
    images that share passes; block_elements: of float64 working blocks. frugal: whether memory counts at all here.
    """

    batch: int
    frugal: bool = False
    activations: int | None = None
    rows: int | None = None
    blocks: tuple[nn.Module, ...] = ()
    block_elements: int = LARGEST_BLOCK

    @property
    def tight(self) -> bool:
        """Whether something does not stay in memory that would without a budget."""
        return self.rows is not None

    def strictest(self) -> MemoryPlan:
        """One image at a time, with nothing in memory that can be elsewhere."""
        return MemoryPlan(1, True, 0, 0, (), self.block_elements)


class BudgetExceededError(Exception):
    """The passes themselves held more than the budget; `needed` bytes were seen."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


def survey_image(forward: Callable[[Tensor], Tensor], network: Callable[..., Any], image: Tensor) -> ActivationSurvey:
    """What one forward pass of `image` [1, channel, *spatial] would keep, the network's layers being lean."""
    leaf = image.clone().requires_grad_(True)
    with lean_layers(network):
        return survey_activations(lambda: forward(leaf.clone()), network, storages_of(network, leaf))


def plan_memory(
    survey: ActivationSurvey, network: Callable[..., Any], images: Tensor, budget: int, rows: int, results: int
) -> MemoryPlan:
    """Fit a decomposition of `images` [B, channel, *spatial] into `budget` bytes, from the survey of one of them.

    rows: Jacobian rows of an image that are needed at once; results: images' worth of memory that the result itself takes.
    """
    row = images[:1].nbytes
    working = int(BACKWARD * survey.working) + 2 * row
    block_elements = max(2**16, min(LARGEST_BLOCK, budget // 64))
    after = (rows + results) * row + 8 * block_elements + SPECTRAL * rows**2
    whole = max(survey.saved + working + rows * row, after)
    batch = min(images.shape[0], budget // max(1, whole))
    if batch >= 1:
        return MemoryPlan(batch, True, block_elements=block_elements)
    spectral = SPECTRAL * rows**2 + 8 * block_elements + results * row
    return _tight_plan(network, survey, budget, working, min(rows * row, max(0, budget - spectral)), block_elements)


def _tight_plan(
    network: Callable[..., Any], survey: ActivationSurvey, budget: int, working: int, rows: int, block_elements: int
) -> MemoryPlan:
    """One image at a time: blocks computed again where activations do not fit, what is left over moved elsewhere."""
    room = max(0, budget - working)
    kept_rows = min(rows, room // 2)
    room -= kept_rows
    if survey.saved <= room:
        return MemoryPlan(1, True, None, kept_rows, (), block_elements)
    blocks = choose_blocks(network, survey, room)
    recomputed = max((survey.inside[block] for block in blocks), default=0)
    return MemoryPlan(1, True, max(0, room - recomputed), kept_rows, tuple(blocks), block_elements)


def budget_error(budget: int, needed: int) -> IFIMError:
    """Names the smallest budget that will do."""
    return IFIMError(
        f"memory_budget is {_size(budget)} and this network needs {_size(int(1.02 * needed))} at least for one image of this "
        "size, with everything moved out of memory that can be elsewhere: raise the budget, or use smaller images."
    )


def _size(count: int) -> str:
    return f"{-(-count // MEBIBYTE)} MiB"
