"""The decomposition in training logs: metrics, pictures, and a callback of Lightning."""

from monai_ifim.adapt.training.metric import IFIMMetric, IFIMStatistics
from monai_ifim.adapt.training.overlay_files import OverlayFiles
from monai_ifim.adapt.training.pictures import OverlayPictures, no_pictures

__all__ = ["IFIMMetric", "IFIMStatistics", "OverlayFiles", "OverlayPictures", "no_pictures"]
