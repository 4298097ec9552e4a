"""Is this network fit for an iFIM? Each promise of DESIGN's network contract as one finding."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monai_ifim.adapt.options import DecomposeOptions
from monai_ifim.core import IFIMError, TrainingModeWarning
from monai_ifim.core.predictor import Predictor, check_independence, evaluation_mode


@dataclass(frozen=True)
class Finding:
    """One property of the network: whether it holds, and what was seen."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class NetworkReport:
    """All findings on one network, in the order they were looked at."""

    findings: tuple[Finding, ...]

    @property
    def fit(self) -> bool:
        """Whether every property holds."""
        return all(finding.passed for finding in self.findings)


def check_network(
    network: nn.Module, image: Tensor, options: DecomposeOptions, class_names: tuple[str, ...] = ()
) -> NetworkReport:
    """Probe a network with one input [1, channel, *spatial].

    Looks at: an output it can read, eval-mode determinism, independence within a batch, differentiability and head (by a
    decomposition), the number of class names.
    """
    predictor = Predictor(network, image.shape[0], options.output_key)
    findings: list[Finding] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingModeWarning)
        outputs = _probe(findings, "output", lambda: _output(predictor, image))
        if outputs is None:
            return NetworkReport(tuple(findings))
        _probe(findings, "determinism", lambda: _determinism(predictor, image))
        _probe(findings, "independence", lambda: _independence(predictor, image))
        _probe(findings, "decomposition", lambda: _decomposition(network, image, options))
    if class_names:
        agree = len(class_names) == outputs
        detail = f"{len(class_names)} class names for {outputs} outputs"
        findings.append(Finding("class names", agree, detail if agree else f"{detail}: correct channel_def in metadata.json."))
    return NetworkReport(tuple(findings))


def _probe(findings: list[Finding], name: str, probe: Callable[[], tuple[str, Any]]) -> Any:
    """Run one probe; its value, or None where it raised, which becomes the finding."""
    try:
        detail, value = probe()
    except (IFIMError, RuntimeError) as error:
        findings.append(Finding(name, False, str(error)))
        return None
    findings.append(Finding(name, True, detail))
    return value


def _output(predictor: Predictor, image: Tensor) -> tuple[str, int]:
    with evaluation_mode(predictor.network), torch.no_grad():
        outputs = predictor(image).shape[1]
    return f"{outputs} output(s) for an input of {tuple(image.shape[1:])}", outputs


def _determinism(predictor: Predictor, image: Tensor) -> tuple[str, None]:
    with evaluation_mode(predictor.network), torch.no_grad():
        first, second = predictor(image), predictor(image)
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-5):
        raise IFIMError("two passes over one image differ: a dropout or random layer stays on in eval mode.")
    return "two passes over one image agree in eval mode", None


def _independence(predictor: Predictor, image: Tensor) -> tuple[str, None]:
    with evaluation_mode(predictor.network), torch.no_grad():
        pair = torch.cat([image, image.flip(-1) * 0.5 + 0.25])
        check_independence(predictor, pair, predictor(pair))
    return "an image's answer is the same alone and in company", None


def _decomposition(network: nn.Module, image: Tensor, options: DecomposeOptions) -> tuple[str, None]:
    record = options.decompose(network, image).record
    return (
        f"differentiable; head {record['head']}, {record['jacobian_products']} vector-Jacobian product(s) an image",
        None,
    )
