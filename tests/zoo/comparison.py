"""Comparison of decompositions of a network of the zoo with its truths."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from monai_ifim import Decomposition, decompose
from monai_ifim.core.errors import IFIMError
from monai_ifim.core.operator.shortcuts import whole_shortcuts
from zoo.entry import Entry
from zoo.truth import dense_pairs, leading_pairs, products

RANDOM = 3  # directions in which F is compared, besides the eigenvectors
APPROXIMATE = 1e-8  # tolerance of adaptive and matrix_free
VOXELWISE_RANK, VOXELWISE_APPROXIMATE = 2, 1e-6
NEGLIGIBLE = 1e-10  # eigenvalues below this share of the largest are rounding


@dataclass(frozen=True)
class Deviation:
    """Largest relative deviations of one way from the truths.

    eigenvalues, overlap: from the dense Jacobian of plain PyTorch (of a map of answers: from ARPACK); overlap: the sine of the
    largest angle between the kept subspaces. quotients: of v^T F w from difference quotients, for v, w among eigenvectors and
    random directions, relative to the lengths in F. verification: the outcome in the record.
    """

    way: str
    eigenvalues: float
    overlap: float
    quotients: float
    verification: str

    @property
    def largest(self) -> float:
        """The largest of the three."""
        return max(self.eigenvalues, self.overlap, self.quotients)


class Subject:
    """A network of the zoo, its image and its truths, made when they are first needed."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.network = entry.network()
        self.image = entry.image()
        self._judge = entry.network()  # a truth shares no state with what it judges
        self.random = torch.randn(RANDOM, *entry.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        self._pairs: tuple[Tensor, Tensor] | None = None

    def function(self, images: Tensor) -> Tensor:
        """Outputs of the judge's own copy."""
        return self.entry.answer(self._judge, images)

    def products(self, directions: Tensor) -> Tensor:
        """S^T J v for directions v, from difference quotients."""
        return products(self.function, self.entry.head, self.image, directions)

    @cached_property
    def _random_products(self) -> Tensor:
        return self.products(self.random)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues and eigenvectors of F, once."""
        if self._pairs is None:
            with whole_shortcuts(self._judge):
                if self.entry.voxelwise:
                    self._pairs = leading_pairs(self.function, self.entry.head, self.image, VOXELWISE_RANK)
                else:
                    values, vectors = dense_pairs(self.function, self.entry.head, self.image, 10**6)
                    count = int((values > NEGLIGIBLE * values[0]).sum())
                    self._pairs = values[:count], vectors[:count]
        return self._pairs

    def decompose(self, way: str) -> Decomposition:
        """The decomposition one way, with every component (of a segmentation: the leading ones)."""
        options = self.entry.options() | {"verify": "always"}
        if self.entry.voxelwise:
            options |= {"method": "matrix_free", "rank": VOXELWISE_RANK, "tolerance": VOXELWISE_APPROXIMATE}
            return decompose(self.network, self.image, **options)
        if way == "budget":
            return _within_least_memory(self.network, self.image, options)
        options |= {"method": way, "rank": len(self.pairs()[0]), "tolerance": APPROXIMATE}
        return decompose(self.network, self.image, **options)

    def compare(self, way: str) -> Deviation:
        """The deviation of one way from the truths."""
        d = self.decompose(way)
        values, vectors = self.pairs()
        rank = int(d.rank[0])
        if rank < len(values):
            raise AssertionError(f"{self.entry.name}, {way}: {rank} components where F has {len(values)}")
        found = d.eigenvectors[0, : len(values)].flatten(1)
        return Deviation(
            way,
            float(((d.eigenvalues[0, : len(values)] - values) / values).abs().max()),
            float(torch.linalg.matrix_norm(found - found @ vectors.T @ vectors, 2)),
            self._quotients(d.eigenvalues[0, :rank], d.eigenvectors[0, :rank], complete=not self.entry.voxelwise),
            d.record["verification"]["outcome"],
        )

    def _quotients(self, eigenvalues: Tensor, eigenvectors: Tensor, complete: bool) -> float:
        """See `Deviation.quotients`; complete: there are no further components."""
        directions = torch.cat([eigenvectors, self.random])
        columns = torch.cat([self.products(eigenvectors), self._random_products])
        truth = columns @ columns.T
        along = directions.flatten(1) @ eigenvectors.flatten(1).T
        claimed = (along * eigenvalues) @ along.T
        lengths = truth.diagonal().clamp(min=0).sqrt()
        deviation = (claimed - truth).abs() / torch.outer(lengths, lengths)
        return float(deviation.max() if complete else deviation[:, : len(eigenvalues)].max())


def _within_least_memory(network: nn.Module, image: Tensor, options: dict[str, Any]) -> Decomposition:
    """The exact decomposition in the smallest budget that works, which the refusal of a smaller one names."""
    budget = "1MiB"
    for _ in range(8):
        try:
            return decompose(network, image, method="exact", energy=1.0, memory_budget=budget, **options)
        except IFIMError as error:
            named = re.search(r"needs (\d+ \w+) at least", str(error))
            if named is None:
                raise
            budget = named[1].replace(" ", "")
    raise AssertionError("no budget that a refusal named was enough")
