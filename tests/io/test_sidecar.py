"""The sidecar: what stands in it, that it comes back, and that nothing personal reaches it."""

from __future__ import annotations

import copy
import csv
import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import torch
from pydicom.data import get_testdata_file

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.core import decompose
from monai_ifim.io import InputError, InputIdentity, MapContent, ModelIdentity, OutputError, read_sidecar
from monai_ifim.io.seal import is_unaltered
from monai_ifim.io.sidecar import SEAL, CaseFacts, MapFile, compose_sidecar, write_sidecar
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings

Array = npt.NDArray[Any]
KEYS = {
    "schema_version", "input", "model", "prediction", "eigenvalues", "rank", "energy_kept", "trace", "locality_radius",
    "method", "jacobian_products", "error_bound", "units", "files", "versions", "seconds", "peak_memory_bytes",
    "settings", "method_reason", "confidence", "residuals", "metric", "verification",
    "scene", "planes", "parametric_maps", "status", "stopped", "trace_error",
}  # fmt: skip
PLANTED = {
    "PatientName": "Zwetschgenbaum^Xaver",
    "PatientID": "QX-7781-ZZ",
    "PatientBirthDate": "19231105",
    "StudyDate": "19470519",
    "SeriesDate": "19470520",
    "AcquisitionDate": "19470521",
    "SeriesDescription": "Kopf fuer Zwetschgenbaum",
    "StudyDescription": "Quittenstudie",
    "InstitutionName": "Mirabellenklinik",
    "ReferringPhysicianName": "Pflaumenkern^Doktor",
    "AccessionNumber": "ACC99187",
    "ImageComments": "freier Text mit Holunder",
}
TRACES = [word for text in PLANTED.values() for word in text.split("^")] + ["Zwetschgenbaum", "Holunder"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, make_bundle: Any, write_scan: Any, oblique: Array) -> dict[str, Any]:
    """One case, written in the native space by the tiny bundle."""
    folder = tmp_path_factory.mktemp("sidecar")
    bundle = load_bundle(make_bundle(folder / "bundle"))
    scan = write_scan(folder / "scan.nii.gz", (9, 11, 7), oblique)
    settings = RunSettings(folder / "out", CaseSettings("categorical", rank=2, locality=True))
    run_cases(bundle, find_cases([scan]), settings, lambda row: None)
    case = folder / "out" / "scan"
    content = json.loads((case / "scan_ifim.json").read_text(encoding="utf-8"))
    return {"content": content, "case": case, "scan": scan, "bundle": bundle}


def test_all_keys_of_the_schema_are_there(run: dict[str, Any]) -> None:
    content = run["content"]
    assert set(content) >= KEYS
    assert set(content["input"]) >= {"file", "sha256", "shape", "affine", "reader"}
    assert set(content["model"]) >= {"bundle", "weights_sha256", "head", "class_names"}
    assert all(set(file) >= {"file", "grid", "norm", "scale", "window", "trace_share"} for file in content["files"])
    assert all(set(file) >= {"shape", "affine"} for file in content["files"])
    assert content["schema_version"] == "2.4"
    assert set(content["computation"]) == {"deterministic", "batch", "threads", "processor", "convolutions"}


def test_input_is_stated_as_nibabel_and_hashlib_see_it(run: dict[str, Any]) -> None:
    source, stated = nib.load(run["scan"]), run["content"]["input"]
    assert stated["file"] == "scan.nii.gz"
    assert stated["sha256"] == hashlib.sha256(run["scan"].read_bytes()).hexdigest()
    assert tuple(stated["shape"]) == source.shape
    assert stated["reader"] == "NibabelReader"
    np.testing.assert_allclose(stated["affine"], source.affine, rtol=0, atol=1e-5)


def test_model_is_stated_by_the_hash_of_its_weights_and_its_metadata(run: dict[str, Any]) -> None:
    weights = run["bundle"].root / "models" / "model.pt"
    config = run["bundle"].root / "configs" / "inference.json"
    metadata = run["bundle"].root / "configs" / "metadata.json"
    files = {
        path.relative_to(run["bundle"].root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (config, metadata, weights)
    }
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in files.items())
    assert run["content"]["model"] == {
        "files": files,
        "bundle_sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "bundle": "tiny",
        "version": "9.8.7",
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "config_sha256": hashlib.sha256(config.read_bytes()).hexdigest(),
        "class_names": ["class 0", "class 1", "class 2"],
        "intended_use": None,
        "head": "categorical",
        "head_source": "asked for",
    }


def test_numbers_are_those_of_the_decomposition(run: dict[str, Any]) -> None:
    content, bundle = run["content"], run["bundle"]
    image = bundle.preprocess(run["scan"])[None].as_subclass(torch.Tensor)
    expected = decompose(bundle.network, image, head="categorical", rank=2, locality=True)
    logits = bundle.network(image)[0].detach().double()
    best = int(logits.argmax())
    assert content["prediction"]["class"] == f"class {best}"
    np.testing.assert_allclose(list(content["prediction"]["probability"].values()), logits.softmax(0), rtol=1e-6)
    np.testing.assert_allclose(content["eigenvalues"], expected.eigenvalues[0], rtol=1e-6)
    np.testing.assert_allclose(content["locality_radius"], expected.locality_radius[0], rtol=1e-3)
    assert content["trace"] == pytest.approx(float(expected.trace[0]), rel=1e-6)
    assert (content["rank"], content["jacobian_products"], content["method"]) == (2, 2, "exact")
    assert content["energy_kept"] == pytest.approx(1.0)


def test_how_the_numbers_were_made_is_stated(run: dict[str, Any], tmp_path: Path) -> None:
    options = CaseSettings(
        "categorical", rank=1, method="matrix_free", tolerance=1e-3, memory_budget="1GiB", metric=0.5, precision="float64", seed=3
    )
    run_cases(run["bundle"], find_cases([run["scan"]]), RunSettings(tmp_path / "out", options), lambda row: None)
    content = read_sidecar(tmp_path / "out" / "scan" / "scan_ifim.json")
    assert (content["method"], content["method_reason"]) == ("matrix_free", "asked for")
    assert content["settings"] == options.describe()
    assert content["metric"] == {"kind": "noise level", "sigma": 0.5}
    assert content["units"]["eigenvalues"] == "nats per (standard deviation of the noise on the network's grid)^2"
    assert content["units"]["maps"] == "network input intensity"
    assert content["eigenvalues"][0] == pytest.approx(0.25 * run["content"]["eigenvalues"][0], rel=1e-3)
    assert len(content["residuals"]) == 1
    assert json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["metric"]["sigma"] == 0.5


def test_segmentation_states_the_share_of_each_class_and_no_voxels(make_bundle: Any, run: dict[str, Any], tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "bundle")
    config = json.loads((root / "configs" / "inference.json").read_text())
    config["network_def"] = "$torch.nn.Sequential(torch.nn.Conv3d(1, 3, 3, padding=1), torch.nn.Tanh())"
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 3, 3, padding=1), torch.nn.Tanh())
    torch.save(network.state_dict(), root / "models" / "model.pt")
    options = CaseSettings("voxelwise", rank=2, tolerance=1e-2, locality=True)
    bundle = load_bundle(root)
    [row] = run_cases(bundle, find_cases([run["scan"]]), RunSettings(tmp_path / "out", options), lambda row: None)
    assert row.status == "done", row.reason
    content = read_sidecar(tmp_path / "out" / "scan" / "scan_ifim.json")
    image = bundle.preprocess(run["scan"])[None].as_subclass(torch.Tensor)
    shares = network(image).softmax(1).mean((0, 2, 3, 4)).detach()
    np.testing.assert_allclose(list(content["prediction"]["mean_probability"].values()), shares, rtol=1e-5)
    assert content["prediction"]["class"] is None
    assert content["prediction"]["logits"] == []
    assert row.probabilities == pytest.approx(shares.tolist(), rel=1e-5)


def test_files_are_stated_as_nibabel_reads_them_and_no_others_lie_beside(run: dict[str, Any]) -> None:
    stated = {file["file"]: file for file in run["content"]["files"]}
    assert set(stated) == {path.name for path in run["case"].glob("*.nii.gz")}
    for name, file in stated.items():
        image = nib.load(run["case"] / name)
        assert image.shape == tuple(file["shape"])
        np.testing.assert_allclose(image.affine, file["affine"], rtol=0, atol=1e-4)
        assert file["norm"] == pytest.approx(float(np.linalg.norm(image.get_fdata())), rel=1e-6)


def compose(**record: Any) -> dict[str, Any]:
    source = InputIdentity("a.nii", "0" * 64, (3, 4, 5), np.eye(4).tolist(), "NibabelReader")
    files = [MapFile("a_ifim_high.nii.gz", MapContent("high"), (3, 4, 5), np.eye(4).tolist(), 1.5)]
    return compose_sidecar("a", CaseFacts(source, ModelIdentity("m", "1", None, ("no", "yes")), "network", record), files)


@pytest.mark.parametrize(
    ("norms", "share"),
    [({"values": 60, "input": 4.0, "high": 1.0}, 0.25), ({"values": 60, "input": 0.0, "high": 0.0}, None), (None, None)],
)
def test_high_share_is_the_norm_of_high_over_that_of_the_input(norms: dict[str, float] | None, share: float | None) -> None:
    content = compose(norms=norms)
    assert content["high_share"] == share
    assert content["norms"] == (None if norms is None else {"grid": "network", **norms})


def test_files_have_kind_component_channel_hash_and_unit(run: dict[str, Any]) -> None:
    """The names of the files tell the contents, independently."""
    files = run["content"]["files"]
    assert [(file["kind"], file["component"], file["channel"]) for file in files] == [
        ("input", None, 1), ("high", None, 1), ("low", None, 1), ("sensitivity", None, 1), ("eigenvector", 1, 1),
        ("eigenvector", 2, 1), ("source", None, 1),
    ]  # fmt: skip
    units = run["content"]["units"]
    for file in files:
        path = run["case"] / file["file"]
        assert file["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert file["file"] == f"{run['case'].name}_ifim_{MapContent.of(file).stem}.nii.gz"
        assert file["unit"] == {"eigenvector": "1", "sensitivity": units["sensitivity"], "source": units["source"]}.get(
            file["kind"], units["maps"]
        )


def as_version_1(sidecar: dict[str, Any]) -> dict[str, Any]:
    """What the program of schema 1 would have written."""
    old = copy.deepcopy(sidecar) | {"schema_version": "1.2", "source": None}
    del old["settings"]
    for file in old["files"]:
        content = MapContent.of(file)
        for name in ("kind", "component", "channel", "sha256", "unit"):
            del file[name]
        file["content"] = content.label
        if content.kind == "source":
            old["source"] = {"file": file["file"], "window": file["window"], "unit": old["units"]["source"]}
    return old


def test_a_sidecar_of_schema_1_is_read_in_the_form_of_schema_2(run: dict[str, Any], tmp_path: Path) -> None:
    whole = read_sidecar(run["case"] / "scan_ifim.json")
    whole["files"].append(whole["files"][4] | {"channel": 3, "file": "further.nii.gz"})
    write_sidecar(tmp_path / "old.json", as_version_1(whole))
    for file in whole["files"]:
        file["sha256"] = None
    assert read_sidecar(tmp_path / "old.json") == whole | {"settings": None}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda old: old.pop("files"),
        lambda old: old["files"][0].update(content="halo"),
        lambda old: old["files"][0].update(content=3),
        lambda old: old.update(units=None),
    ],
)
def test_a_damaged_sidecar_of_schema_1_is_refused_with_the_cure(
    spoil: Callable[[dict[str, Any]], Any], run: dict[str, Any], tmp_path: Path
) -> None:
    old = as_version_1(run["content"])
    spoil(old)
    write_sidecar(tmp_path / "old.json", old)
    with pytest.raises(InputError, match=r"^old\.json: not a sidecar of a whole case .*: run the case again\.$"):
        read_sidecar(tmp_path / "old.json")


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    content = compose(head="categorical", probabilities=[0.25, 0.75], logits=[0.0, 1.1], rank=1, eigenvalues=[2.5])
    write_sidecar(tmp_path / "a.json", content)
    assert read_sidecar(tmp_path / "a.json") == json.loads(json.dumps(content))


def test_every_file_of_the_case_is_stated_with_its_hash(run: dict[str, Any]) -> None:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in run["case"].iterdir()}
    del found["scan_ifim.json"]
    assert run["content"]["written"] == found
    assert list(found) != []
    assert {name.partition("scan_")[2] for name in found} >= {"planes.npz", "spectrum.tsv", "signed.ctbl"}
    assert all(found[file["file"]] == file["sha256"] for file in run["content"]["files"])


def test_a_sidecar_ends_with_the_hash_of_itself_without_that_entry(run: dict[str, Any]) -> None:
    text = (run["case"] / "scan_ifim.json").read_bytes()
    *head, last, end, nothing = text.split(b"\n")
    without = b"\n".join([*head[:-1], head[-1].removesuffix(b","), end, nothing])
    assert json.loads(b"{" + last + b"}") == {"sidecar_sha256": hashlib.sha256(without).hexdigest()}
    assert is_unaltered(text, SEAL)


ALTERATIONS: dict[str, Callable[[bytes], bytes]] = {
    "a digit": lambda text: text.replace(b'"rank": 2', b'"rank": 3'),
    "white space": lambda text: text.replace(b'"rank": 2', b'"rank":  2'),
    "an entry after the hash": lambda text: text.replace(b'"\n}\n', b'",\n  "trace": 1\n}\n'),
    "an entry twice": lambda text: text.replace(b'  "rank": 2', b'  "rank": 9,\n  "rank": 2'),
    "a blank after its end": lambda text: text + b" ",
    "no hash": lambda text: text[: text.index(b',\n  "sidecar_sha256"')] + b"\n}\n",
    "another hash": lambda text: text[:-20] + b"0" * 16 + text[-4:],
    "nothing": lambda text: b"",
}


@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS)
def test_an_altered_sidecar_is_noticed(alter: Callable[[bytes], bytes], run: dict[str, Any]) -> None:
    text = (run["case"] / "scan_ifim.json").read_bytes()
    assert alter(text) != text
    assert not is_unaltered(alter(text), SEAL)


def test_infinity_and_nan_become_null(tmp_path: Path) -> None:
    write_sidecar(tmp_path / "a.json", compose(locality_radius=[float("inf"), 0.5], trace=float("nan")))
    content = json.loads((tmp_path / "a.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert content["locality_radius"] == [None, 0.5]
    assert content["trace"] is None


def test_what_is_no_plain_data_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="other than plain data"):
        write_sidecar(tmp_path / "a.json", {"tensor": torch.ones(2)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ['{"schema_version": "3.0"}', "{}", "[1, 2]", '"1.0"'])
def test_another_schema_version_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json: not a sidecar of a whole case .*: run the case again\."):
        read_sidecar(tmp_path / "a.json")


def test_a_later_minor_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"schema_version": "2.7", "rank": 3}')
    assert read_sidecar(tmp_path / "a.json")["rank"] == 3


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00"])
def test_a_file_that_is_no_json_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json: not a readable sidecar"):
        read_sidecar(tmp_path / "a.json")


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    """A folder with a whole slice of a named patient, a cut one, and a series."""
    image = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    for keyword, text in PLANTED.items():
        setattr(image, keyword, text)
    for place in ("whole.dcm", "cut.dcm", "series/1"):
        (tmp_path / "dicom" / place).parent.mkdir(parents=True, exist_ok=True)
        image.save_as(tmp_path / "dicom" / place)
    cut = tmp_path / "dicom" / "cut.dcm"
    cut.write_bytes(cut.read_bytes()[:20_000])
    return tmp_path / "dicom"


def test_nothing_personal_from_dicom_reaches_any_output(
    patient: Path, tmp_path: Path, make_bundle: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    planted = (patient / "whole.dcm").read_bytes()
    assert all(trace.encode() in planted for trace in TRACES)
    bundle, seen = load_bundle(make_bundle(tmp_path / "bundle", dims=2)), []
    cases = find_cases([patient / name for name in ("whole.dcm", "cut.dcm", "series")])
    run_cases(bundle, cases, RunSettings(tmp_path / "out", CaseSettings("categorical")), lambda row: seen.append(str(row)))
    status = {row["case"]: row["status"] for row in csv.DictReader((tmp_path / "out" / "cases.csv").open())}
    assert status == {"whole": "done", "cut": "failed", "series": "done"}
    written = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    contents = [gzip.decompress(data) if path.suffix == ".gz" else data for path, data in written.items()]
    everything = b"\n".join([*contents, "\n".join([*capfd.readouterr(), *seen]).encode(), *(str(p).encode() for p in written)])
    assert [trace for trace in TRACES if trace.encode().lower() in everything.lower()] == []
