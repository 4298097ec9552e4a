"""`decompose`: one forward pass, the Jacobian products of the method, and a small float64 eigenproblem."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from monai_ifim.core.answer import AnswerFacts, known_volumes
from monai_ifim.core.batches import Progress, decompose_in_parts
from monai_ifim.core.coordinates import Family
from monai_ifim.core.decomposition import Decomposition
from monai_ifim.core.heads.answer_mask import AnswerMask
from monai_ifim.core.heads.base import Head
from monai_ifim.core.heads.choice import answers_at_every_voxel
from monai_ifim.core.memory.allocation import copy_of
from monai_ifim.core.operator.metric import Metric
from monai_ifim.core.operator.module_state import evaluation_mode
from monai_ifim.core.operator.precision import weight_dtype
from monai_ifim.core.operator.predictor import Predictor, owner_of
from monai_ifim.core.operator.requirements import check_image
from monai_ifim.core.operator.shortcuts import whole_shortcuts
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.watch import Watch
from monai_ifim.options import VOLUME_TOLERANCE, Method, Precision, Verify


def decompose(
    network: Callable[..., Any],
    x: Tensor,
    *,
    head: str | Head = "auto",
    volume_tolerance: str = VOLUME_TOLERANCE,
    answer: str | int | None = None,
    answer_mask: AnswerMask | Tensor | None = None,
    voxel_volume: float | Sequence[float] | Tensor | None = None,
    energy: float | None = None,
    rank: int | None = None,
    method: Method = "auto",
    tolerance: float | None = None,
    probes: int = 8,
    memory_budget: int | str | None = None,
    metric: Metric | float | Tensor | None = None,
    precision: Precision | None = None,
    seed: int = 0,
    output_key: str | int | None = None,
    locality: bool = False,
    verify: Verify = "sample",
    coordinates: Sequence[Family] = (),
    network_args: Sequence[Any] = (),
    network_kwargs: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Decomposition:
    """Split each image of a batch along the leading eigenspace of its own Fisher information matrix.

    F(x) = J^T (diag p - p p^T) J for a classifier (arXiv:2606.16362); it is never formed.

    Args:
        network: module, TorchScript module or callable, evaluated in eval mode and left as it was.
        x: images [B, channel, H, W] or [B, channel, H, W, D], floating point, as the network sees them; left untouched.
        head: what the outputs are: the name of a head (`monai_ifim.options.HEADS`: "categorical", "bernoulli", also of one
            binary logit, "gaussian" with unit noise, "probabilities", "voxelwise" for a segmentation, ...), or a `Head`.
            "auto" reads two or more outputs as the logits of exclusive classes and refuses what may be something else.
        volume_tolerance: heads "volumes", "volumes_bernoulli": standard deviation of each label's volume, "5 %" of it,
            "0.5 ml" or "20 voxels"; never less than one voxel.
        answer: number of a class or label, from 0, to decompose the answer about it alone: of a classifier whether it is this
            class or another; of a voxelwise head the voxels that are predicted as this label at x, which stay the same while x
            moves; of volumes this label's.
        answer_mask: voxels of a segmentation, [*spatial] or [B, *spatial], that alone are asked about, on the grid of the
            output or of x.
        voxel_volume: ml that a voxel of x takes up, one number or one for each image; without it, volumes are in voxels.
        energy: keep the fewest leading components that hold this share of the trace; by default 0.99.
        rank: keep this many components instead (at most the numerical rank); by default 3 of a voxelwise head, whose spectrum is
            flat, unless energy is given.
        method: "exact" computes every column of the factor; "adaptive" the heaviest ones, until random probes bound the others;
            "matrix_free" the leading pairs by Lanczos iteration. "auto" chooses, and `record` states why.
        tolerance: adaptive and matrix_free: relative error of the kept eigenvalues; by default 1e-4, 0.05 of a voxelwise head.
        probes: matrix_free: random columns, one product each, that estimate diag F and the trace outside of the pairs found, with
            standard errors (`sensitivity_error`, `trace_error`).
        memory_budget: bytes, or "2GiB": bounds Jacobian rows and saved activations together, at the cost of time.
        metric: a noise level (a number or a map, in the image's unit) or a `Metric`: F' = M F M is decomposed.
        precision: of the passes: "float32", "float64", or "bfloat16", "float16" by autocast; by default that of network, image
            and the caller's autocast. The small eigenproblem is always float64.
        seed: of the random vectors that adaptive and matrix_free draw; the global random state is left alone.
        output_key: name, number or path ("heads.diagnosis", "0.logits") of the entry that holds the logits, where the network
            returns several. None takes one that is certain (`OutputSelection`), which `record["output"]` names.
        locality: also compute the locality radius, by some more forward passes; `core.locality_radius` makes it later.
        verify: compare derivatives with differences of the network's output, by two forward passes: "sample" for the first
            image of each network, shape and setting and every 20th after it, "always" for the first image of each batch, or
            "never". `record["verification"]` holds the outcome; a disagreement is a GradientWarning.
        coordinates: families of changes that have a name and a unit (`monai_ifim.coordinates`), to which F is pulled back:
            `Decomposition.coordinates`.
        network_args, network_kwargs: further inputs of the network; tensors in them have the batch as first axis.
        progress: count the Jacobian products on standard error; of matrix_free also how far its pairs are.

    Returns:
        A `Decomposition` whose tensors are plain and on the image's device.

    Raises:
        IFIMError: the image, network, head or settings do not fit, or the network gives the same image different answers; the
            message names the cure.
    """
    settings = Settings(
        head,
        volume_tolerance=volume_tolerance,
        answer=answer,
        answer_mask=answer_mask,
        output_key=output_key,
        energy=energy,
        rank=rank,
        method=method,
        tolerance=tolerance,
        probes=probes,
        memory_budget=memory_budget,
        metric=metric,
        precision=precision,
        seed=seed,
        locality=locality,
        verify=verify,
        coordinates=coordinates,
    )
    facts = known_volumes(voxel_volume)
    return decompose_with(settings, network, x, network_args, network_kwargs, progress, facts=facts)


def decompose_with(
    settings: Settings,
    network: Callable[..., Any],
    x: Tensor,
    network_args: Sequence[Any] = (),
    network_kwargs: Mapping[str, Any] | None = None,
    progress: bool | Progress = False,
    names: Sequence[str] = (),
    facts: AnswerFacts | None = None,
    watch: Watch | None = None,
) -> Decomposition:
    """`decompose` with its options as one object; see there for the other arguments, the result and what is raised.

    progress, watch: as `decompose_in_parts`.
    names: of the images, by which the records of later ones name the one that was verified; numbers by default.
    facts: what is known of the images besides their values; by default their sizes.
    """
    network = owner_of(network)
    dtype = weight_dtype(settings.precision)
    image = check_image(network, x, dtype)
    predictor = Predictor(
        network,
        image.shape[0],
        settings.output_key,
        tuple(network_args),
        dict(network_kwargs or {}),
        spatial=answers_at_every_voxel(settings.head),
        dtype=dtype,
    )
    with evaluation_mode(network) as state, whole_shortcuts(predictor.bare) as corrections:
        d = decompose_in_parts(predictor, copy_of(image), settings, progress, names, state.changes, facts, watch=watch)
        corrected = corrections()
    verification = d.record["verification"] | {"not_restored": list(state.not_restored)}
    return replace(d, record=d.record | {"corrections": corrected, "verification": verification})
