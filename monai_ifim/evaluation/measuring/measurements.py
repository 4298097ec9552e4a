"""Measures the effect of perturbations of one image on a classifier's answer: one row per perturbation and norm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd  # type: ignore[import-untyped, unused-ignore]
import torch
from torch import Tensor

from monai_ifim.core import Decomposition, Head, IFIMError, NetworkError
from monai_ifim.core.heads.outputs import as_float64
from monai_ifim.evaluation.classifiers.labels import Label
from monai_ifim.evaluation.measuring.answers import answers_of, check_label
from monai_ifim.evaluation.measuring.families import FAMILIES
from monai_ifim.evaluation.measuring.perturbations import Perturbation

__all__ = ["measure_image"]

ROUNDING = 1e-9  # relative: a norm equal to `largest` but for rounding is still within it


@dataclass(frozen=True, eq=False)
class _Step:
    """A perturbation at one L2 norm, in the image's unit and relative to |x|."""

    perturbation: Perturbation
    relative_norm: float
    norm: float


def measure_image(
    predict: Callable[[Tensor], Tensor],
    head: Head,
    image: Tensor,
    label: Label | None,
    decomposition: Decomposition,
    perturbations: Sequence[Perturbation],
    relative_norms: Sequence[float],
    batch_size: int = 64,
) -> pd.DataFrame:
    """Measure every perturbation at every norm up to its largest; norm 0 gives the unperturbed answer itself.

    Columns: label (-1 where unknown), predicted, family, draw, seed (Int64), relative_norm, norm (image's unit), those of
    `end_points.measured_columns` as float64 (flipped and correct 0 or 1; correct and negative_log_likelihood NaN without a
    label), and the class probabilities p00, p01, ... after the perturbation. Divergences and likelihoods in nats. Of independent
    labels these columns are means over the labels (`answers.IndependentAnswers`), label and predicted are -1, and y00, y01, ...
    are the true labels.

    Args:
        predict: [B, channel, *spatial] -> outputs [B, C], in eval mode; called without gradients.
        head: of exclusive classes or independent labels; one Bernoulli output counts as the classes (absent, present).
        image: [channel, *spatial].
        label: true class, or, of independent labels, 0, 1 or -1 (unknown) for each; None: unknown.
        decomposition: of this image alone, with energy 1, so that the predicted divergence d^T F d / 2 is complete.
        perturbations: of this image.
        relative_norms: grid of |d| / |x|.
        batch_size: images in one pass.

    Raises:
        IFIMError: a head without classes, a label of another kind or out of range, another image's decomposition, a zero
            image, outputs that are not finite.
    """
    image = image.detach().as_subclass(Tensor)
    length = _check_image(image, decomposition, batch_size)
    with torch.no_grad():
        before = _outputs(predict, image[None].clone())  # a copy, so that a network may write into its input
        check_label(label, head, before.shape[1], "the image")
        steps = _steps(perturbations, relative_norms, length)
        after = _moved_outputs(predict, image, steps, before, batch_size)
    divergence = head.divergence(before.expand_as(after), after).cpu()
    return _table(answers_of(head, before, after).columns(label), divergence, steps, _curvatures(decomposition, perturbations))


def _check_image(image: Tensor, decomposition: Decomposition, batch_size: int) -> float:
    """L2 norm of the image."""
    if decomposition.image.shape != (1, *image.shape) or not torch.equal(decomposition.image[0].cpu(), image.cpu()):
        raise IFIMError(
            f"the decomposition is of another image: decompose this one alone, [1, {', '.join(map(str, image.shape))}]."
        )
    if int(decomposition.rank[0]) < int((decomposition.spectrum[0] > 0).sum()):
        raise IFIMError("the decomposition lacks eigenvectors, and with them some divergence: call decompose with energy=1.0.")
    if batch_size < 1:
        raise IFIMError(f"batch_size is {batch_size}: give a whole number from 1 on.")
    length = float(torch.linalg.vector_norm(as_float64(image)))
    if length == 0.0:
        raise IFIMError("the image is zero everywhere, so no norm is a share of its own: leave it out.")
    return length


def _steps(perturbations: Sequence[Perturbation], relative_norms: Sequence[float], length: float) -> list[_Step]:
    steps: list[_Step] = []
    for perturbation in perturbations:
        grid = [float(relative) for relative in relative_norms]
        if FAMILIES[perturbation.family].kind == "removal":
            grid = [0.0, perturbation.largest / length]
        within = [relative for relative in grid if relative * length <= perturbation.largest * (1 + ROUNDING)]
        steps += [_Step(perturbation, relative, min(relative * length, perturbation.largest)) for relative in within]
    return steps


def _outputs(predict: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """[B, C], finite."""
    output = predict(images)
    if output.ndim != 2 or output.shape[0] != images.shape[0]:
        raise NetworkError(f"predict gave shape {tuple(output.shape)} for {images.shape[0]} image(s): [B, C] is needed.")
    if not bool(torch.isfinite(output).all()):
        raise NetworkError("an output is NaN or infinite: check the network's weights, or perturb by smaller norms.")
    return output.detach().as_subclass(Tensor)


def _moved_outputs(
    predict: Callable[[Tensor], Tensor], image: Tensor, steps: Sequence[_Step], before: Tensor, batch_size: int
) -> Tensor:
    """Outputs [steps, C]; a step of norm 0 copies `before`, because another batch size may round differently."""
    after = before.repeat(len(steps), 1)
    moving = [n for n, step in enumerate(steps) if step.norm > 0]
    wide = as_float64(image)
    for start in range(0, len(moving), batch_size):
        chunk = moving[start : start + batch_size]
        moved = [wide + steps[n].norm * steps[n].perturbation.direction.to(wide) for n in chunk]
        after[chunk] = _outputs(predict, torch.stack(moved).to(image))
    return after


def _curvatures(decomposition: Decomposition, perturbations: Sequence[Perturbation]) -> dict[int, float]:
    """u^T F u of every direction u, from all eigenpairs, by the perturbation's id."""
    vectors = as_float64(decomposition.eigenvectors[0]).cpu().flatten(1)
    values = decomposition.eigenvalues[0].cpu()
    return {id(p): float((values * (vectors @ p.direction.flatten()).square()).sum()) for p in perturbations}


def _table(
    answers: Mapping[str, Tensor | int], divergence: Tensor, steps: Sequence[_Step], curvatures: dict[int, float]
) -> pd.DataFrame:
    columns: dict[str, object] = {
        "label": answers["label"],
        "predicted": answers["predicted"],
        "family": [step.perturbation.family for step in steps],
        "draw": [step.perturbation.draw for step in steps],
        "seed": pd.array([step.perturbation.seed for step in steps], dtype="Int64"),
        "relative_norm": [step.relative_norm for step in steps],
        "norm": [step.norm for step in steps],
        "probability_change": answers["probability_change"],
        "absolute_change": answers["absolute_change"],
        "divergence": divergence,
        "predicted_divergence": [0.5 * step.norm**2 * curvatures[id(step.perturbation)] for step in steps],
    }
    columns |= {name: values for name, values in answers.items() if name not in columns}
    return pd.DataFrame({k: v.numpy() if isinstance(v, Tensor) else v for k, v in columns.items()})
