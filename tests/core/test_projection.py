"""The split of an image along eigenvectors, and eigenvectors made orthonormal again, against textbook algebra."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from monai_ifim.core import ImageError
from monai_ifim.core.projection import orthonormalise, split


def _units(count: int, size: int = 40, dtype: torch.dtype = torch.float64) -> Tensor:
    """Unit vectors [1, count, size], far from orthogonal."""
    vectors = torch.randn(1, count, size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    vectors = vectors + 0.2 * vectors.sum(1, keepdim=True)
    return (vectors / vectors.norm(dim=2, keepdim=True)).to(dtype)


def _assert_orthonormal(vectors: Tensor) -> None:
    identity = torch.eye(vectors.shape[0], dtype=vectors.dtype)
    torch.testing.assert_close(vectors @ vectors.T, identity, rtol=0, atol=64 * torch.finfo(vectors.dtype).eps)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_vectors_become_those_of_a_qr_factorisation(dtype: torch.dtype) -> None:
    vectors = 0.1 * _units(4, dtype=dtype) + torch.eye(40, dtype=dtype)[None, :4]
    vectors /= vectors.norm(dim=2, keepdim=True)
    q, r = torch.linalg.qr(vectors[0].double().T)
    assert orthonormalise(vectors, [4]) == [4]
    torch.testing.assert_close(vectors[0].double().T, q * r.diagonal().sign(), rtol=0, atol=100 * torch.finfo(dtype).eps)


def test_a_vector_mostly_inside_the_span_of_those_before_it_is_zeroed_with_all_that_follow() -> None:
    vectors = torch.eye(40, dtype=torch.float64)[None, :4].clone()
    mixed = vectors[0, 0] + vectors[0, 1] + 0.9 * vectors[0, 2]  # 0.81 of 2.81 is new: less than half
    vectors[0, 2] = mixed / mixed.norm()
    assert orthonormalise(vectors, [4]) == [2]
    _assert_orthonormal(vectors[0, :2])
    assert not vectors[0, 2:].any()


def test_a_vector_mostly_outside_that_span_is_kept() -> None:
    vectors = torch.eye(40, dtype=torch.float64)[None, :4].clone()
    mixed = vectors[0, 0] + vectors[0, 1] + 1.5 * vectors[0, 2]  # 2.25 of 4.25 is new: more than half
    vectors[0, 2] = mixed / mixed.norm()
    assert orthonormalise(vectors, [4]) == [4]
    _assert_orthonormal(vectors[0])


def test_images_of_a_batch_are_made_orthonormal_each_as_far_as_kept() -> None:
    first, second = torch.eye(40, dtype=torch.float64)[:3].clone(), torch.eye(40, dtype=torch.float64)[:3].clone()
    second[1] = (second[0] + second[1]) / 2**0.5 + 0.3 * second[2]
    second[1] /= second[1].norm()
    second[2] = 0.0
    vectors = torch.stack([first, second])
    assert orthonormalise(vectors, [3, 2]) == [3, 2]
    _assert_orthonormal(vectors[0])
    _assert_orthonormal(vectors[1, :2])
    assert not vectors[1, 2].any()


def test_split_is_the_orthogonal_projection() -> None:
    basis = torch.linalg.qr(torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64))[0].mT
    image = torch.randn(2, 1, 5, 6, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    high, low = split(basis.reshape(2, 3, 1, 5, 6), image)
    projector = basis.mT @ basis
    torch.testing.assert_close(high.flatten(1), torch.einsum("bde,be->bd", projector, image.flatten(1)))
    torch.testing.assert_close(high + low, image)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(2, 1, 5, 6, dtype=torch.int64), r"image.float\(\)"),
        (torch.zeros(2, 1, 6, 5), "splits images of"),
        (torch.zeros(1, 1, 5, 6), "splits images of"),
        (torch.zeros(2, 1, 5, 6, device="meta"), r"image.to\(device\)"),
    ],
)
def test_other_images_are_refused_with_the_cure(image: Tensor, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        split(torch.zeros(2, 3, 1, 5, 6), image)
