"""Real scans through the shipped 3D bundle, in both spaces, as nibabel, ITK and GDCM see them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pytest

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.io.installation import resolve_bundle
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import CaseRow

NAMES = ["spm152", "MR_Gd", "spmMotor", "pcasl_frame-003", "ct_plain"]
FILES = {"input", "high", "low", "sensitivity", "eigenvector-01"}
Run = dict[str, CaseRow]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session", params=["native", "network"])
def out(request: pytest.FixtureRequest, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All scans of one space, decomposed in one run each space; the folder is named after the space."""
    folder: Path = tmp_path_factory.mktemp("real") / request.param
    volumes = [real_data / "nifti" / f"{name}.nii.gz" for name in NAMES[:3]]
    cases = find_cases([*volumes, real_data / "dicom" / "ct_plain"])
    cases += find_cases([real_data / "nifti" / "pcasl.nii.gz"], frame=3)
    settings = RunSettings(folder, CaseSettings("categorical", space=request.param))
    bundle = load_bundle(resolve_bundle("lumpy_lesion_detection_3d"))
    rows = run_cases(bundle, cases, settings, lambda row: None)
    assert [(row.case, row.status, row.reason) for row in rows if row.status != "done"] == []
    return folder


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest, out: Path, read_alike: Callable[[Path], Any]) -> dict[str, Any]:
    """Every file of one case by its content, read alike by nibabel and ITK; name and space."""
    folder = out / request.param
    volumes = {path.name.split("_ifim_")[1][:-7]: read_alike(path) for path in folder.glob("*.nii.gz")}
    return {"name": request.param, "space": out.name, "volumes": volumes}


def source_grid(name: str, real_data: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and RAS affine of the scan as nibabel reads it, of the series as ITK's GDCM reader gives it."""
    if name != "ct_plain":
        image = nib.load(real_data / "nifti" / f"{name.split('_frame')[0]}.nii.gz")
        return image.shape[:3], image.affine
    names = itk.GDCMSeriesFileNames.New()
    names.SetDirectory(str(real_data / "dicom" / name))
    reader = itk.ImageSeriesReader[itk.Image[itk.F, 3]].New(ImageIO=itk.GDCMImageIO.New())
    reader.SetFileNames(names.GetInputFileNames())
    reader.Update()
    image = reader.GetOutput()
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    affine[:3, 3] = np.array(image.GetOrigin())
    return tuple(image.GetLargestPossibleRegion().GetSize()), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def test_every_scan_ends_well_on_its_grid(case: dict[str, Any], real_data: Path, corners_of: Callable[..., np.ndarray]) -> None:
    volumes = case["volumes"]
    assert set(volumes) == FILES | ({"source"} if case["space"] == "native" else set())
    whole = volumes["input"].values.astype(np.float64)
    total = volumes["high"].values.astype(np.float64) + volumes["low"].values
    np.testing.assert_allclose(total, whole, rtol=0, atol=1e-5 * np.ptp(whole))
    if case["space"] == "network":
        assert whole.shape == (32, 32, 32)
        assert abs(float(np.linalg.norm(volumes["eigenvector-01"].values)) - 1) < 1e-4
        return
    shape, affine = source_grid(case["name"], real_data)
    for volume in volumes.values():
        assert volume.values.shape == shape
        np.testing.assert_allclose(volume.affine, affine, rtol=0, atol=1e-3)
        np.testing.assert_allclose(volume.corners, corners_of(affine, shape), rtol=0, atol=1e-2)


@pytest.mark.parametrize("out", ["native"], indirect=True)
@pytest.mark.parametrize("name", NAMES[:4])
def test_the_native_input_shows_the_scan_and_no_mirror_image_of_it(name: str, out: Path, real_data: Path) -> None:
    stem, _, frame = name.partition("_frame-")
    scan = nib.load(real_data / "nifti" / f"{stem}.nii.gz").dataobj
    values = np.asarray(scan[..., int(frame)] if frame else scan, dtype=np.float64)
    shown = nib.load(out / name / f"{name}_ifim_input.nii.gz").get_fdata()
    likeness = {axis: correlation(shown, np.flip(values, axis) if axis >= 0 else values) for axis in (-1, 0, 1, 2)}
    assert likeness[-1] > 0.7
    assert max(likeness, key=likeness.__getitem__) == -1


@pytest.mark.parametrize("out", ["native"], indirect=True)
@pytest.mark.parametrize("name", NAMES[:4])
def test_the_source_beside_the_maps_has_the_scans_own_values(name: str, out: Path, real_data: Path) -> None:
    stem, _, frame = name.partition("_frame-")
    scan = nib.load(real_data / "nifti" / f"{stem}.nii.gz").dataobj
    values = np.asarray(scan[..., int(frame)] if frame else scan, dtype=np.float32)
    np.testing.assert_array_equal(nib.load(out / name / f"{name}_ifim_source.nii.gz").get_fdata(), values)


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first.ravel()[::7], second.ravel()[::7])[0, 1])


@pytest.mark.parametrize("name", NAMES)
def test_sidecars_state_the_source(name: str, out: Path, real_data: Path) -> None:
    content = json.loads((out / name / f"{name}_ifim.json").read_text())
    shape, affine = source_grid(name, real_data)
    assert tuple(content["input"]["shape"]) == shape
    assert content["input"]["reader"] == ("ITKReader" if name == "ct_plain" else "NibabelReader")
    assert content["input"]["frame"] == (3 if "frame" in name else None)
    np.testing.assert_allclose(content["input"]["affine"], affine, rtol=0, atol=1e-3)


def test_a_4d_scan_without_frame_is_refused_naming_the_option(real_data: Path, tmp_path: Path) -> None:
    bundle = load_bundle(resolve_bundle("lumpy_lesion_detection_3d"))
    settings = RunSettings(tmp_path, CaseSettings("categorical"))
    (row,) = run_cases(bundle, find_cases([real_data / "nifti" / "pcasl.nii.gz"]), settings, lambda row: None)
    assert row.status == "failed"
    assert "10 volumes; choose one with --frame N" in row.reason
