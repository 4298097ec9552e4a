"""What is true of a test image: the number of its class, or, of independent labels, whether each of them holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from monai_ifim.core import IFIMError

__all__ = ["UNKNOWN", "Label", "class_texts", "known_label", "label_of"]

UNKNOWN = -1  # as in CheXpert's tables, where -1 is an uncertain finding and an empty field one that was not mentioned
Label = int | tuple[int, ...]


def label_of(label: Any, class_names: Sequence[str], where: str) -> Label:
    """The label of a datalist's entry: a class name or its index, or a list with 0, 1 or unknown for each label.

    Unknown is -1, null or NaN. where: for messages. Raises IFIMError, with the cure, for anything else.
    """
    if isinstance(label, (list, tuple)) and len(label) > 1:
        return _vector(label, class_names, where)
    if isinstance(label, str) and label in class_names:
        return list(class_names).index(label)
    if isinstance(label, (list, tuple)) and len(label) == 1:
        label = label[0]
    if isinstance(label, bool) or not isinstance(label, (int, float)) or not float(label).is_integer():
        raise IFIMError(
            f"{where}: label {label!r} is neither one of {list(class_names)} nor their index. Of independent labels give a list "
            "with 0, 1 or -1 (unknown) for each."
        )
    if not 0 <= label < len(class_names):
        raise IFIMError(f"{where}: label {label!r}, and the classes are numbered 0 to {len(class_names) - 1}.")
    return int(label)


def known_label(label: Label) -> Label | None:
    """The label; None where nothing of it is known."""
    if isinstance(label, tuple):
        return label if any(value != UNKNOWN for value in label) else None
    return label if label != UNKNOWN else None


def class_texts(label: Label, class_names: Sequence[str]) -> str:
    """The label in words: the class, or the labels that hold."""
    if isinstance(label, int):
        return class_names[label] if 0 <= label < len(class_names) else "unknown"
    if known_label(label) is None:
        return "unknown"
    return ", ".join(name for name, value in zip(class_names, label, strict=True) if value == 1) or "none of the labels"


def _vector(label: Sequence[Any], class_names: Sequence[str], where: str) -> tuple[int, ...]:
    if len(label) != len(class_names):
        raise IFIMError(
            f"{where}: its label has {len(label)} entries, and {len(class_names)} labels are named "
            f"({', '.join(class_names[:3])}{' ...' if len(class_names) > 3 else ''}): give one of 0, 1 or -1 (unknown) for each, "
            "in the order of class_names."
        )
    found = tuple(_entry(value) for value in label)
    if None in found:
        wrong = label[found.index(None)]
        raise IFIMError(f"{where}: its label holds {wrong!r}: give 0, 1, or -1 (also null or NaN) where it is not known.")
    return tuple(value for value in found if value is not None)


def _entry(value: Any) -> int | None:
    """0, 1 or UNKNOWN; None for what is none of them."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNKNOWN
    if isinstance(value, (bool, int, float)) and value in (0, 1, UNKNOWN):
        return int(value)
    return None
