"""Families of changes that people can name: placement in mm and degrees, acquisition by modality, regions, own directions."""

from monai_ifim.coordinates.acquisition import Acquisition
from monai_ifim.coordinates.directions import Directions
from monai_ifim.coordinates.placement import Placement
from monai_ifim.coordinates.regions import Regions
from monai_ifim.core.coordinates import Coordinates, Family, Place
from monai_ifim.core.finite_differences import sensitivity_along

__all__ = [
    "Acquisition",
    "Coordinates",
    "Directions",
    "Family",
    "Place",
    "Placement",
    "Regions",
    "sensitivity_along",
]
