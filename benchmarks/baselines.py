"""The exact method compared with its lower bound (the network's own passes) and with the usual implementations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.accuracy import largest_relative_error
from benchmarks.networks import Subject, densenet121, frozen, residual18, vision_transformer
from benchmarks.results import Bar, Row
from benchmarks.timing import Setting
from monai_ifim import Decomposition, decompose

ENERGY = 0.99


@dataclass(frozen=True)
class Parts:
    """What every implementation has to return: kept eigenpairs, the split and diag F, of one image."""

    eigenvalues: Tensor
    eigenvectors: Tensor
    high: Tensor
    low: Tensor
    sensitivity: Tensor


def exact(subject: Subject) -> Decomposition:
    """The exact method with default arguments, on a network whose parameters require gradients."""
    return decompose(subject.network, subject.image, head="categorical", energy=ENERGY, method="exact")


def bare_passes(network: nn.Module, image: Tensor, classes: int) -> None:
    """The lower bound: only the network's own passes, with gradients for the image alone."""
    leaf = image.clone().requires_grad_(True)
    output = network(leaf)
    logits = output[0] if isinstance(output, tuple) else output
    for c in range(classes - 1):
        torch.autograd.grad(logits[0, c], leaf, retain_graph=c < classes - 2)


def naive_parts(network: nn.Module, image: Tensor) -> Parts:
    """The usual implementation: C gradients of log p_c, their Gram matrix and eigh, all in the image's dtype."""
    leaf = image.clone().requires_grad_(True)
    log_p = network(leaf).log_softmax(1)[0]
    count = log_p.numel()
    rows = [torch.autograd.grad(log_p[c], leaf, retain_graph=c < count - 1)[0].flatten() for c in range(count)]
    return _parts(log_p.detach().exp().sqrt()[:, None] * torch.stack(rows), image)


def jacrev_parts(network: nn.Module, image: Tensor) -> Parts:
    """torch.func: the whole C x D Jacobian at once, then a root of diag p - p p^T."""

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(x)[0]
        return logits, logits

    jacobian, logits = torch.func.jacrev(function, has_aux=True)(image)
    p = logits.detach().softmax(0)
    values, basis = torch.linalg.eigh(torch.diag(p) - torch.outer(p, p))
    root = basis * values.clamp_min(0).sqrt()
    return _parts(root.T @ jacobian.detach().flatten(1), image)


def passes(setting: Setting) -> list[Row]:
    """Exact over one forward and C - 1 input-only backward passes of a frozen copy of the same network."""
    rows = []
    for build, most in _passes_cases(setting):
        subject = build()
        setting.note(subject.title)
        bare = frozen(subject.network)
        bare_passes(bare, subject.image, 2)
        timings = setting.measure(
            {
                "exact": lambda s=subject: exact(s),  # type: ignore[misc]
                "passes": lambda n=bare, s=subject: bare_passes(n, s.image, s.classes),  # type: ignore[misc]
            },
            rounds=most,
            warm_up=most is None,
        )
        ratio = timings.ratio("exact", "passes")
        rows.append(Row("exact / bare passes", subject.title, ratio, Bar(1.10, False), "", timings.describe(), timings.seconds))
    return rows


def naive(setting: Setting) -> list[Row]:
    """The naive float32 form over exact for two classes; eigenvectors, split and diag F are made by both."""
    subjects = [
        densenet121(2, setting.size(224, 64), setting.device),
        residual18(3, 2, setting.size(64, 24), setting.device),
    ]
    return [_against_exact(setting, subject, "naive form", naive_parts, subject.network, Bar(1.3, True)) for subject in subjects]


def jacrev(setting: Setting) -> list[Row]:
    """torch.func.jacrev over exact; it gets a frozen copy of the network, its fastest case."""
    subject = densenet121(6, setting.size(224, 64), setting.device)
    return [_against_exact(setting, subject, "torch.func.jacrev", jacrev_parts, frozen(subject.network), None)]


def _passes_cases(setting: Setting) -> Iterator[tuple[Callable[[], Subject], int | None]]:
    """Subjects with the most rounds that are sensible for each; None is as many as asked for, after a warm-up round."""
    flat, device = setting.size(224, 64), setting.device
    for classes in (2, 6) if setting.quick else (2, 6, 14):
        yield lambda c=classes: densenet121(c, flat, device), None  # type: ignore[misc]
    for size in (24,) if setting.quick else (64, 96):
        yield lambda s=size: residual18(3, 3, s, device), None  # type: ignore[misc]
    width = {"hidden": setting.size(384, 64), "layers": setting.size(6, 1)}
    yield lambda: vision_transformer(6, flat, device, **width), None
    yield lambda: densenet121(setting.size(1000, 20), flat, device), 1


def _against_exact(
    setting: Setting, subject: Subject, name: str, form: Callable[[nn.Module, Tensor], Parts], network: nn.Module, bar: Bar | None
) -> Row:
    setting.note(f"{name}, {subject.title}")
    timings = setting.measure({"exact": lambda: exact(subject), name: lambda: form(network, subject.image)})
    error = largest_relative_error(form(network, subject.image).eigenvalues, exact(subject).eigenvalues[0])
    details = f"{timings.describe()}; its eigenvalues differ by up to {error:.1e}"
    return Row(f"{name} / exact", subject.title, timings.ratio(name, "exact"), bar, "", details, timings.seconds)


def _parts(factor: Tensor, image: Tensor) -> Parts:
    """All parts from G^T [r, D]."""
    values, coefficients = torch.linalg.eigh(factor @ factor.T)
    values, coefficients = values.flip(0).clamp_min(0), coefficients.flip(1)
    kept = min(values.numel(), int((values.cumsum(0) / values.sum() < ENERGY).sum()) + 1)
    vectors = (coefficients[:, :kept].T @ factor) / values[:kept].sqrt()[:, None]
    flat = image.flatten()
    high = vectors.T @ (vectors @ flat)
    shape = image.shape
    return Parts(
        values[:kept],
        vectors.reshape(kept, *shape[1:]),
        high.reshape(shape),
        (flat - high).reshape(shape),
        factor.square().sum(0).reshape(shape),
    )
