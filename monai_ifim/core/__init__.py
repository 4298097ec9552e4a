"""The mathematics: heads, Jacobian products, spectra, projection. torch and the standard library only, safetensors for files."""

from monai_ifim.core.decompose import decompose
from monai_ifim.core.decomposition import Decomposition
from monai_ifim.core.errors import (
    ConvergenceWarning,
    GradientWarning,
    HeadError,
    IFIMError,
    ImageError,
    MemoryWarning,
    NetworkError,
    SpectralTieWarning,
    TrainingModeWarning,
)
from monai_ifim.core.heads import (
    BernoulliHead,
    CategoricalHead,
    GaussianHead,
    Head,
    SquareRoot,
    VoxelwiseBernoulliHead,
    VoxelwiseHead,
)
from monai_ifim.core.locality import locality_radius
from monai_ifim.core.operator.metric import GaussianLowPass, Metric, NoiseLevel
from monai_ifim.core.saturation import Saturation

__all__ = [
    "BernoulliHead",
    "CategoricalHead",
    "ConvergenceWarning",
    "Decomposition",
    "GaussianHead",
    "GaussianLowPass",
    "GradientWarning",
    "Head",
    "HeadError",
    "IFIMError",
    "ImageError",
    "MemoryWarning",
    "Metric",
    "NetworkError",
    "NoiseLevel",
    "Saturation",
    "SpectralTieWarning",
    "SquareRoot",
    "TrainingModeWarning",
    "VoxelwiseBernoulliHead",
    "VoxelwiseHead",
    "decompose",
    "locality_radius",
]
