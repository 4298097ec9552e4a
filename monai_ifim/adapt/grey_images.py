"""Grey images of network inputs, found by running the preprocessing again on the images' files."""

from __future__ import annotations

from typing import Any

from monai.data import MetaTensor, decollate_batch
from monai.transforms import Compose
from torch import Tensor

from monai_ifim.adapt.collation import at_own_size
from monai_ifim.adapt.input_steps import IMAGE, InputSteps, input_steps
from monai_ifim.adapt.scanner.step_checks import differ
from monai_ifim.adapt.tied_channels import NOT_LOOKED_FOR, Tie, find_tie
from monai_ifim.io import InputError

UNREAD = f"{NOT_LOOKED_FOR}: the preprocessing does not read the image from a file that its metadata name"
BESIDE = f"{NOT_LOOKED_FOR}: the preprocessing needs more than the image's file"
UNREADABLE = f"{NOT_LOOKED_FOR}: the image's file cannot be read and prepared again"
OTHER = "the input is not what the preprocessing makes of the image's file"
MIXED = "another image of its batch is not one grey image"


class GreyImages:
    """Decompose the grey image that a preprocessing made several channels of, instead of these channels.

    Each input of several channels is read and prepared again, to see whether all of its channels follow one grey image
    (`adapt.tied_channels`). Components then have one channel, that grey image's; inputs without one keep their channels, and
    their record says why.

    Args:
        preprocessing: the Compose that made the inputs, array or dictionary, with the transform that reads the file.
    """

    def __init__(self, preprocessing: Compose) -> None:
        try:
            self._steps: InputSteps | None = input_steps(preprocessing, "without a name")
        except InputError:  # one that reads no file: what its inputs were made of is not known
            self._steps = None

    def of_batch(self, batch: Tensor) -> list[Tie | str | None]:
        """The tie of each input of a batch [B, channel, *spatial], at its own size; in words why there is none; None for inputs
        of one channel. The inputs of a batch have all of them a tie, or none has."""
        if batch.shape[1] == 1:
            return [None] * len(batch)
        if not isinstance(batch, MetaTensor):
            return [UNREAD] * len(batch)
        images = decollate_batch(batch) if batch.is_batch else list(batch)
        found = [self.of_image(image) for image in images]
        if all(isinstance(tie, Tie) for tie in found):
            return found
        return [MIXED if isinstance(tie, Tie) else tie for tie in found]

    def of_image(self, image: MetaTensor) -> Tie | str | None:
        """The tie of one input [channel, *spatial] at its own size; as `of_batch`."""
        if image.shape[0] == 1:
            return None
        file = image.meta.get("filename_or_obj")
        if self._steps is None or not isinstance(file, str):
            return UNREAD
        if self._steps.beside:
            return BESIDE
        own, _ = at_own_size(image, {})
        try:
            read = self._read(self._steps, file)
            made = self._prepared(self._steps, read)
        except Exception:  # the steps are anybody's, and the file may be gone
            return UNREADABLE
        if differ(own.cpu(), made):
            return OTHER
        steps = self._steps
        found = find_tie(lambda changed: self._prepared(steps, changed), read, MetaTensor(made))
        return Tie(own, found.factors) if isinstance(found, Tie) else found

    @staticmethod
    def _read(steps: InputSteps, file: str) -> MetaTensor:
        read: Any = steps(steps.data(file, {}), end=steps.reading)[steps.file_key or IMAGE]
        return read if isinstance(read, MetaTensor) else MetaTensor(read)

    @staticmethod
    def _prepared(steps: InputSteps, read: MetaTensor) -> Tensor:
        made: Tensor = steps({steps.file_key or IMAGE: read.clone()}, start=steps.reading)[steps.input_key or IMAGE]
        return made.cpu()


def grey_batch(batch: Tensor) -> Tensor:
    """The first channels [B, 1, *spatial] of a batch, with its metadata and applied operations."""
    grey = batch.as_subclass(Tensor)[:, :1].clone()
    if not isinstance(batch, MetaTensor):
        return grey
    result = MetaTensor(grey)
    result.copy_meta_from(batch)
    result.is_batch = batch.is_batch
    return result
