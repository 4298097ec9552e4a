"""`IFIMInferer`: in the place of a bundle's inferer, it predicts and decomposes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Unpack

from monai.inferers import Inferer
from torch import Tensor

from monai_ifim.adapt.components import component_tensors
from monai_ifim.adapt.options import DecomposeOptions, EngineOptions
from monai_ifim.adapt.scanner.space import ScannerSpace, decomposed_batch
from monai_ifim.core import Head
from monai_ifim.core.settings import Method


class IFIMInferer(Inferer):
    """Call the network and decompose its input, for any MONAI evaluator or bundle.

    Settings, those of `EngineOptions` among them, as `monai_ifim.decompose`; locality also computes the locality radius (some
    forward passes more). scanner: decompose, in the place of the network's input, the scan that it was made of, read again; the
    components then lie on the scan's grid, in its unit, and a batch holds one image.
    """

    def __init__(
        self,
        head: str | Head = "auto",
        energy: float = 0.99,
        rank: int | None = None,
        method: Method = "auto",
        output_key: str | int | None = None,
        locality: bool = False,
        scanner: ScannerSpace | None = None,
        **engine: Unpack[EngineOptions],
    ) -> None:
        super().__init__()
        self.options = DecomposeOptions(head, energy, rank, method, output_key, locality, **engine)
        self.scanner = scanner

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Decompose `inputs` [B, channel, *spatial]; further arguments go to the network.

        Returns batched tensors: pred (logits [B, C]), the MetaTensors ifim_high, ifim_low, ifim_sensitivity
        [B, channel, *spatial] and ifim_eigenvectors [B, r * channel, *spatial], ifim_eigenvalues [B, r], ifim_rank [B].
        Raises IFIMError where image and network do not fit.
        """
        start = time.perf_counter()
        decomposition, image = decomposed_batch(self.options, self.scanner, network, inputs, args, kwargs)
        return component_tensors(decomposition, image, self.options.locality, time.perf_counter() - start)
