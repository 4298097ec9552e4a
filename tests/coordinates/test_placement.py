"""Shifts, rotations and zoom against the analytic derivative of a Gaussian blob, differences of the moves, and ITK."""

from __future__ import annotations

from collections.abc import Sequence

import itk
import numpy as np
import pytest
import torch
from torch import Tensor

from monai_ifim.coordinates import Place, Placement
from monai_ifim.core import IFIMError

WIDTHS = np.array([12.0, 11.0, 14.0])  # mm, standard deviations along oblique axes
OFF = np.array([3.0, -2.0, 4.0])  # mm from the image's centre
DIRECTIONS = {"L": (-1.0, 0.0, 0.0), "P": (0.0, -1.0, 0.0), "S": (0.0, 0.0, 1.0)}


def oblique(spacing: Sequence[float] = (1.5, 2.0, 1.8), seed: int = 3) -> np.ndarray:
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(spacing)
    affine[:3, 3] = (-20.0, 31.0, 7.0)
    return affine


class Blob:
    """A Gaussian in patient space, with its gradient there."""

    def __init__(self, affine: np.ndarray, sizes: Sequence[int]) -> None:
        self.affine, self.sizes = affine, tuple(sizes)
        self.centre = (affine @ [*((s - 1) / 2 for s in sizes), 1.0])[:3]
        frame = np.linalg.qr(np.random.default_rng(8).normal(size=(3, 3)))[0]
        self.precision = frame @ np.diag(WIDTHS**-2.0) @ frame.T

    @property
    def relative(self) -> np.ndarray:
        """Position of each voxel relative to the image's centre, [*sizes, 3]."""
        indices = np.stack(np.meshgrid(*map(np.arange, self.sizes), indexing="ij"), axis=-1)
        return indices @ self.affine[:3, :3].T + self.affine[:3, 3] - self.centre

    def at(self, positions: np.ndarray) -> np.ndarray:
        r = positions - OFF
        return np.exp(-0.5 * np.einsum("...i,ij,...j->...", r, self.precision, r))

    def image(self) -> Tensor:
        values = torch.from_numpy(self.at(self.relative))
        return torch.stack([values, -2.0 * values])

    def gradient(self) -> np.ndarray:
        r = self.relative
        return -(r - OFF) @ self.precision * self.at(r)[..., None]


def velocity(name: str, relative: np.ndarray) -> np.ndarray:
    """Of the content at each position, for one unit."""
    if name == "zoom":
        return relative / 100
    direction = np.array(DIRECTIONS[name[-1]])
    return (
        np.broadcast_to(direction, relative.shape) if name.startswith("shift") else np.deg2rad(1) * np.cross(direction, relative)
    )


NAMES = ("shift L", "shift P", "shift S", "rotation about L", "rotation about P", "rotation about S", "zoom")


def test_a_blob_on_an_oblique_grid_has_its_analytic_derivative() -> None:
    blob = Blob(oblique(), (57, 45, 51))
    family = Placement().bound(blob.image(), Place(torch.from_numpy(blob.affine)))
    assert (family.names, family.units) == (NAMES, (*["mm"] * 3, *["degree"] * 3, "%"))
    found = torch.cat([family.tangents(blob.image(), 0, 4), family.tangents(blob.image(), 4, 7)])
    for i, name in enumerate(NAMES):
        expected = torch.from_numpy(-(velocity(name, blob.relative) * blob.gradient()).sum(-1))
        for channel, factor in enumerate((1.0, -2.0)):
            off = (found[i, channel] - factor * expected)[6:-6, 6:-6, 6:-6].norm() / (factor * expected).norm()
            assert float(off) < 1e-4, name


def test_tangents_are_differences_of_the_moves() -> None:
    blob = Blob(oblique(), (17, 15, 13))
    image = torch.randn(2, 17, 15, 13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    family = Placement(blob.affine).bound(image, Place())
    assert torch.allclose(family.moved(image, [0.0] * 7), image, atol=1e-12)
    tangents = family.tangents(image, 0, 7)
    for i in range(7):
        theta = np.eye(7)[i] * 1e-4
        slope = (family.moved(image, list(theta)) - family.moved(image, list(-theta))) / 2e-4
        inner = (slice(None), *[slice(1, -1)] * 3)  # a border voxel goes from one reflection into another
        torch.testing.assert_close(tangents[i][inner], slope[inner], rtol=1e-3, atol=1e-3 * float(slope.abs().max()))


@pytest.mark.parametrize("theta", [(4.0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 9.0, 0, 0), (1.0, -2.0, 3.0, 4.0, -5.0, 6.0, 7.0)])
def test_a_finite_move_is_that_of_itk(theta: tuple[float, ...]) -> None:
    """ITK works in LPS: its image has the affine's columns with the first two rows negated."""
    blob = Blob(oblique(), (41, 37, 33))
    moved = Placement(blob.affine).bound(blob.image(), Place()).moved(blob.image(), theta)[0].numpy()
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ blob.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = itk.image_from_array(np.ascontiguousarray(blob.image()[0].numpy().T))
    image.SetSpacing([float(s) for s in spacing])
    image.SetOrigin([float(o) for o in lps[:3, 3]])
    image.SetDirection(np.ascontiguousarray(lps[:3, :3] / spacing))
    transform = itk.Similarity3DTransform[itk.D].New()
    transform.SetCenter([float(c) for c in (np.diag([-1.0, -1.0, 1.0]) @ blob.centre)])
    angles = np.deg2rad(theta[3:6])  # about L, P and S, the axes of LPS
    size = float(np.linalg.norm(angles))
    if size:
        transform.SetRotation([float(a) for a in angles / size], size)
    transform.SetScale(1 + theta[6] / 100)
    transform.SetTranslation([float(s) for s in theta[:3]])
    resampled = itk.resample_image_filter(
        image,
        transform=transform.GetInverseTransform(),
        interpolator=itk.BSplineInterpolateImageFunction.New(image),
        use_reference_image=True,
        reference_image=image,
    )
    inside = (slice(8, -8),) * 3
    np.testing.assert_allclose(moved[inside], itk.array_from_image(resampled).T[inside], rtol=0, atol=2e-4)


@pytest.mark.parametrize("affine", [None, oblique((1.5, 2.0, 4.0))])
def test_an_image_of_two_axes_is_moved_in_its_plane(affine: np.ndarray | None) -> None:
    spacing = np.array([1.0, 1.0]) if affine is None else np.array([1.5, 2.0])
    sizes, sigma = (101, 91), 11.0
    positions = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), axis=-1) * spacing
    r = positions - (np.array(sizes) - 1) / 2 * spacing
    values = np.exp(-0.5 * ((r - [12.0, -9.0]) ** 2).sum(-1) / sigma**2)
    gradient = -(r - [12.0, -9.0]) / sigma**2 * values[..., None]
    image = torch.from_numpy(values)[None]
    family = Placement().bound(image, Place(None if affine is None else torch.from_numpy(affine)))
    unit = "pixel" if affine is None else "mm"
    assert family.names == ("shift along axis 0", "shift along axis 1", "rotation", "zoom")
    assert family.units == (unit, unit, "degree", "%")
    found = family.tangents(image, 0, 4)[:, 0].numpy()
    turn = np.deg2rad(1) * np.stack([-r[..., 1], r[..., 0]], axis=-1)
    for i, v in enumerate((np.array([1.0, 0.0]), np.array([0.0, 1.0]), turn, r / 100)):
        expected = -(v * gradient).sum(-1)
        assert np.linalg.norm((found[i] - expected)[5:-5, 5:-5]) < 1e-4 * np.linalg.norm(expected), i
        step = [0.0] * 4
        step[i] = 0.01
        ahead, behind = family.moved(image, step), family.moved(image, [-s for s in step])
        slope = (ahead - behind)[0, 5:-5, 5:-5].numpy() / 0.02
        np.testing.assert_allclose(found[i, 5:-5, 5:-5], slope, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_a_volume_of_unknown_voxels_is_refused_and_the_affine_cures_it() -> None:
    image = torch.rand(1, 5, 4, 3)
    with pytest.raises(IFIMError, match=r"NIfTI or DICOM.*Placement\(affine=\.\.\.\)"):
        Placement().bound(image, Place())
    assert Placement(affine=oblique()).bound(image, Place()).tangents(image, 0, 7).shape == (7, 1, 5, 4, 3)
    with pytest.raises(IFIMError, match="no invertible matrix"):
        Placement(affine=np.zeros((4, 4)))


def test_a_slice_of_one_voxel_does_not_move_across_itself() -> None:
    image = torch.rand(1, 6, 5, 1, dtype=torch.float64)
    found = Placement(np.diag([-1.0, -1.0, 4.0, 1.0])).bound(image, Place()).tangents(image, 0, 7)
    assert not bool(found[2].any())
    assert bool(found[0].any())
