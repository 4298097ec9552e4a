"""Errors and warnings of `core`. Every message says what is wrong, where, and the cure."""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path


class IFIMError(ValueError):
    """Base of the errors: the decomposition cannot be done as asked; the message names the cure."""


class ImageError(IFIMError):
    """The image cannot be decomposed."""


class NetworkError(IFIMError):
    """The Fisher information of this network cannot be computed."""


class HeadError(IFIMError):
    """The network's output does not fit the head."""


class SpectralTieWarning(UserWarning):
    """The selection cuts between (nearly) equal eigenvalues, so the kept subspace is not unique."""


class TrainingModeWarning(UserWarning):
    """The network was in train mode; it was evaluated in eval mode, and its mode was restored."""


class ConvergenceWarning(UserWarning):
    """The iteration stopped before every requested component was within the tolerance."""


class GradientWarning(UserWarning):
    """The network's derivatives disagree with differences of its output: what is decomposed is not the network's answer."""


class MemoryWarning(UserWarning):
    """The device's memory was full; the computation continues with less of it, more slowly."""


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn at the line outside of `core` that called it, from any depth of calls and context managers."""
    inside, level = (str(Path(__file__).parent), contextlib.__file__), 2
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
