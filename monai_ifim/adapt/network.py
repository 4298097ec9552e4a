"""Checks if a network can be decomposed and estimates the cost of one image; each requirement of `decompose` is a finding."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from monai_ifim.adapt.bundle import Bundle
from monai_ifim.core import GradientWarning, Head, IFIMError, TrainingModeWarning
from monai_ifim.core.decompose import decompose_with
from monai_ifim.core.heads.choice import answers_at_every_voxel, resolve_head
from monai_ifim.core.heads.square_root import SquareRoot
from monai_ifim.core.memory.blocks import LARGEST_BLOCK
from monai_ifim.core.memory.live_memory import LiveMemory
from monai_ifim.core.operator.arguments import is_per_image
from monai_ifim.core.operator.module_state import evaluation_mode
from monai_ifim.core.operator.predictor import Predictor
from monai_ifim.core.operator.requirements import check_independence
from monai_ifim.core.settings import Settings
from monai_ifim.display.numbers import bytes_size, counted, duration

PROBED = 4  # columns of the factor that `check` computes
ROUGH = 0.1  # tolerance of the one component that is asked of a segmentation network


@dataclass(frozen=True)
class Finding:
    """One property of the network: if it holds, and what was observed."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Cost:
    """Time and memory of one image, extrapolated from one forward pass and one vector-Jacobian product (VJP), each timed once.

    seconds: forward_seconds + products * product_seconds. peak_bytes: weights_bytes, results_bytes (rows and components, by
    arithmetic) and pass_bytes, the most that PyTorch's tensors hold at once during the two passes. Not in them: buffers inside
    the kernels, the locality radius, files.
    """

    device: str
    products: int
    forward_seconds: float
    product_seconds: float
    seconds: float
    weights_bytes: int
    pass_bytes: int
    results_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class NetworkReport:
    """All findings on one network, in the order of the checks; outputs, head and cost are None if not reached."""

    findings: tuple[Finding, ...]
    outputs: int | None = None
    head: str | None = None
    cost: Cost | None = None

    @property
    def fit(self) -> bool:
        """True if every property holds."""
        return all(finding.passed for finding in self.findings)


def check_bundle(bundle: Bundle, image: Path | None, settings: Settings, device: torch.device | str = "cpu") -> NetworkReport:
    """Probe a bundle's network with an image, or with random numbers of the shape that its metadata states.

    device: where the bundle was loaded. Raises InputError where there is nothing to probe with.
    """
    example = bundle.example(image).as_subclass(Tensor)[None].to(device)
    args = [value.to(device) for value in bundle.further_examples()]
    report = check_network(bundle.network, example, settings, bundle.identity.class_names, bundle.outputs, args)
    said = bundle.steps.describe()
    if said:
        report = replace(report, findings=(Finding("preprocessing", True, "; ".join(said)), *report.findings))
    if not args:
        return report
    named = ", ".join(f"{name} {tuple(value.shape[1:])}" for (name, _), value in zip(bundle.further, args, strict=True))
    detail = (
        f"besides the image the network takes {named}, here random; the image alone is differentiated. `monai-ifim decompose` "
        "hands over images only: run the bundle's own config with IFIMInferer."
    )
    return NetworkReport((Finding("inputs", True, detail), *report.findings), report.outputs, report.head, report.cost)


def check_network(
    network: nn.Module,
    image: Tensor,
    settings: Settings,
    class_names: tuple[str, ...] = (),
    stated_outputs: int | None = None,
    args: Sequence[Any] = (),
) -> NetworkReport:
    """Probe a network with one input [1, channel, *spatial]; args: its further inputs for that image.

    Looks at: an output it can read, number and names of the classes, eval-mode determinism, independence within a batch,
    differentiability and head (by a decomposition of few columns), derivatives against differences of the output, time and
    memory of one image.
    """
    spatial = answers_at_every_voxel(settings.head)
    predictor = Predictor(network, image.shape[0], settings.output_key, tuple(args), spatial=spatial)
    findings: list[Finding] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingModeWarning)
        warnings.simplefilter("ignore", GradientWarning)  # a finding says it
        outputs = _probe(findings, "output", lambda: _output(predictor, image))
        if outputs is None:
            return NetworkReport(tuple(findings))
        findings.extend(_classes(outputs, class_names, stated_outputs))
        _probe(findings, "determinism", lambda: _determinism(predictor, image))
        _probe(findings, "independence", lambda: _independence(predictor, image))
        leading = _probe(findings, "decomposition", lambda: _decomposition(predictor, image, settings))
        if leading is None:
            return NetworkReport(tuple(findings), outputs)
        _probe(findings, "derivatives", lambda: _derivatives(leading.verification))
        cost = _probe(findings, "cost", lambda: _cost(predictor, image, leading.products))
    return NetworkReport(tuple(findings), outputs, leading.head, cost)


def _probe(findings: list[Finding], name: str, probe: Callable[[], tuple[str, Any]]) -> Any:
    """Run one probe and append its finding; returns its value, or None if it raised."""
    try:
        detail, value = probe()
    except IFIMError as error:
        findings.append(Finding(name, False, str(error)))
        return None
    except Exception as error:  # a network may raise anything
        findings.append(Finding(name, False, f"{type(error).__name__}: {' '.join(str(error).split())}"))
        return None
    findings.append(Finding(name, True, detail))
    return value


def _output(predictor: Predictor, image: Tensor) -> tuple[str, int]:
    with evaluation_mode(predictor.network), torch.no_grad():
        outputs = predictor(image).shape[1]
    chosen = predictor.selection.chosen
    read = "" if chosen is None else f", read from {chosen!r} of what the network returns"
    return f"{outputs} output(s) for an input of {tuple(image.shape[1:])}{read}", outputs


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


def _determinism(predictor: Predictor, image: Tensor) -> tuple[str, None]:
    with evaluation_mode(predictor.network), torch.no_grad():
        first, second = predictor(image), predictor(image)
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-5):
        raise IFIMError("two passes over one image differ: a dropout or random layer stays on in eval mode.")
    return "two passes over one image agree in eval mode", None


def _independence(predictor: Predictor, image: Tensor) -> tuple[str, None]:
    args = [_for_two(value) for value in predictor.args]
    kwargs = {name: _for_two(value) for name, value in predictor.kwargs.items()}
    pair = torch.cat([image, image.flip(-1) * 0.5 + 0.25])
    both = replace(predictor, batch=2, args=args, kwargs=kwargs)
    with evaluation_mode(predictor.network), torch.no_grad():
        check_independence(both, pair, both(pair))
    return "an image's answer is the same alone and in company", None


def _for_two(value: Any) -> Any:
    """A further input of one image, repeated for two."""
    return torch.cat([value, value]) if is_per_image(value, 1) else value


class _LeadingColumns(Head):
    """The head named by `asked`, reduced to its heaviest columns, so that `decompose` takes few vector-Jacobian products."""

    name: ClassVar[str] = "leading columns"

    def __init__(self, asked: str | Head) -> None:
        self.asked = asked
        self.columns = 0

    def validate(self, output: Tensor, operation: str | None) -> None:
        """Chooses the head, as `decompose` does once the output is known."""
        self.chosen = resolve_head(self.asked, output, operation)

    def square_root(self, output: Tensor) -> SquareRoot:
        """The first columns of the chosen head's."""
        whole = self.chosen.square_root(output)
        self.columns = whole.columns
        return SquareRoot(whole.scales[:, :PROBED], whole.score[:, :PROBED], whole.build)

    def probabilities(self, output: Tensor) -> Tensor:
        """See `Head`."""
        return self.chosen.probabilities(output)

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """See `Head`."""
        return self.chosen.divergence(output, moved)


@dataclass(frozen=True)
class _Leading:
    """A decomposition of few columns: the head, the products of a whole one, and its verification."""

    head: str
    products: int
    verification: dict[str, Any]


def _decomposition(predictor: Predictor, image: Tensor, settings: Settings) -> tuple[str, _Leading]:
    further = (predictor.network, image, predictor.args, predictor.kwargs)
    always: dict[str, Any] = {"rank": 1, "locality": False, "verify": "always"}
    if predictor.spatial:
        record = decompose_with(Settings.of(settings, {"tolerance": ROUGH} | always), *further).record
        leading = _Leading(record["head"], record["jacobian_products"], record["verification"])
        return f"differentiable; head {leading.head}, {leading.products} Jacobian products for a first component", leading
    head = _LeadingColumns(settings.head)
    record = decompose_with(Settings.of(settings, {"head": head} | always), *further).record
    leading = _Leading(head.chosen.name, head.columns, record["verification"])
    return f"differentiable; head {leading.head}, {leading.products} vector-Jacobian product(s) an image", leading


def _derivatives(verification: Mapping[str, Any]) -> tuple[str, None]:
    """Raises IFIMError where the derivatives disagree with differences of the output."""
    outcome, deviation = verification["outcome"], verification["deviation"]
    if outcome == "inconclusive":
        return f"not compared with differences of the output: {verification['reason']}", None
    if outcome == "disagrees":
        raise IFIMError(
            f"derivatives deviate by {deviation:.0%} from differences of the output (tolerance {verification['tolerance']:.0%}): "
            f"eigenvalues and components are not those of its answer. {verification['reason']}"
        )
    return f"derivatives agree with differences of the output within {deviation:.1%}", None


def _cost(predictor: Predictor, image: Tensor, products: int) -> tuple[str, Cost]:
    """Time and memory of one image; earlier probes have warmed the network up."""
    with evaluation_mode(predictor.network):
        forward, product = _timed_passes(predictor, image)
        with LiveMemory() as live:
            _timed_passes(predictor, image)
    network = predictor.network
    state = [*network.parameters(), *network.buffers()] if isinstance(network, nn.Module) else []
    weights = sum(tensor.nbytes for tensor in state)
    rows = products * image.nbytes
    # Once the graph is freed: rows, as many eigenvectors, high and low, diag F and a float64 working block.
    after = 2 * rows + 2 * image.nbytes + 8 * image.numel() + 8 * min(LARGEST_BLOCK, 2 * products * image.numel())
    results = rows + max(0, after - rows - live.peak)
    cost = Cost(
        device=str(image.device),
        products=products,
        forward_seconds=forward,
        product_seconds=product,
        seconds=forward + products * product,
        weights_bytes=weights,
        pass_bytes=live.peak,
        results_bytes=results,
        peak_bytes=weights + live.peak + results,
    )
    return _describe(cost), cost


def _timed_passes(predictor: Predictor, image: Tensor) -> tuple[float, float]:
    """Seconds of one forward pass that keeps its graph, and of one vector-Jacobian product."""
    _finish_queued(image.device)
    started = time.perf_counter()
    leaf = image.clone().requires_grad_(True)
    output = predictor(leaf.clone())
    _finish_queued(image.device)
    between = time.perf_counter()
    torch.autograd.grad(output, leaf, torch.ones_like(output), retain_graph=True, allow_unused=True)
    _finish_queued(image.device)
    return between - started, time.perf_counter() - between


def _finish_queued(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _describe(cost: Cost) -> str:
    return (
        f"about {duration(cost.seconds)} and {bytes_size(cost.peak_bytes)} an image on {cost.device}. Time: a forward pass "
        f"{duration(cost.forward_seconds)} and {counted(cost.products, 'vector-Jacobian product')} of "
        f"{duration(cost.product_seconds)}, each timed once. Peak memory: weights {bytes_size(cost.weights_bytes)}, tensors "
        f"alive at once in one pass and one product {bytes_size(cost.pass_bytes)} (counted; buffers inside the "
        f"kernels are not seen), results {bytes_size(cost.results_bytes)} (calculated). Locality radius and files come on top."
    )
