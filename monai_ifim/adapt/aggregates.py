"""Predictors made of several passes - ensembles, test-time augmentation, windows - each as one network.

Their Fisher information is that of the whole predictor: a gradient flows through every pass.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from monai.data.utils import dense_patch_slices
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from monai_ifim.core import HeadError, NetworkError
from monai_ifim.core.heads.bernoulli import BernoulliHead
from monai_ifim.core.heads.categorical import CategoricalHead
from monai_ifim.core.heads.outputs import last_operation
from monai_ifim.core.heads.voxelwise import VoxelwiseBernoulliHead, VoxelwiseHead
from monai_ifim.core.operator.predictor import MapOutputError, Predictor

Mean = Literal["softmax", "sigmoid", "output"]
LOGIT_HEADS = {"softmax": (CategoricalHead, VoxelwiseHead), "sigmoid": (BernoulliHead, VoxelwiseBernoulliHead)}


class Average(nn.Module, ABC):
    """The mean of several passes over one image; a subclass says which passes.

    mean: "softmax" averages the probabilities of exclusive classes and returns their logarithm, "sigmoid" those of independent
    labels and returns their logit (decompose with head="bernoulli"): both are logits of the mean that keep their digits.
    "output" averages what the passes return: logits, or probabilities (decompose with head="probabilities").
    output_key: as `monai_ifim.decompose` takes it, for each pass. spatial: the passes give maps [B, C, *spatial], as those of a
    segmentation, and the mean is one of every voxel.
    """

    def __init__(self, mean: Mean = "softmax", output_key: str | int | None = None, spatial: bool = False) -> None:
        super().__init__()
        if mean not in get_args(Mean):
            raise HeadError(f"unknown mean {mean!r}: choose one of {', '.join(map(repr, get_args(Mean)))}.")
        self.mean: Mean = mean
        self.output_key = output_key
        self.spatial = spatial

    maps_cure: ClassVar[str] = "give spatial=True"

    @abstractmethod
    def passes(self, image: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
        """The output [B, C], or map, of each pass over `image` [B, channel, *spatial]."""

    def forward(self, image: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The mean [B, C], or [B, C, *spatial]; further arguments go to every pass.

        Raises NetworkError or HeadError where a pass returns something else than `mean` takes.
        """
        return mean_of(torch.stack(list(self.passes(image, args, kwargs))), self.mean)

    def predictor(self, network: nn.Module, batch: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[..., Tensor]:
        """`network` as a function of its image alone that returns [B, C], or a map, and refuses what `mean` does not take."""
        predict = Predictor(network, batch, self.output_key, args, kwargs, spatial=self.spatial)

        def checked(image: Tensor) -> Tensor:
            try:
                output = predict(image)
            except MapOutputError as error:
                raise NetworkError(f"the passes give maps, one answer a voxel: {self.maps_cure}.") from error
            if self.mean in LOGIT_HEADS:
                try:
                    LOGIT_HEADS[self.mean][self.spatial]().validate(output, last_operation(output, predict.bare))
                except HeadError as error:
                    raise HeadError(
                        f"mean={self.mean!r} needs a network whose outputs are logits, and this network's are not: choose "
                        "mean='output' for probabilities, mean='sigmoid' for one logit or independent labels."
                    ) from error
            return output

        return checked


class EnsembleAverage(Average):
    """The mean of several networks' answers to one image.

    networks: members, each a module with its weights; mean, output_key, spatial: see `Average`.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        mean: Mean = "softmax",
        output_key: str | int | None = None,
        spatial: bool = False,
    ) -> None:
        super().__init__(mean, output_key, spatial)
        if len(networks) == 0:
            raise NetworkError("the ensemble has no networks: give one or more.")
        self.networks = nn.ModuleList(networks)

    def passes(self, image: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
        """See `Average`; one pass a member."""
        for network in self.networks:
            yield self.predictor(network, image.shape[0], args, kwargs)(image)


class SingleNetworkAverage(Average):
    """The mean of several passes of one network; it also loads a checkpoint of that network alone."""

    def __init__(
        self, network: nn.Module, mean: Mean = "softmax", output_key: str | int | None = None, spatial: bool = False
    ) -> None:
        super().__init__(mean, output_key, spatial)
        self.network = network
        self.register_load_state_dict_pre_hook(_name_as_inner)  # type: ignore[no-untyped-call]


class AugmentedAverage(SingleNetworkAverage):
    """The mean of a network's answers to several fixed changes of one image: test-time augmentation.

    augmentations: functions of images [B, channel, *spatial], differentiable and without chance, in a config for instance
    `$lambda x: x.flip(-1)`; the image as it is counts only where `$lambda x: x` is among them. restorations: for maps, one for
    each augmentation, that takes the map of its answer back to the image's own grid (of a flip the same flip). mean, output_key:
    see `Average`.
    """

    maps_cure: ClassVar[str] = "give restorations, one for each augmentation, that take each map back to the image's grid"

    def __init__(
        self,
        network: nn.Module,
        augmentations: Sequence[Callable[[Tensor], Tensor]],
        mean: Mean = "softmax",
        output_key: str | int | None = None,
        restorations: Sequence[Callable[[Tensor], Tensor]] = (),
    ) -> None:
        super().__init__(network, mean, output_key, spatial=len(restorations) > 0)
        if len(augmentations) == 0:
            raise NetworkError("there are no augmentations: give one or more (lambda x: x leaves the image unchanged).")
        if len(restorations) not in (0, len(augmentations)):
            raise NetworkError(f"{len(restorations)} restorations for {len(augmentations)} augmentations: give one for each.")
        self.augmentations, self.restorations = tuple(augmentations), tuple(restorations)

    def passes(self, image: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
        """See `Average`; one pass an augmentation."""
        predict = self.predictor(self.network, image.shape[0], args, kwargs)
        for number, augment in enumerate(self.augmentations):
            answer = predict(augment(image))
            yield self.restorations[number](answer) if self.spatial else answer


class PatchAverage(SingleNetworkAverage):
    """The mean of a network's answers to all windows of one image, placed as MONAI's SlidingWindowInferer places them.

    roi_size: of a window, one number or one an axis; 0 or less takes the whole axis. An image smaller than the window is padded
    with zeros. overlap: of neighbouring windows, a share of their size in [0, 1). recompute: keep the activations of one window
    at a time, for one more forward pass in each vector-Jacobian product. mean, output_key: see `Average`. Maps are not averaged
    but laid side by side: `InferredNetwork` with MONAI's SlidingWindowInferer.
    """

    maps_cure: ClassVar[str] = "use monai_ifim.adapt.inferred_network.InferredNetwork with MONAI's SlidingWindowInferer"

    def __init__(
        self,
        network: nn.Module,
        roi_size: Sequence[int] | int,
        overlap: float = 0.25,
        mean: Mean = "softmax",
        output_key: str | int | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__(network, mean, output_key)
        if not 0 <= overlap < 1:
            raise NetworkError(f"overlap {overlap}: give the share of a window's size, from 0 on and below 1.")
        self.roi_size = roi_size if isinstance(roi_size, int) else tuple(roi_size)
        self.overlap = overlap
        self.recompute = recompute

    def passes(self, image: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
        """See `Average`; one pass a window, all images of the batch together. Raises NetworkError for another number of axes."""
        predict = self.predictor(self.network, image.shape[0], args, kwargs)
        size = self._window(image)
        image = functional.pad(image, _margins(image.shape[2:], size))
        steps = tuple(
            whole if whole == edge else max(1, int(edge * (1 - self.overlap)))
            for whole, edge in zip(image.shape[2:], size, strict=True)
        )
        for place in dense_patch_slices(tuple(image.shape[2:]), size, steps):
            window = image[(slice(None), slice(None), *place)]
            yield checkpoint(predict, window, use_reentrant=False) if self.recompute else predict(window)

    def _window(self, image: Tensor) -> tuple[int, ...]:
        axes = image.ndim - 2
        if not isinstance(self.roi_size, int) and len(self.roi_size) != axes:
            raise NetworkError(
                f"roi_size {self.roi_size} has {len(self.roi_size)} axes and the image {axes}: give one size for each axis."
            )
        sizes = ensure_tuple_rep(self.roi_size, axes)
        return tuple(edge if edge > 0 else whole for edge, whole in zip(sizes, image.shape[2:], strict=True))


def mean_of(outputs: Tensor, mean: Mean) -> Tensor:
    """The mean [B, C] of N passes [N, B, C], or that of maps [N, B, C, *spatial]; see `Average` for `mean`."""
    if mean == "softmax":
        return functional.log_softmax(outputs, dim=2).logsumexp(0) - math.log(outputs.shape[0])
    if mean == "sigmoid":
        return functional.logsigmoid(outputs).logsumexp(0) - functional.logsigmoid(-outputs).logsumexp(0)
    return outputs.mean(0)


def _margins(whole: Sequence[int], window: Sequence[int]) -> list[int]:
    """Padding before and after each axis, last axis first, that makes an image at least as large as a window."""
    lacking = [max(0, edge - size) for size, edge in zip(whole, window, strict=True)]
    return [count for lack in reversed(lacking) for count in (lack // 2, lack - lack // 2)]


def _name_as_inner(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Prefix 'network.' to the names in `state` if they are those of the inner network alone."""
    inner = set(module.network.state_dict())  # type: ignore[union-attr]
    if {prefix + name for name in inner} == {name for name in state if name.startswith(prefix)}:
        for name in inner:
            state[f"{prefix}network.{name}"] = state.pop(prefix + name)
