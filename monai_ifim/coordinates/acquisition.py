"""How the image was acquired: offset, gain, gamma and blur, and what belongs to CT, MR and radiographs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from monai_ifim.coordinates.blur import blurred, half_laplacian
from monai_ifim.coordinates.grid import Grid, Matrix, as_affine, float64_values
from monai_ifim.core.coordinates import Family, Place
from monai_ifim.core.errors import IFIMError
from monai_ifim.options import MODALITIES

OF_HEADERS = {"CT": "ct", "MR": "mr"} | dict.fromkeys(("CR", "DX", "MG", "XA", "RF", "RG"), "radiograph")  # DICOM's Modality
AIR, BODY = -1000.0, -500.0  # HU: the fixed point of a CT's calibration, and what counts as the body
BIAS_ORDER = 3
VALUE = "unit of the image"


@dataclass(frozen=True)
class _Term:
    """One coordinate: its tangent at an image, and the image moved by so many units, of values [channel, *spatial]."""

    name: str
    unit: str
    tangent: Callable[[Matrix], Matrix]
    move: Callable[[Matrix, float], Matrix]


class Acquisition(Family):
    """Offset, gain in %, gamma in % and blur in mm^2 (the variance of its kernel); further ones by modality.

    ct: gain about -1000 HU in place of gain and gamma, and cupping, by how many HU the edge of the field is above its centre.
    mr: bias fields, in % of the value, products of Legendre polynomials to third order along the axes. radiograph: centre and
    width of the window, in % of the range of values; what is saturated stays so.
    modality: one of `options.MODALITIES`; None takes that of the image's header where the values are the scanner's, else "any".
    affine: [4, 4], voxel indices to RAS mm; by default that of the image's place. Raises IFIMError for another modality.
    """

    kind: ClassVar[str] = "acquisition"

    def __init__(self, modality: str | None = None, affine: Any = None, *, bound_to: tuple[Grid, str, int] | None = None) -> None:
        if modality is not None and modality not in MODALITIES:
            raise IFIMError(f"unknown modality {modality!r} of an acquisition: choose one of {', '.join(MODALITIES)}.")
        self.modality = modality
        self._affine = None if affine is None else as_affine(affine)
        self._terms = () if bound_to is None else _terms(*bound_to)

    @property
    def names(self) -> tuple[str, ...]:
        """See `Family`."""
        return tuple(term.name for term in self._terms)

    @property
    def units(self) -> tuple[str, ...]:
        """See `Family`."""
        return tuple(term.unit for term in self._terms)

    @property
    def of_scan(self) -> bool:
        """See `Family`; where the modality is named."""
        return self.modality not in (None, "any")

    def bound(self, image: Tensor, place: Place) -> Acquisition:
        """See `Family`."""
        used = self.modality or (OF_HEADERS.get(place.modality, "any") if place.raw else "any")
        return Acquisition(self.modality, self._affine, bound_to=(Grid.of(self._affine, image, place), used, image.ndim - 1))

    def tangents(self, image: Tensor, start: int, stop: int) -> Tensor:
        """See `Family`."""
        values = float64_values(image)
        return torch.from_numpy(np.stack([term.tangent(values) for term in self._terms[start:stop]]))

    def moved(self, image: Tensor, theta: Sequence[float]) -> Tensor:
        """See `Family`; one change after the other, in their order."""
        values = float64_values(image)
        for term, amount in zip(self._terms, theta, strict=True):
            values = term.move(values, amount) if amount else values
        return torch.from_numpy(values).to(image)

    def describe(self) -> dict[str, Any]:
        """See `Family`."""
        return {"kind": self.kind, "modality": self.modality} | (
            {} if self._affine is None else {"affine": self._affine.tolist()}
        )


def _terms(grid: Grid, modality: str, axes: int) -> tuple[_Term, ...]:
    spacing = grid.spacing
    blur = _Term("blur", f"{grid.unit}^2", lambda x: half_laplacian(x, spacing), lambda x, amount: blurred(x, amount, spacing))
    unit = "HU" if modality == "ct" else VALUE
    offset = _Term("offset", unit, np.ones_like, lambda x, amount: x + amount)
    if modality == "ct":
        return offset, _profile("gain", "%", lambda x: (x - AIR) / 100), blur, _cupping(grid)
    common = (offset, _profile("gain", "%", lambda x: x / 100), _gamma(), blur)
    if modality == "mr":
        return (*common, *_bias(axes))
    return (*common, *_window()) if modality == "radiograph" else common


def _profile(name: str, unit: str, tangent: Callable[[Matrix], Matrix]) -> _Term:
    """A change that is linear in its amount."""
    return _Term(name, unit, tangent, lambda x, amount: x + amount * tangent(x))


def _gamma() -> _Term:
    """u^(1 + amount / 100) of the values u, scaled to [0, 1]."""

    def tangent(x: Matrix) -> Matrix:
        low, width = x.min(), np.ptp(x)
        u = np.clip((x - low) / (width or 1.0), np.finfo(np.float64).tiny, 1.0)
        found: Matrix = width / 100 * u * np.log(u)
        return found

    def move(x: Matrix, amount: float) -> Matrix:
        low, width = x.min(), np.ptp(x)
        found: Matrix = low + width * ((x - low) / (width or 1.0)) ** (1 + amount / 100)
        return found

    return _Term("gamma", "%", tangent, move)


def _cupping(grid: Grid) -> _Term:
    """A paraboloid across the patient's long axis inside of the body, 0 at the image's centre and 1 HU at its nearer edges."""

    def tangent(x: Matrix) -> Matrix:
        across = grid.positions(x.shape[1:])[:2]
        edge = min(np.abs(each).max() for each in across) or 1.0
        return np.where(x > BODY, np.square(across / edge).sum(0), 0.0)

    return _profile("cupping", "HU", tangent)


def _bias(axes: int) -> list[_Term]:
    """x P / 100 for each product P of Legendre polynomials along the axes of degree 1 to 3 in all."""
    terms = []
    for order in range(1, BIAS_ORDER + 1):
        for factors in combinations_with_replacement(range(axes), order):
            degrees = [factors.count(axis) for axis in range(axes)]
            named = " x ".join(f"axis {axis} degree {degree}" for axis, degree in enumerate(degrees) if degree)
            terms.append(_profile(f"bias field, {named}", "%", partial(_biased, degrees)))
    return terms


def _biased(degrees: Sequence[int], x: Matrix) -> Matrix:
    return x * _legendre(x.shape[1:], degrees) / 100


def _legendre(sizes: tuple[int, ...], degrees: Sequence[int]) -> Matrix:
    """The product of the Legendre polynomials of these degrees, each from -1 to 1 along its axis."""
    lines = [np.polynomial.Legendre.basis(d)(np.linspace(-1, 1, size)) for size, d in zip(sizes, degrees, strict=True)]
    product = np.ones(sizes)
    for axis, line in enumerate(lines):
        product = product * line.reshape([-1 if k == axis else 1 for k in range(len(sizes))])
    return product


def _window() -> tuple[_Term, _Term]:
    """Centre and width of the window that the values lie in, in % of its width; values at its ends stay there."""

    def inside(x: Matrix) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = (x > x.min()) & (x < x.max())
        return found

    def held(x: Matrix, changed: Matrix) -> Matrix:
        return np.where(inside(x), np.clip(changed, x.min(), x.max()), x)

    def middle(x: Matrix) -> Any:
        return (x.min() + x.max()) / 2

    centre = _Term(
        "window centre",
        "%",
        lambda x: -np.ptp(x) / 100 * inside(x),
        lambda x, amount: held(x, x - amount / 100 * np.ptp(x)),
    )
    width = _Term(
        "window width",
        "%",
        lambda x: -(x - middle(x)) / 100 * inside(x),
        lambda x, amount: held(x, middle(x) + (x - middle(x)) / (1 + amount / 100)),
    )
    return centre, width
