"""The segmentation of a case on the grid that its files are written on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor

from monai_ifim.adapt.components import LABELS
from monai_ifim.adapt.native import native_affine, native_shape, network_affine
from monai_ifim.io import GeometryError
from monai_ifim.io.model import output_names
from monai_ifim.io.segmentation import Segmentation, nearest_labels, segmentation


def segmentation_of(
    img: MetaTensor,
    components: Mapping[str, Any],
    stated: Mapping[str, Any] | None,
    preprocessing: Compose | None,
    class_names: Sequence[str],
    native: bool,
) -> tuple[Segmentation | None, Mapping[str, Any] | None]:
    """The segmentation among the components of one image, None if there is none, and what its record is to state of it.

    img: the network's input [channel, *spatial]. stated: of the record, by `component_tensors`. native: on the input's own grid,
    by the nearest voxel in the world; else on the network's.
    """
    labels = components.get(LABELS)
    if labels is None or stated is None:
        return None, stated
    values = labels.as_subclass(Tensor)[0].cpu().numpy()
    if native:
        try:
            of_network = network_affine(img, preprocessing)
        except GeometryError as error:
            return None, {**stated, "left_out": f"the place of the network's grid is not known: {error}"}
        values = nearest_labels(values, of_network, native_affine(img), native_shape(img))
    return segmentation(values, _names(class_names, stated["channels"]), stated["rule"]), stated


def _names(class_names: Sequence[str], channels: int) -> tuple[str, ...]:
    """The names of the channels; the second of two names for a network of one channel."""
    if channels == 1 and len(class_names) == 2:
        return (class_names[1],)
    return output_names(class_names, channels)
