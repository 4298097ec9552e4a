"""Limits on one input: voxels, bytes and seconds. What exceeds one is refused before it is unpacked."""

from __future__ import annotations

from dataclasses import dataclass

from monai_ifim.io.errors import InputError
from monai_ifim.options import LIMITS

CURE = "if the image is what you expect, give {option} {enough} (or 0 for no limit)"


class LimitError(InputError):
    """An input that exceeds a limit."""


@dataclass(frozen=True)
class Size:
    """How large an image is. voxels: times channels and frames; bytes: of these voxels, unpacked, as the file stores them."""

    voxels: int
    bytes: int


@dataclass(frozen=True)
class Limits:
    """Limits on one case, 0 for none. voxels: of the image as read, and as prepared for the network, times channels.

    bytes: of the image unpacked. seconds: of reading and preparing it, and of computing its components. Raises InputError for a
    negative limit.
    """

    voxels: int = LIMITS["max_voxels"].default
    bytes: int = LIMITS["max_bytes"].default
    seconds: float = LIMITS["max_seconds"].default

    def __post_init__(self) -> None:
        for name in ("voxels", "bytes", "seconds"):
            if not getattr(self, name) >= 0:
                raise InputError(f"limit of {getattr(self, name)} {name}: give a number from 0 on; 0 is no limit.")

    def check(self, name: str, size: Size) -> None:
        """Raise LimitError, with the size and the option that lifts the limit, if an image is too large."""
        self.check_voxels(name, size.voxels)
        if self.bytes and size.bytes > self.bytes:
            cure = CURE.format(option="--max-bytes", enough=size.bytes)
            raise LimitError(f"{name}: {size.bytes} bytes when unpacked, more than the limit of {self.bytes}: {cure}.")

    def check_voxels(self, name: str, voxels: int, stage: str = "") -> None:
        """Raise LimitError for more voxels than the limit. stage: what the image has them for, such as "when resampled"."""
        if self.voxels and voxels > self.voxels:
            cure = CURE.format(option="--max-voxels", enough=voxels)
            when = f" {stage}" if stage else ""
            raise LimitError(f"{name}: {voxels} voxels{when}, more than the limit of {self.voxels}: {cure}.")

    def too_slow(self, doing: str) -> LimitError:
        """The error of a case that takes longer than the limit. doing: such as "reading it"."""
        cure = CURE.format(option="--max-seconds", enough="a larger number")
        return LimitError(f"{doing} takes longer than the limit of {self.seconds:g} s: {cure}.")


NO_LIMITS = Limits(0, 0, 0)
