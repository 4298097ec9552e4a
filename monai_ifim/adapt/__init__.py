"""MONAI components for the decomposition: inferer, handler, transforms, bundles, network checks."""

from monai_ifim.adapt.grey_images import GreyImages
from monai_ifim.adapt.handler import IFIMHandler
from monai_ifim.adapt.inferer import IFIMInferer
from monai_ifim.adapt.saving import SaveIFIM, SaveIFIMD, SaveIFIMd, SaveIFIMDict
from monai_ifim.adapt.scanner.space import ScannerSpace, decompose_scan
from monai_ifim.adapt.transforms import IFIMDecompose, IFIMDecomposeD, IFIMDecomposed, IFIMDecomposeDict

__all__ = [
    "GreyImages",
    "IFIMDecompose",
    "IFIMDecomposeD",
    "IFIMDecomposeDict",
    "IFIMDecomposed",
    "IFIMHandler",
    "IFIMInferer",
    "SaveIFIM",
    "SaveIFIMD",
    "SaveIFIMDict",
    "SaveIFIMd",
    "ScannerSpace",
    "decompose_scan",
]
