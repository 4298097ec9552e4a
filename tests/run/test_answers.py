"""A segmentation from the command line: volumes in ml, their changes, answers about one label or inside of a mask."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from torch import Tensor
from typer.testing import CliRunner

from monai_ifim import IFIMHandler, IFIMInferer, decompose
from monai_ifim.adapt.answer_facts import facts_of_batch, voxel_volume
from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.inferred_network import InferredNetwork
from monai_ifim.adapt.mask_file import read_mask
from monai_ifim.cli.main import app
from monai_ifim.io import InputError

Array = npt.NDArray[Any]
NAMES = ("background", "lesion", "edema")
NETWORK = "torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.GELU(), torch.nn.Conv3d(4, 3, 1))"
VOXEL = (2.0, 2.5, 3.0)  # mm, of the network's grid


def invoke(*words: Any) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def sidecar_of(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(next(output.glob("*/*_ifim.json")).read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    """A bundle that segments in windows, with its labels' names."""
    steps: list[dict[str, Any]] = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
        {"_target_": "Spacingd", "keys": "image", "pixdim": VOXEL},
    ]
    root = make_bundle(tmp_path_factory.mktemp("answers") / "bundle", steps=steps)
    config, metadata = root / "configs" / "inference.json", root / "configs" / "metadata.json"
    content = json.loads(config.read_text())
    content["network_def"] = f"${NETWORK}"
    content["inferer"] = {"_target_": "SlidingWindowInferer", "roi_size": [6, 5, 4], "overlap": 0.25}
    content["postprocessing"] = {
        "_target_": "Compose",
        "transforms": [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}],
    }
    config.write_text(json.dumps(content))
    stated = json.loads(metadata.read_text())
    stated["network_data_format"]["inputs"]["image"]["spatial_shape"] = ["*", "*", "*"]
    stated["network_data_format"]["outputs"]["pred"] |= {"format": "segmentation", "channel_def": dict(enumerate(NAMES))}
    metadata.write_text(json.dumps(stated))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        network = eval(NETWORK)
    for parameter in network.parameters():
        parameter.data *= 2
    torch.save(network.state_dict(), root / "models" / "model.pt")
    return root


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory, write_scan: Callable[..., Path], oblique: Array) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan") / "scan.nii.gz", (9, 11, 7), oblique)


@pytest.fixture(scope="module")
def bundle(root: Path) -> Bundle:
    return load_bundle(root)


@torch.no_grad()
def volumes_of(network: Any, x: Tensor) -> Tensor:
    """Expected ml of each label, by MONAI's own windows."""
    output = SlidingWindowInferer((6, 5, 4), overlap=0.25)(x, network)
    return output.softmax(1).flatten(2).double().sum(2)[0] * float(np.prod(VOXEL)) / 1000  # type: ignore[union-attr]


@pytest.mark.slow
def test_volumes_and_their_changes_are_in_sidecar_table_and_page(
    root: Path, scan: Path, bundle: Bundle, tmp_path: Path, blank_figure: None
) -> None:
    words = ["decompose", scan, "--bundle", root, "--output", tmp_path / "out", "--head", "volumes", "--volume-tolerance", "3 %"]
    invoke(*words, "--energy", "1", "--no-locality", "--verify", "never")
    content = sidecar_of(tmp_path / "out")
    stated = content["volumes"]
    assert (stated["unit"], stated["tolerance"]) == ("ml", "3 %")
    assert stated["voxel_volume"] == pytest.approx(0.015)
    assert content["answer"] is None
    image = bundle.preprocess(scan)
    x = image.as_tensor()[None]
    network = cast(InferredNetwork, bundle.network).ends_in
    expected = volumes_of(network, x)
    assert [each["name"] for each in stated["labels"]] == list(NAMES)
    assert [each["expected"] for each in stated["labels"]] == pytest.approx(expected.tolist(), rel=1e-5)
    assert content["prediction"]["mean"] == pytest.approx(dict(zip(NAMES, expected.tolist(), strict=True)), rel=1e-5)
    d = decompose(
        bundle.network, x.double(), head="volumes", energy=1.0, precision="float64", volume_tolerance="3 %", voxel_volume=0.015
    )
    step, wide = 1e-4, copy.deepcopy(network).double()  # type: ignore[attr-defined]
    for number, each in enumerate(stated["labels"]):
        assert each["tolerance"] == pytest.approx(max(0.03 * float(expected[number]), 0.015), rel=1e-5)
        for i, change in enumerate(each["changes"]):
            u = step * d.eigenvectors[:, i]
            moved = [volumes_of(wide, x.double() + sign * u) for sign in (1, -1)]
            quotient = float(moved[0][number] - moved[1][number]) / (2 * step)
            assert change == pytest.approx(quotient, rel=1e-3, abs=1e-6)
        assert each["slope"] == pytest.approx(float(np.hypot.reduce(each["changes"])), rel=1e-4)
    assert content["volumes"]["sentence"].startswith("One unit (network input intensity) along component 1 ")
    [row] = pq.read_table(tmp_path / "out" / "cases.parquet").to_pylist()
    assert row["volume_labels"] == list(NAMES)
    assert row["volume_slopes"] == [each["slope"] for each in stated["labels"]]
    assert row["volume_changes"] == [each["changes"][0] for each in stated["labels"]]
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<h3>Volumes</h3>" in page
    assert content["volumes"]["sentence"] in page
    assert "kept from an earlier run" in invoke(*words, "--energy", "1", "--no-locality", "--verify", "never")
    again = invoke("decompose", "--from", next((tmp_path / "out").glob("*/*_ifim.json")), "--bundle", root, "--image", scan)
    assert "agrees bit for bit" in again


@pytest.mark.parametrize("space", ["native", "network", "scanner"])
def test_an_answer_about_one_label_is_one_product_in_every_space(
    root: Path, scan: Path, tmp_path: Path, space: str, blank_figure: None
) -> None:
    words = [
        "decompose",
        scan,
        "--bundle",
        root,
        "--output",
        tmp_path,
        "--head",
        "volumes",
        "--answer",
        "lesion",
        "--space",
        space,
    ]
    invoke(*words, "--no-locality", "--verify", "never")
    content = sidecar_of(tmp_path)
    assert content["jacobian_products"] == 1
    assert content["answer"] == {"label": 1, "name": "lesion", "mask": None, "voxels": None}
    assert content["volumes"]["voxel_volume"] == pytest.approx(0.015)
    [label] = content["volumes"]["labels"]
    assert (label["number"], label["name"]) == (1, "lesion")
    assert abs(label["changes"][0]) == pytest.approx(label["slope"], rel=1e-4)
    assert "the volume of lesion by " in content["volumes"]["sentence"]
    assert pq.read_table(tmp_path / "cases.parquet").to_pylist()[0]["decomposed"] == "the volume of lesion"
    assert "the volume of lesion" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_an_unknown_label_fails_the_case_with_the_names_that_exist(root: Path, scan: Path, tmp_path: Path) -> None:
    words = ["decompose", str(scan), "--bundle", str(root), "--output", str(tmp_path), "--head", "volumes", "--answer", "tumour"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 3
    assert "give one of 0 (background), 1 (lesion), 2 (edema)" in " ".join(result.output.split())


@pytest.mark.parametrize("grid", ["scan", "network"])
def test_a_mask_on_the_scan_s_or_the_network_s_grid_restricts_the_answer(
    root: Path, scan: Path, bundle: Bundle, tmp_path: Path, grid: str, blank_figure: None
) -> None:
    image = bundle.preprocess(scan)
    if grid == "scan":
        source = nib.load(scan)
        values, affine = np.zeros(source.shape, dtype=np.uint8), source.affine
        values[2:7, 3:9, 1:5] = 1
    else:
        values, affine = np.zeros(image.shape[1:], dtype=np.uint8), image.affine.numpy()
        values[1:5, 2:6, 1:4] = 1
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "mask.nii.gz")
    words = ["decompose", scan, "--bundle", root, "--output", tmp_path / "out", "--head", "volumes"]
    mask = ["--answer-mask", tmp_path / "mask.nii.gz"]
    invoke(*words, *mask, "--energy", "1", "--no-locality", "--verify", "never")
    content = sidecar_of(tmp_path / "out")
    on_network = nearest(values, affine, image)
    assert content["answer"]["voxels"] == on_network.sum() > 0
    assert content["answer"]["mask"]["voxels"] == values.sum()
    total = sum(each["expected"] for each in content["volumes"]["labels"])
    assert total == pytest.approx(0.015 * on_network.sum(), rel=1e-5)
    d = decompose(
        bundle.network,
        image.as_tensor()[None],
        head="volumes",
        energy=1.0,
        voxel_volume=0.015,
        answer_mask=torch.from_numpy(on_network),
    )
    assert content["eigenvalues"] == pytest.approx(d.eigenvalues[0].tolist(), rel=1e-4)
    sidecar = next((tmp_path / "out").glob("*/*_ifim.json"))
    result = CliRunner().invoke(app, ["decompose", "--from", str(sidecar), "--bundle", str(root), "--image", str(scan)])
    assert "give its path, --answer-mask FILE" in " ".join(result.output.split())
    assert "agrees bit for bit" in invoke("decompose", "--from", sidecar, "--bundle", root, "--image", scan, *mask)


def nearest(values: Array, affine: Array, image: MetaTensor) -> npt.NDArray[np.bool_]:
    """The mask on the network's grid, by SciPy."""
    from scipy.ndimage import affine_transform

    places = np.linalg.inv(affine) @ image.affine.numpy()
    found = affine_transform(values, places[:3, :3], places[:3, 3], output_shape=tuple(image.shape[1:]), order=0, mode="constant")
    return np.asarray(found > 0)


def test_a_mask_elsewhere_is_refused_with_the_cure(scan: Path, bundle: Bundle, tmp_path: Path) -> None:
    image = bundle.preprocess(scan)
    source = nib.load(scan)
    moved = source.affine.copy()
    moved[0, 3] += 5
    for shape, affine in ((source.shape, moved), ((3, 4, 5), source.affine)):
        nib.save(nib.Nifti1Image(np.ones(shape, dtype=np.uint8), affine), tmp_path / "m.nii")
        mask = read_mask(str(tmp_path / "m.nii"))
        assert mask is not None
        with pytest.raises(InputError, match=r"lies neither on the scan's grid \(9 x 11 x 7\) nor on the network's"):
            mask.of_image(image, bundle.preprocessing)
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2, 3), dtype=np.uint8), moved), tmp_path / "m.nii")
    with pytest.raises(InputError, match="4 axes: give one volume"):
        read_mask(str(tmp_path / "m.nii"))
    (tmp_path / "m.nii").write_bytes(b"no image")
    with pytest.raises(InputError, match="not a readable NIfTI file"):
        read_mask(str(tmp_path / "m.nii"))


def test_the_volume_of_a_voxel_comes_from_the_affine_where_one_is_stated(scan: Path, bundle: Bundle) -> None:
    image = bundle.preprocess(scan)
    assert voxel_volume(image) == pytest.approx(0.015)
    assert voxel_volume(image.as_tensor()) is None
    assert voxel_volume(MetaTensor(torch.zeros(1, 4, 4, 4))) is None  # nobody stated its identity
    assert voxel_volume(MetaTensor(torch.zeros(1, 4, 4, 4), affine=2 * torch.eye(4))) == pytest.approx(0.008)
    assert voxel_volume(MetaTensor(torch.zeros(1, 4, 4), affine=2 * torch.eye(4))) is None  # of two axes
    batch = torch.stack([image, image])
    assert facts_of_batch(batch).voxel_volume is not None
    inferred = IFIMInferer(head="volumes", rank=1, volume_tolerance="0.2 ml")(image[None], bundle.network)
    record = json.loads(inferred["ifim_high"].meta["ifim_record"][0])  # type: ignore[attr-defined]
    assert record["volumes"]["voxel_volume"] == pytest.approx(0.015)
    assert record["volumes"]["tolerances"] == [0.2, 0.2, 0.2]
    assert IFIMHandler(head="volumes", answer="lesion").settings.answer == "lesion"


def test_check_tells_the_cost_of_all_volumes(root: Path, scan: Path) -> None:
    said = invoke("check", "--bundle", root, "--image", scan, "--head", "volumes", "--answer", "edema")
    assert "1 product(s) an image" in said
    said = invoke("check", "--bundle", root, "--image", scan)
    assert "head volumes" in said
    assert "2 product(s) an image" in said
