"""Checks if a network can be decomposed and estimates the cost of one image; each requirement of `decompose` is a finding.

In all it makes the passes of a few images: one, the same again, a pair of images, one with its graph and the first products, and
two for the verification. Only a network whose derivatives are in doubt takes more, within a limit.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from monai_ifim.adapt.answer_facts import facts_of_images
from monai_ifim.adapt.bundle import Bundle
from monai_ifim.adapt.check.cost import PassTimes, cost_of, described
from monai_ifim.adapt.check.files import growth_to, measured_files
from monai_ifim.adapt.check.findings import Cost, Finding, Listener, NetworkReport
from monai_ifim.adapt.check.passes import Limit, LimitedPredictor, PassesUsedUpError
from monai_ifim.core import GradientWarning, IFIMError, TrainingModeWarning
from monai_ifim.core.answer import AnswerFacts
from monai_ifim.core.batches import decompose_in_parts
from monai_ifim.core.errors import HeadError, SpectralTieWarning
from monai_ifim.core.heads.choice import answers_at_every_voxel
from monai_ifim.core.memory.live_memory import LiveMemory
from monai_ifim.core.operator.arguments import is_per_image
from monai_ifim.core.operator.module_state import evaluation_mode
from monai_ifim.core.operator.precision import weight_dtype
from monai_ifim.core.operator.requirements import check_image, check_independence
from monai_ifim.core.operator.shortcuts import whole_shortcuts
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.first_products import FirstProducts

MOST_PASSES = 15  # forward passes that a check takes as long as, at most
VERIFICATION = 3  # of these that the comparison with differences may take in any case: two, where nothing is in doubt
SHORT = 5.0  # seconds that it may take in any case
PRODUCT, STEP = 2.1, 3.0  # forward passes that a vector-Jacobian and a Jacobian-vector product take as long as, in the longer way


def check_bundle(
    bundle: Bundle,
    image: Path | None,
    settings: Settings,
    device: torch.device | str = "cpu",
    listener: Listener | None = None,
) -> NetworkReport:
    """Probe a bundle's network with an image, or with random numbers of the shape that its metadata states.

    device: where the bundle was loaded. listener: is told of each finding when it is known. Raises InputError where there is
    nothing to probe with.
    """
    listener = listener or Listener()
    if not _check_head(bundle, settings, listener):
        return NetworkReport(tuple(listener.findings))
    settings = Settings.of(settings, {"head": bundle.head.chosen(settings.head)})
    read, names = bundle.example(image), bundle.identity.class_names
    facts = AnswerFacts(tuple(read.shape[1:]), None, names)
    if isinstance(read, MetaTensor):
        facts = facts_of_images([read], names, settings.region, bundle.preprocessing)
    example = read.as_subclass(Tensor)[None].to(device)
    args = [value.to(device) for value in bundle.further_examples()]
    if args:
        named = ", ".join(f"{name} {tuple(value.shape[1:])}" for (name, _), value in zip(bundle.further, args, strict=True))
        detail = (
            f"besides the image the network takes {named}, here random; the image alone is differentiated. `monai-ifim "
            "decompose` hands over images only: run the bundle's own config with IFIMInferer."
        )
        listener.add(Finding("inputs", True, detail))
    if said := bundle.steps.describe():
        listener.add(Finding("preprocessing", True, "; ".join(said)))
    growth = 1.0 if image is None else growth_to(read)
    return check_network(bundle.network, example, settings, facts, bundle.outputs, args, listener, growth)


def _check_head(bundle: Bundle, settings: Settings, listener: Listener) -> bool:
    """Tell the head and its source; False where the bundle does not say it."""
    try:
        bundle.head.chosen(settings.head)
    except HeadError as error:
        listener.add(Finding("head", False, str(error)))
        return False
    certain = settings.head != "auto" or bundle.head.certain
    cure = "" if certain else ". State it with head= if that is wrong"
    listener.add(Finding("head", True, f"{bundle.head.told(settings.head)}{cure}", certain))
    return True


def check_network(
    network: nn.Module,
    image: Tensor,
    settings: Settings,
    facts: AnswerFacts | None = None,
    stated_outputs: int | None = None,
    args: Sequence[Any] = (),
    listener: Listener | None = None,
    growth: float = 1.0,
) -> NetworkReport:
    """Probe a network with one input [1, channel, *spatial]; args: its further inputs for that image; facts: what else is known
    of it, names of the classes among them; growth: voxels of the grid of its files, by its own.

    Looks at: an output it can read, number and names of the classes, eval-mode determinism, independence within a batch,
    differentiability and head (by the first products of a decomposition with these settings), time and memory of one image,
    derivatives against differences of the output.
    """
    listener = listener or Listener()
    with warnings.catch_warnings():
        for category in (TrainingModeWarning, GradientWarning, SpectralTieWarning):  # a finding says what matters
            warnings.simplefilter("ignore", category)
        return _NetworkCheck(network, image, settings, facts or AnswerFacts(), args, listener, growth).run(stated_outputs)


class _NetworkCheck:
    """One check, with what its passes have shown so far."""

    def __init__(
        self,
        network: nn.Module,
        image: Tensor,
        settings: Settings,
        facts: AnswerFacts,
        args: Sequence[Any],
        listener: Listener,
        growth: float,
    ) -> None:
        self.image, self.facts, self.listener, self.growth, self.limit = image, facts, listener, growth, Limit()
        self.settings = Settings.of(settings, {"locality": False, "verify": "always"})
        self.predictor = LimitedPredictor(
            network,
            image.shape[0],
            settings.output_key,
            tuple(args),
            spatial=answers_at_every_voxel(settings.head),
            dtype=weight_dtype(settings.precision),
            limit=self.limit,
        )
        self.trial = FirstProducts(self._tell_products)
        self.live = LiveMemory()
        self.forward_seconds = 0.0
        self.cost: Cost | None = None
        self.head: str | None = None

    def run(self, stated_outputs: int | None) -> NetworkReport:
        """All looks, each where those before it allow it."""
        listener = self.listener
        first = self._probe("output", "one forward pass", self._output)
        if first is None:
            return self._report()
        outputs = first.shape[1]
        for finding in _classes(outputs, self.facts.class_names, stated_outputs):
            listener.add(finding)
        self._probe("determinism", "the same image again", lambda: self._again(first))
        self._probe("independence", "two images together", lambda: self._independence(first))
        record = self._probe("", "the first products", self._decompose)
        if record is not None:
            self._probe("derivatives", "derivatives against differences of the output", lambda: _derivatives(record))
        return self._report(outputs)

    def _report(self, outputs: int | None = None) -> NetworkReport:
        return NetworkReport(tuple(self.listener.findings), outputs, self.head, self.cost)

    def _probe(self, name: str, words: str, probe: Callable[[], tuple[str, Any]]) -> Any:
        """Run one probe and tell its finding; returns its value, or None if it raised. A probe without a name tells by itself."""
        self.listener.doing(words)
        try:
            detail, value = probe()
        except IFIMError as error:
            self.listener.add(Finding(name or self._stage, False, str(error)))
            return None
        except PassesUsedUpError:
            said = f"not settled within {MOST_PASSES} forward passes: monai-ifim decompose compares at length"
            self.listener.add(Finding("derivatives", True, said, certain=False))
            return None
        except Exception as error:  # a network may raise anything
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            self.listener.add(Finding(name or self._stage, False, said))
            return None
        if name:
            self.listener.add(Finding(name, True, detail))
        return value

    @property
    def _stage(self) -> str:
        """What a decomposition that fails was doing."""
        return "decomposition" if self.head is None else "derivatives"

    def _pass(self, predictor: LimitedPredictor, image: Tensor) -> Tensor:
        with evaluation_mode(predictor.network), torch.no_grad():
            return predictor(image)

    def _output(self) -> tuple[str, Tensor]:
        output = self._pass(self.predictor, self.image)
        chosen = self.predictor.selection.chosen
        read = "" if chosen is None else f", read from {chosen!r} of what the network returns"
        return f"{output.shape[1]} output(s) for an input of {tuple(self.image.shape[1:])}{read}", output

    def _again(self, first: Tensor) -> tuple[str, None]:
        started = _now(self.image)
        second = self._pass(self.predictor, self.image)
        self.forward_seconds = _now(self.image) - started
        if not torch.allclose(first, second, rtol=1e-4, atol=1e-5):
            raise IFIMError("two passes over one image differ: a dropout or random layer stays on in eval mode.")
        return "two passes over one image agree in eval mode", None

    def _independence(self, first: Tensor) -> tuple[str, None]:
        args = [_for_two(value) for value in self.predictor.args]
        both = replace(self.predictor, batch=2, args=args)
        pair = torch.cat([self.image, self.image.flip(-1) * 0.5 + 0.25])
        with evaluation_mode(both.network), torch.no_grad():
            check_independence(both, pair, both(pair), alone=first)
        return "an image's answer is the same alone and in company", None

    def _decompose(self) -> tuple[str, Mapping[str, Any]]:
        """The record of a decomposition by its first products."""
        predictor, network = self.predictor, self.predictor.network
        image = check_image(network, self.image, predictor.dtype)
        try:
            with self.live, evaluation_mode(network) as state, whole_shortcuts(predictor.bare):
                d = decompose_in_parts(
                    predictor, image.clone(), self.settings, self._advance, (), state.changes, self.facts, self.trial
                )
        finally:
            self.limit.most = None
        if self.head is None:
            self.head = d.record["head"]
            said = f"the output does not change with the image around this one: head {self.head}, no component"
            self.listener.add(Finding("decomposition", True, said, certain=False))
        return "", d.record

    def _tell_products(self, trial: FirstProducts) -> None:
        """The first vector-Jacobian products are made."""
        self.head = trial.head
        fewest, most = trial.products
        products = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        detail = f"differentiable; head {trial.head}, method {trial.method}, {products} product(s) an image"
        self.listener.add(Finding("decomposition", True, detail))
        if not trial.steps[1]:
            self._tell_cost(0.0)

    def _advance(self, done: int, expected: int | None) -> None:
        """After each product; the one that follows those of the trial is a Jacobian-vector product."""
        if self.trial.ended and self.trial.steps[1] and self.cost is None:
            self._tell_cost(_now(self.image) - self.trial.ended)

    def _tell_cost(self, step_seconds: float) -> None:
        network, peak = self.predictor.network, self.live.peak
        passes = PassTimes(self.forward_seconds, step_seconds)
        files = replace(measured_files(self.image), growth=self.growth)
        self.cost = cost_of(network, self.image, self.settings, self.trial, passes, files, peak)
        self.listener.add(Finding("cost", True, described(self.cost)))
        self.listener.doing("derivatives against differences of the output")
        used = self.limit.passes + PRODUCT * self.trial.made + STEP * bool(step_seconds)
        left = max(MOST_PASSES - used, VERIFICATION, SHORT / max(passes.forward, 1e-9))
        self.limit.most = self.limit.passes + left


def _now(image: Tensor) -> float:
    """Time, once the device has done what was asked of it."""
    if image.device.type != "cpu":
        torch.accelerator.synchronize(image.device)
    return time.perf_counter()


def _classes(outputs: int, names: tuple[str, ...], stated: int | None) -> list[Finding]:
    """Compares number and names of the classes in the bundle's metadata with the network."""
    findings = []
    if stated is not None:
        detail = f"metadata.json states {stated} output(s) and the network gives {outputs}"
        findings.append(
            Finding("class count", stated == outputs, detail if stated == outputs else f"{detail}: correct num_channels.")
        )
    detail = f"{len(names)} class names for {outputs} outputs"
    if not names:
        findings.append(Finding("class names", True, "none stated (channel_def in metadata.json): classes go by their numbers"))
    elif len(names) == outputs:
        findings.append(Finding("class names", True, f"{detail}: {', '.join(names)}"))
    else:
        findings.append(Finding("class names", False, f"{detail}: correct channel_def in metadata.json."))
    return findings


def _for_two(value: Any) -> Any:
    """A further input of one image, repeated for two."""
    return torch.cat([value, value]) if is_per_image(value, 1) else value


def _derivatives(record: Mapping[str, Any]) -> tuple[str, None]:
    """Raises IFIMError where the derivatives disagree with differences of the output."""
    verification = record["verification"]
    outcome, deviation = verification["outcome"], verification["deviation"]
    if outcome == "inconclusive":
        return f"not compared with differences of the output: {verification['reason']}", None
    if outcome == "disagrees":
        raise IFIMError(
            f"derivatives deviate by {deviation:.0%} from differences of the output (tolerance {verification['tolerance']:.0%}): "
            f"eigenvalues and components are not those of its answer. {verification['reason']}"
        )
    return f"derivatives agree with differences of the output within {deviation:.1%}", None
