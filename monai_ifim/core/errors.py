"""What `core` raises and warns with: every message says what, where, and the cure."""

from __future__ import annotations


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
