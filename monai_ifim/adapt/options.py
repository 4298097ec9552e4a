"""The settings of a decomposition, written once for inferer, transforms and command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from torch import Tensor

from monai_ifim.core import Decomposition, Head, decompose
from monai_ifim.core.heads.choice import check_head_name
from monai_ifim.core.operator.metric import Metric
from monai_ifim.core.settings import Method, Precision, Settings


class EngineOptions(TypedDict, total=False):
    """How the numbers are made, for constructors that hand these on; see `monai_ifim.decompose`."""

    tolerance: float
    memory_budget: int | str | None
    metric: Metric | float | Tensor | None
    precision: Precision | None
    seed: int


@dataclass(frozen=True)
class DecomposeOptions:
    """What `monai_ifim.decompose` takes besides network and image; see there. locality: also compute the locality radius."""

    head: str | Head = "auto"
    energy: float = 0.99
    rank: int | None = None
    method: Method = "auto"
    output_key: str | int | None = None
    locality: bool = False
    tolerance: float = 1e-4
    memory_budget: int | str | None = None
    metric: Metric | float | Tensor | None = None
    precision: Precision | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_head_name(self.head)
        checked = Settings(
            self.energy, self.rank, self.method, self.tolerance, self.memory_budget, self.metric, self.precision, self.seed
        )
        for name in ("energy", "rank", "tolerance", "memory_budget", "metric", "seed"):
            object.__setattr__(self, name, getattr(checked, name))  # plain numbers, whatever the config brought

    def decompose(
        self,
        network: Callable[..., Any],
        image: Tensor,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Decomposition:
        """Decompose a batch [B, channel, *spatial] of network inputs."""
        return decompose(
            network,
            image,
            head=self.head,
            energy=self.energy,
            rank=self.rank,
            method=self.method,
            tolerance=self.tolerance,
            memory_budget=self.memory_budget,
            metric=self.metric,
            precision=self.precision,
            seed=self.seed,
            output_key=self.output_key,
            network_args=args,
            network_kwargs=kwargs,
        )
