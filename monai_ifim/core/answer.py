"""What is asked of a network's answer: the head, its tolerance, and the part of the answer that counts.

Settings say what is asked; `AnswerFacts` holds what is known of the images besides their values, and so differs between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from monai_ifim.core.coordinates import Place
from monai_ifim.core.errors import HeadError, IFIMError
from monai_ifim.core.heads.answer_mask import RESTORE, AnswerMask
from monai_ifim.core.heads.base import Head
from monai_ifim.core.heads.choice import resolve_head
from monai_ifim.core.heads.registry import head_class, head_from
from monai_ifim.core.heads.restricted import RestrictedHead, restricted
from monai_ifim.core.heads.volumes import VolumesOfLabels
from monai_ifim.core.settings import Settings

MOST_NAMED = 24  # labels in a message


@dataclass(frozen=True)
class AnswerFacts:
    """What is known of a batch of images besides their values.

    grid: sizes of the network's input. voxel_volume: ml that a voxel of it takes up in each image, [B] float64, None where that
    is not known. class_names: in the order of the network's outputs, empty if unknown. mask: where the answer counts,
    bool [B, *spatial] on `grid` or on the output's, None for what the settings say. places: where and of which modality each
    image is, for named coordinates; empty if unknown.
    """

    grid: tuple[int, ...] = ()
    voxel_volume: Tensor | None = None
    class_names: tuple[str, ...] = ()
    mask: Tensor | None = None
    places: tuple[Place, ...] = ()

    def of_batch(self, image: Tensor) -> AnswerFacts:
        """The same for images [B, channel, *spatial], one volume each; raises IFIMError for another number of volumes."""
        grid, volume = self.grid or tuple(image.shape[2:]), self.voxel_volume
        if volume is not None and volume.shape not in ((), (1,), (image.shape[0],)):
            raise IFIMError(f"voxel_volume: {volume.numel()} numbers for {image.shape[0]} image(s): give one, or one for each.")
        return replace(self, grid=grid, voxel_volume=None if volume is None else volume.expand(image.shape[0]))

    def part(self, items: slice) -> AnswerFacts:
        """The same of some images."""
        volume, mask = (None if each is None else each[items] for each in (self.voxel_volume, self.mask))
        return replace(self, voxel_volume=volume, mask=mask, places=self.places[items])

    def output_voxel(self, grid: Sequence[int]) -> Tensor | None:
        """ml that a voxel of an output of these sizes takes up, [B]: input and output cover the same field of view."""
        return None if self.voxel_volume is None else self.voxel_volume * (prod(self.grid) / max(1, prod(grid)))

    def name(self, number: int) -> str | None:
        """The name of a class or label; None if it is unknown."""
        return self.class_names[number] if number < len(self.class_names) else None


def known_volumes(voxel_volume: float | Sequence[float] | Tensor | None) -> AnswerFacts:
    """The facts of images whose voxels take up so many ml, one number or one for each; raises IFIMError for anything else."""
    if voxel_volume is None:
        return AnswerFacts()
    try:
        volume = torch.as_tensor(voxel_volume, dtype=torch.float64, device="cpu").detach()
    except (RuntimeError, TypeError, ValueError):
        volume = torch.zeros(())
    if volume.ndim > 1 or volume.numel() == 0 or not bool(((volume > 0) & volume.isfinite()).all()):
        raise IFIMError(f"voxel_volume={voxel_volume!r}: give ml above zero, one number or one for each image.")
    return AnswerFacts(voxel_volume=volume)


def asked_head(settings: Settings, facts: AnswerFacts, output: Tensor, operation: str | None = None) -> Head:
    """The head for this output [B, C] or [B, C, *spatial], restricted to the part of the answer that is asked for.

    operation: as `resolve_head`. Raises HeadError, with the cure, where head, tolerance, label or mask do not fit the output.
    """
    head = resolve_head(settings.head, output, operation, settings.volume_tolerance, facts.output_voxel(output.shape[2:]))
    label = None if settings.answer is None else label_number(settings.answer, output.shape[1], facts.class_names)
    mask = _mask(settings.region, facts, output)
    part = restricted(head, label, mask)
    if isinstance(part, RestrictedHead):
        _refuse_empty(part, facts, output)
    return part


def label_number(answer: str | int, outputs: int, names: Sequence[str] = ()) -> int:
    """Number, from 0, of the class or label of that name or number; raises HeadError, which lists those that exist."""
    known = list(names) if len(names) == outputs else []
    if isinstance(answer, str) and answer in known:
        if known.count(answer) > 1:
            raise HeadError(f"answer={answer!r}: several outputs have this name: give a number, from 0 to {outputs - 1}.")
        return known.index(answer)
    number = int(answer) if isinstance(answer, int) or answer.isdecimal() else -1
    if 0 <= number < outputs:
        return number
    exist = _listed([f"{place} ({name})" for place, name in enumerate(known)]) if known else f"numbers from 0 to {outputs - 1}"
    unnamed = "" if known or not isinstance(answer, str) or answer.isdecimal() else ", as the names of the outputs are not known"
    raise HeadError(f"answer={answer!r} is none of the network's {outputs} answers: give one of {exist}{unnamed}.")


def described_answer(settings: Settings | Mapping[str, Any], facts: AnswerFacts, outputs: int) -> dict[str, Any] | None:
    """Which part of the answer was asked for, as plain data: label, its name, mask; None for all of it."""
    described = settings.describe() if isinstance(settings, Settings) else settings
    answer, mask = described.get("answer"), described.get("answer_mask")
    if answer is None and mask is None:
        return None
    number = None if answer is None else label_number(answer, outputs, facts.class_names)
    name = None if number is None or len(facts.class_names) != outputs else facts.name(number)
    return {"label": number, "name": name, "mask": mask}


def described_volumes(head: Head, output: Tensor) -> dict[str, Any] | None:
    """Of an answer of volumes, as plain data: unit, tolerance, sizes of the output's grid, and ml of a voxel of it in each image,
    None where voxels are counted; None for other answers."""
    volumes = head.whole
    if not isinstance(volumes, VolumesOfLabels):
        return None
    own, voxel = volumes.voxel_volume, None
    if own is not None:
        voxel = torch.as_tensor(own, dtype=torch.float64).expand(output.shape[0]).tolist()
    return {"unit": volumes.unit, "tolerance": volumes.tolerance, "grid": list(output.shape[2:]), "voxel_volume": voxel}


def recorded_head(record: Mapping[str, Any], given: Head | None = None) -> Head:
    """The head that a decomposition was made with, from its record; given: the Head itself, where that is its maker's code.

    Raises HeadError where such a head is not given, and for an answer restricted to a mask.
    """
    answer, volumes = record.get("answer") or {}, record.get("volumes")
    if answer.get("mask") is not None:
        raise HeadError(f"{RESTORE}: decompose the image again, with locality=True.")
    described = head_from(record["settings"]["head"]) if given is None else given
    head = described if isinstance(described, Head) else head_class(record["head"])()
    if volumes is not None and isinstance(head, VolumesOfLabels):
        voxel = volumes["voxel_volume"]
        head = type(head)(volumes["tolerance"], None if voxel is None else torch.tensor(voxel, dtype=torch.float64))
    return restricted(head, answer.get("label"), None)


def _mask(asked: AnswerMask | None, facts: AnswerFacts, output: Tensor) -> Tensor | None:
    """The mask [B, *spatial] on the output's grid; raises HeadError for one on neither grid."""
    spatial = output.ndim - 2
    if facts.mask is None and asked is None:
        return None
    if spatial == 0:
        raise HeadError("answer_mask: the network gives one answer an image, which no mask divides: leave it out.")
    mask = facts.mask if facts.mask is not None else (asked or AnswerMask(output)).of_batch(output.shape[0], spatial)
    mask = mask.to(output.device)
    if mask.shape[1:] == output.shape[2:]:
        return mask
    if tuple(mask.shape[1:]) == facts.grid:
        size = tuple(output.shape[2:])
        return functional.interpolate(mask[:, None].to(torch.float32), size, mode="nearest-exact")[:, 0] > 0
    raise HeadError(
        f"the mask of the answer has sizes {tuple(mask.shape[1:])}, the network's output {tuple(output.shape[2:])} and its input "
        f"{facts.grid}: resample the mask onto one of these grids."
    )


def _refuse_empty(part: RestrictedHead, facts: AnswerFacts, output: Tensor) -> None:
    """Raise HeadError for images of which the label is predicted nowhere, or the mask holds nothing."""
    counts = part.voxels(output)
    if counts is None or bool((counts > 0).all()):
        return
    empty = (counts == 0).nonzero()[:, 0].tolist()
    where = f"image(s) {empty} of the batch" if output.shape[0] > 1 else "this image"
    if part.label is None:
        raise HeadError(f"the mask of the answer is 0 everywhere on the network's grid of {where}: give another.")
    found = [number for number in range(output.shape[1]) if _is_predicted(part, output[empty[:1]], number, empty[0])]
    named = _listed([_called(number, facts) for number in found]) if found else "none"
    inside = "" if part.mask is None else " inside of the mask"
    raise HeadError(
        f"{_called(part.label, facts)} is predicted at no voxel{inside} of {where}: ask for one that is ({named}), or for its "
        "volume, with head='volumes' or 'volumes_bernoulli'."
    )


def _is_predicted(part: RestrictedHead, output: Tensor, number: int, item: int) -> bool:
    """True if a label is predicted at some voxel of one image [1, C, *spatial] that the answer may be about."""
    mask = None if part.mask is None else part.mask[item : item + 1]
    other = restricted(part.whole.part(slice(item, item + 1)), number, mask)
    counts = other.voxels(output) if isinstance(other, RestrictedHead) else None
    return counts is not None and int(counts[0]) > 0


def _called(number: int, facts: AnswerFacts) -> str:
    name = facts.name(number)
    return f"label {number}" if name is None else f"label {number} ({name})"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"
