"""The settings of a decomposition, written once for inferer, transforms and command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from monai_ifim.core import Decomposition, Head, decompose
from monai_ifim.core.decompose import Method, check_method
from monai_ifim.core.head_choice import check_head_name
from monai_ifim.core.spectrum import check_selection


@dataclass(frozen=True)
class DecomposeOptions:
    """What `monai_ifim.decompose` takes besides network and image; see there. locality: also compute the locality radius."""

    head: str | Head = "auto"
    energy: float = 0.99
    rank: int | None = None
    method: Method = "auto"
    output_key: str | int | None = None
    locality: bool = False

    def __post_init__(self) -> None:
        energy, rank = check_selection(self.energy, self.rank)
        object.__setattr__(self, "energy", energy)  # plain numbers, whatever the config brought
        object.__setattr__(self, "rank", rank)
        check_method(self.method)
        check_head_name(self.head)

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
            output_key=self.output_key,
            network_args=args,
            network_kwargs=kwargs,
        )
