"""What `core` raises and warns with: every message says what, where, and the cure."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path


class IFIMError(ValueError):
    """A decomposition that cannot be done as asked; the message names the cure."""


class ImageError(IFIMError):
    """The image is not one that can be decomposed."""


class NetworkError(IFIMError):
    """The network is not one whose Fisher information can be computed."""


class HeadError(IFIMError):
    """The network's output does not fit the head it was promised to have."""


class SpectralTieWarning(UserWarning):
    """The kept subspace cuts through (nearly) equal eigenvalues and so is not unique."""


class TrainingModeWarning(UserWarning):
    """The network was in train mode; it was evaluated in eval mode and its mode restored."""


class ConvergenceWarning(UserWarning):
    """The iteration stopped before every component asked for was found to the tolerance."""


class MemoryWarning(UserWarning):
    """Memory ran short on the device; the computation goes on with less of it at a time, and slower."""


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn at the line outside of this floor that called it, however deep the warning arises."""
    floor, level = str(Path(__file__).parent), 2
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(floor):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
