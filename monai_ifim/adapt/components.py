"""A decomposition as MetaTensors that keep the image's affine, metadata and applied operations.

Every map has its channels on the axis where MONAI's transforms expect them, so that `Invertd` and `SaveImaged` work on
each: eigenvectors [B, r, channel, *spatial] are folded to [B, r * channel, *spatial], component by component.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor
from torch.nn import functional

from monai_ifim.adapt.collation import Margins, padded
from monai_ifim.adapt.norms import norms_of_image
from monai_ifim.adapt.tied_channels import Tie, described_tie
from monai_ifim.core import Decomposition
from monai_ifim.core.heads.label_map import label_map
from monai_ifim.core.heads.voxelwise import mean_probability
from monai_ifim.core.verification.record import of_image
from monai_ifim.io import InputError
from monai_ifim.io.segmentation import nearest_labels

MAPS = ("ifim_high", "ifim_low", "ifim_sensitivity", "ifim_eigenvectors")
ERROR_MAP = "ifim_sensitivity_error"  # a further map, where the sensitivity is an estimate
LABELS = "ifim_labels"  # of segmentation networks alone
FURTHER_MAPS = (ERROR_MAP, LABELS)
NUMBERS = ("ifim_eigenvalues", "ifim_rank")
UNPLACED = "ifim_unplaced"  # metadata key: the image had no affine, and the identity stands for one
RECORD = "ifim_record"  # metadata key: the image's record as JSON text, which collation and decollation leave alone


def component_tensors(
    decomposition: Decomposition, image: Tensor, seconds: float, ties: Sequence[Tie | str | None] = ()
) -> dict[str, Tensor]:
    """Batched tensors of a decomposition: pred [B, C], the four maps, ifim_eigenvalues [B, r], ifim_rank [B]; where the
    sensitivity is an estimate, also the map of its standard error, and of a segmentation on the image's grid ifim_labels
    [B, 1, *spatial] (`core.heads.label_map`).

    image: the batch that was decomposed, MetaTensor or plain; ties: of its channels, where they were looked for. Each map's
    metadata holds the record of every image. The sensitivity stays float64: for a saturated prediction it is far below what
    float32 holds.
    """
    labels, segmentation = _segmentation(decomposition)
    records = _records(decomposition, seconds, segmentation, ties or [None] * len(image))
    eigenvectors = decomposition.eigenvectors.flatten(1, 2)
    maps = dict(zip(MAPS, (decomposition.high, decomposition.low, decomposition.sensitivity, eigenvectors), strict=True))
    if decomposition.sensitivity_error is not None:
        maps[ERROR_MAP] = decomposition.sensitivity_error
    return {
        "pred": decomposition.logits,
        **{name: _like(values, image, records) for name, values in maps.items()},
        **({} if labels is None else {LABELS: _like(labels, image, records)}),
        "ifim_eigenvalues": decomposition.eigenvalues,
        "ifim_rank": decomposition.rank,
    }


def joined_tensors(singles: Sequence[Mapping[str, Tensor]], margins: Sequence[Margins], batch: Tensor) -> dict[str, Tensor]:
    """One batch of the tensors of single images of different sizes: maps padded by zeros like the images of `batch`, ranks by
    zeros to the largest."""
    channels, rank = batch.shape[1], max(single["ifim_eigenvalues"].shape[1] for single in singles)
    found = [padded_rank(single, rank, channels) for single in singles]
    result = {name: torch.cat([each[name].as_subclass(Tensor) for each in found]) for name in NUMBERS}
    outputs = [each["pred"].as_subclass(Tensor) for each in found]
    if outputs[0].ndim > 2:  # maps on their images' grids
        outputs = [padded(output, margin) for output, margin in zip(outputs, margins, strict=True)]
    result["pred"] = torch.cat(outputs)
    records = [record for single in singles for record in cast(MetaTensor, single["ifim_high"]).meta[RECORD]]
    for name in (*MAPS, *(further for further in FURTHER_MAPS if all(further in each for each in found))):
        maps = [padded(each[name].as_subclass(Tensor), margin) for each, margin in zip(found, margins, strict=True)]
        result[name] = _like(torch.cat(maps), batch, records)
    return result


def padded_rank(tensors: Mapping[str, Tensor], rank: int, channels: int) -> dict[str, Tensor]:
    """The same tensors, of a batch or of one image, with eigenvalues and eigenvectors padded by zeros to `rank`."""
    values, vectors = tensors["ifim_eigenvalues"], tensors["ifim_eigenvectors"]
    lacking = rank - values.shape[-1]
    if lacking <= 0:
        return dict(tensors)
    axis = values.ndim - 1
    filled = functional.pad(vectors.as_subclass(Tensor), [0, 0] * (vectors.ndim - axis - 1) + [0, lacking * channels])
    if isinstance(vectors, MetaTensor):
        filled = MetaTensor(filled)
        filled.copy_meta_from(vectors)
    return {**tensors, "ifim_eigenvalues": functional.pad(values, [0, lacking]), "ifim_eigenvectors": filled}


def item_of_batch(tensors: Mapping[str, Tensor], index: int, image: Tensor) -> dict[str, Tensor]:
    """The tensors of one image of a batch, without the batch axis, the maps like the single `image` [channel, *spatial]."""
    single: dict[str, Tensor] = {}
    for name, values in tensors.items():
        plain = values.as_subclass(Tensor)[index]
        if name in (*MAPS, *FURTHER_MAPS) and isinstance(values, MetaTensor):
            single[name] = _like(plain, image, values.meta[RECORD][index])
        else:
            single[name] = plain
    return single


def record_of_image(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The record of one image from the metadata of its maps; raises InputError if they have none."""
    high = tensors.get("ifim_high")
    record = high.meta.get(RECORD) if isinstance(high, MetaTensor) else None
    if isinstance(record, (list, tuple)) and len(record) == 1:
        record = record[0]
    if not isinstance(record, str):
        raise InputError(
            "the components have no record of a single image: pass the decollated MetaTensors that IFIMInferer or "
            "IFIMDecomposed returned (monai.data.set_track_meta(True))."
        )
    return dict(json.loads(record))


def unfold_eigenvectors(folded: Tensor, channels: int, rank: int) -> Tensor:
    """[r * channel, *spatial] to [rank, channel, *spatial], padding left out."""
    return folded.reshape(folded.shape[0] // channels, channels, *folded.shape[1:])[:rank]


def _like(values: Tensor, image: Tensor, record: list[str] | str) -> Tensor:
    """`values` as a MetaTensor with the image's metadata and applied operations; a plain image's affine is identity."""
    result = MetaTensor(values)
    if isinstance(image, MetaTensor):
        result.copy_meta_from(image)
        result.affine = image.affine.clone()
        traces = image.applied_operations  # an inverse takes its entry out of the list: each map has one of its own
        result.applied_operations = [list(entry) if isinstance(entry, list) else entry for entry in traces]
    else:
        result.meta[UNPLACED] = True
        if not isinstance(record, str):
            result.is_batch = True
            result.affine = result.affine.repeat(len(record), 1, 1)  # decollation takes one for each image
    result.meta[RECORD] = record
    return result


def _segmentation(decomposition: Decomposition) -> tuple[Tensor | None, dict[str, Any] | None]:
    """The label of each voxel [B, 1, *spatial] on the image's grid, None where the answer is no map on it; and for the record the
    rule of the labels, the number of channels and why the map was left out, None for another answer than a segmentation."""
    rule, logits = decomposition.record.get("label_rule"), decomposition.logits
    if rule is None or logits.ndim < 4:
        return None, None
    stated = {"rule": rule, "channels": logits.shape[1]}
    preprocessing, shape = decomposition.record.get("preprocessing"), tuple(decomposition.image.shape[2:])
    if preprocessing is not None:
        grids = preprocessing.get("grids")
        if grids is None:
            return None, {**stated, "left_out": "the place of the network's grid is not known: choose --space native"}
        labels = label_map(logits, rule)[0].cpu().numpy()
        placed = nearest_labels(labels, np.asarray(grids["network"]), np.asarray(grids["scan"]), shape)
        return torch.from_numpy(placed)[None, None], {**stated, "left_out": None}
    if tuple(logits.shape[2:]) != shape:
        sizes = [" x ".join(map(str, each)) for each in (logits.shape[2:], shape)]
        reason = f"the network answers on a grid of {sizes[0]} for an image of {sizes[1]}, whose places it does not tell"
        return None, {**stated, "left_out": reason}
    return label_map(logits, rule)[:, None], {**stated, "left_out": None}


def _records(
    decomposition: Decomposition, seconds: float, segmentation: dict[str, Any] | None, ties: Sequence[Tie | str | None]
) -> list[str]:
    """One JSON text per image: everything that the sidecar states about the decomposition itself."""
    radius = None if decomposition.locality_radius is None else decomposition.locality_radius.tolist()
    batch, saturation = decomposition.rank.numel(), decomposition.saturation
    records = []
    for b in range(batch):
        rank = int(decomposition.rank[b])
        content = decomposition.record | {
            "eigenvalues": decomposition.eigenvalues[b, :rank].tolist(),
            "rank": rank,
            "trace": float(decomposition.trace[b]),
            "trace_error": float(decomposition.trace_error[b]),
            "status": decomposition.status[b],
            "stopped": None if bool(decomposition.converged[b]) else decomposition.record["stopped"],
            "sensitivity_share": _share(float(decomposition.sensitivity[b].sum()), float(decomposition.trace[b])),
            "energy_kept": float(decomposition.energy[b]),
            "error_bound": float(decomposition.error_bound[b]),
            "residuals": decomposition.residuals[b, :rank].tolist(),
            "locality_radius": None if radius is None else _known(radius[b][:rank]),
            **norms_of_image(decomposition, b),
            "saturation": saturation[b].described(),
            "verification": of_image(decomposition.record, b),
            "tied_channels": described_tie(ties[b], decomposition.image.shape[1]),
            **_answer(decomposition, b),
            "answer_voxels": None if decomposition.answer_voxels is None else int(decomposition.answer_voxels[b]),
            "volumes": _volumes(decomposition, b),
            "coordinates": _coordinates(decomposition, b),
            "segmentation": segmentation,
            "seconds": seconds / batch,
        }
        records.append(json.dumps(content, allow_nan=False))
    return records


def _share(part: float, trace: float) -> float | None:
    return min(1.0, part / trace) if trace > 0.0 else None


def _answer(decomposition: Decomposition, b: int) -> dict[str, Any]:
    """Logits and probabilities of an image; of a segmentation only the mean probability of each class over the voxels."""
    if decomposition.logits.ndim > 2:
        shares = mean_probability(decomposition.probabilities[b : b + 1])[0]
        return {"logits": [], "probabilities": shares.tolist()}
    logits = decomposition.logits[b].to(torch.float64).tolist()
    return {"logits": logits, "probabilities": decomposition.probabilities[b].tolist()}


def _volumes(decomposition: Decomposition, b: int) -> dict[str, Any] | None:
    """Of an answer of volumes, what the record states of one image, with the tolerance, slope and changes of each label."""
    stated, rank = decomposition.record.get("volumes"), int(decomposition.rank[b])
    if stated is None:
        return None
    voxel, slopes, changes = stated["voxel_volume"], decomposition.answer_slopes, decomposition.answer_changes
    tolerances = decomposition.answer_tolerances
    return stated | {
        "voxel_volume": None if voxel is None else voxel[b],
        "tolerances": None if tolerances is None else tolerances[b].tolist(),
        "slopes": None if slopes is None else slopes[b].tolist(),
        "changes": None if changes is None else changes[b, :rank].tolist(),
    }


def _coordinates(decomposition: Decomposition, b: int) -> dict[str, Any] | None:
    """What the record states of the coordinates, with the numbers of one image; None for what is infinite or unknown."""
    found = decomposition.coordinates
    if found is None:
        return None
    tables = found.tensors() | {"nats_per_unit": found.nats_per_unit, "step": found.step}
    numbers = {name: _known(values[b].tolist()) for name, values in tables.items()}
    return dict(decomposition.record["coordinates"]) | numbers


def _known(values: Any) -> Any:
    """Nested lists with None for infinity and NaN, which JSON cannot hold."""
    if isinstance(values, list):
        return [_known(value) for value in values]
    return values if isfinite(values) else None
