"""What the statements of a bundle amount to: one head, a guess that is said, or a refusal with its cure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from monai_ifim.adapt.head_reading.result import WORDS, HeadReading
from monai_ifim.adapt.head_reading.statement import Relation, Scale, Space, Statement

HEADS: dict[tuple[Space, Relation, Scale], str] = {
    ("image", "exclusive", "logits"): "categorical",
    ("image", "exclusive", "probabilities"): "probabilities",
    ("image", "independent", "logits"): "bernoulli",
    ("image", "independent", "probabilities"): "bernoulli_probabilities",
    ("image", "amount", "logits"): "gaussian",
    ("voxel", "exclusive", "logits"): "volumes",
    ("voxel", "independent", "logits"): "volumes_bernoulli",
}
Field = Literal["relation", "scale", "space"]


def conclude(statements: Sequence[Statement], outputs: int | None = None) -> HeadReading:
    """The reading that the statements, strongest first, amount to; outputs: their number, where that is stated."""
    unanswerable = next((one for one in statements if one.no_answer), None)
    if unanswerable is not None:
        return HeadReading(sources=(unanswerable.place,), refusal=_without_answer(unanswerable))
    for field in get_args(Field):
        pair = _contradiction(statements, field)
        if pair is not None:
            return HeadReading(sources=(pair[0].place, pair[1].place), refusal=_contradicting(pair, field, statements))
    relation: Relation | None = _said(statements, "relation")
    space: Space | None = _said(statements, "space")
    scale: Scale = _said(statements, "scale") or "logits"
    supporting = sorted((one for one in statements if _supports(one, relation, space)), key=lambda one: one.weak)
    places = tuple(dict.fromkeys(one.place for one in supporting))
    if relation is None and space == "voxel" and outputs != 1:
        return HeadReading(space=space, sources=places, refusal=_undecided(places))
    assumed = _assumed(statements, relation, space)
    if relation is None and space != "voxel":
        return HeadReading(space=space, sources=places, guess=assumed)
    relation = relation or "independent"
    head = HEADS.get((space or "image", relation, scale))
    if head is None:
        return HeadReading(relation=relation, space=space, sources=places, refusal=_unsupported(relation, statements))
    return HeadReading(head, relation, space, places, assumed)


def _assumed(statements: Sequence[Statement], relation: Relation | None, space: Space | None) -> str:
    """What is taken for granted without a statement; empty if nothing is."""
    if relation is None:
        if space == "voxel":
            return "one output a voxel is the logit of one label"
        return "outputs that end in no activation are the logits of classes that exclude one another"
    if not any(one.relation is not None and not one.weak for one in statements):
        return f"the outputs are {WORDS[relation]}, of which there are signs only"
    return WORDS["image"] if relation == "amount" and space is None else ""


def _said(statements: Sequence[Statement], field: Field) -> Any:
    """What the first statement says that is not weak, or else the first."""
    saying = [one for one in statements if getattr(one, field) is not None]
    chosen = next((one for one in saying if not one.weak), next(iter(saying), None))
    return None if chosen is None else getattr(chosen, field)


def _supports(one: Statement, relation: Relation | None, space: Space | None) -> bool:
    return (one.relation is not None and one.relation == relation) or (one.space is not None and one.space == space)


def _contradiction(statements: Sequence[Statement], field: Field) -> tuple[Statement, Statement] | None:
    """Two statements, neither of them weak, that differ."""
    saying = [one for one in statements if getattr(one, field) is not None and not one.weak]
    other = next((one for one in saying[1:] if getattr(one, field) != getattr(saying[0], field)), None)
    return None if other is None else (saying[0], other)


def _contradicting(pair: tuple[Statement, Statement], field: Field, statements: Sequence[Statement]) -> str:
    said = [f"{one.place} says {WORDS[getattr(one, field)]}" for one in pair]
    heads = [_head_for(statements, **{field: getattr(one, field)}) for one in pair]
    cure = " or ".join(f"head='{head}'" for head in dict.fromkeys(heads) if head is not None)
    return f"the bundle contradicts itself: {said[0]}, {said[1]}: correct one of them, or state what the outputs are, {cure}."


def _head_for(statements: Sequence[Statement], **decided: Any) -> str | None:
    """The head if one field is decided, and the others are as said."""
    relation, scale, space = (decided.get(field) or _said(statements, field) for field in get_args(Field))
    return HEADS.get((space or "image", relation or "exclusive", scale or "logits"))


def _undecided(places: Sequence[str]) -> str:
    return (
        f"nothing in the bundle says whether its labels exclude one another ({'; '.join(places)}): state it, head='volumes' if "
        "they do (a softmax at every voxel), or head='volumes_bernoulli' if they may overlap (a sigmoid for each)."
    )


def _unsupported(relation: Relation, statements: Sequence[Statement]) -> str:
    if relation == "amount":
        places = "; ".join(one.place for one in statements if one.relation == "amount")
        return (
            f"the network answers with an amount at every voxel ({places}), and the heads at every voxel are for labels: write a "
            "head for it and pass it in Python."
        )
    place = next(one.place for one in statements if one.scale == "probabilities")
    return f"{place} makes probabilities at every voxel where logits are expected: remove it from network_def."


def _without_answer(one: Statement) -> str:
    return (
        f"{one.place}: the network returns {one.no_answer}, and not classes, labels or amounts that belong to an image or its "
        "voxels. If one of its outputs is such an answer, name it with output_key=, and state what it is with head=."
    )
