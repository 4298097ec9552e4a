"""Grey images in networks of three channels: one map of each kind, in every space, and all that follows from its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.adapt.tied_channels import APART, EACH_ASKED_FOR, TIED
from monai_ifim.cli.main import app
from monai_ifim.core import IFIMError
from monai_ifim.core.dense import dense_fisher
from monai_ifim.io import read_sidecar
from monai_ifim.run.cases import find_cases
from monai_ifim.run.cohort import read_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.repetition import find_image, read_recorded_case, repeat_case
from monai_ifim.run.settings import RunSettings
from synthetic_series import ORIENTATIONS, Series, write

Array = npt.NDArray[Any]
SPREAD = [0.229, 0.224, 0.225]
FACTORS = [1.0, 1.02232, 1.01778]
READ = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd", "keys": "image"}]
GREY = [
    {"_target_": "ScaleIntensityd", "keys": "image"},
    {"_target_": "RepeatChanneld", "keys": "image", "repeats": 3},
    {
        "_target_": "NormalizeIntensityd",
        "keys": "image",
        "subtrahend": [0.485, 0.456, 0.406],
        "divisor": SPREAD,
        "channel_wise": True,
    },
]
STEPS = [*READ, {"_target_": "Orientationd", "keys": "image", "axcodes": "LAS", "labels": None}, *GREY,
         {"_target_": "Resized", "keys": "image", "spatial_size": [9, 8, 7]}]  # fmt: skip
KINDS = ["input", "high", "low", "sensitivity", "eigenvector"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Bundle:
    return load_bundle(make_bundle(tmp_path_factory.mktemp("grey") / "bundle", channels=3, steps=STEPS))


@pytest.fixture
def scan(tmp_path: Path, write_scan: Callable[..., Path], oblique: Array) -> Path:
    return write_scan(tmp_path / "in" / "scan.nii.gz", (11, 8, 13), oblique)


def run(bundle: Bundle, image: Path, output: Path, batch: int = 1, **settings: Any) -> list[dict[str, Any]]:
    """The sidecars, with the row of each under "row"."""
    case = CaseSettings(**({"head": "categorical", "energy": 1.0} | settings))
    rows = run_cases(bundle, find_cases([image]), RunSettings(output, case, batch), lambda row: None)
    assert {row.status for row in rows} <= {"done", "kept"}, rows[0].reason
    return [read_sidecar(output / row.case / f"{row.case}_ifim.json") | {"row": row} for row in rows]


def volume(output: Path, sidecar: dict[str, Any], kind: str, component: int | None = None, channel: int = 1) -> Array:
    (file,) = (f for f in sidecar["files"] if (f["kind"], f["component"], f["channel"]) == (kind, component, channel))
    return np.asarray(nib.load(output / sidecar["row"].case / file["file"]).get_fdata() * file["scale"])


def test_on_the_network_s_grid_the_files_are_those_of_the_dense_t_f_t(bundle: Bundle, scan: Path, tmp_path: Path) -> None:
    (found,) = run(bundle, scan, tmp_path / "out", space="network")
    assert [file["channel"] for file in found["files"]] == [1] * len(found["files"])
    assert found["input"]["tied_channels"] == {
        "channels": 3,
        "factors": FACTORS,
        "meaning": TIED,
    }
    image = bundle.preprocess(scan)[None].as_subclass(Tensor)
    weights = torch.tensor([SPREAD[0] / each for each in SPREAD], dtype=torch.float64)
    spread = torch.kron(weights[:, None], torch.eye(image[0, 0].numel(), dtype=torch.float64))
    fisher = spread.T @ dense_fisher(bundle.network.double(), image.double()) @ spread
    bundle.network.float()
    values, vectors = (each.flip(-1)[..., :2] for each in torch.linalg.eigh(fisher))
    np.testing.assert_allclose(found["eigenvalues"], values, rtol=1e-4)
    grey = image[0, 0].double().numpy()
    np.testing.assert_allclose(volume(tmp_path / "out", found, "input"), grey, rtol=0, atol=1e-6)
    high = (vectors @ (vectors.T @ image[0, 0].flatten().double())).reshape(grey.shape)
    np.testing.assert_allclose(volume(tmp_path / "out", found, "high"), high, rtol=0, atol=1e-4 * float(high.abs().max()))
    diagonal = fisher.diagonal().reshape(grey.shape)
    np.testing.assert_allclose(
        volume(tmp_path / "out", found, "sensitivity"), diagonal, rtol=0, atol=1e-4 * float(diagonal.max())
    )
    assert read_cases(tmp_path / "out")["channels"].tolist() == ["tied"]


def test_on_the_input_s_grid_one_file_of_each_kind_adds_up_to_the_grey_image(bundle: Bundle, scan: Path, tmp_path: Path) -> None:
    (found,) = run(bundle, scan, tmp_path / "out", rank=1)
    assert [file["kind"] for file in found["files"]] == [*KINDS, "source"]
    whole, high, low = (volume(tmp_path / "out", found, kind) for kind in ("input", "high", "low"))
    np.testing.assert_allclose(high + low, whole, rtol=0, atol=1e-5 * np.ptp(whole))
    assert whole.shape == nib.load(scan).shape
    scanned = nib.load(scan).get_fdata()
    inside = np.corrcoef(whole.ravel(), scanned.ravel())[0, 1]
    assert inside > 0.8  # resampled twice, and else the scan on a straight line


def test_the_scan_of_scanner_space_is_one_image_by_itself(bundle: Bundle, scan: Path, tmp_path: Path) -> None:
    """The chain rule sums over the channels: the eigenvalues are those of the grey image, in the unit of the scan."""
    (found,) = run(bundle, scan, tmp_path / "out", space="scanner")
    assert [file["kind"] for file in found["files"]] == [*KINDS, "eigenvector"]
    assert found["input"]["tied_channels"] is None
    whole = volume(tmp_path / "out", found, "high") + volume(tmp_path / "out", found, "low")
    np.testing.assert_allclose(whole, nib.load(scan).get_fdata(), rtol=0, atol=1e-4 * np.abs(whole).max())


def test_every_channel_has_its_files_where_that_is_asked_for(bundle: Bundle, scan: Path, tmp_path: Path) -> None:
    (found,) = run(bundle, scan, tmp_path / "out", space="network", rank=1, channels="each")
    assert [file["channel"] for file in found["files"]] == [1, 2, 3] * 5
    assert found["input"]["tied_channels"]["factors"] is None
    assert EACH_ASKED_FOR in found["input"]["tied_channels"]["meaning"]
    assert found["row"].channels == "each"
    tied, each = (run(bundle, scan, tmp_path / name, space="network", rank=1, channels=name)[0] for name in ("tied", "each"))
    assert tied["trace"] > each["trace"]  # of changes three times as large
    summed = sum(volume(tmp_path / "each", each, "eigenvector", 1, channel) for channel in (1, 2, 3))
    one = volume(tmp_path / "tied", tied, "eigenvector", 1)
    assert 1 - abs((summed * one).sum()) / np.linalg.norm(summed) / np.linalg.norm(one) > 1e-6  # the sum is no eigenvector


def test_a_batch_shares_passes_and_gives_the_same_numbers(bundle: Bundle, scan: Path, tmp_path: Path) -> None:
    other = nib.load(scan)
    nib.save(nib.Nifti1Image(other.get_fdata(dtype=np.float32)[::-1] ** 2, other.affine), scan.with_name("second.nii.gz"))
    together = run(bundle, scan.parent, tmp_path / "together", batch=2)
    alone = run(bundle, scan.parent, tmp_path / "alone")
    for one, two in zip(together, alone, strict=True):
        assert one["computation"]["batch"] == 2
        np.testing.assert_allclose(one["eigenvalues"], two["eigenvalues"], rtol=1e-4)


def test_a_finished_case_is_kept_until_its_channels_are_asked_for(bundle: Bundle, scan: Path, tmp_path: Path) -> None:
    statuses = [run(bundle, scan, tmp_path / "out", channels=name)[0]["row"].status for name in ("tied", "tied", "each", "tied")]
    assert statuses == ["done", "kept", "done", "done"]


@pytest.mark.parametrize("channels", ["tied", "each"])
def test_a_case_is_made_again_from_its_sidecar(bundle: Bundle, scan: Path, tmp_path: Path, channels: str) -> None:
    run(bundle, scan, tmp_path / "out", channels=channels, locality=True)
    name, case = read_recorded_case(tmp_path / "out" / "scan" / "scan_ifim.json")
    found = repeat_case(name, case, bundle.root, find_image(case, scan), tmp_path / "again")
    assert found.identical


@pytest.mark.slow
def test_a_parametric_map_of_each_kind_is_written(bundle: Bundle, tmp_path: Path) -> None:
    folder = write(tmp_path / "series", Series(ORIENTATIONS["oblique"]).slices())
    (found,) = run(bundle, folder, tmp_path / "out", rank=1, dicom_pm=True)
    labels = [pydicom.dcmread(tmp_path / "out" / found["row"].case / name).ContentLabel for name in found["parametric_maps"]]
    assert labels == ["IFIM_HIGH", "IFIM_LOW", "IFIM_SENS", "IFIM_EIG01"]


@pytest.mark.parametrize(("stored", "tied"), [("L", True), ("RGB", False)])
def test_a_grey_picture_stored_in_colours_stays_one_of_three_channels(
    tmp_path: Path, make_bundle: Callable[..., Path], stored: str, tied: bool
) -> None:
    """The preprocessing could be given other colours: nothing ties the channels of the file."""
    values = np.random.default_rng(1).integers(0, 255, (14, 11)).astype(np.uint8)
    Image.fromarray(values).convert(stored).save(tmp_path / "picture.png")
    steps = [
        *READ,
        *(GREY if stored == "L" else [GREY[0], GREY[2]]),
        {"_target_": "Resized", "keys": "image", "spatial_size": [12, 10]},
    ]
    bundle = load_bundle(make_bundle(tmp_path / "bundle", dims=2, channels=3, steps=steps))
    (found,) = run(bundle, tmp_path / "picture.png", tmp_path / "out", rank=1)
    assert max(file["channel"] for file in found["files"]) == (1 if tied else 3)
    assert (found["input"]["tied_channels"]["factors"] is not None) == tied
    assert tied or APART in found["input"]["tied_channels"]["meaning"]


@pytest.mark.usefixtures("blank_figure")
def test_the_command_line_has_the_option(bundle: Bundle, scan: Path, tmp_path: Path) -> None:
    words = ["decompose", str(scan), "--bundle", str(bundle.root), "--output", str(tmp_path / "out"), "--channels", "each"]
    result = CliRunner().invoke(app, [*words, "--head", "categorical", "--no-locality"])
    assert result.exit_code == 0, result.output
    assert read_sidecar(tmp_path / "out" / "scan" / "scan_ifim.json")["settings"]["channels"] == "each"


def test_channels_of_a_scan_are_not_chosen() -> None:
    with pytest.raises(IFIMError, match="'native' and 'network'.*leave it out"):
        CaseSettings(space="scanner", channels="each")
    with pytest.raises(IFIMError, match="unknown channels 'both': choose one of 'tied', 'each'"):
        CaseSettings(channels="both")  # type: ignore[arg-type]
