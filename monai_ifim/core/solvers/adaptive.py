"""The adaptive method: the factor's heaviest columns first, and a probe that says when the rest no longer matters."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.base import Subspace, enough
from monai_ifim.core.solvers.exact import whole_factor
from monai_ifim.core.solvers.trace_probes import CONFIDENCE, TailProbes, slack
from monai_ifim.core.spectrum import Spectrum, count_kept

MOST_PROBES = 32
MARGIN = 1.5  # aimed below the bar by this factor, as estimates scatter
NOISE = 1e-6  # a column recovered from probes counts from this share of the probes' own size on


def forecast(scales: Tensor, settings: Settings) -> tuple[int, int]:
    """(columns, probes) that would do if all columns' gradients were equally long; (r, 0) where nothing is saved.

    scales: [B, r] float64. A few probes more make the bound tighter, which saves columns.
    """
    weights = _relative_weights(scales)
    r = weights.shape[1]
    best = (r, 0)
    if settings.rank is None and settings.energy >= 1.0:
        return best  # every eigenvalue is kept
    rest = _rest(weights)
    smallest = torch.stack([_smallest_kept(row, settings) for row in weights])
    for probes in range(1, MOST_PROBES + 1):
        if probes + (settings.rank or 1) >= sum(best):
            break
        fits = MARGIN * slack(probes) * rest <= settings.tolerance * smallest[:, None]
        columns = max(int((~fits).sum(1).max()) + 1, settings.rank or 1)
        if columns + probes < sum(best):
            best = (columns, probes)
    return best if sum(best) < r else (r, 0)


def adaptive_columns(
    factor: Factor, rows: FactorRows, settings: Settings, row_eps: float, generator: torch.Generator
) -> Subspace:
    """As many columns as the tolerance asks for; at most one product more than the exact method makes.

    All images of a batch take as many as the most demanding of them. Where so few columns are left that the probes
    determine them, they are solved for.
    """
    known, count = forecast(factor.root.scales, settings)
    if count == 0:
        return whole_factor(factor, rows)
    weights = _relative_weights(factor.root.scales)
    _take(factor, rows, None, 0, known)
    probes = TailProbes.draw(factor, count, generator, known)
    while True:
        subspace = _so_far(factor, rows, probes, known)
        spectra, bounds = subspace.spectra(row_eps), subspace.tail_bound.tolist()
        verdicts = [enough(spectrum, bound, settings) for spectrum, bound in zip(spectra, bounds, strict=True)]
        if all(verdicts):
            return subspace
        columns, more = _next_step(weights, known, probes, subspace, spectra, settings)
        probes.extend(TailProbes.draw(factor, more, generator, known))
        determined = max(known, factor.columns - (len(probes.rows) - 1))  # with these columns, the probes give the others
        following = min(known + columns, determined)
        _take(factor, rows, probes, known, following)
        known = following
        if known == determined:
            _recover(factor, rows, probes, known)
            nothing = torch.zeros_like(subspace.tail)
            return Subspace("adaptive", rows, factor.root.score, nothing, nothing)


def _take(factor: Factor, rows: FactorRows, probes: TailProbes | None, start: int, stop: int) -> None:
    """Columns start to stop, each taken off the probes."""
    for first, end in factor.column_chunks(start, stop):
        cotangents = factor.cotangents(first, end)
        for j in range(first, end):
            row, scale = factor.column(cotangents[:, j - first], j)
            rows.append(row, scale)
            if probes is not None:
                probes.remove_column(j, row, scale)


def _so_far(factor: Factor, rows: FactorRows, probes: TailProbes, known: int) -> Subspace:
    return Subspace(
        "adaptive", rows, factor.root.score[:, :known], probes.estimate(), probes.upper_bound(), confidence=CONFIDENCE
    )


def _next_step(
    weights: Tensor, known: int, probes: TailProbes, subspace: Subspace, spectra: list[Spectrum], settings: Settings
) -> tuple[int, int]:
    """(columns, probes) to add, one of them zero: what brings every image's bound below the tolerance at less cost.

    Columns lower the rest, as far as the weights tell; probes bring the bound nearer to the estimate.
    """
    rest, r = _rest(weights), weights.shape[1]
    columns, more = 1, 0
    for b, spectrum in enumerate(spectra):
        estimate, bound = float(subspace.tail[b]), float(subspace.tail_bound[b])
        if enough(spectrum, bound, settings):
            continue
        kept = count_kept(spectrum, settings.energy, settings.rank)
        allowed = settings.tolerance * float(spectrum.eigenvalues[kept - 1]) / MARGIN if kept else 0.0
        short = kept == 0 or not enough(spectrum, 0.0, settings)  # what is known would not do even if the rest were nothing
        needed = estimate * slack(len(probes.rows), probes.looks)
        aim = float(rest[b, known - 1]) * min(1.0, allowed / needed if needed > 0 else 1.0)
        columns = max(columns, int((rest[b] > aim).sum()) + 1 - known)
        fits = (n for n in range(len(probes.rows) + 1, r) if estimate * slack(n, probes.looks) <= allowed)
        more = r if short else max(more, next(fits, r) - len(probes.rows))
    affordable = known + len(probes.rows) + more <= r  # or all together could be more than one beyond exact
    return (0, more) if 0 < more < columns and affordable else (min(columns, known + 8), 0)


def _recover(factor: Factor, rows: FactorRows, probes: TailProbes, known: int) -> None:
    """Append the last columns, solved for from the probes' residuals: sum_j omega_ij A e_j = probe_i."""
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
    """Squared scales, each image's summing to one; on the CPU."""
    relative = scales.cpu() / scales.cpu().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    squares = relative.square()
    return squares / squares.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def _rest(weights: Tensor) -> Tensor:
    """[B, r]: weight left out after the first 1, 2, ..., r columns, summed from the light end so that it keeps its digits."""
    tails = weights.flip(1).cumsum(1).flip(1)
    return torch.cat([tails[:, 1:], torch.zeros_like(tails[:, :1])], dim=1)


def _smallest_kept(weights: Tensor, settings: Settings) -> Tensor:
    """The eigenvalue that the selection would keep last if the columns were orthogonal and equally long."""
    held = weights.cumsum(0)
    kept = settings.rank or int((held < settings.energy).sum()) + 1
    return weights[min(kept, weights.numel()) - 1]
