"""Pictures of the sensitivity as PNG files, one set an epoch, for loggers that take files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events
from monai.config import PathLike
from PIL import Image

from monai_ifim.adapt.training.pictures import OverlayPictures, Picture
from monai_ifim.core import IFIMError
from monai_ifim.io import atomic


class OverlayFiles:
    """Handler that writes the overlays of the first images of each epoch as PNG files.

    For MONAI's MLFlowHandler, which logs files: `MLFlowHandler(artifacts=[folder])`, with this handler on the same evaluator.
    The files are FOLDER/ifim_overlay_epoch-0001_image-1.png and so on.

    folder: made where it is missing. images: number of pictures an epoch. channel: as `OverlayPictures`. Raises IFIMError for
    fewer images than one.
    """

    def __init__(self, folder: PathLike, images: int = 1, channel: int = 0) -> None:
        if images < 1:
            raise IFIMError(f"images={images}: draw one image of each epoch or more.")
        self.folder, self.images = Path(folder), images
        self.pictures = OverlayPictures(channel)
        self._drawn = 0

    def attach(self, engine: Engine) -> None:
        """Listen to the starts of epochs and the ends of iterations."""
        if engine.has_event_handler(self._start, Events.EPOCH_STARTED):
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._draw)

    def _start(self, engine: Engine) -> None:
        self._drawn = 0

    def _draw(self, engine: Engine) -> None:
        left = self.images - self._drawn
        if left == 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for picture in self.pictures(engine.state.output)[:left]:
            self._drawn += 1
            name = f"ifim_overlay_epoch-{engine.state.epoch:04d}_image-{self._drawn}.png"
            atomic.write_bytes(self.folder / name, _png(picture))


def _png(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    pixels = np.rint(255 * picture.transpose(1, 2, 0)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
