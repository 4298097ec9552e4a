"""The shipped bundles as MONAI's own command line runs them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_net_in_out
from monai.utils import BundleProperty, BundlePropertyConfig

from monai_ifim import read_cases
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.evaluation.demonstration import demo_slice, demo_volume
from monai_ifim.io.installation import bundles_folder, resolve_bundle

CASES = {"mednist_classification": "CT_small", "lumpy_lesion_detection_3d": "lumpy_lesion"}


@pytest.fixture(params=["mednist_classification", pytest.param("lumpy_lesion_detection_3d", marks=pytest.mark.soak)])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A bundle whose own inference decomposes."""
    root = tmp_path / request.param
    shutil.copytree(resolve_bundle(request.param), root)
    return root


@pytest.fixture(params=sorted(path.parent.parent.name for path in bundles_folder().glob("*/configs/metadata.json")))
def any_bundle(request: pytest.FixtureRequest) -> Path:
    return resolve_bundle(request.param)


def run_inference(bundle: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.yaml", "--bundle_root", "."]
    finished = subprocess.run([*command, *arguments], cwd=bundle, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]


def read(folder: Path, content: str) -> np.ndarray:
    return np.asarray(nib.load(folder / f"{folder.name}_ifim_{content}.nii.gz").dataobj)


@pytest.mark.soak  # the next test runs the same command with arguments
def test_inference_runs_without_an_argument(bundle: Path) -> None:
    run_inference(bundle)
    case = bundle / "eval" / CASES[bundle.name]
    image, high, low = read(case, "input"), read(case, "high"), read(case, "low")
    np.testing.assert_allclose(high + low, image, rtol=0, atol=1e-5 * np.ptp(image))
    sidecar = json.loads((case / f"{case.name}_ifim.json").read_text(encoding="utf-8"))
    assert sum(sidecar["prediction"]["probability"].values()) == pytest.approx(1.0)
    assert all(radius > 0 for radius in sidecar["locality_radius"])


@pytest.mark.slow
def test_inference_takes_the_users_images(bundle: Path, tmp_path: Path) -> None:
    source = demo_slice() if "mednist" in bundle.name else demo_volume(tmp_path / "drawn")
    mine = tmp_path / "mine"
    mine.mkdir()
    shutil.copy(source, mine / f"scan one{''.join(source.suffixes)}")
    run_inference(bundle, "--input", str(next(mine.iterdir())), "--output_dir", str(tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"scan_one", "cases.csv", "cases.parquet"}
    (row,) = read_cases(tmp_path / "out").itertuples()
    sidecar = json.loads((tmp_path / "out" / "scan_one" / "scan_one_ifim.json").read_text(encoding="utf-8"))
    assert (row.case, row.status, row.trace) == ("scan_one", "done", sidecar["trace"])


@pytest.mark.parametrize(("name", "kind"), [("inference.yaml", "inference"), ("train.yaml", "train")])
def test_monai_finds_its_workflow_properties(name: str, kind: str, any_bundle: Path) -> None:
    workflow = ConfigWorkflow(
        config_file=str(any_bundle / "configs" / name),
        meta_file=str(any_bundle / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type=kind,
        bundle_root=str(any_bundle),
    )
    for key, item in workflow.properties.items():
        if item[BundleProperty.REQUIRED]:
            assert item[BundlePropertyConfig.ID] in workflow.parser, key


def test_network_takes_and_gives_what_the_metadata_say(any_bundle: Path) -> None:
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(any_bundle / "configs" / "metadata.json"),
        config_file=str(any_bundle / "configs" / "inference.yaml"),
    )


@pytest.mark.slow
def test_exported_torchscript_equals_the_network(any_bundle: Path, tmp_path: Path) -> None:
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(any_bundle / "models" / "model.pt"),
        meta_file=str(any_bundle / "configs" / "metadata.json"),
        config_file=str(any_bundle / "configs" / "inference.yaml"),
    )
    loaded = load_bundle(any_bundle)
    image = loaded.example(None)[None]
    exported = torch.jit.load(tmp_path / "model.ts").eval()
    with torch.no_grad():
        torch.testing.assert_close(exported(image), loaded.network(image))


def test_weights_are_small_and_plain(any_bundle: Path) -> None:
    weights = any_bundle / "models" / "model.pt"
    assert weights.stat().st_size < 5_000_000
    state = torch.load(weights, weights_only=True)
    assert {value.dtype for value in state.values()} <= {torch.float32, torch.int64}
