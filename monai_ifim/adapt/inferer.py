"""`IFIMInferer`: replaces a bundle's inferer; it predicts and decomposes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Unpack

from monai.inferers import Inferer
from torch import Tensor

from monai_ifim.adapt.batch_components import batch_components
from monai_ifim.adapt.grey_images import GreyImages
from monai_ifim.adapt.inferred_network import called_by, dividing_inferer
from monai_ifim.adapt.random_steps import RandomStepWarning, drawn_steps
from monai_ifim.adapt.scanner.space import ScannerSpace
from monai_ifim.core import IFIMError
from monai_ifim.core.settings import Settings, SettingsShortcuts


class IFIMInferer(Inferer):
    """Call the network and decompose its input, for any MONAI evaluator or bundle.

    Args:
        settings: how to decompose; by default `Settings()`.
        inferer: how the network is called: a SlidingWindowInferer; by default on the whole image.
        scanner: decompose the scan, read again, instead of the network's input that was made of it; the components then
            lie on the scan's grid, in its unit, and a batch holds one image.
        grey: decompose the grey image that the network's input of several channels was made of, where it was made of one; with
            `scanner`, the scan has the channels that it has.
        shortcuts: fields of `Settings` (head, energy, rank, ...), which replace those of `settings`.

    Raises:
        IFIMError: invalid settings, or an unknown name among the shortcuts.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        inferer: Inferer | None = None,
        scanner: ScannerSpace | None = None,
        grey: GreyImages | None = None,
        **shortcuts: Unpack[SettingsShortcuts],
    ) -> None:
        super().__init__()
        given = type(settings) if isinstance(settings, Settings) else Settings
        self.settings = given.of(settings, shortcuts)
        self.inferer = dividing_inferer(inferer, "IFIMInferer", "leave inferer out, or pass a SlidingWindowInferer")
        if grey is not None and getattr(self.settings, "channels", "tied") == "each":
            raise IFIMError("channels='each' in the settings asks for maps of each channel: leave grey out, or channels.")
        self.instead = scanner or grey

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Decompose `inputs` [B, channel, *spatial]; further arguments go to the network.

        Returns batched tensors: pred (logits [B, C]), the MetaTensors ifim_high, ifim_low, ifim_sensitivity
        [B, channel, *spatial] and ifim_eigenvectors [B, r * channel, *spatial], ifim_eigenvalues [B, r], ifim_rank [B]; with one
        channel where `grey` found that the input is one grey image.
        Of a network that labels voxels also the MetaTensor ifim_labels [B, 1, *spatial], its segmentation.
        Images that `pad_list_data_collate` padded are decomposed each at its own size; their maps are padded by zeros again.
        Raises IFIMError where image and network do not fit.
        """
        drawn = drawn_steps(inputs)
        if drawn:
            warnings.warn(
                f"{', '.join(drawn)} changed the image at random: its components belong to the augmented image.",
                RandomStepWarning,
                stacklevel=2,
            )
        called = called_by(self.inferer, network)
        return batch_components(self.settings, self.instead, called, inputs, args, kwargs)[0]
