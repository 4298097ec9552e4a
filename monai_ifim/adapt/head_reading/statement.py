"""One statement of a bundle's files on the outputs of its network, with the place where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Relation = Literal["exclusive", "independent", "amount"]
Scale = Literal["logits", "probabilities"]
Space = Literal["image", "voxel"]


@dataclass(frozen=True)
class Statement:
    """What one place says; None where it says nothing.

    place: such as "configs/inference.json: postprocessing[1] Activationsd(sigmoid=True)". relation: the outputs are classes that
    exclude one another, labels that do not, or amounts without probabilities. scale: what the network itself returns. space: one
    answer an image, or one a voxel. no_answer: what the network returns instead of such an answer.
    weak: any other statement overrules it.
    """

    place: str
    relation: Relation | None = None
    scale: Scale | None = None
    space: Space | None = None
    no_answer: str | None = None
    weak: bool = False
