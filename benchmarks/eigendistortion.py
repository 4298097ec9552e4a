"""plenoptic's eigendistortions, another published method for the same eigenpairs, compared with exact."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from benchmarks.accuracy import largest_relative_error
from benchmarks.baselines import exact
from benchmarks.networks import Subject, densenet121, frozen
from benchmarks.results import Bar, Row
from benchmarks.timing import Setting

KEPT = 5  # rank of F for six classes
SLOW = ("exact", "power")  # one round
MOST_STEPS = 1000  # of the power method: plenoptic's default


class SquareRootOfProbability(nn.Module):
    """x -> 2 sqrt(softmax f(x)); under unit Gaussian noise its Fisher information is that of the classifier f."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """[B, C]."""
        probabilities: Tensor = self.network(x).softmax(1)
        return 2 * probabilities.sqrt()


class Synthesis:
    """One method of plenoptic with its natural settings, forward pass included; remembers why it failed, if it did."""

    def __init__(self, subject: Subject, method: str, options: Mapping[str, int]) -> None:
        self.model = SquareRootOfProbability(frozen(subject.network)).eval()
        self.image, self.method, self.options = subject.image, method, options
        self.eigenvalues, self.eigendistortions = torch.zeros(0), torch.zeros(0)
        self.failure = ""

    def __call__(self) -> None:
        """Synthesise; progress bars and messages go nowhere."""
        import plenoptic

        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            try:
                found = plenoptic.Eigendistortion(self.image.clone(), self.model)
                found.synthesize(method=self.method, **self.options)
            except Exception as error:
                self.failure = f"{type(error).__name__}: {error}"
            else:
                self.eigenvalues, self.eigendistortions = found.eigenvalues.reshape(-1)[:KEPT], found.eigendistortions


def eigendistortion(setting: Setting) -> list[Row]:
    """Each of plenoptic's methods over exact, and the fastest of them over exact."""
    subject = densenet121(6, setting.size(64, 32), setting.device)
    power = {"k": KEPT, "max_iter": setting.size(MOST_STEPS, 2)}
    options: dict[str, dict[str, int]] = {"exact": {}, "power": power, "randomized_svd": {"k": KEPT}}
    methods = {f"plenoptic {method}": Synthesis(subject, method, chosen) for method, chosen in options.items()}
    setting.note(subject.title)
    slow = {f"plenoptic {method}": 1 for method in (options if setting.quick else SLOW)}
    timings = setting.measure({"exact": lambda: exact(subject), **methods}, limits=slow)
    ours = exact(subject).eigenvalues[0]
    rows, ratios = [], {}
    for name, synthesis in methods.items():
        if synthesis.failure:
            rows.append(Row(f"{name} / exact", subject.title, None, details=synthesis.failure))
            continue
        ratios[name] = timings.ratio(name, "exact")
        error = largest_relative_error(synthesis.eigenvalues, ours)
        details = f"its largest {KEPT} eigenvalues differ by up to {error:.1e}"
        rows.append(Row(f"{name} / exact", subject.title, ratios[name], details=details))
    best = min(ratios, key=lambda name: ratios[name], default=None)
    what, ratio = "plenoptic's fastest method / exact", None if best is None else ratios[best]
    details = f"fastest: {best}; {timings.describe()}" if best else "all methods failed"
    return [Row(what, subject.title, ratio, Bar(20.0, True), "", details, timings.seconds), *rows]
