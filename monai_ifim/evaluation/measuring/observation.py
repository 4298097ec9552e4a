"""Observes one image of one cell: decomposes, perturbs and measures it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped, unused-ignore]
import torch
from torch import Tensor, nn

from monai_ifim.core import Decomposition, Head, IFIMError, decompose
from monai_ifim.core.heads.choice import resolve_head
from monai_ifim.core.heads.outputs import last_operation
from monai_ifim.core.locality import radii
from monai_ifim.core.operator.module_state import evaluation_mode
from monai_ifim.core.operator.predictor import Predictor
from monai_ifim.core.projection import split
from monai_ifim.evaluation.classifiers.labels import UNKNOWN, known_label
from monai_ifim.evaluation.classifiers.tasks import Sample
from monai_ifim.evaluation.measuring.answers import has_independent_labels, label_scalars
from monai_ifim.evaluation.measuring.attributions import attribute
from monai_ifim.evaluation.measuring.families import FAMILIES
from monai_ifim.evaluation.measuring.measurements import measure_image
from monai_ifim.evaluation.measuring.perturbations import PerturbationSettings, build_perturbations, draw_seed
from monai_ifim.evaluation.measuring.regions import region_shares
from monai_ifim.evaluation.measuring.subspaces import Subspaces, split_eigenvectors

__all__ = ["Observation", "ObservationSettings", "Observer", "overlap"]

LARGEST_PASS = 64  # images in one forward pass
PASS_ELEMENTS = 2**22  # values of all images in one forward pass


@dataclass(frozen=True)
class ObservationSettings:
    """energy, rank: selection of the leading components, as in `decompose`. slight_noise: relative norm of the input noise under
    which the agreement of leading subspaces is measured."""

    perturbations: PerturbationSettings
    energy: float = 0.99
    rank: int | None = None
    slight_noise: float = 0.01

    def selection(self) -> dict[str, float]:
        """How the leading components are selected: {"energy"} or {"rank"}."""
        return {"energy": self.energy} if self.rank is None else {"rank": self.rank}


@dataclass(frozen=True, eq=False)
class Observation:
    """measurements: one row per perturbation and norm. scalars: one number (or name) each. maps: [channel, *spatial] each.

    missing: why a family was not measured, by its name.
    """

    measurements: pd.DataFrame
    scalars: dict[str, Any]
    maps: dict[str, Tensor] = field(repr=False)
    missing: dict[str, str]


class Observer:
    """Observes the images of one cell with one classifier, its random twin and its siblings.

    Raises IFIMError if the head cannot be determined from the first image's output.
    """

    def __init__(
        self,
        network: nn.Module,
        twin: nn.Module,
        siblings: tuple[nn.Module, ...],
        head: str | Head,
        settings: ObservationSettings,
        first: Sample,
    ) -> None:
        self.network, self.twin, self.siblings, self.settings = network, twin, siblings, settings
        self.predict = Predictor(network, batch=1)
        image = first.image[None].to(_device(network))
        with evaluation_mode(network):
            output = self.predict(image.clone().requires_grad_(True))
        self.head = resolve_head(head, output, last_operation(output, self.predict.bare))
        self.outputs, self.classes = output.shape[1], max(2, output.shape[1])

    def observe(self, sample: Sample, seed: int) -> Observation:
        """Decompose, perturb and measure one image; `seed` fixes every random draw. Raises IFIMError if F = 0 or x = 0."""
        began = time.perf_counter()
        image = sample.image.to(_device(self.network))
        whole = decompose(self.network, image[None], head=self.head, energy=1.0)
        leading, trailing = split_eigenvectors(whole, 0, self.settings.energy, self.settings.rank)
        if leading.shape[0] == 0:
            raise IFIMError(f"{sample.name}: F is zero, so that no direction leads: the prediction is saturated beyond float32.")
        high, low = (part[0] for part in split(leading[None], image[None]))
        subspaces = Subspaces(leading, trailing, self._twin_leading(image))
        independent = has_independent_labels(self.head, whole.probabilities.shape[1])
        target, probability = _answer(whole.probabilities[0], independent)
        attributions, missing = self._attributions(image, target)
        perturbations = build_perturbations(image, high, low, subspaces, attributions, self.settings.perturbations, seed)
        with evaluation_mode(self.network):
            measurements = measure_image(
                self.predict,
                self.head,
                image,
                known_label(sample.label),
                whole,
                perturbations,
                self.settings.perturbations.relative_norms,
                max(1, min(LARGEST_PASS, PASS_ELEMENTS // image.numel())),
            )
        scalars = {
            "predicted": UNKNOWN if independent else target,
            "probability": probability,
            **(label_scalars(whole.logits[0], known_label(sample.label)) if independent else {}),
            **_spectral_scalars(whole, high, leading.shape[0]),
            **self._locality(whole),
            **_twin_shares(whole, subspaces),
            **self._agreements(image, leading, seed),
            **region_shares(image.cpu(), high.cpu(), whole.sensitivity[0].cpu()),
            "seconds": time.perf_counter() - began,
        }
        maps = {"image": image, "high": high, "low": low, "eigenvector": leading[0], "sensitivity": whole.sensitivity[0]}
        maps |= {name: attributions[name] for name in ("integrated_gradients", "gradcam") if name in attributions}
        return Observation(measurements, scalars, {name: value.cpu() for name, value in maps.items()}, missing)

    def _leading(self, network: nn.Module, image: Tensor, rank: int | None) -> Tensor:
        """Leading eigenvectors of another network at this image, as many as `rank` says or as the settings' energy needs."""
        energy = self.settings.energy if rank is None else 1.0
        rank = self.settings.rank if rank is None else rank
        found = decompose(network, image[None], head=self.head, energy=energy, rank=rank)
        return found.eigenvectors[0, : int(found.rank[0])]

    def _twin_leading(self, image: Tensor) -> Tensor | None:
        """Leading eigenvectors of the twin; None where random weights give no finite answer."""
        try:
            return self._leading(self.twin, image, None)
        except IFIMError:
            return None

    def _locality(self, whole: Decomposition) -> dict[str, float]:
        """Locality radius of u_1, in the image's unit and over |x|."""
        norm = float(torch.linalg.vector_norm(whole.image[0].double()))
        with evaluation_mode(self.network):
            first = (whole.eigenvectors[:, :1], whole.eigenvalues[:, :1])
            radius = float(radii(self.predict, self.head, whole.image, *first)[0, 0])
        return {"locality_radius": radius, "relative_locality_radius": radius / norm}

    def _attributions(self, image: Tensor, target: int) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Attributions that families need, by method; and why a family lacks its own, by the family's name."""
        found: dict[str, Tensor] = {}
        missing: dict[str, str] = {}
        for family in (FAMILIES[name] for name in self.settings.perturbations.families):
            if family.attribution is None:
                continue
            try:
                found[family.attribution] = attribute(self.network, image[None], target, family.attribution, self.predict).cpu()
            except (IFIMError, RuntimeError) as error:
                missing[family.name] = " ".join(str(error).split())
        return found, missing

    def _agreements(self, image: Tensor, leading: Tensor, seed: int) -> dict[str, float]:
        """Overlaps of the leading subspace with the one under slight input noise and with those of other trainings."""
        generator = torch.Generator().manual_seed(draw_seed(seed, "slight_noise", 0))
        noise = torch.randn(image.shape, generator=generator).to(image)
        scale = self.settings.slight_noise * torch.linalg.vector_norm(image) / torch.linalg.vector_norm(noise)
        kept = leading.shape[0]
        noisy = self._leading(self.network, image + scale * noise, kept)
        others = [overlap(leading, self._leading(sibling, image, kept)) for sibling in self.siblings]
        return {
            "agreement_noise": overlap(leading, noisy),
            "agreement_seed": float(np.mean(others)) if others else math.nan,
        }


def overlap(first: Tensor, second: Tensor) -> float:
    """tr(P1 P2) / k of two subspaces with orthonormal rows [k1, ...] and [k2, ...], k the larger dimension: 0 to 1."""
    size = max(first.shape[0], second.shape[0])
    products = first.double().flatten(1) @ second.double().flatten(1).T
    return float(products.square().sum()) / size if size else math.nan


def _answer(probabilities: Tensor, independent: bool) -> tuple[int, float]:
    """Predicted class and its probability; one output is the probability of class 1 of two. Of independent labels the likeliest
    label, whose logit attributions are of, and the mean probability of the answers yes and no."""
    if independent:
        return int(probabilities.argmax()), float(torch.maximum(probabilities, 1 - probabilities).mean())
    both = torch.cat([1 - probabilities, probabilities]) if len(probabilities) == 1 else probabilities
    return int(both.argmax()), float(both.max())


def _spectral_scalars(whole: Decomposition, high: Tensor, kept: int) -> dict[str, Any]:
    eigenvalues, trace = whole.eigenvalues[0], float(whole.trace[0])
    norm = float(torch.linalg.vector_norm(whole.image[0].double()))
    return {
        "rank": kept,
        "trace": trace,
        "energy_kept": min(1.0, float(eigenvalues[:kept].sum()) / trace),
        "eigenvalue": float(eigenvalues[0]),
        "norm": norm,
        "high_norm_share": float(torch.linalg.vector_norm(high.double())) / norm,
    }


def _twin_shares(whole: Decomposition, subspaces: Subspaces) -> Mapping[str, float]:
    """Share of tr F inside the twin's leading subspace, and k / D, the mean share inside a random subspace."""
    if subspaces.twin is None or subspaces.twin.shape[0] == 0:
        return {"twin_trace_share": math.nan, "chance_trace_share": math.nan}
    vectors = whole.eigenvectors[0].double().cpu().flatten(1)
    inside = (vectors @ subspaces.twin.flatten(1).T).square().sum(1)
    share = float((whole.eigenvalues[0].cpu() * inside).sum()) / float(whole.trace[0])
    return {"twin_trace_share": share, "chance_trace_share": subspaces.twin.shape[0] / vectors.shape[1]}


def _device(network: nn.Module) -> torch.device:
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
