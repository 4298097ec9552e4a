"""MONAI's words for the decomposition: inferer, transforms, bundles, network checks."""

from monai_ifim.adapt.inferer import IFIMInferer
from monai_ifim.adapt.saving import SaveIFIM, SaveIFIMd, SaveIFIMD, SaveIFIMDict
from monai_ifim.adapt.transforms import IFIMDecompose, IFIMDecomposed, IFIMDecomposeD, IFIMDecomposeDict

__all__ = [
    "IFIMDecompose",
    "IFIMDecomposeD",
    "IFIMDecomposeDict",
    "IFIMDecomposed",
    "IFIMInferer",
    "SaveIFIM",
    "SaveIFIMD",
    "SaveIFIMDict",
    "SaveIFIMd",
]
