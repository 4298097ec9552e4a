"""Runs in scanner space: files that are the scan, voxel by voxel, what the sidecar says, resuming, and cases that fail."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from monai_ifim import decompose_scan
from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.random_steps import RandomStepWarning
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.core import IFIMError
from monai_ifim.io import read_sidecar
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import CaseRow
from synthetic_series import GAP, ORIENTATIONS, SPACING, Series, write

Array = npt.NDArray[Any]
SHAPE = (11, 8, 13)
BUDGET = "3MiB"
STEPS = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
    {"_target_": "Orientationd", "keys": "image", "axcodes": "LAS", "labels": None},
    {"_target_": "Spacingd", "keys": "image", "pixdim": [2.0, 2.5, 3.0]},
    {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
    {"_target_": "Resized", "keys": "image", "spatial_size": [9, 8, 7]},
]
PLANE_STEPS = [*STEPS[:2], STEPS[4], {"_target_": "Resized", "keys": "image", "spatial_size": [12, 10]}]


@pytest.fixture
def bundle(tmp_path: Path, make_bundle: Callable[..., Path]) -> Bundle:
    return load_bundle(make_bundle(tmp_path / "bundle", steps=STEPS))


@pytest.fixture
def plane_bundle(tmp_path: Path, make_bundle: Callable[..., Path]) -> Bundle:
    return load_bundle(make_bundle(tmp_path / "plane_bundle", dims=2, steps=PLANE_STEPS))


@pytest.fixture
def volume(tmp_path: Path, oblique: Array) -> Path:
    """A left-handed, oblique scan stored as int16 with a slope, as scanners write them."""
    return write_nifti(tmp_path / "in" / "volume.nii.gz", SHAPE, oblique)


def write_nifti(path: Path, shape: tuple[int, ...], affine: Array, seed: int = 0) -> Path:
    generator = np.random.default_rng(seed)
    image = nib.Nifti1Image(generator.integers(-1000, 2000, shape).astype(np.int16), affine)
    image.header.set_slope_inter(0.5, 3.0)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def run(bundle: Bundle, inputs: Path | list[Any], output: Path, **settings: Any) -> list[CaseRow]:
    options = settings.pop("options", CaseSettings("categorical", energy=1.0))
    cases = inputs if isinstance(inputs, list) else find_cases([inputs])
    own = {name: settings.pop(name) for name in ("batch_size", "device", "overwrite") if name in settings}
    wanted = RunSettings(output, CaseSettings.of(options, {"space": "scanner"} | settings), **own)
    return run_cases(bundle, cases, wanted, lambda row: None)


def volumes(output: Path, case: str, read: Callable[[Path], Any], channel: int = 1) -> dict[str, Any]:
    suffix = "" if channel == 1 else f"_channel-{channel:02d}"
    contents = ("input", "high", "low", "sensitivity", "eigenvector-01")
    return {content: read(output / case / f"{case}_ifim_{content}{suffix}.nii.gz") for content in contents}


def assert_whole(found: dict[str, Any], values: Array) -> None:
    """input = high + low = the scan's own voxels, to float32 rounding."""
    rounding = 4 * np.finfo(np.float32).eps * np.abs(values).max()
    np.testing.assert_array_equal(found["input"].values, values.astype(np.float32))
    np.testing.assert_allclose(found["high"].values + found["low"].values, values, rtol=0, atol=rounding)
    assert np.linalg.norm(found["eigenvector-01"].values) == pytest.approx(1, rel=1e-5)


def sidecar_of(output: Path, case: str) -> dict[str, Any]:
    return read_sidecar(output / case / f"{case}_ifim.json")


def test_the_files_of_a_nifti_are_the_scan_itself(
    bundle: Bundle, volume: Path, tmp_path: Path, read_alike: Callable[[Path], Any]
) -> None:
    [row] = run(bundle, volume, tmp_path / "out")
    assert row.status == "done", row.reason
    scan, found = nib.load(volume), volumes(tmp_path / "out", "volume", read_alike)
    assert_whole(found, scan.get_fdata())
    for content in found.values():
        np.testing.assert_allclose(content.affine, scan.affine, rtol=0, atol=1e-5)
    assert not list((tmp_path / "out" / "volume").glob("*_source*"))


def test_they_hold_what_decompose_scan_finds(
    bundle: Bundle, volume: Path, tmp_path: Path, read_alike: Callable[[Path], Any]
) -> None:
    run(bundle, volume, tmp_path / "out", resolution=3.5, statistics="freeze")
    scan = bundle.read(volume)["image"]
    expected = decompose_scan(bundle.network, bundle.preprocessing, scan, resolution=3.5, statistics="freeze", energy=1.0)
    found, sidecar = volumes(tmp_path / "out", "volume", read_alike), sidecar_of(tmp_path / "out", "volume")
    np.testing.assert_allclose(found["high"].values, expected.high[0, 0], rtol=0, atol=1e-3)
    np.testing.assert_allclose(sidecar["eigenvalues"], expected.eigenvalues[0], rtol=1e-4)
    scale = float(sidecar["files"][3]["scale"])
    assert sidecar["files"][3]["kind"] == "sensitivity"
    np.testing.assert_allclose(found["sensitivity"].values * scale, expected.sensitivity[0, 0], rtol=1e-3, atol=1e-6 * scale)


def test_the_sidecar_says_space_units_and_preprocessing(bundle: Bundle, volume: Path, tmp_path: Path) -> None:
    run(bundle, volume, tmp_path / "plain")
    run(bundle, volume, tmp_path / "coarse", resolution="network")
    plain, coarse = (sidecar_of(tmp_path / name, "volume") for name in ("plain", "coarse"))
    assert plain["space"]["name"] == coarse["space"]["name"] == "scanner"
    assert plain["preprocessing"] == {
        "steps": ["Orientationd", "Spacingd", "NormalizeIntensityd", "Resized"],
        "equivalents": ["NormalizeIntensityd"],
        "statistics": "differentiate",
        "zeros_held": True,
        "resolution": None,
        "resolution_mm": None,
    }
    assert plain["units"] == {
        "maps": "scanner units",
        "eigenvalues": "nats per (scanner units on the input's grid)^2",
        "sensitivity": "nats per (scanner units on the input's grid)^2",
        "eigenvectors": "unit norm on the input's grid",
        "locality_radius": "scanner units, L2 norm on the input's grid",
        "locality_share": "1, share of the L2 norm of the image on the input's grid",
        "locality_rms": "scanner units, root mean square on the input's grid",
    }
    assert coarse["units"]["eigenvalues"] == "nats per (scanner units before the low-pass filter on the input's grid)^2"
    assert coarse["preprocessing"]["resolution"] == "network"
    assert len(coarse["preprocessing"]["resolution_mm"]) == 3
    assert coarse["metric"]["kind"] == "Gaussian low-pass"
    assert all(file["kind"] != "source" for file in plain["files"])


@pytest.mark.parametrize("orientation", ["axial", "oblique"])
def test_the_files_of_a_ct_series_are_its_hounsfield_units(
    orientation: str, bundle: Bundle, tmp_path: Path, read_alike: Callable[[Path], Any]
) -> None:
    series = Series(ORIENTATIONS[orientation])
    folder = write(tmp_path / "in" / "series", series.slices())
    [row] = run(bundle, folder, tmp_path / "out", dicom_pm=True)
    assert row.status == "done", row.reason
    found, sidecar = volumes(tmp_path / "out", "series", read_alike), sidecar_of(tmp_path / "out", "series")
    affine, shape = found["input"].affine, found["input"].values.shape
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    lps = (voxels @ affine[:3, :3].T + affine[:3, 3]) * [-1, -1, 1]
    indices = (lps - series.origin) @ series.axes / [*SPACING, GAP]
    np.testing.assert_allclose(indices, np.rint(indices), rtol=0, atol=1e-3)
    assert_whole(found, series.values[tuple(np.rint(indices).astype(int).T)].reshape(shape).astype(float))
    assert sidecar["units"]["maps"] == "Hounsfield units"
    assert sidecar["units"]["eigenvalues"] == "nats per (Hounsfield units on the input's grid)^2"
    assert units_of_parametric_maps(tmp_path / "out" / "series") == {
        "high": "[hnsf'U]",
        "low": "[hnsf'U]",
        "sensitivity": "{nat}/[hnsf'U]2",
        "eigenvector": "1",
    }


def units_of_parametric_maps(folder: Path) -> dict[str, str]:
    """UCUM code by map, its power of ten left out."""
    found = {}
    for path in sorted(folder.glob("*.dcm")):
        content = re.sub(r".*_ifim_([a-z]+).*", r"\1", path.name)
        mapping = pydicom.dcmread(path).SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
        code = str(mapping.MeasurementUnitsCodeSequence[0].CodeValue)
        found[content] = re.sub(r"^10\*-?\d+\.", "", code)
    return found


def test_a_single_slice_goes_through_a_plane_bundle(
    plane_bundle: Bundle, tmp_path: Path, read_alike: Callable[[Path], Any]
) -> None:
    series = Series(ORIENTATIONS["coronal"], slices=1)
    folder = write(tmp_path / "in" / "slice", series.slices())
    [row] = run(plane_bundle, folder, tmp_path / "out", resolution="network")
    assert row.status == "done", row.reason
    found, sidecar = volumes(tmp_path / "out", "slice", read_alike), sidecar_of(tmp_path / "out", "slice")
    assert sorted(np.unique(found["input"].values)) == sorted(np.unique(series.values.astype(np.float32)))
    assert found["input"].values.size == series.values.size
    rounding = 4 * np.finfo(np.float32).eps * np.abs(series.values).max()
    np.testing.assert_allclose(found["high"].values + found["low"].values, found["input"].values, rtol=0, atol=rounding)
    assert sidecar["units"]["maps"] == "Hounsfield units"
    assert sidecar["preprocessing"]["steps"] == ["SqueezeDimd", "NormalizeIntensityd", "Resized"]
    assert sidecar["preprocessing"]["resolution_mm"] == [0.0, 0.0, 0.0]  # the network sees 12 x 10 of 7 x 5 pixels


def test_a_photograph_goes_through_a_plane_bundle(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    picture = np.random.default_rng(3).integers(1, 255, (31, 22, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(picture).save(tmp_path / "in" / "picture.png")
    [row] = run(
        load_bundle(make_bundle(tmp_path / "b", 2, 3, steps=PLANE_STEPS)), tmp_path / "in" / "picture.png", tmp_path / "out"
    )
    assert row.status == "done", row.reason
    for channel in (1, 2, 3):
        found = volumes(tmp_path / "out", "picture", lambda path: nib.load(path).get_fdata(), channel)
        np.testing.assert_array_equal(found["input"][..., 0], picture[..., channel - 1].T)
        np.testing.assert_allclose(found["high"] + found["low"], found["input"], rtol=0, atol=1e-4)


def test_one_volume_of_a_4d_file(bundle: Bundle, oblique: Array, tmp_path: Path, read_alike: Callable[[Path], Any]) -> None:
    path = write_nifti(tmp_path / "in" / "many.nii.gz", (*SHAPE, 3), oblique)
    [row] = run(bundle, find_cases([path], frame=1), tmp_path / "out")
    assert row.status == "done", row.reason
    assert_whole(volumes(tmp_path / "out", "many_frame-001", read_alike), nib.load(path).get_fdata()[..., 1])
    assert sidecar_of(tmp_path / "out", "many_frame-001")["input"]["frame"] == 1


def test_volumes_of_a_4d_file_that_are_channels(
    make_bundle: Callable[..., Path], oblique: Array, tmp_path: Path, read_alike: Callable[[Path], Any]
) -> None:
    path = write_nifti(tmp_path / "in" / "two.nii.gz", (*SHAPE, 2), oblique)
    [row] = run(load_bundle(make_bundle(tmp_path / "bundle", channels=2, steps=STEPS)), path, tmp_path / "out")
    assert row.status == "done", row.reason
    squares = 0.0
    for channel in (1, 2):
        found = volumes(tmp_path / "out", "two", read_alike, channel)
        np.testing.assert_array_equal(found["input"].values, nib.load(path).get_fdata()[..., channel - 1].astype(np.float32))
        np.testing.assert_allclose(found["high"].values + found["low"].values, found["input"].values, rtol=0, atol=2e-3)
        squares += np.linalg.norm(found["eigenvector-01"].values) ** 2
    assert squares == pytest.approx(1, rel=1e-5)


def test_a_tilted_series_is_decomposed_on_the_even_grid_made_of_it(
    bundle: Bundle, tmp_path: Path, read_alike: Callable[[Path], Any]
) -> None:
    slices = Series(ORIENTATIONS["axial"]).slices()
    for k, image in enumerate(slices):
        image.ImagePositionPatient[1] += 0.9 * k
    folder = write(tmp_path / "in" / "tilted", slices)
    [row] = run(bundle, find_cases([folder], fix_geometry=True), tmp_path / "out", dicom_pm=True)
    assert row.status == "done", row.reason
    found, sidecar = volumes(tmp_path / "out", "tilted", read_alike), sidecar_of(tmp_path / "out", "tilted")
    np.testing.assert_allclose(found["high"].values + found["low"].values, found["input"].values, rtol=0, atol=2e-3)
    assert sidecar["input"]["resampled"] is True
    assert sidecar["units"]["maps"] == "Hounsfield units"
    assert list(found["input"].values.shape) == sidecar["input"]["shape"]
    np.testing.assert_allclose(found["input"].affine, sidecar["input"]["affine"], atol=1e-4)
    assert units_of_parametric_maps(tmp_path / "out" / "tilted")["high"] == "[hnsf'U]"


def test_scans_of_many_geometries_follow_each_other(
    bundle: Bundle, tmp_path: Path, turned: Callable[..., Array], read_alike: Callable[[Path], Any]
) -> None:
    """One pipeline, probed once, for scans of other sizes, places and values."""
    for number in range(3):
        affine = turned((1.1 + number, 2.3, 3.1), (0.3 * number, -0.2, 0.5), flip=number == 1)
        write_nifti(tmp_path / "in" / f"s{number}.nii.gz", (9 + number, 8, 12 - number), affine, seed=number)
    rows = run(bundle, tmp_path / "in", tmp_path / "out", batch_size=2)
    assert [row.status for row in rows] == ["done"] * 3
    for number in range(3):
        scan = nib.load(tmp_path / "in" / f"s{number}.nii.gz")
        found = volumes(tmp_path / "out", f"s{number}", read_alike)
        assert_whole(found, scan.get_fdata())
        np.testing.assert_allclose(found["high"].affine, scan.affine, rtol=0, atol=1e-5)


@pytest.mark.parametrize("space", ["native", "network", "scanner"])
def test_steps_within_steps_are_those_steps(
    space: Any, bundle: Bundle, make_bundle: Callable[..., Path], volume: Path, tmp_path: Path
) -> None:
    inner = {"_target_": "Compose", "transforms": STEPS[:3]}
    nested = load_bundle(make_bundle(tmp_path / "nested", steps=[inner, *STEPS[3:]]))
    found = []
    for name, each in (("plain", bundle), ("nested", nested)):
        settings = RunSettings(tmp_path / name, CaseSettings("categorical", energy=1.0, space=space))
        [row] = run_cases(each, find_cases([volume]), settings, lambda row: None)
        assert row.status == "done", row.reason
        found.append(sidecar_of(tmp_path / name, "volume"))
    assert found[0]["eigenvalues"] == found[1]["eigenvalues"]
    assert found[0]["preprocessing"] == found[1]["preprocessing"]


@pytest.mark.parametrize("last", ["EnsureTyped", "ToTensord"])
def test_lazy_resampling_of_a_bundle_is_its_own(
    last: str, make_bundle: Callable[..., Path], volume: Path, tmp_path: Path
) -> None:
    """The answer in the sidecar is that of the bundle's Compose as MONAI runs it."""
    steps = [*STEPS, {"_target_": last, "keys": "image"}]
    root = make_bundle(tmp_path / "lazy", steps=steps)
    config = root / "configs" / "inference.json"
    content = json.loads(config.read_text())
    content["preprocessing"]["lazy"] = True
    config.write_text(json.dumps(content))
    lazy = load_bundle(root)
    [row] = run(lazy, volume, tmp_path / "out")
    assert row.status == "done", row.reason
    parser = ConfigParser()
    parser.read_config(config)
    seen = parser.get_parsed_content("preprocessing")({"image": str(volume)})["image"]
    with torch.no_grad():
        logits = lazy.network(torch.as_tensor(np.asarray(seen))[None])[0]
    np.testing.assert_allclose(sidecar_of(tmp_path / "out", "volume")["prediction"]["logits"], logits, rtol=1e-4, atol=1e-5)


# Resuming.


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ({}, {}, "kept"),
        ({"resolution": "network"}, {"resolution": "network"}, "kept"),
        ({"resolution": 2.5}, {"resolution": "2.5"}, "kept"),
        ({"resolution": 0}, {}, "kept"),
        ({"statistics": "freeze"}, {"statistics": "freeze"}, "kept"),
        ({}, {"statistics": "freeze"}, "done"),
        ({}, {"resolution": 2.5}, "done"),
        ({"resolution": 2.5}, {}, "done"),
        ({"resolution": 2.5}, {"resolution": 3.0}, "done"),
        ({"resolution": 2.5}, {"resolution": "network"}, "done"),
        ({"resolution": 2.5}, {"options": CaseSettings("categorical", energy=1.0, metric=3.0)}, "done"),
        ({}, {"options": CaseSettings("categorical", energy=1.0, metric=3.0)}, "done"),
    ],
)
def test_a_whole_case_is_kept_and_made_again_where_what_was_asked_has_changed(
    first: dict[str, Any], second: dict[str, Any], status: str, bundle: Bundle, volume: Path, tmp_path: Path
) -> None:
    assert [row.status for row in run(bundle, volume, tmp_path / "out", **first)] == ["done"]
    assert [row.status for row in run(bundle, volume, tmp_path / "out", **second)] == [status]
    assert [row.status for row in run(bundle, volume, tmp_path / "out", **second)] == ["kept"]


def test_another_space_makes_a_case_again(bundle: Bundle, volume: Path, tmp_path: Path) -> None:
    native = RunSettings(tmp_path / "out", CaseSettings("categorical", energy=1.0))
    for expected in ("done", "kept"):
        assert [row.status for row in run_cases(bundle, find_cases([volume]), native, lambda row: None)] == [expected]
    assert [row.status for row in run(bundle, volume, tmp_path / "out")] == ["done"]
    assert not list((tmp_path / "out" / "volume").glob("*_source*"))
    assert [row.status for row in run_cases(bundle, find_cases([volume]), native, lambda row: None)] == ["done"]
    assert list((tmp_path / "out" / "volume").glob("*_source*"))


# Noise and memory.


def test_a_noise_map_is_a_diagonal_weighting_of_the_fisher_information(
    bundle: Bundle, volume: Path, tmp_path: Path, read_alike: Callable[[Path], Any]
) -> None:
    """The sensitivity is diag(s) diag(F) diag(s), whatever the eigenvectors are."""
    noise = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(2)) * 20 + 1
    run(bundle, volume, tmp_path / "plain")
    run(bundle, volume, tmp_path / "noisy", options=CaseSettings("categorical", energy=1.0, metric=noise))
    maps = {}
    for name in ("plain", "noisy"):
        sidecar = sidecar_of(tmp_path / name, "volume")
        scale = next(file["scale"] for file in sidecar["files"] if file["kind"] == "sensitivity")
        maps[name] = volumes(tmp_path / name, "volume", read_alike)["sensitivity"].values * scale
    np.testing.assert_allclose(maps["noisy"], maps["plain"] * noise[0].numpy() ** 2, rtol=1e-3, atol=1e-6 * maps["noisy"].max())
    assert sidecar["units"]["eigenvalues"] == "nats per (standard deviation of the noise on the input's grid)^2"
    assert sidecar["metric"]["sigma"] == "map"


def test_a_noise_map_of_another_shape_fails_its_case_with_the_reason(
    bundle: Bundle, volume: Path, oblique: Array, tmp_path: Path
) -> None:
    write_nifti(volume.parent / "other.nii.gz", (9, 9, 9), oblique)
    options = CaseSettings("categorical", metric=torch.ones(1, 9, 9, 9))
    rows = {row.case: row for row in run(bundle, volume.parent, tmp_path / "out", options=options)}
    assert rows["other"].status == "done"
    assert rows["volume"].status == "failed"
    assert rows["volume"].reason == "the noise map has shape (1, 9, 9, 9); the images are (1, 1, 11, 8, 13)."


@pytest.mark.slow
@pytest.mark.parametrize("resolution", [None, "network"])
def test_a_memory_budget_changes_no_number(resolution: Any, bundle: Bundle, oblique: Array, tmp_path: Path) -> None:
    """Of a few copies of the scan, under which not everything can stay in memory."""
    path = write_nifti(tmp_path / "in" / "large.nii.gz", (37, 29, 41), oblique)
    results = {}
    for budget in (None, BUDGET):
        options = CaseSettings("categorical", energy=1.0, memory_budget=budget)
        [row] = run(bundle, path, tmp_path / str(budget), options=options, resolution=resolution)
        assert row.status == "done", row.reason
        folder = tmp_path / str(budget) / "large"
        results[budget] = {file.name: nib.load(file).get_fdata() for file in sorted(folder.glob("*.nii.gz"))}
    assert results[None].keys() == results[BUDGET].keys()
    largest = np.abs(results[None]["large_ifim_input.nii.gz"]).max()
    for name, values in results[None].items():
        # high is a projection of the image, and here a small one: its rounding is that of the image's values
        scale = largest if name == "large_ifim_high.nii.gz" else np.abs(values).max()
        np.testing.assert_allclose(results[BUDGET][name], values, rtol=0, atol=1e-5 * scale, err_msg=name)
    [row] = run(bundle, path, tmp_path / "less", options=CaseSettings("categorical", memory_budget="1MiB"))
    assert "--memory-budget is 1 MiB" in row.reason


# Cases and settings that cannot be.


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (
            {"_target_": "HistogramNormalized", "keys": "image"},
            "HistogramNormalized in the preprocessing has no gradient",
        ),
        ({"_target_": "AdjustContrastd", "keys": "image", "gamma": 1.5}, "AdjustContrastd .* incomplete gradient"),
        ({"_target_": "StdShiftIntensityd", "keys": "image", "factor": 1.0, "channel_wise": True}, "StdShiftIntensityd .* fails"),
    ],
)
def test_a_step_that_blocks_fails_every_case_by_its_name_with_the_cure(
    step: dict[str, Any], reason: str, make_bundle: Callable[..., Path], volume: Path, oblique: Array, tmp_path: Path
) -> None:
    blocked = load_bundle(make_bundle(tmp_path / "bundle", steps=[*STEPS, step]))
    write_nifti(volume.parent / "other.nii.gz", SHAPE, oblique)
    rows = run(blocked, volume.parent, tmp_path / "out")
    assert [row.status for row in rows] == ["failed"] * 2
    for row in rows:
        assert re.match(reason, row.reason)
        assert "--space native" in row.reason


def test_a_random_step_is_left_out(make_bundle: Callable[..., Path], volume: Path, tmp_path: Path) -> None:
    step = {"_target_": "RandGaussianNoised", "keys": "image", "prob": 0.5}
    with pytest.warns(RandomStepWarning, match=r"RandGaussianNoised \(prob 0.5\) in its preprocessing left out"):
        random = load_bundle(make_bundle(tmp_path / "bundle", steps=[*STEPS, step]))
    plain = load_bundle(make_bundle(tmp_path / "plain", steps=STEPS))
    found, expected = (read_sidecar(run_one(each, volume, tmp_path / each.root.name)) for each in (random, plain))
    assert found["left_out"] == ["RandGaussianNoised (prob 0.5)"]
    assert found["eigenvalues"] == pytest.approx(expected["eigenvalues"], rel=1e-6)


def run_one(bundle: Bundle, volume: Path, folder: Path) -> Path:
    [row] = run(bundle, volume, folder / "out")
    assert row.status == "done", row.reason
    return folder / "out" / row.case / f"{row.case}_ifim.json"


def test_an_image_of_other_channels_or_axes_than_the_network_s_is_refused_in_words(
    bundle: Bundle, plane_bundle: Bundle, volume: Path, tmp_path: Path
) -> None:
    (tmp_path / "colour").mkdir()
    Image.fromarray(np.full((9, 8, 3), 7, dtype=np.uint8)).save(tmp_path / "colour" / "picture.png")
    [colour] = run(plane_bundle, tmp_path / "colour", tmp_path / "out")
    [deep] = run(plane_bundle, volume, tmp_path / "out")
    Image.fromarray(np.full((9, 8), 7, dtype=np.uint8)).save(tmp_path / "grey.png")
    [flat] = run(bundle, tmp_path / "grey.png", tmp_path / "out")
    assert colour.reason.startswith("picture.png: 3 channel(s), but the network of bundle plane_bundle takes 1: convert")
    assert "an image of 3 dimensions" in deep.reason
    assert "an image of 2 dimensions" in flat.reason


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "native", "statistics": "freeze"}, "belong to the space 'scanner'"),
        ({"space": "network", "resolution": 2.0}, "belong to the space 'scanner'"),
        ({"space": "scanner", "statistics": "thaw"}, "unknown statistics 'thaw'"),
        ({"space": "scanner", "resolution": "fine"}, "resolution 'fine': give millimetres"),
        ({"space": "scanner", "resolution": -1.0}, "resolution -1.0: give millimetres"),
        ({"space": "scanner", "resolution": 2.0, "metric": 3.0}, "two input metrics"),
        ({"space": "scan"}, "unknown space 'scan'"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_any_case(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(IFIMError, match=message):
        CaseSettings(**settings)
