"""`monai-ifim decompose` with --space scanner: its defaults, its noise, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner, Result

from monai_ifim.adapt.random_steps import RandomStepWarning
from monai_ifim.adapt.scanner.noise import NoiseMap, read_noise
from monai_ifim.cli.main import app
from monai_ifim.core.errors import IFIMError
from monai_ifim.io import read_sidecar

Array = npt.NDArray[Any]
SHAPE = (9, 7, 11)
PIXDIM = [2.0, 2.5, 9.0]
STEPS = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
    {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
    {"_target_": "Spacingd", "keys": "image", "pixdim": PIXDIM, "padding_mode": "border", "diagonal": True},
    {"_target_": "NormalizeIntensityd", "keys": "image"},
]
pytestmark = pytest.mark.usefixtures("blank_figure")


@pytest.fixture
def bundle(tmp_path: Path, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path / "bundle", steps=STEPS)


@pytest.fixture
def scan(tmp_path: Path, oblique: Array) -> Path:
    return write(tmp_path / "in" / "scan.nii.gz", np.random.default_rng(1).normal(30, 20, SHAPE), oblique)


def write(path: Path, values: Array, affine: Array) -> Path:
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(values.astype(np.float32), affine), path)
    return path


def decompose(scan: Path, bundle: Path, output: Path, *words: Any) -> Result:
    settings = ("--space", "scanner", "--head", "categorical", "--energy", 1.0, *words)
    command = ["decompose", scan, "--bundle", bundle, "-o", output, *settings]
    return CliRunner().invoke(app, [str(word) for word in command])


def sidecar_of(result: Result, output: Path) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return read_sidecar(output / "scan" / "scan_ifim.json")


def sensitivity(output: Path, sidecar: dict[str, Any]) -> Array:
    scale = next(file["scale"] for file in sidecar["files"] if file["kind"] == "sensitivity")
    return np.asarray(nib.load(output / "scan" / "scan_ifim_sensitivity.nii.gz").dataobj) * scale


def test_by_default_changes_are_as_coarse_as_the_network_s_voxels(bundle: Path, scan: Path, tmp_path: Path) -> None:
    """Along each axis of the scan, which lies obliquely to them: one network voxel further in the network's own indices."""
    sidecar = sidecar_of(decompose(scan, bundle, tmp_path / "out"), tmp_path / "out")
    axes = nib.load(scan).affine[:3, :3]
    own = np.linalg.norm(axes, axis=0)
    widths = 1 / np.linalg.norm((axes / own) / np.array(PIXDIM)[:, None], axis=0)
    assert (widths > own).any()
    widths[widths <= own] = 0  # there the scan is no finer
    assert sidecar["preprocessing"]["resolution"] == "network"
    assert sidecar["preprocessing"]["resolution_mm"] == pytest.approx(widths.tolist(), rel=1e-5)
    assert sidecar["metric"]["sigma_voxels"] == pytest.approx((widths / own / 2.354820045).tolist(), rel=1e-5)
    assert sidecar["preprocessing"]["statistics"] == "differentiate"


@pytest.mark.parametrize(("word", "resolution"), [("0", None), ("0.0", None), ("3.25", 3.25), ("network", "network")])
def test_a_resolution_is_millimetres_or_none_at_all(word: str, resolution: Any, bundle: Path, scan: Path, tmp_path: Path) -> None:
    sidecar = sidecar_of(decompose(scan, bundle, tmp_path / "out", "--resolution", word), tmp_path / "out")
    assert sidecar["preprocessing"]["resolution"] == resolution
    assert (sidecar["metric"] is None) == (resolution is None)
    if resolution == 3.25:
        assert sidecar["preprocessing"]["resolution_mm"] == [3.25] * 3


def test_statistics_are_frozen_on_request(bundle: Path, scan: Path, tmp_path: Path) -> None:
    found = {}
    for word in ("differentiate", "freeze"):
        output = tmp_path / word
        found[word] = sidecar_of(decompose(scan, bundle, output, "--statistics", word), output)
        assert found[word]["preprocessing"]["statistics"] == word
        assert found[word]["preprocessing"]["equivalents"] == ["NormalizeIntensityd"]
    assert abs(found["freeze"]["trace"] / found["differentiate"]["trace"] - 1) > 0.01


def test_noise_scales_eigenvalues_by_its_square_and_takes_the_place_of_the_resolution(
    bundle: Path, scan: Path, tmp_path: Path
) -> None:
    plain = sidecar_of(decompose(scan, bundle, tmp_path / "plain", "--resolution", 0), tmp_path / "plain")
    noisy = sidecar_of(decompose(scan, bundle, tmp_path / "noisy", "--noise", 12.5), tmp_path / "noisy")
    np.testing.assert_allclose(noisy["eigenvalues"], 12.5**2 * np.array(plain["eigenvalues"]), rtol=1e-5)
    assert noisy["preprocessing"]["resolution"] is None
    assert noisy["metric"] == {"kind": "noise level", "sigma": 12.5}
    assert noisy["units"]["eigenvalues"] == "nats per (standard deviation of the noise on the input's grid)^2"


def test_a_noise_map_weights_every_voxel(bundle: Path, scan: Path, oblique: Array, tmp_path: Path) -> None:
    noise = np.random.default_rng(2).uniform(1, 30, SHAPE)
    path = write(tmp_path / "noise.nii.gz", noise, oblique)
    plain = sidecar_of(decompose(scan, bundle, tmp_path / "plain", "--resolution", 0), tmp_path / "plain")
    noisy = sidecar_of(decompose(scan, bundle, tmp_path / "noisy", "--noise", path), tmp_path / "noisy")
    expected = sensitivity(tmp_path / "plain", plain) * noise**2
    np.testing.assert_allclose(sensitivity(tmp_path / "noisy", noisy), expected, rtol=1e-3, atol=1e-6 * expected.max())
    assert noisy["metric"]["sigma"] == "map"


def test_a_noise_map_of_several_channels_has_them_on_its_fourth_axis(oblique: Array, tmp_path: Path) -> None:
    values = np.random.default_rng(3).uniform(1, 2, (*SHAPE, 2))
    level = read_noise(str(write(tmp_path / "noise.nii.gz", values, oblique)))
    assert isinstance(level, NoiseMap)
    np.testing.assert_allclose(level.sigma, np.moveaxis(values, -1, 0), rtol=1e-6)
    np.testing.assert_allclose(level.affine, oblique, atol=1e-5)


def test_a_noise_map_of_another_shape_fails_the_case(bundle: Path, scan: Path, oblique: Array, tmp_path: Path) -> None:
    path = write(tmp_path / "noise.nii.gz", np.ones((7, 9, 11)), oblique)
    result = decompose(scan, bundle, tmp_path / "out", "--noise", path)
    assert result.exit_code == 3
    assert "the noise map noise.nii.gz has 7 x 9 x 11 voxels and the scan " in " ".join(result.output.split())


def test_a_noise_map_that_lies_elsewhere_fails_the_case(bundle: Path, scan: Path, oblique: Array, tmp_path: Path) -> None:
    moved = oblique.copy()
    moved[1, 3] += 2.5
    path = write(tmp_path / "noise.nii.gz", np.ones(SHAPE), moved)
    result = decompose(scan, bundle, tmp_path / "out", "--noise", path)
    assert result.exit_code == 3
    assert "has another affine than the scan" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--noise", "loud"), "--noise loud: neither a number nor a readable NIfTI file"),
        (("--noise", "gone.nii.gz"), "--noise gone.nii.gz: neither a number nor a readable NIfTI file"),
        (("--noise", "0"), "noise level must be finite"),
        (("--noise", "nan"), "noise level must be finite"),
        (("--noise", "-3"), "noise level must be finite"),
        (("--noise", "5", "--resolution", "2"), "resolution and metric"),
        (("--resolution", "fine"), "resolution 'fine': give millimetres, from 0 on, or 'network'"),
        (("--resolution", "-1"), "resolution '-1': give millimetres"),
        (("--statistics", "thaw"), "unknown statistics 'thaw': choose one of 'differentiate', 'freeze'"),
        (("--space", "native", "--statistics", "freeze"), "belong to the space 'scanner'"),
        (("--space", "network", "--resolution", "2"), "belong to the space 'scanner'"),
    ],
)
def test_options_that_cannot_be_are_one_error_before_any_case(
    words: tuple[str, ...], reason: str, bundle: Path, scan: Path, tmp_path: Path
) -> None:
    result = decompose(scan, bundle, tmp_path / "out", *words)
    assert isinstance(result.exception, IFIMError)
    assert reason in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_random_step_of_a_bundle_is_left_out_and_named(make_bundle: Callable[..., Path], scan: Path, tmp_path: Path) -> None:
    random = make_bundle(tmp_path / "random", steps=[*STEPS, {"_target_": "RandGaussianNoised", "keys": "image"}])
    with pytest.warns(RandomStepWarning, match="RandGaussianNoised"):
        result = decompose(scan, random, tmp_path / "out")
    assert sidecar_of(result, tmp_path / "out")["space"]["name"] == "scanner"


def test_a_second_run_keeps_and_another_resolution_makes_again(bundle: Path, scan: Path, tmp_path: Path) -> None:
    asked: tuple[tuple[Any, ...], ...] = ((), (), ("--resolution", 0), ("--resolution", 0))
    outputs = [decompose(scan, bundle, tmp_path / "out", *words).output for words in asked]
    assert ["1 kept" in output for output in outputs] == [False, True, False, True]
