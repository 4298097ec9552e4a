"""All networks of the zoo."""

from __future__ import annotations

from zoo.entry import Entry
from zoo.monai_classifiers import CLASSIFIERS
from zoo.monai_segmenters import SEGMENTERS
from zoo.others import FAMILIES, TRANSFORMERS

ZOO: tuple[Entry, ...] = (*CLASSIFIERS, *SEGMENTERS, *FAMILIES, *TRANSFORMERS)
