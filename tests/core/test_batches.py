"""A batch shares its backward passes and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core_cases import Case
from monai_ifim.core import decompose, locality_radius

Networks = Callable[..., nn.Sequential]


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch size of every backward pass that is run."""
    calls: list[int] = []
    grad = torch.autograd.grad

    def counted(outputs: Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append(outputs.shape[0])
        return grad(outputs, *args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    return calls


def test_each_image_of_a_batch_gets_what_it_gets_alone(case: Case) -> None:
    together = case.leading
    for b, x in enumerate(case.image):
        alone = decompose(case.network, x[None], head=case.likelihood, energy=0.7)
        rank = int(alone.rank)
        assert rank == int(together.rank[b])
        for name in ("trace", "high", "low", "sensitivity", "logits", "probabilities", "spectrum", "energy"):
            atol = case.tolerance * float(getattr(alone, name).abs().max())
            torch.testing.assert_close(getattr(together, name)[b], getattr(alone, name)[0], rtol=0, atol=atol)
        torch.testing.assert_close(together.eigenvalues[b, :rank], alone.eigenvalues[0], rtol=case.tolerance, atol=0)
        torch.testing.assert_close(together.eigenvectors[b, :rank], alone.eigenvectors[0], rtol=0, atol=case.tolerance)


def _images_of_unequal_rank(image: Tensor) -> Tensor:
    return torch.cat([image[:2], 40 * image[2:]])


def test_unequal_ranks_are_padded_with_zeros(cnn: Networks, image: Tensor) -> None:
    d = decompose(cnn((1, 7, 5), 5).double(), _images_of_unequal_rank(image), energy=0.95)
    widest = int(d.rank.max())
    assert int(d.rank.min()) < widest == d.eigenvalues.shape[1] == d.eigenvectors.shape[1]
    for values, vectors, rank in zip(d.eigenvalues, d.eigenvectors, d.rank, strict=True):
        assert bool((values[:rank] > 0).all())
        assert bool((values[rank:] == 0).all())
        assert bool((vectors[rank:] == 0).all())
        torch.testing.assert_close(vectors[:rank].flatten(1).norm(dim=1), torch.ones(int(rank), dtype=torch.float64))


def test_padding_changes_neither_split_nor_radius(cnn: Networks, image: Tensor) -> None:
    network, x = cnn((1, 7, 5), 5).double(), _images_of_unequal_rank(image)
    d = decompose(network, x, energy=0.95)
    radius = locality_radius(network, d)
    for b in range(3):
        alone = decompose(network, x[b : b + 1], energy=0.95, locality=True)
        rank = int(alone.rank)
        torch.testing.assert_close(d.high[b], alone.high[0])
        torch.testing.assert_close(radius[b, :rank], alone.locality_radius[0], rtol=0.04, atol=0)
        assert bool((radius[b, rank:] == 0).all())


@pytest.mark.parametrize("batch", [1, 2, 9])
@pytest.mark.parametrize(("head", "outputs", "expected"), [("categorical", 5, 4), ("bernoulli", 5, 5), ("gaussian", 3, 3)])
def test_backward_passes_are_shared_by_a_batch_of_any_size(
    cnn: Networks, products: list[int], batch: int, head: str, outputs: int, expected: int
) -> None:
    d = decompose(cnn((1, 7, 5), outputs), torch.randn(batch, 1, 7, 5), head=head)
    assert products == [batch] * expected
    assert d.record["jacobian_products"] == expected


def test_graph_is_freed_by_the_last_product(cnn: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []
    grad = torch.autograd.grad

    def watched(*args: Any, retain_graph: bool, **kwargs: Any) -> Any:
        kept.append(retain_graph)
        return grad(*args, retain_graph=retain_graph, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    decompose(cnn((1, 7, 5), 4), torch.randn(1, 1, 7, 5))
    assert kept == [True, True, False]


def test_more_classes_than_one_chunk_of_cotangents_keep_their_spectrum(linear: Networks) -> None:
    network, x = linear((1, 15, 13), 150, gain=6.0).double(), torch.randn(1, 1, 15, 13).double()
    d = decompose(network, x, energy=1.0)
    p, weight = d.probabilities[0], network[-1].weight.detach()
    truth = torch.linalg.eigvalsh(weight.T @ (torch.diag(p) - torch.outer(p, p)) @ weight).flip(0)
    torch.testing.assert_close(d.eigenvalues[0, :20], truth[:20], rtol=1e-9, atol=0)
    torch.testing.assert_close(d.eigenvalues[0].sum(), truth.sum(), rtol=1e-9, atol=0)


def test_progress_counts_every_product_on_standard_error(cnn: Networks, capsys: pytest.CaptureFixture[str]) -> None:
    decompose(cnn((1, 7, 5), 4), torch.randn(1, 1, 7, 5), progress=True)
    written = capsys.readouterr()
    assert [written.err.count(f"{done}/3") for done in (1, 2, 3)] == [1, 1, 1]
    assert written.out == ""
