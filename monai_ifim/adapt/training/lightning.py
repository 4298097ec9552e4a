"""A callback of Lightning that decomposes some images of each validation epoch and logs their numbers and pictures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Unpack

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger
from torch import Tensor, nn

from monai_ifim.adapt.batch_components import batch_components
from monai_ifim.adapt.training.metric import IFIMStatistics, Statistic
from monai_ifim.adapt.training.pictures import OverlayPictures, Picture
from monai_ifim.core import IFIMError
from monai_ifim.core.settings import Settings, SettingsShortcuts

PICTURE = "ifim_overlay"


class IFIMCallback(Callback):
    """Decompose the first images of every validation epoch; log `IFIMStatistics` and `OverlayPictures`.

    Numbers go to every logger of the trainer, pictures to TensorBoard and MLflow.

    Args:
        settings: how to decompose; by default `Settings()`.
        images: number of images of each validation epoch to decompose, the first of the data loader.
        pictures: number of these to draw.
        network: takes the Lightning module, returns the network to decompose; by default the module itself.
        batch_transform: takes a batch, returns the images [B, channel, *spatial]; by default the entry "image" of a
            dictionary, or the first of a sequence.
        statistic: as `IFIMStatistics`.
        shortcuts: fields of `Settings` (head, energy, rank, ...), which replace those of `settings`.

    Raises:
        IFIMError: invalid settings, or a batch without images.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        images: int = 8,
        pictures: int = 1,
        network: Callable[[LightningModule], nn.Module] = lambda module: module,
        batch_transform: Callable[[Any], Tensor] | None = None,
        statistic: Statistic = "median",
        **shortcuts: Unpack[SettingsShortcuts],
    ) -> None:
        if images < 1 or not 0 <= pictures <= images:
            raise IFIMError(f"images={images}, pictures={pictures}: decompose one image or more, and draw none to all of them.")
        self.settings = Settings.of(settings, shortcuts)
        self.images, self.pictures = images, pictures
        self.network = network
        self.batch_transform = batch_transform or _images_of
        self.statistics = IFIMStatistics(statistic)
        self._wanted, self._done = 0, 0  # images of the epoch
        self._drawn: list[Picture] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew; the batches by which Lightning checks a module before the training are no epoch."""
        self.statistics.reset()
        self._wanted, self._done = 0 if trainer.sanity_checking else self.images, 0
        self._drawn = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Decompose as many images of the batch as are still wanted."""
        left = self._wanted - self._done
        if left == 0 or dataloader_idx > 0:
            return
        with torch.inference_mode(False):
            images = self.batch_transform(batch)[:left].clone()  # of inference mode, which has no gradients
            components, _ = batch_components(self.settings, None, self.network(pl_module), images)
        self._done += images.shape[0]
        self.statistics(components)
        wanted = self.pictures - len(self._drawn)
        if wanted > 0:
            self._drawn += OverlayPictures()(components)[:wanted]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the numbers and pictures of the epoch."""
        if self._done == 0:
            return
        pl_module.log_dict(self.statistics.aggregate())
        for logger in trainer.loggers:
            for index, picture in enumerate(self._drawn):
                _log_picture(logger, f"{PICTURE}_{index + 1}", picture, trainer.current_epoch)


def _images_of(batch: Any) -> Tensor:
    found = batch.get("image") if isinstance(batch, Mapping) else batch[0] if isinstance(batch, (list, tuple)) else batch
    if not isinstance(found, Tensor):
        raise IFIMError(
            "the batch holds no images under 'image' or as its first entry: give batch_transform=, a function that returns them."
        )
    return found


def _log_picture(logger: Logger, name: str, picture: Picture, epoch: int) -> None:
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, picture, epoch)
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, picture.transpose(1, 2, 0), key=name, step=epoch)
    else:
        warnings.warn(f"{type(logger).__name__} gets the numbers of the decomposition, but no pictures.", stacklevel=2)
