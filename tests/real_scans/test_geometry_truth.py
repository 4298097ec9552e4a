"""A voxel of a DICOM series has one position (mm), in every file that is written and in every other program that reads it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import highdicom as hd
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import torch

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
from synthetic_series import GAP, ORIENTATIONS, SPACING, Series, write

Array = npt.NDArray[Any]
NAMES = [*ORIENTATIONS, "descending", "slice"]
HALF_A_VOXEL = 0.5 * min(*SPACING, GAP)
BRIGHT = (5, 1, 4)  # off every middle


class Truth(NamedTuple):
    """A series with one bright voxel, where that is (RAS mm), and the folder of what was made of it by a network that looks
    at that voxel alone."""

    series: Series
    folder: Path
    point: Array
    case: Path


@pytest.fixture(scope="module")
def truths(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Truth]:
    return {name: _truth(name, tmp_path_factory.mktemp(name), make_bundle) for name in NAMES}


@pytest.fixture(params=NAMES)
def truth(request: pytest.FixtureRequest, truths: dict[str, Truth]) -> Truth:
    return truths[request.param]


def _truth(name: str, root: Path, make_bundle: Callable[..., Path]) -> Truth:
    axes = ORIENTATIONS.get(name, ORIENTATIONS["oblique"])
    series = Series(axes, slices=1 if name == "slice" else 6)
    bright = (*BRIGHT[:2], 0) if name == "slice" else BRIGHT
    series.values = (series.values % 97).astype(np.int16)
    series.values[bright] = 1900
    slices = series.slices()
    for k, image in enumerate(slices):  # dcm2niix puts slices of one number in any order
        image.InstanceNumber = len(slices) - k if name == "descending" else k + 1
    folder = write(root / "series", slices)
    case = _decomposed(root, folder, make_bundle)
    return Truth(series, folder, series.world(np.array([bright]))[0], case)


def _decomposed(root: Path, folder: Path, make_bundle: Callable[..., Path]) -> Path:
    """Without resampling, so that one voxel stays one: axes turned, a margin round it, intensities scaled."""
    steps = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "PIR", "labels": None},
        {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [9, 8, 11]},
        {"_target_": "ScaleIntensityd", "keys": "image"},
    ]
    bundle = make_bundle(root / "bundle", classes=2, steps=steps)
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    config["network_def"] = "$torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(792, 2))"
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))
    state = {"1.weight": torch.zeros(2, 792), "1.bias": torch.zeros(2)}
    torch.save(state, bundle / "models" / "model.pt")
    state["1.weight"][1, int(load_bundle(bundle).preprocess(folder).argmax())] = 1.7
    torch.save(state, bundle / "models" / "model.pt")
    settings = RunSettings(root / "out", CaseSettings("categorical", dicom_pm=True))
    (row,) = run_cases(load_bundle(bundle), find_cases([folder]), settings, lambda row: None)
    assert row.reason == ""
    return root / "out" / "series"


@pytest.mark.parametrize("name", ["source", "input", "sensitivity", "high", "eigenvector-01"])
def test_bright_voxel_is_at_its_place_in_every_volume(name: str, truth: Truth, read_alike: Callable[[Path], Any]) -> None:
    volume = read_alike(truth.case / f"series_ifim_{name}.nii.gz")  # nibabel and ITK have been seen to agree
    peak = np.unravel_index(int(np.abs(volume.values).argmax()), volume.values.shape)
    found = volume.affine[:3, :3] @ np.array((*peak, 0)[:3]) + volume.affine[:3, 3]
    np.testing.assert_allclose(found, truth.point, rtol=0, atol=1e-3)
    assert np.linalg.norm(found - truth.point) < HALF_A_VOXEL


@pytest.mark.parametrize("name", ["sensitivity", "high", "eigenvector-01"])
def test_bright_voxel_is_at_its_place_in_every_parametric_map(name: str, truth: Truth) -> None:
    volume = hd.imread(truth.case / f"series_ifim_{name}.dcm").get_volume()
    peak = np.unravel_index(int(np.abs(volume.array).argmax()), volume.array.shape)
    found = volume.map_indices_to_reference(np.array([peak]))[0] * [-1, -1, 1]
    np.testing.assert_allclose(found, truth.point, rtol=0, atol=1e-3)


def test_parametric_maps_are_of_the_series_own_study_and_frame_of_reference(truth: Truth) -> None:
    source = pydicom.dcmread(next(truth.folder.iterdir()))
    for path in truth.case.glob("*.dcm"):
        made = pydicom.dcmread(path)
        assert made.StudyInstanceUID == source.StudyInstanceUID
        assert made.FrameOfReferenceUID == source.FrameOfReferenceUID
        assert made.PatientID == source.PatientID
        assert made.SeriesInstanceUID != source.SeriesInstanceUID


def test_files_lie_where_dcm2niix_puts_the_series(truth: Truth, tmp_path: Path) -> None:
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not installed (Debian package dcm2niix)")
    command = ["dcm2niix", "-b", "n", "-z", "n", "-f", "series", "-o", str(tmp_path), str(truth.folder)]
    subprocess.run(command, check=True, capture_output=True)
    theirs = nib.Nifti1Image.from_filename(tmp_path / "series.nii")
    ours = nib.Nifti1Image.from_filename(truth.case / "series_ifim_source.nii.gz")
    assert sorted(theirs.shape) == sorted(ours.shape)
    voxels = _voxels(ours.shape)
    world = nib.affines.apply_affine(ours.affine, voxels)
    there = nib.affines.apply_affine(np.linalg.inv(theirs.affine), world)
    np.testing.assert_allclose(nib.affines.apply_affine(theirs.affine, np.rint(there)), world, rtol=0, atol=1e-3)
    values = theirs.get_fdata()[tuple(np.rint(there).astype(int).T)]
    np.testing.assert_array_equal(ours.get_fdata()[tuple(voxels.T)], values)


def _voxels(shape: tuple[int, ...]) -> Array:
    """All corners and a hundred others."""
    corners = np.stack(np.meshgrid(*[(0, size - 1) for size in shape], indexing="ij"), axis=-1).reshape(-1, 3)
    return np.concatenate([corners, np.random.default_rng(8).integers(0, shape, (100, 3))])


@pytest.mark.slow
def test_bright_voxel_is_at_its_place_in_every_scene_of_3d_slicer(truths: dict[str, Truth], tmp_path: Path) -> None:
    python = os.environ.get("IFIM_SLICER_PYTHON")
    if not python:
        pytest.skip("set IFIM_SLICER_PYTHON to a Python that has trame-slicer to run this test")
    scenes = {name: truth.case / "series.mrml" for name, truth in truths.items()}
    judge = Path(__file__).parents[1] / "slicer" / "judge.py"
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["VTK_DEFAULT_OPENGL_WINDOW"] = "vtkEGLRenderWindow"
    command = [python, str(judge), str(tmp_path), "200", "200", *map(str, scenes.values())]
    reports = json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    for name, scene in scenes.items():
        volumes = reports[str(scene)]["volumes"]
        bright = {title: volume for title, volume in volumes.items() if not title.startswith("Insensitive part")}
        assert len(bright) == len(volumes) - 1 == 5  # source, input, sensitivity, high, one direction
        for volume in bright.values():
            np.testing.assert_allclose(volume["brightest"], truths[name].point, rtol=0, atol=1e-3)
