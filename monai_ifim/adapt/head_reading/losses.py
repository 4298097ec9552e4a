"""What the losses of a training config say of the network's outputs."""

from __future__ import annotations

from collections.abc import Iterable

from monai_ifim.adapt.head_reading.components import Component
from monai_ifim.adapt.head_reading.statement import Relation, Scale, Space, Statement

_NAMED: dict[str, tuple[Relation, Scale | None]] = {
    "CrossEntropyLoss": ("exclusive", "logits"),
    "cross_entropy": ("exclusive", "logits"),
    "NLLLoss": ("exclusive", "logits"),  # log-probabilities are logits
    "BCEWithLogitsLoss": ("independent", "logits"),
    "binary_cross_entropy_with_logits": ("independent", "logits"),
    "MultiLabelSoftMarginLoss": ("independent", "logits"),
    "BCELoss": ("independent", "probabilities"),
    "binary_cross_entropy": ("independent", "probabilities"),
    "MSELoss": ("amount", None),
    "L1Loss": ("amount", None),
    "SmoothL1Loss": ("amount", None),
    "HuberLoss": ("amount", None),
}
_OF_MAPS = ("Dice", "Tversky", "Jaccard", "IoU", "Hausdorff")
_MONAI_FOCAL = "FocalLoss"  # a sigmoid, unless use_softmax


def said_by_losses(components: Iterable[Component]) -> list[Statement]:
    """Statements of the losses among the components."""
    return [statement for one in components if (statement := _said(one)) is not None]


def _said(one: Component) -> Statement | None:
    if one.name in _NAMED:
        relation, scale = _NAMED[one.name]
        return Statement(one.place, relation=relation, scale=scale)
    if not one.name.endswith("Loss"):
        return None
    space: Space | None = "voxel" if any(word in one.name for word in _OF_MAPS) else None
    if one.says("softmax") or one.says("use_softmax"):
        return Statement(one.place, relation="exclusive", scale="logits", space=space)
    focal = one.name == _MONAI_FOCAL and not one.says("to_onehot_y")
    if one.says("sigmoid") or focal:
        return Statement(one.place, relation="independent", scale="logits", space=space)
    relation_of_labels: Relation | None = "exclusive" if one.says("to_onehot_y") else None
    if relation_of_labels is None and space is None:
        return None
    return Statement(one.place, relation=relation_of_labels, space=space, weak=relation_of_labels is not None)
