"""Named coordinates from the command line: the sidecar, the table, resume, --from, and the black box of files as judge."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from monai_ifim import IFIMHandler, IFIMInferer
from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.cli.main import app
from monai_ifim.coordinates import Acquisition, Place, Placement, Regions, sensitivity_along
from monai_ifim.options import on_command_line

Array = npt.NDArray[Any]
SHAPE = (9, 11, 7)
PLACEMENT = ("shift L", "shift P", "shift S", "rotation about L", "rotation about P", "rotation about S", "zoom")
ACQUISITION = ("offset", "gain", "gamma", "blur")
REGIONS = ("label 1", "label 4", "elsewhere")


def invoke(*words: Any, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == status, result.output
    return " ".join(result.output.split())


def refusal(*words: Any) -> str:
    """What the command line says of the error that ends a run."""
    return on_command_line(str(CliRunner().invoke(app, [str(word) for word in words]).exception))


def sidecar_of(output: Path) -> tuple[Path, dict[str, Any]]:
    path = next(output.glob("*/*_ifim.json"))
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return path, content


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path_factory.mktemp("coordinates") / "bundle")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory, oblique: Array) -> Path:
    """Smooth bumps, so that cubic moves are smooth, on an oblique grid."""
    places = np.indices(SHAPE) / 2.0
    values = 5 + 2 * np.sin(places[0]) * np.cos(0.7 * places[1]) + np.cos(places[2] + places[0])
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    nib.save(nib.Nifti1Image(values.astype(np.float32), oblique), path)
    return path


@pytest.fixture(scope="module")
def label_map(tmp_path_factory: pytest.TempPathFactory, oblique: Array) -> Path:
    values = np.zeros(SHAPE, dtype=np.uint8)
    values[2:5, 3:9, 1:5] = 1
    values[6:, :4, 2:] = 4
    path = tmp_path_factory.mktemp("labels") / "labels.nii.gz"
    nib.save(nib.Nifti1Image(values, oblique), path)
    return path


@pytest.fixture(scope="module")
def bundle(root: Path) -> Bundle:
    return load_bundle(root)


def through_files(bundle: Bundle, affine: Array, folder: Path) -> Callable[[Tensor], Tensor]:
    """Scans [B, 1, *spatial] to logits: each is written to NIfTI and goes through the untouched bundle."""

    def predict(scans: Tensor) -> Tensor:
        found = []
        for one in scans:
            nib.save(nib.Nifti1Image(one[0].numpy().astype(np.float64), affine), folder / "moved.nii")
            with torch.no_grad():
                found.append(bundle.network(bundle.preprocess(folder / "moved.nii").as_tensor()[None])[0])
        return torch.stack(found).double()

    return predict


@pytest.mark.slow
def test_a_run_states_what_the_untouched_bundle_does_to_moved_files(
    root: Path, scan: Path, label_map: Path, bundle: Bundle, oblique: Array, tmp_path: Path
) -> None:
    words = ["decompose", scan, "--bundle", root, "-o", tmp_path / "out", "--space", "scanner", "--no-locality"]
    words += ["--coordinates", "placement,acquisition", "--regions", label_map]
    invoke(*words)
    path, content = sidecar_of(tmp_path / "out")
    block = content["coordinates"]
    found = {each["name"]: each for each in block["coordinates"]}
    assert tuple(found) == (*PLACEMENT, *ACQUISITION, *REGIONS)
    assert (block["grid"], block["gradient_of"], block["way"]) == ("input", "log-probability", "columns")
    units = [each["unit"] for each in found.values()]
    assert units == [*["mm"] * 3, *["degree"] * 3, "%", "scanner units", "%", "%", "mm^2", *["scanner units"] * 3]
    image = torch.from_numpy(nib.load(scan).get_fdata())[None, None]
    labels = torch.from_numpy(np.asarray(nib.load(label_map).dataobj))
    families = [Placement(), Acquisition(), Regions(labels)]
    place = Place(torch.from_numpy(oblique), raw=True)
    judge = sensitivity_along(through_files(bundle, oblique, tmp_path), image, families, places=[place])
    assert judge.names == tuple(found)
    nats = torch.tensor([each["nats_per_unit"] for each in found.values()])
    torch.testing.assert_close(nats, judge.nats_per_unit[0].float(), rtol=2e-2, atol=2e-3 * float(nats.max()))
    fisher = torch.tensor(block["fisher"], dtype=torch.float64)
    scale = judge.fisher[0].diagonal().sqrt()
    torch.testing.assert_close(fisher / torch.outer(scale, scale), judge.fisher[0] / torch.outer(scale, scale), rtol=0, atol=3e-2)
    for answer, row in zip(content["model"]["class_names"], judge.gradient[0], strict=True):
        slopes = torch.tensor([each["gradient"][answer] for each in found.values()], dtype=torch.float64)
        torch.testing.assert_close(slopes, row, rtol=3e-2, atol=3e-3 * float(row.abs().max()))
    with (tmp_path / "out" / "coordinates.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["coordinate"] for row in table] == list(found)
    assert {row["case"] for row in table} == {"scan"}
    assert float(table[2]["per unit: class 1"]) == found["shift S"]["gradient"]["class 1"]
    assert float(table[2]["step_for_0.1_nat"]) == pytest.approx((0.1 / found["shift S"]["nats_per_unit"]) ** 0.5)
    written = json.loads((tmp_path / "out" / "run.json").read_text())["written"]
    assert "coordinates.csv" in written
    invoke("verify", tmp_path / "out")
    assert "kept" in invoke(*words)
    refused = invoke("decompose", "--from", path, "--bundle", root, "--image", scan, status=4)
    assert "give its path, --regions FILE" in refused
    assert "agrees bit for bit" in invoke("decompose", "--from", path, "--bundle", root, "--image", scan, "--regions", label_map)
    invoke(*words[:9], "--no-locality")
    assert sidecar_of(tmp_path / "out")[1]["coordinates"] is None
    assert not (tmp_path / "out" / "coordinates.csv").exists()
    invoke("verify", tmp_path / "out")


@pytest.mark.parametrize("space", ["native", "network"])
def test_what_is_stated_on_the_scan_is_refused_elsewhere_with_the_cure(
    space: str, root: Path, scan: Path, label_map: Path, tmp_path: Path
) -> None:
    words = ["decompose", scan, "--bundle", root, "-o", tmp_path / "out", "--no-locality"]
    for asked in (["--regions", label_map], ["--coordinates", "acquisition=ct"]):
        assert "choose --space scanner" in refusal(*words, "--space", space, *asked)
    assert "choose from placement, acquisition" in refusal(*words, "--coordinates", "dose")
    invoke(*words, "--space", space, "--coordinates", "placement,acquisition")
    _, content = sidecar_of(tmp_path / "out")
    assert content["coordinates"]["grid"] == "network"
    assert [each["unit"] for each in content["coordinates"]["coordinates"]][7] == "network input intensity"


def test_coordinates_of_a_network_input_are_those_of_its_own_grid(root: Path, scan: Path, bundle: Bundle, tmp_path: Path) -> None:
    invoke("decompose", scan, "--bundle", root, "-o", tmp_path / "out", "--no-locality", "--coordinates", "placement")
    _, content = sidecar_of(tmp_path / "out")
    image = bundle.preprocess(scan)
    place = Place(image.affine)
    judge = sensitivity_along(
        lambda x: bundle.network(x.float()).detach(), image.as_tensor()[None].double(), Placement(), places=[place]
    )
    nats = [each["nats_per_unit"] for each in content["coordinates"]["coordinates"]]
    assert nats == pytest.approx(judge.nats_per_unit[0].tolist(), rel=2e-2)
    inferred: Any = IFIMInferer(coordinates=[Placement()])(torch.stack([image, image]), bundle.network)
    for b in range(2):
        record = json.loads(inferred["ifim_high"].meta["ifim_record"][b])
        assert record["coordinates"]["nats_per_unit"] == pytest.approx(nats, rel=1e-3)
    assert IFIMHandler(coordinates=[Placement()]).settings.families[0].kind == "placement"


def test_the_answer_about_one_class_names_it(root: Path, scan: Path, tmp_path: Path) -> None:
    words = ["--no-locality", "--coordinates", "placement", "--answer", "class 2"]
    invoke("decompose", scan, "--bundle", root, "-o", tmp_path / "out", *words)
    _, content = sidecar_of(tmp_path / "out")
    assert set(content["coordinates"]["coordinates"][0]["gradient"]) == {"class 2"}
