"""`IFIMDecompose` and its dictionary twin: a decomposition inside a chain of MONAI transforms."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar, Unpack

import torch
from monai.config import KeysCollection
from monai.transforms.transform import MapTransform, Transform
from monai.utils import TransformBackends
from torch import Tensor

from monai_ifim.adapt.components import item_of_batch, padded_rank
from monai_ifim.adapt.grey_images import GreyImages
from monai_ifim.adapt.inferer import IFIMInferer
from monai_ifim.core import IFIMError
from monai_ifim.core.settings import Settings, SettingsShortcuts

MOST_PADDED = 32  # outputs: each costs an image more


class IFIMDecompose(Transform):
    """Decompose one image [channel, *spatial] by the iFIM of `network`; settings, grey, shortcuts: as `IFIMInferer`.

    device: where to compute; the image's own device by default. The network must be there already.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(
        self,
        network: Callable[..., Any],
        settings: Settings | None = None,
        *,
        device: torch.device | str | None = None,
        grey: GreyImages | None = None,
        **shortcuts: Unpack[SettingsShortcuts],
    ) -> None:
        self.network = network
        self.device = device
        self.inferer = IFIMInferer(settings, grey=grey, **shortcuts)

    def __call__(self, img: Tensor) -> dict[str, Tensor]:
        """The tensors of `IFIMInferer` for this one image, without the batch axis.

        Eigenvalues and eigenvectors are padded by zeros to the asked rank, or without one to the number of outputs (up to
        MOST_PADDED), so that the images of a loader form a batch whatever their ranks.
        """
        batch = img[None] if self.device is None else img[None].to(self.device)
        found = item_of_batch(self.inferer(batch, self.network), 0, img)
        return padded_rank(found, self._most(found["pred"]), found["ifim_high"].shape[0])

    def _most(self, pred: Tensor) -> int:
        """Number of eigenvalues that an image of this network can have: that of the outputs, where they are few."""
        asked = self.inferer.settings.resolved.rank
        if asked is not None:
            return asked
        return len(pred) if pred.ndim == 1 and len(pred) <= MOST_PADDED else 0


class IFIMDecomposed(MapTransform):
    """Dictionary twin of `IFIMDecompose`: adds ifim_high, ifim_low, ifim_sensitivity, ifim_eigenvectors, ifim_eigenvalues
    and ifim_rank to the data, of a segmentation ifim_labels too, and of an estimated sensitivity ifim_sensitivity_error; each
    under a prefix of its own where several images are decomposed.

    prefix: one name for each key, instead of "ifim"; needed for more than one key. Raises IFIMError where
    two keys would write the same names.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection,
        network: Callable[..., Any],
        settings: Settings | None = None,
        *,
        device: torch.device | str | None = None,
        grey: GreyImages | None = None,
        prefix: KeysCollection = "ifim",
        allow_missing_keys: bool = False,
        **shortcuts: Unpack[SettingsShortcuts],
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        names = [prefix] if isinstance(prefix, str) else list(prefix)
        if len(names) != len(self.keys) or len(set(names)) != len(names):
            raise IFIMError(
                f"{len(self.keys)} keys and the prefixes {names}: give every key a prefix of its own, for example "
                f"prefix={[f'{key}_ifim' for key in self.keys]}."
            )
        self.prefix = dict(zip(self.keys, names, strict=True))
        self.transform = IFIMDecompose(network, settings, device=device, grey=grey, **shortcuts)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The data with the components added; the image itself is left as it is."""
        result = dict(data)
        for key in self.key_iterator(result):
            for name, values in self.transform(result[key]).items():
                if name != "pred":
                    result[f"{self.prefix[key]}{name.removeprefix('ifim')}"] = values
        return result


IFIMDecomposeD = IFIMDecomposeDict = IFIMDecomposed
