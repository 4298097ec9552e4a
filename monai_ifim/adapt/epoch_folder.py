"""The folder for the files of an epoch, when results are written during a training."""

from __future__ import annotations

from dataclasses import dataclass

from monai.config import PathLike

from monai_ifim.core import IFIMError


@dataclass(frozen=True)
class EpochFolder:
    """A folder whose name may hold the number of the epoch; text: its path, by_epoch: whether it does."""

    text: str
    by_epoch: bool

    @classmethod
    def of(cls, output_dir: PathLike) -> EpochFolder:
        """Raises IFIMError for braces that hold something else than the epoch."""
        folder = cls(str(output_dir), "{epoch" in str(output_dir))
        try:
            folder.path(0)
        except (ValueError, LookupError, AttributeError) as error:
            raise IFIMError(
                f"output_dir={str(output_dir)!r}: braces hold the number of the epoch alone, '{{epoch}}' or '{{epoch:03d}}'."
            ) from error
        return folder

    def path(self, epoch: int) -> str:
        """The folder of an epoch."""
        return self.text.format(epoch=epoch) if self.by_epoch else self.text
