"""Assembly of the result: spectra, kept components, signs, the split of the image, and the record."""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor

from monai_ifim.core.decomposition import Decomposition, on_device, status_of
from monai_ifim.core.determinism import last_digits
from monai_ifim.core.errors import SpectralTieWarning, warn_caller
from monai_ifim.core.heads.base import Head
from monai_ifim.core.heads.restricted import RestrictedHead
from monai_ifim.core.heads.square_root import ValueGradients
from monai_ifim.core.operator.metric import Metric
from monai_ifim.core.projection import orthonormalise, split
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.base import Subspace
from monai_ifim.core.spectrum import Spectrum, count_kept, cuts_through_tie
from monai_ifim.core.unfinished import warn_unfinished
from monai_ifim.version import __version__


def assemble(
    head: Head,
    image: Tensor,
    output: Tensor,
    subspace: Subspace,
    settings: Settings,
    row_eps: float,
    record: dict[str, Any],
    values: ValueGradients | None = None,
) -> Decomposition:
    """The decomposition of a batch from the result of a solver; image [B, channel, *spatial], output [B, *output].

    values: how the factor's columns combine to gradients of the answer's values.
    """
    rows, selection = subspace.rows, settings.resolved
    spectra = subspace.spectra(row_eps)
    kept = [count_kept(spectrum, selection.energy, selection.rank) for spectrum in spectra]
    converged = subspace.converged or [True] * len(kept)
    _warn_of_ties(spectra, kept, row_eps)
    weights = combination_weights(spectra, kept, rows.scales, subspace.score).to(rows.scales.device)
    flat = rows.combine(weights)
    kept = orthonormalise(flat, kept)
    flat = _fix_undecided_signs(flat, spectra, kept, subspace.score)
    count = max(kept, default=0)
    eigenvectors = flat[:, :count].reshape(image.shape[0], -1, *image.shape[1:])
    metric = settings.input_metric
    high, low = split(eigenvectors, image)
    error_bound, remainder = _error_bound(spectra, subspace), subspace.remainder
    residuals = _residuals(kept, subspace)
    if not all(converged):
        warn_unfinished(head, settings, subspace, kept, residuals, spectra)
    sensitivity = rows.diagonal()
    if remainder is not None:
        sensitivity += remainder.diagonal
    return Decomposition(
        eigenvalues=_padded([s.eigenvalues[:k] for s, k in zip(spectra, kept, strict=True)], count, image.device),
        eigenvectors=eigenvectors,
        eigenimages=eigenvectors if metric is None or count == 0 else _mapped(metric, eigenvectors),
        rank=torch.tensor(kept, dtype=torch.int64, device=image.device),
        trace=on_device(torch.tensor([s.trace for s in spectra], dtype=torch.float64, device="cpu"), image.device),
        spectrum=_padded([s.eigenvalues for s in spectra], max(s.eigenvalues.numel() for s in spectra), image.device),
        image=image,
        high=high,
        low=low,
        sensitivity=sensitivity.reshape(image.shape),
        sensitivity_error=None if remainder is None else remainder.diagonal_error.reshape(image.shape),
        logits=head.logits(output),
        probabilities=head.probabilities(output),
        trace_error=on_device(subspace.trace_error.cpu(), image.device),
        error_bound=on_device(error_bound, image.device),
        residuals=_padded(residuals, count, image.device),
        converged=torch.tensor(converged, dtype=torch.bool, device=image.device),
        locality_radius=None,
        record=record | {"error_bound": float(error_bound.max())},
        coordinates=None,
        **_answer_tensors(head, output, values, subspace, spectra, flat[:, :count]),
    )


def _answer_tensors(
    head: Head, output: Tensor, values: ValueGradients | None, subspace: Subspace, spectra: list[Spectrum], vectors: Tensor
) -> dict[str, Tensor]:
    """What `Decomposition` holds of the answer's own values; vectors: the kept eigenvectors [B, r, D]."""
    found: dict[str, Tensor] = {}
    voxels = head.voxels(output) if isinstance(head, RestrictedHead) else None
    if voxels is not None:
        found["answer_voxels"] = voxels.to(output.device)
    if values is None:
        return found
    found["answer_tolerances"] = on_device(values.tolerances, output.device)
    rows, coefficients = subspace.rows, values.coefficients
    if subspace.method != "exact" or len(rows.rows) not in (0, coefficients.shape[2]):
        return found  # the rows are not the columns, or some of them alone
    if not rows.rows:  # a constant output
        coefficients = coefficients[..., :0]
    slopes = [
        (spectrum.coefficients @ one.T.cpu() * spectrum.roots[:, None]).norm(dim=0)
        for spectrum, one in zip(spectra, coefficients, strict=True)
    ]
    found["answer_slopes"] = on_device(torch.stack(slopes), output.device)
    changes = rows.products(vectors) @ coefficients.transpose(1, 2).to(rows.scales)
    found["answer_changes"] = on_device(changes, output.device)
    return found


def compose_record(
    asked: Settings, metric: Metric | None, head: Head, image: Tensor, subspace: Subspace, products: int, reason: str
) -> dict[str, Any]:
    """How a batch was decomposed, as plain data: the settings as given, and what was used where they leave a choice."""
    return {
        "settings": asked.describe(),
        "head": head.whole.name,
        "answers": head.whole.answers,
        "values": head.whole.values,
        "label_rule": head.whole.label_rule,
        "method": subspace.method,
        "method_reason": reason,
        "confidence": subspace.confidence,  # that error_bound holds
        "status": status_of(subspace.converged is None or all(subspace.converged)),
        "stopped": subspace.stopped,
        "jacobian_products": products,
        "metric": None if metric is None else metric.describe(),
        "metric_unit": None if metric is None else metric.unit,
        "dtype": str(image.dtype).removeprefix("torch."),
        "device": str(image.device),
        "computation": last_digits(image),
        "units": f"nats per ({'unit of the image' if metric is None else metric.unit})^2",
        "versions": {"monai_ifim": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
    }


def _error_bound(spectra: list[Spectrum], subspace: Subspace) -> Tensor:
    """Upper bound of the share of the trace that was not computed, [B] float64, with the confidence in the record.

    The trace known is that of the spectrum without its estimate of what is outside.
    """
    shares = [
        min(1.0, bound / (bound + max(spectrum.trace - outside, 0.0))) if bound > 0 else 0.0
        for spectrum, bound, outside in zip(
            spectra, subspace.trace_outside_bound.tolist(), subspace.trace_outside.tolist(), strict=True
        )
    ]
    return torch.tensor(shares, dtype=torch.float64, device="cpu")


def _mapped(metric: Metric, eigenvectors: Tensor) -> Tensor:
    """M u_i of eigenvectors [B, r, channel, *spatial]."""
    if eigenvectors.shape[1] == 1:  # not copied: it may be as large as a scan
        return metric.apply(eigenvectors[:, 0])[:, None]
    return torch.stack([metric.apply(vectors) for vectors in eigenvectors.unbind(1)], dim=1)


def _residuals(kept: list[int], subspace: Subspace) -> list[Tensor]:
    """Bounds of |F u - l u| of each kept pair; where columns were left out, |F - F_known| is at most their trace."""
    if subspace.residuals is not None:
        return [bounds[:k].cpu() for bounds, k in zip(subspace.residuals, kept, strict=True)]
    return [
        torch.full((k,), bound, dtype=torch.float64, device="cpu")
        for k, bound in zip(kept, subspace.trace_outside_bound.tolist(), strict=True)
    ]


def combination_weights(spectra: list[Spectrum], kept: list[int], scales: Tensor, score: Tensor) -> Tensor:
    """[B, k, r] weights of the unscaled rows in the signed unit eigenvectors u_i = G v_i / sqrt(l_i).

    A step along +u_i raises the log-probability of the predicted class: its derivative along u_i is sqrt(l_i) (w . v_i).
    """
    weights = torch.zeros(len(spectra), max(kept, default=0), scales.shape[1], dtype=torch.float64, device="cpu")
    scales, score = scales.cpu(), score.cpu()  # of all images in one transfer
    for b, (spectrum, k) in enumerate(zip(spectra, kept, strict=True)):
        v = spectrum.coefficients[:k]
        sign = torch.where((v * score[b]).sum(1) < 0, -1.0, 1.0).to(torch.float64)
        weights[b, :k] = sign[:, None] * v * scales[b] / spectrum.roots[:k, None]
    return weights


def _fix_undecided_signs(flat: Tensor, spectra: list[Spectrum], kept: list[int], score: Tensor) -> Tensor:
    """Make the entry of largest magnitude positive where that derivative is zero to rounding; flat: [B, k, D]."""
    tolerance, score = 64 * torch.finfo(flat.dtype).eps, score.cpu()
    for b, (spectrum, k) in enumerate(zip(spectra, kept, strict=True)):
        terms = spectrum.coefficients[:k] * score[b]
        undecided = terms.sum(1).abs() <= tolerance * terms.abs().sum(1)
        for i in undecided.nonzero()[:, 0].tolist():
            vector = flat[b, i]
            if float(vector[vector.abs().argmax()]) < 0:
                flat[b, i] = -vector
    return flat


def _warn_of_ties(spectra: list[Spectrum], kept: list[int], row_eps: float) -> None:
    """Warn where the selection cuts between equal eigenvalues (SpectralTieWarning)."""
    tolerance = max(1e-6, 100 * row_eps)
    tied = [b for b, (s, k) in enumerate(zip(spectra, kept, strict=True)) if cuts_through_tie(s, k, tolerance)]
    if tied:
        warn_caller(
            f"image(s) {tied} of the batch: the last eigenvalue kept equals the first one dropped, so the kept subspace, "
            "and with it high and low, is not unique; keep one component more or fewer (rank=) or another energy.",
            SpectralTieWarning,
        )


def _padded(rows: list[Tensor], length: int, device: torch.device) -> Tensor:
    """The rows as one zero-padded table [B, length] float64."""
    table = torch.zeros(len(rows), length, dtype=torch.float64, device="cpu")
    for b, row in enumerate(rows):
        table[b, : row.numel()] = row
    return on_device(table, device)
