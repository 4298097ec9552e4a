"""Coordinates: changes of an image that have a name and a unit, and the Fisher information pulled back to them.

A family is a curve x(theta) for each of its m coordinates, with x(0) = x and the tangent t_i = dx/dtheta_i at 0. With
T = [t_1 ... t_m], F_theta = T^T F T is exact, positive semidefinite and small: its diagonal says what one unit of each costs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from monai_ifim.core.errors import IFIMError
from monai_ifim.options import STEP_NATS

GradientOf = Literal["log-probability", "mean", "mean probability", "volume"]
CHUNK = 2**23  # elements of the tangents that are made together


@dataclass(frozen=True)
class Place:
    """What is known of one image besides its values, for families that are stated in millimetres or by modality.

    affine: [4, 4] float64, voxel indices to RAS millimetres, None where no file states it. modality: as DICOM writes it ("CT",
    "MR", "DX"), empty if unknown. raw: True if the values are those of the scanner, before any preprocessing.
    """

    affine: Tensor | None = None
    modality: str = ""
    raw: bool = False


class Family(ABC):
    """Changes of an image that people can name: m coordinates, each with a name, a unit, a tangent and a finite move.

    kind: the family's name, which stands in records. Settings hold a family before any image is known; `bound` makes the family
    of one image.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Name of each coordinate, after binding."""

    @property
    @abstractmethod
    def units(self) -> tuple[str, ...]:
        """Unit of each coordinate, after binding."""

    @abstractmethod
    def tangents(self, image: Tensor, start: int, stop: int) -> Tensor:
        """dx/dtheta_i at 0 of coordinates start to stop, [stop - start, channel, *spatial], of image [channel, *spatial]."""

    @abstractmethod
    def moved(self, image: Tensor, theta: Sequence[float]) -> Tensor:
        """x(theta), [channel, *spatial], for a step along each of the m coordinates in its unit; x(0) is the image."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The family as plain data, {"kind": ...} with its parameters."""

    @property
    def of_scan(self) -> bool:
        """True where the family is stated in the scanner's own values or on its grid, and says nothing of a network's input."""
        return False

    def bound(self, image: Tensor, place: Place) -> Family:
        """The family for one image [channel, *spatial]; raises IFIMError, with the cure, where it does not fit it."""
        return self


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The Fisher information of a batch, pulled back to m coordinates.

    names, units: of the coordinates. fisher: F_theta [B, m, m] float64, in nats per (unit_i unit_j).
    gradient: [B, C, m] float64, change of each answer per unit: of its log-probability; of a regression, of its mean; of a map
    of labels, of each label's mean probability or volume (`gradient_of` says which). NaN for a class whose column the adaptive
    method left out. tangent_norms: [B, m] float64, |t_i|, in units of the image.
    fisher_error: [B, m] float64, by how much F_ii may be off: of the adaptive method by the columns it left out, of differences
    by their own estimate; 0 where it is exact to rounding.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    gradient_of: GradientOf
    fisher: Tensor
    gradient: Tensor
    tangent_norms: Tensor
    fisher_error: Tensor

    @property
    def nats_per_unit(self) -> Tensor:
        """F_ii / 2, [B, m]: expected divergence of a move by one unit, as long as the move is small."""
        return 0.5 * self.fisher.diagonal(dim1=1, dim2=2)

    @property
    def step(self) -> Tensor:
        """The move that costs 0.1 nat by the quadratic approximation, [B, m] in each unit; infinite where F_ii is 0."""
        return (STEP_NATS / self.nats_per_unit).sqrt()

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of F_theta, [B, m], descending, in nats per (1 unit of each coordinate)^2: other units, other values."""
        values: Tensor = torch.linalg.eigvalsh(self.fisher)
        return values.flip(1)

    @property
    def eigenvectors(self) -> Tensor:
        """Named combinations: [B, m, m], row k the unit vector of the k-th eigenvalue over the coordinates.

        The entry of largest magnitude is positive.
        """
        vectors: Tensor = torch.linalg.eigh(self.fisher).eigenvectors.flip(2).transpose(1, 2)
        largest = vectors.gather(2, vectors.abs().argmax(2, keepdim=True))
        return vectors * torch.where(largest < 0, -1.0, 1.0)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by the name of its field."""
        return {name: getattr(self, name) for name in TABLES}

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Self:
        """The same coordinates with other tensors."""
        return type(self).of_description(self.describe(), tensors)

    def describe(self) -> dict[str, Any]:
        """Names, units and what the gradient is of, as plain data."""
        return {"names": list(self.names), "units": list(self.units), "gradient_of": self.gradient_of}

    @classmethod
    def of_description(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """The coordinates from what `describe` and `tensors` gave."""
        names, units = (tuple(description[each]) for each in ("names", "units"))
        return cls(names, units, description["gradient_of"], **tensors)


TABLES = tuple(each.name for each in fields(Coordinates) if each.name not in ("names", "units", "gradient_of"))


@dataclass(frozen=True)
class BoundFamilies:
    """The families of each image of a batch, as one list of coordinates; families: B tuples, image: [B, channel, *spatial]."""

    image: Tensor
    families: tuple[tuple[Family, ...], ...]

    @classmethod
    def of(cls, families: Sequence[Family], image: Tensor, places: Sequence[Place] = ()) -> Self:
        """Bound to each image; raises IFIMError where names differ between the images of a batch, or are given twice."""
        known = places or [Place()] * image.shape[0]
        bound = [tuple(family.bound(one, place) for family in families) for one, place in zip(image, known, strict=True)]
        result = cls(image, tuple(bound))
        names = result.names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise IFIMError(
                f"several coordinates are called {', '.join(map(repr, twice))}: give each family once, or other names."
            )
        if any(_labels(each) != _labels(bound[0]) for each in bound):
            raise IFIMError(
                "the images of this batch have different coordinates, because their grids or modalities differ: decompose them "
                "one at a time (a batch size of 1)."
            )
        return result

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all coordinates."""
        return tuple(name for family in self.families[0] for name in family.names)

    @property
    def units(self) -> tuple[str, ...]:
        """Units of all coordinates."""
        return tuple(unit for family in self.families[0] for unit in family.units)

    def tangents(self, elements: int = CHUNK) -> Iterator[tuple[int, Tensor]]:
        """(first, tangents [B, n, channel, *spatial] of coordinates first to first + n), a chunk at a time.

        elements: of a chunk, which is one tangent of each image at least. Raises IFIMError for tangents of another shape, or with
        NaN or infinite values.
        """
        step, first = max(1, elements // self.image.numel()), 0
        for number, family in enumerate(self.families[0]):
            for start in range(0, len(family.names), step):
                stop = min(start + step, len(family.names))
                made = [each[number].tangents(one, start, stop) for each, one in zip(self.families, self.image, strict=True)]
                yield first, torch.stack([_checked(family, t, self.image, stop - start) for t in made])
                first += stop - start

    def moved(self, number: int, amount: float) -> Tensor:
        """The images [B, channel, *spatial] moved along one coordinate by so many of its units."""
        for place, family in enumerate(self.families[0]):
            if number < len(family.names):
                theta = [0.0] * len(family.names)
                theta[number] = amount
                return torch.stack([each[place].moved(one, theta) for each, one in zip(self.families, self.image, strict=True)])
            number -= len(family.names)
        raise IFIMError(f"there is no such coordinate: they are {', '.join(self.names)}.")


def as_families(coordinates: Any) -> tuple[Family, ...]:
    """The families of a setting: one, or a sequence of them; raises IFIMError for anything else."""
    given = (coordinates,) if isinstance(coordinates, Family) else coordinates
    if isinstance(given, Sequence) and not isinstance(given, str) and all(isinstance(each, Family) for each in given):
        return tuple(given)
    raise IFIMError(
        f"coordinates={coordinates!r}: give families of monai_ifim.coordinates, such as [Placement(), Acquisition()]."
    )


def families_from(descriptions: Sequence[Any]) -> tuple[Family, ...]:
    """The families themselves, which pass; raises IFIMError for what `Family.describe` gave, which does not hold their code."""
    if any(isinstance(each, Mapping) for each in descriptions):
        kinds = ", ".join(str(each.get("kind")) for each in descriptions if isinstance(each, Mapping))
        raise IFIMError(
            f"a description of coordinates ({kinds}) does not hold what they compute: give the families, coordinates=."
        )
    return as_families(descriptions)


def _labels(families: Sequence[Family]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(family.names, family.units) for family in families]


def _checked(family: Family, tangents: Tensor, image: Tensor, count: int) -> Tensor:
    """The tangents with the dtype and device of the image; raises IFIMError where they do not belong to it."""
    expected = (count, *image.shape[1:])
    if tuple(tangents.shape) != expected:
        raise IFIMError(f"the tangents of {family.kind!r} have shape {tuple(tangents.shape)}, and {expected} is expected.")
    if not bool(torch.isfinite(tangents).all()):
        raise IFIMError(f"the tangents of {family.kind!r} hold NaN or infinite values: leave the family out, or mend it.")
    return tangents.detach().to(image)
