"""Plan of a decomposition within a memory budget: what is kept in memory, recomputed, or offloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from monai_ifim.core.errors import IFIMError
from monai_ifim.core.memory.blocks import LARGEST_BLOCK
from monai_ifim.core.memory.checkpointing import ActivationSurvey, choose_blocks, survey_activations
from monai_ifim.core.memory.lean_layers import lean_layers
from monai_ifim.core.memory.live_memory import storages_of

BACKWARD = 1.5  # peak of temporary bytes in a backward pass over that in a forward pass
SPECTRAL = 64  # bytes for each entry of the Gram matrix while its eigenpairs are computed: itself and seven temporaries
MEBIBYTE = 2**20


@dataclass(frozen=True)
class MemoryPlan:
    """Limits on what stays in memory.

    batch: images that share passes. frugal: True if there is a limit on memory at all. activations, rows: bytes of saved
    activations and of Jacobian rows, None for no limit. blocks: modules recomputed in each backward pass. block_elements: size
    of float64 working blocks. basis: bytes of the Lanczos basis of an image, which is never offloaded.
    """

    batch: int
    frugal: bool = False
    activations: int | None = None
    rows: int | None = None
    blocks: tuple[nn.Module, ...] = ()
    block_elements: int = LARGEST_BLOCK
    basis: int = 0

    @property
    def tight(self) -> bool:
        """True if something may have to be recomputed or offloaded."""
        return self.rows is not None

    def strictest(self) -> MemoryPlan:
        """The plan that needs least memory: one image at a time, activations and rows offloaded."""
        return MemoryPlan(1, True, 0, 0, (), self.block_elements, self.basis)


class BudgetExceededError(Exception):
    """What cannot be offloaded needed more than the budget: `needed` bytes at once, of which `basis` for a Lanczos basis."""

    def __init__(self, needed: int, basis: int = 0) -> None:
        super().__init__(needed, basis)
        self.needed, self.basis = needed, basis


def survey_image(forward: Callable[[Tensor], Tensor], network: Callable[..., Any], image: Tensor) -> ActivationSurvey:
    """Survey of what one forward pass of `image` [1, channel, *spatial] saves, with lean layers."""
    leaf = image.clone().requires_grad_(True)
    with lean_layers(network):
        return survey_activations(lambda: forward(leaf.clone()), network, storages_of(network, leaf))


def plan_memory(
    survey: ActivationSurvey, network: Callable[..., Any], images: Tensor, budget: int, rows: int, results: int, basis: int = 0
) -> MemoryPlan:
    """Plan of a decomposition of `images` [B, channel, *spatial] in `budget` bytes, from the survey of one of them.

    rows: Jacobian rows of an image needed at once. results: memory of the result for one image, in units of an image. basis:
    bytes of the Lanczos basis of an image, which stays in memory while rows are made.
    """
    row = images[:1].nbytes
    working = int(BACKWARD * survey.working) + 2 * row
    block_elements = max(2**16, min(LARGEST_BLOCK, budget // 64))
    after = (rows + results) * row + 8 * block_elements + SPECTRAL * rows**2
    whole = max(survey.saved + working + rows * row + basis, after)
    batch = min(images.shape[0], budget // max(1, whole))
    if batch >= 1:
        return MemoryPlan(batch, True, block_elements=block_elements, basis=basis)
    spectral = SPECTRAL * rows**2 + 8 * block_elements + results * row
    plan = _tight_plan(network, survey, budget, working + basis, min(rows * row, max(0, budget - spectral)), block_elements)
    return replace(plan, basis=basis)


def _tight_plan(
    network: Callable[..., Any], survey: ActivationSurvey, budget: int, working: int, rows: int, block_elements: int
) -> MemoryPlan:
    """One image at a time; where activations do not fit, blocks are recomputed and the remaining activations offloaded."""
    room = max(0, budget - working)
    kept_rows = min(rows, room // 2)
    room -= kept_rows
    if survey.saved <= room:
        return MemoryPlan(1, True, None, kept_rows, (), block_elements)
    blocks = choose_blocks(network, survey, room)
    recomputed = max((survey.inside[block] for block in blocks), default=0)
    return MemoryPlan(1, True, max(0, room - recomputed), kept_rows, tuple(blocks), block_elements)


def budget_error(budget: int, exceeded: BudgetExceededError) -> IFIMError:
    """Error that names the smallest sufficient budget."""
    fewer = f" ask for fewer components (rank=), whose basis is {_size(exceeded.basis)} of it," if exceeded.basis else ""
    return IFIMError(
        f"memory_budget is {_size(budget)} and this network needs {_size(int(1.02 * exceeded.needed))} at least for one image of "
        f"this size, with all activations and rows offloaded: raise the budget,{fewer} or use smaller images."
    )


def _size(count: int) -> str:
    return f"{-(-count // MEBIBYTE)} MiB"
