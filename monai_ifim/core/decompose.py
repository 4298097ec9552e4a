"""`decompose`: one forward pass, one vector-Jacobian product a factor column, a small float64 eigenproblem."""

from __future__ import annotations

import platform
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from monai_ifim.core.decomposition import Decomposition
from monai_ifim.core.errors import IFIMError, NetworkError, SpectralTieWarning
from monai_ifim.core.head_choice import resolve_head
from monai_ifim.core.heads import Head, SquareRoot
from monai_ifim.core.jacobian import FactorRows, factor_rows
from monai_ifim.core.outputs import last_operation
from monai_ifim.core.predictor import Predictor, check_image, check_independence, evaluation_mode, owner_of
from monai_ifim.core.projection import split
from monai_ifim.core.spectrum import Spectrum, check_selection, count_kept, cuts_through_tie, solve_spectrum
from monai_ifim.version import __version__

Method = Literal["auto", "exact"]


def decompose(
    network: Callable[..., Any],
    x: Tensor,
    *,
    head: str | Head = "auto",
    energy: float = 0.99,
    rank: int | None = None,
    method: Method = "auto",
    output_key: str | int | None = None,
    network_args: Sequence[Any] = (),
    network_kwargs: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Decomposition:
    """Split each image of a batch along the leading eigenspace of its own Fisher information matrix.

    F(x) = J^T (diag p - p p^T) J for a classifier (arXiv:2606.16362); it is never formed.

    Args:
        network: module, TorchScript module or callable, evaluated in eval mode and left as it was.
        x: images [B, channel, H, W] or [B, channel, H, W, D], floating point, as the network sees them; left untouched.
        head: "categorical", "bernoulli" (also one binary logit), "gaussian" (unit noise), "probabilities", or a `Head`.
            "auto" reads two or more outputs as the logits of exclusive classes and refuses what may be something else.
        energy: keep the fewest leading components that hold this share of the trace.
        rank: keep this many components instead (at most the numerical rank).
        method: "exact" computes every column of the factor; "auto" chooses.
        output_key: which entry of a tuple or mapping that the network returns holds the logits.
        network_args, network_kwargs: further inputs of the network; tensors in them have the batch as first axis.
        progress: count the Jacobian products on standard error.

    Returns:
        A `Decomposition` whose tensors are plain and on the image's device.

    Raises:
        IFIMError: the image, network, head or settings do not fit; the message names the cure.
    """
    energy, rank = check_selection(energy, rank)
    check_method(method)
    network = owner_of(network)
    image = check_image(network, x)
    predictor = Predictor(network, image.shape[0], output_key, tuple(network_args), dict(network_kwargs or {}))
    advance = _print_progress if progress else _no_progress
    with evaluation_mode(network):
        image = image.clone()
        leaf = image.clone().requires_grad_(True)
        output = predictor(leaf.clone())  # a copy, so that a network may write into its input
        chosen = _check_output(predictor, image, output, head)
        root = chosen.square_root(output)
        rows = _rows_or_flat(predictor, output, leaf, root, advance)
        output = output.detach()
        return _assemble(predictor, chosen, image, output, root, rows, energy, rank, head)


def check_method(method: str) -> None:
    """Raise IFIMError for a name that is no method."""
    if method not in get_args(Method):
        raise IFIMError(f"unknown method {method!r}: choose one of {', '.join(map(repr, get_args(Method)))}.")


def _check_output(predictor: Predictor, image: Tensor, output: Tensor, head: str | Head) -> Head:
    if not bool(torch.isfinite(output).all()):
        raise NetworkError(
            "the network's output is NaN or infinite for this image: check its weights and the scaling of the image, or use "
            "a wider dtype; classes masked with -inf are left out of the output or masked with a large finite number."
        )
    check_independence(predictor, image, output)
    return resolve_head(head, output, last_operation(output, predictor.bare))


def _rows_or_flat(
    predictor: Predictor, output: Tensor, leaf: Tensor, root: SquareRoot, advance: Callable[[int, int], None]
) -> FactorRows:
    """Jacobian rows; zeros where the network ignores its image; NetworkError where it merely cannot be differentiated."""
    rows = factor_rows(output, leaf, root, advance) if output.requires_grad else None
    if rows is not None:
        return rows
    image = leaf.detach()
    with torch.no_grad():
        others = [torch.zeros_like(image), 1 - 2 * image, image.flip(-1) + image.mean()]
        constant = all(torch.equal(predictor(other), output) for other in others)
    if not constant:
        raise NetworkError(
            "no gradient flows from the network's output to its image: ONNX and TensorRT engines, numpy code, .detach(), "
            "torch.no_grad or inference_mode inside forward() and dynamic quantisation cut it. Pass the differentiable PyTorch "
            "module or TorchScript."
        )
    return FactorRows(leaf.detach().new_zeros(leaf.shape[0], root.columns, leaf[0].numel()), root.scales)


def _assemble(
    predictor: Predictor,
    head: Head,
    image: Tensor,
    output: Tensor,
    root: SquareRoot,
    rows: FactorRows,
    energy: float,
    rank: int | None,
    asked_head: str | Head,
) -> Decomposition:
    row_eps = _row_eps(image, output)
    spectra = [solve_spectrum(gram, scales, row_eps) for gram, scales in zip(rows.gram(), rows.scales, strict=True)]
    kept = [count_kept(spectrum, energy, rank) for spectrum in spectra]
    _warn_of_ties(spectra, kept, row_eps)
    weights = _combination_weights(spectra, kept, rows.scales, root.score).to(rows.scales.device)
    flat = _fix_undecided_signs(rows.combine(weights), spectra, kept, root.score)
    eigenvectors = flat.reshape(image.shape[0], -1, *image.shape[1:])
    high, low = split(eigenvectors, image)
    count = max(kept, default=0)
    return Decomposition(
        eigenvalues=_padded([s.eigenvalues[:k] for s, k in zip(spectra, kept, strict=True)], count, image.device),
        eigenvectors=eigenvectors,
        rank=torch.tensor(kept, dtype=torch.int64, device=image.device),
        trace=_on_device(torch.tensor([s.trace for s in spectra], dtype=torch.float64, device="cpu"), image.device),
        spectrum=_padded([s.eigenvalues for s in spectra], max(s.eigenvalues.numel() for s in spectra), image.device),
        high=high,
        low=low,
        sensitivity=rows.diagonal().reshape(image.shape),
        logits=head.logits(output),
        probabilities=head.probabilities(output),
        record=_record(head, asked_head, energy, rank, root.columns, image),
        image=image,
        _predictor=predictor,
        _head=head,
    )


def _row_eps(image: Tensor, output: Tensor) -> float:
    """Machine epsilon of the coarsest dtype that the passes ran in."""
    dtypes = [image.dtype, output.dtype]
    if torch.is_autocast_enabled(image.device.type):
        dtypes.append(torch.get_autocast_dtype(image.device.type))
    return max(torch.finfo(dtype).eps for dtype in dtypes)


def _combination_weights(spectra: list[Spectrum], kept: list[int], scales: Tensor, score: Tensor) -> Tensor:
    """[B, k, r] weights that turn unscaled rows into signed unit eigenvectors u_i = G v_i / sqrt(l_i).

    Moving along +u_i raises the log-probability of the predicted class: its derivative is sqrt(l_i) (w . v_i).
    """
    weights = torch.zeros(len(spectra), max(kept, default=0), scales.shape[1], dtype=torch.float64, device="cpu")
    for b, (spectrum, k) in enumerate(zip(spectra, kept, strict=True)):
        v = spectrum.coefficients[:k]
        sign = torch.where((v * score[b].cpu()).sum(1) < 0, -1.0, 1.0).to(torch.float64)
        weights[b, :k] = sign[:, None] * v * scales[b].cpu() / spectrum.roots[:k, None]
    return weights


def _fix_undecided_signs(flat: Tensor, spectra: list[Spectrum], kept: list[int], score: Tensor) -> Tensor:
    """Where that derivative is zero to rounding, the entry of largest magnitude is made positive; flat: [B, k, D]."""
    tolerance = 64 * torch.finfo(flat.dtype).eps
    for b, (spectrum, k) in enumerate(zip(spectra, kept, strict=True)):
        terms = spectrum.coefficients[:k] * score[b].cpu()
        undecided = terms.sum(1).abs() <= tolerance * terms.abs().sum(1)
        for i in undecided.nonzero()[:, 0].tolist():
            vector = flat[b, i]
            if float(vector[vector.abs().argmax()]) < 0:
                flat[b, i] = -vector
    return flat


def _warn_of_ties(spectra: list[Spectrum], kept: list[int], row_eps: float) -> None:
    tolerance = max(1e-6, 100 * row_eps)
    tied = [b for b, (s, k) in enumerate(zip(spectra, kept, strict=True)) if cuts_through_tie(s, k, tolerance)]
    if tied:
        warnings.warn(
            f"image(s) {tied} of the batch: the cut goes between equal eigenvalues, so the kept subspace, and with it high "
            "and low, is not unique; keep one component more or fewer (rank=) or another energy.",
            SpectralTieWarning,
            stacklevel=4,
        )


def _padded(rows: list[Tensor], length: int, device: torch.device) -> Tensor:
    table = torch.zeros(len(rows), length, dtype=torch.float64, device="cpu")
    for b, row in enumerate(rows):
        table[b, : row.numel()] = row
    return _on_device(table, device)


def _on_device(values: Tensor, device: torch.device) -> Tensor:
    """Float64 results stay on the CPU where the device has no float64 (Apple's MPS)."""
    return values if device.type == "mps" else values.to(device)


def _record(head: Head, asked_head: str | Head, energy: float, rank: int | None, products: int, image: Tensor) -> dict[str, Any]:
    return {
        "head": head.name,
        "head_requested": head_name(asked_head),
        "selection": selection(energy, rank),
        "method": "exact",
        "jacobian_products": products,
        "error_bound": 0.0,  # share of the trace not computed
        "dtype": str(image.dtype).removeprefix("torch."),
        "device": str(image.device),
        "units": "nats per (unit of the image)^2",
        "versions": {"monai_ifim": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def head_name(head: str | Head) -> str:
    """The name a head was asked for by, or its class's."""
    return head if isinstance(head, str) else type(head).__name__


def selection(energy: float, rank: int | None) -> dict[str, float]:
    """The rule by which components are kept, as the record states it."""
    return {"energy": energy} if rank is None else {"rank": rank}


def _no_progress(done: int, total: int) -> None:
    return None


def _print_progress(done: int, total: int) -> None:
    sys.stderr.write(f"\rJacobian products: {done}/{total}" + ("\n" if done == total else ""))
    sys.stderr.flush()
