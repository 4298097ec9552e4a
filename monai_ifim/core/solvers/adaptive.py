"""The adaptive method: the factor's heaviest columns, until random probes bound the trace of the others below the tolerance."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.base import Subspace, enough
from monai_ifim.core.solvers.exact import whole_factor
from monai_ifim.core.solvers.trace_probes import CONFIDENCE, TraceProbes, slack
from monai_ifim.core.spectrum import Spectrum, count_kept

MOST_PROBES = 32
MARGIN = 1.5  # safety factor of predictions, as estimates scatter
NOISE = 1e-6  # a column recovered from probes is set to zero below this share of their length


def forecast(scales: Tensor, settings: Settings) -> tuple[int, int]:
    """(columns, probes) that reach the tolerance if the gradients of all columns are equally long; (r, 0) where none saves work.

    scales: [B, r] float64. More probes make the bound tighter, which saves columns.
    """
    weights = _relative_weights(scales)
    r = weights.shape[1]
    best = (r, 0)
    energy, rank, tolerance = settings.resolved
    if rank is None and energy >= 1.0:
        return best  # every eigenvalue is needed
    rest = _rest(weights)
    smallest = torch.stack([_smallest_kept(row, settings) for row in weights])
    for probes in range(1, MOST_PROBES + 1):
        if probes + (rank or 1) >= sum(best):
            break
        fits = MARGIN * slack(probes) * rest <= tolerance * smallest[:, None]
        columns = max(int((~fits).sum(1).max()) + 1, rank or 1)
        if columns + probes < sum(best):
            best = (columns, probes)
    return best if sum(best) < r else (r, 0)


def adaptive_columns(
    factor: Factor, rows: FactorRows, settings: Settings, row_eps: float, generator: torch.Generator
) -> Subspace:
    """The heaviest columns, as many as the tolerance needs, with at most one product more than the exact method.

    All images of a batch get as many columns as the most demanding one needs. Once there are as many probes as columns left,
    those columns are solved for instead of computed.
    """
    known, count = forecast(factor.root.scales, settings)
    if count == 0:
        return whole_factor(factor, rows)
    weights = _relative_weights(factor.root.scales)
    _take(factor, rows, None, 0, known)
    probes = TraceProbes.draw(factor, count, generator, known)
    while True:
        subspace = _so_far(factor, rows, probes, known)
        spectra, bounds = subspace.spectra(row_eps), subspace.trace_outside_bound.tolist()
        verdicts = [enough(spectrum, bound, settings) for spectrum, bound in zip(spectra, bounds, strict=True)]
        if all(verdicts):
            return subspace
        columns, more = _next_step(weights, known, probes, subspace, spectra, settings)
        probes.extend(TraceProbes.draw(factor, more, generator, known))
        determined = max(known, factor.columns - (len(probes.rows) - 1))  # from here on the probes determine the other columns
        following = min(known + columns, determined)
        _take(factor, rows, probes, known, following)
        known = following
        if known == determined:
            _recover(factor, rows, probes, known)
            nothing = torch.zeros_like(subspace.trace_outside)
            return Subspace("adaptive", rows, factor.root.score, nothing, nothing)


def _take(factor: Factor, rows: FactorRows, probes: TraceProbes | None, start: int, stop: int) -> None:
    """Append columns start to stop to the rows and remove them from the probes."""
    for first, end in factor.column_chunks(start, stop):
        cotangents = factor.cotangents(first, end)
        for j in range(first, end):
            row, scale = factor.column(cotangents[:, j - first], j)
            rows.append(row, scale)
            if probes is not None:
                probes.remove_column(j, row, scale)


def _so_far(factor: Factor, rows: FactorRows, probes: TraceProbes, known: int) -> Subspace:
    bound, score = probes.upper_bound(), factor.root.score[:, :known]
    return Subspace("adaptive", rows, score, probes.estimate(), bound, confidence=CONFIDENCE, probes=len(probes.rows))


def _next_step(
    weights: Tensor, known: int, probes: TraceProbes, subspace: Subspace, spectra: list[Spectrum], settings: Settings
) -> tuple[int, int]:
    """(columns, probes) to add, one of them zero: the cheaper way to bring the bound of every image below the tolerance.

    More columns lower the trace of the others, predicted from the weights; more probes bring the bound nearer to the estimate.
    """
    rest, r = _rest(weights), weights.shape[1]
    selection = settings.resolved
    columns, more = 1, 0
    for b, spectrum in enumerate(spectra):
        estimate, bound = float(subspace.trace_outside[b]), float(subspace.trace_outside_bound[b])
        if enough(spectrum, bound, settings):
            continue
        kept = count_kept(spectrum, selection.energy, selection.rank)
        allowed = selection.tolerance * float(spectrum.eigenvalues[kept - 1]) / MARGIN if kept else 0.0
        short = kept == 0 or not enough(spectrum, 0.0, settings)  # too few columns even if the others were zero
        needed = estimate * slack(len(probes.rows), probes.looks)
        aim = float(rest[b, known - 1]) * min(1.0, allowed / needed if needed > 0 else 1.0)
        columns = max(columns, int((rest[b] > aim).sum()) + 1 - known)
        fits = (n for n in range(len(probes.rows) + 1, r) if estimate * slack(n, probes.looks) <= allowed)
        more = r if short else max(more, next(fits, r) - len(probes.rows))
    affordable = known + len(probes.rows) + more <= r  # else more than one product beyond the exact method is possible
    return (0, more) if 0 < more < columns and affordable else (min(columns, known + 8), 0)


def _recover(factor: Factor, rows: FactorRows, probes: TraceProbes, known: int) -> None:
    """Append the remaining columns, solved for from the probes: sum_j omega_ij A e_j = probe_i."""
    left = factor.columns - known
    if left == 0:
        return
    omega = torch.stack(probes.weights, dim=1)[:, :, known:]  # [B, n, left]
    solution = torch.linalg.pinv(omega)  # [B, left, n]
    units = torch.stack(probes.scales, dim=1)  # [B, n]
    size = units.amax(1)
    for j in range(left):
        share = solution[:, j] * units / torch.where(size > 0, size, 1.0)[:, None]
        row = torch.zeros_like(probes.rows[0])
        for i, probe in enumerate(probes.rows):
            row += share[:, i].to(probe)[:, None] * probe
        tiny = row.norm(dim=1) <= NOISE * torch.stack([probe.norm(dim=1) for probe in probes.rows]).amax(0)
        row[tiny] = 0.0
        rows.append(row, size)


def _relative_weights(scales: Tensor) -> Tensor:
    """Squared scales, normalised to sum to one for each image; on the CPU."""
    relative = scales.cpu() / scales.cpu().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    squares = relative.square()
    return squares / squares.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def _rest(weights: Tensor) -> Tensor:
    """[B, r]: weight of the columns after the first 1, 2, ..., r; summed from the lightest, so that small sums keep digits."""
    remaining = weights.flip(1).cumsum(1).flip(1)
    return torch.cat([remaining[:, 1:], torch.zeros_like(remaining[:, :1])], dim=1)


def _smallest_kept(weights: Tensor, settings: Settings) -> Tensor:
    """Smallest eigenvalue that the selection keeps if the columns' gradients are orthogonal and equally long."""
    held = weights.cumsum(0)
    kept = settings.resolved.rank or int((held < settings.resolved.energy).sum()) + 1
    return weights[min(kept, weights.numel()) - 1]
