"""A level of noise as a number, or as a map that lies where the scan lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.data import MetaTensor

from monai_ifim.adapt.scanner.noise import NoiseMap, read_noise
from monai_ifim.core import IFIMError, NoiseLevel
from monai_ifim.io import InputError

Array = npt.NDArray[Any]
SHAPE = (5, 4, 3)


def write(path: Path, values: Array, affine: Array) -> Path:
    nib.save(nib.Nifti1Image(values.astype(np.float32), affine), path)
    return path


def levels(*shape: int) -> Array:
    return np.random.default_rng(3).uniform(0.5, 2.0, shape)


@pytest.mark.parametrize(("noise", "sigma"), [("2.5", 2.5), (2.5, 2.5), ("1e-2", 0.01)])
def test_a_number_is_one_level_everywhere(noise: str | float, sigma: float) -> None:
    level = read_noise(noise)
    assert type(level) is NoiseLevel
    assert float(level.sigma) == pytest.approx(sigma)


def test_nothing_asked_for_is_no_level() -> None:
    assert read_noise(None) is None


@pytest.mark.parametrize("channels", [None, 2])
def test_a_map_is_read_with_its_channels_first_and_knows_its_place(channels: int | None, oblique: Array, tmp_path: Path) -> None:
    values = levels(*SHAPE, *(() if channels is None else (channels,)))
    level = read_noise(str(write(tmp_path / "noise.nii.gz", values, oblique)))
    assert isinstance(level, NoiseMap)
    expected = values[None] if channels is None else np.moveaxis(values, 3, 0)
    np.testing.assert_allclose(level.sigma.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(level.affine, oblique, atol=1e-4)
    scan = MetaTensor(torch.zeros(channels or 1, *SHAPE), affine=torch.from_numpy(oblique))
    found = level.of(scan)
    assert not isinstance(found, NoiseMap)
    torch.testing.assert_close(found.sigma, level.sigma, rtol=0, atol=0)


def test_a_map_of_one_slice_fits_an_image_of_two_axes(oblique: Array, tmp_path: Path) -> None:
    level = read_noise(str(write(tmp_path / "noise.nii", levels(5, 4, 1), oblique)))
    assert isinstance(level, NoiseMap)
    assert level.of(MetaTensor(torch.zeros(1, 5, 4), affine=torch.from_numpy(oblique))).sigma.shape == (1, 5, 4)


@pytest.mark.parametrize(
    ("shape", "move", "words"),
    [((5, 4, 4), 0.0, "has 5 x 4 x 4 voxels and the scan 5 x 4 x 3"), (SHAPE, 1.5, "has another affine than the scan")],
)
def test_a_map_that_is_not_the_scans_is_refused(
    shape: tuple[int, ...], move: float, words: str, oblique: Array, tmp_path: Path
) -> None:
    moved = oblique.copy()
    moved[2, 3] += move
    level = read_noise(str(write(tmp_path / "noise.nii.gz", levels(*shape), moved)))
    assert isinstance(level, NoiseMap)
    with pytest.raises(InputError, match=rf"noise\.nii\.gz.*{words}"):
        level.of(MetaTensor(torch.zeros(1, *SHAPE), affine=torch.from_numpy(oblique)))


def test_what_is_neither_a_number_nor_a_map_is_refused(oblique: Array, tmp_path: Path) -> None:
    (tmp_path / "noise.nii").write_bytes(b"no NIfTI")
    for name in ("noise.nii", "absent.nii.gz", "much"):
        with pytest.raises(InputError, match=f"--noise {name}: neither a number nor a readable NIfTI file"):
            read_noise(str(tmp_path / name))
    with pytest.raises(IFIMError, match="noise"):
        read_noise(str(write(tmp_path / "zero.nii", np.zeros(SHAPE), oblique)))
