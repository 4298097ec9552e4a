"""Heads: from a network's output to a square root of the Fisher information of that output."""

from monai_ifim.core.heads.base import Head
from monai_ifim.core.heads.bernoulli import BernoulliHead
from monai_ifim.core.heads.categorical import CategoricalHead
from monai_ifim.core.heads.gaussian import GaussianHead
from monai_ifim.core.heads.probabilities import BernoulliProbabilityHead, CategoricalProbabilityHead
from monai_ifim.core.heads.square_root import SquareRoot
from monai_ifim.core.heads.voxelwise import VoxelwiseBernoulliHead, VoxelwiseHead

__all__ = [
    "BernoulliHead",
    "BernoulliProbabilityHead",
    "CategoricalHead",
    "CategoricalProbabilityHead",
    "GaussianHead",
    "Head",
    "SquareRoot",
    "VoxelwiseBernoulliHead",
    "VoxelwiseHead",
]
