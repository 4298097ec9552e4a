"""The mathematics: heads, Jacobian products, spectra, projection. torch and the standard library only."""

from monai_ifim.core.decompose import decompose
from monai_ifim.core.decomposition import Decomposition
from monai_ifim.core.errors import (
    HeadError,
    IFIMError,
    ImageError,
    NetworkError,
    SpectralTieWarning,
    TrainingModeWarning,
)
from monai_ifim.core.heads import BernoulliHead, CategoricalHead, GaussianHead, Head, SquareRoot

__all__ = [
    "BernoulliHead",
    "CategoricalHead",
    "Decomposition",
    "GaussianHead",
    "Head",
    "HeadError",
    "IFIMError",
    "ImageError",
    "NetworkError",
    "SpectralTieWarning",
    "SquareRoot",
    "TrainingModeWarning",
    "decompose",
]
