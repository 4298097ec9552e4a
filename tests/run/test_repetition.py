"""A case made again from its sidecar: equal to the last bit here, and where it is not, what differs, by how much and why."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.scanner.noise import read_noise
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.core import GaussianLowPass, IFIMError
from monai_ifim.io import InputError, OutputError
from monai_ifim.io.installation import resolve_bundle
from monai_ifim.io.key_table import PSEUDONYM
from monai_ifim.io.maps import MapContent
from monai_ifim.run.agreement import RecordedCase, compare
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.repetition import Repetition, find_bundle, find_image, read_recorded_case, repeat_case
from monai_ifim.run.settings import RunSettings
from synthetic_series import ORIENTATIONS, Series, write

Array = npt.NDArray[Any]
STEPS = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
    {"_target_": "Orientationd", "keys": "image", "axcodes": "LAS", "labels": None},
    {"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True},
    {"_target_": "Resized", "keys": "image", "spatial_size": [9, 8, 7]},
]


@pytest.fixture
def root(tmp_path: Path, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path / "bundle", classes=6, steps=STEPS)


@pytest.fixture
def scan(tmp_path: Path, write_scan: Callable[..., Path], oblique: Array) -> Path:
    return write_scan(tmp_path / "in" / "scan.nii.gz", (11, 8, 13), oblique)


def decomposed(root: Path, image: Path, output: Path, case: dict[str, Any] | None = None, **settings: Any) -> Path:
    """The sidecar of one case."""
    batch = settings.pop("batch_size", 1)
    wanted = CaseSettings(**({"head": "categorical", "locality": True} | settings.pop("options", {"rank": 2}) | settings))
    cases = find_cases([image], **(case or {}))
    rows = run_cases(load_bundle(root), cases, RunSettings(output, wanted, batch), lambda row: None)
    assert [row.status for row in rows][:1] == ["done"], rows[0].reason
    return output / rows[0].case / f"{rows[0].case}_ifim.json"


def repeated(sidecar: Path, root: Path, output: Path, image: Path | None = None, **more: Any) -> Repetition:
    name, case = read_recorded_case(sidecar)
    return repeat_case(name, case, find_bundle(case, str(root)), find_image(case, image), output, **more)


def verdicts(found: Repetition) -> dict[str, str]:
    return {quantity.name: quantity.verdict for quantity in found.quantities}


def edit(sidecar: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(sidecar.read_text())
    change(content)
    sidecar.write_text(json.dumps(content))


def change_map(path: Path, change: Callable[[Array], Array]) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(change(image.get_fdata()).astype(np.float32), image.affine, image.header), path)


SETTINGS: dict[str, dict[str, Any]] = {
    "native": {},
    "energy": {"options": {"energy": 0.8}},
    "network": {"space": "network", "contents": ("low", "sensitivity")},
    "adaptive": {"options": {"method": "adaptive", "tolerance": 0.1, "seed": 5}},
    "matrix_free": {"options": {"method": "matrix_free", "rank": 2, "tolerance": 0.1, "seed": 7}},
    "noise": {"options": {"metric": 0.3}},
    "low-pass": {"options": {"metric": GaussianLowPass(1.5), "rank": 2}},
    "budget": {"options": {"memory_budget": "2MiB", "rank": 2}},
    "float64": {"options": {"precision": "float64", "rank": 2}},
    "bfloat16": {"options": {"precision": "bfloat16", "energy": 1.0}},
    "scanner": {"space": "scanner"},
    "scanner, coarse": {"space": "scanner", "resolution": "network", "statistics": "freeze"},
    "deterministic": {"deterministic": True},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_taken_over_so_that_it_agrees_bit_for_bit(name: str, root: Path, scan: Path, tmp_path: Path) -> None:
    sidecar = decomposed(root, scan, tmp_path / "out", **SETTINGS[name])
    found = repeated(sidecar, root, tmp_path / "again")
    assert found.identical, found.quantities
    assert found.causes == ()
    contents = {MapContent.of(file).whole.name for file in json.loads(sidecar.read_text())["files"]}
    assert contents | {
        "answer", "probability", "components kept", "sensitivity by component", "total sensitivity", "holds up to"
    } == set(verdicts(found))  # fmt: skip
    first, second = (json.loads(path.read_text()) for path in (sidecar, tmp_path / "again" / "scan" / "scan_ifim.json"))
    passing = {"seconds", "peak_memory_bytes", "seed", "verification", "sidecar_sha256"}
    assert {key for key in first if first[key] != second[key]} <= passing


def test_a_noise_map_has_to_be_named_and_is_known_by_its_hash(root: Path, scan: Path, tmp_path: Path) -> None:
    image = nib.load(scan)
    for name, factor in (("noise", 1.0), ("other", 1.1)):
        values = factor * (1.0 + np.random.default_rng(1).random(image.shape)).astype(np.float32)
        nib.save(nib.Nifti1Image(values, image.affine), tmp_path / f"{name}.nii.gz")
    options = {"metric": read_noise(str(tmp_path / "noise.nii.gz")), "rank": 2}
    sidecar = decomposed(root, scan, tmp_path / "out", space="scanner", options=options)
    with pytest.raises(InputError, match="made with a noise map: give its path, --noise FILE"):
        repeated(sidecar, root, tmp_path / "again")
    assert repeated(sidecar, root, tmp_path / "again", noise=str(tmp_path / "noise.nii.gz")).identical
    found = repeated(sidecar, root, tmp_path / "again", noise=str(tmp_path / "other.nii.gz"))
    assert not found.agrees
    assert found.causes == ("another noise map or low-pass filter",)


@pytest.mark.parametrize("kind", ["series", "one of two series", "tilted series", "frame", "photograph"])
def test_every_kind_of_input_is_found_again_and_repeated(
    kind: str, root: Path, make_bundle: Callable[..., Path], oblique: Array, tmp_path: Path
) -> None:
    place, case = tmp_path / "in" / "input", None
    if "series" in kind:
        slices = Series(ORIENTATIONS["axial"]).slices()
        for k, image in enumerate(slices):
            image.ImagePositionPatient[1] += (0.9 if "tilted" in kind else 0.0) * k
        write(place, slices)
        case = {"fix_geometry": True} if "tilted" in kind else None
    if kind == "one of two series":
        other = Series(ORIENTATIONS["coronal"])
        for k, image in enumerate(other.slices()):
            image.save_as(place / f"other{k}")
        case = {"series": other.uid}
    if kind == "frame":
        place = place.with_suffix(".nii.gz")
        place.parent.mkdir()
        nib.save(nib.Nifti1Image(np.random.default_rng(2).normal(size=(9, 7, 8, 3)).astype(np.float32), oblique), place)
        case = {"frame": 2}
    if kind == "photograph":
        place = place.with_suffix(".png")
        place.parent.mkdir()
        Image.fromarray(np.random.default_rng(3).integers(1, 255, (31, 22, 3), dtype=np.uint8)).save(place)
        root = make_bundle(tmp_path / "flat", dims=2, channels=3)
    sidecar = decomposed(root, place, tmp_path / "out", case)
    found = repeated(sidecar, root, tmp_path / "again")
    assert found.identical, found.quantities
    assert found.causes == ()


def test_other_weights_disagree_and_are_named_first(root: Path, scan: Path, tmp_path: Path) -> None:
    sidecar = decomposed(root, scan, tmp_path / "out")
    other = shutil.copytree(root, tmp_path / "other")
    state = torch.load(other / "models" / "model.pt", weights_only=True)
    torch.save({name: 1.3 * value for name, value in state.items()}, other / "models" / "model.pt")
    found = repeated(sidecar, other, tmp_path / "again")
    assert not found.agrees
    assert found.causes == ("other weights",)
    assert {verdicts(found)[name] for name in ("sensitivity by component", "total sensitivity", "sensitivity")} == {"differs"}
    assert verdicts(found)["image as the network saw it"] == "same"


def test_another_image_disagrees_only_where_it_was_asked_for(
    root: Path, scan: Path, write_scan: Callable[..., Path], oblique: Array, tmp_path: Path
) -> None:
    sidecar = decomposed(root, scan, tmp_path / "out")
    other = write_scan(tmp_path / "elsewhere" / "scan.nii.gz", (11, 8, 13), oblique, shift=0.7)
    found = repeated(sidecar, root, tmp_path / "again", image=other.parent)  # the folder with a file of this name
    assert found.causes == ("another image",)
    assert verdicts(found)["image"] == "differs"
    scan.unlink()
    with pytest.raises(InputError, match=r"elsewhere/scan.nii.gz is not the one that was decomposed, by its hash.*--image PATH"):
        repeated(sidecar, root, tmp_path / "again")
    shutil.rmtree(other.parent)
    with pytest.raises(InputError, match="not found near its files: give its path, --image PATH"):
        repeated(sidecar, root, tmp_path / "again")


def test_the_same_voxels_in_another_file_agree_and_the_file_is_named(root: Path, scan: Path, tmp_path: Path) -> None:
    sidecar = decomposed(root, scan, tmp_path / "out")
    plain = tmp_path / "plain.nii"
    plain.write_bytes(gzip.decompress(scan.read_bytes()))
    found = repeated(sidecar, root, tmp_path / "again", image=plain)
    assert found.identical
    assert found.causes == ("another image",)


def test_a_changed_result_is_found_by_its_size(root: Path, scan: Path, tmp_path: Path) -> None:
    sidecar = decomposed(root, scan, tmp_path / "out")
    folder = sidecar.parent
    generator = np.random.default_rng(4)
    change_map(folder / "scan_ifim_high.nii.gz", lambda values: values + generator.normal(size=values.shape))
    change_map(folder / "scan_ifim_sensitivity.nii.gz", lambda values: values * (1 + 3e-3))
    change_map(folder / "scan_ifim_eigenvector-01.nii.gz", lambda values: -values)
    change_map(folder / "scan_ifim_eigenvector-02.nii.gz", lambda values: 2 * values)
    edit(sidecar, lambda content: content.update(trace=content["trace"] * (1 + 2e-3)))
    found = repeated(sidecar, root, tmp_path / "again")
    by_name = {quantity.name: quantity for quantity in found.quantities}
    high = nib.load(folder / "scan_ifim_high.nii.gz").get_fdata()
    true = nib.load(tmp_path / "again" / "scan" / "scan_ifim_high.nii.gz").get_fdata()
    image = np.linalg.norm(nib.load(folder / "scan_ifim_input.nii.gz").get_fdata())
    assert by_name["sensitive part (high)"].difference == pytest.approx(np.linalg.norm(high - true) / image)
    assert by_name["sensitivity"].difference == pytest.approx(3e-3, rel=1e-3)
    assert by_name["total sensitivity"].difference == pytest.approx(2e-3, rel=1e-2)
    expected = {
        "sensitive part (high)": "differs", "sensitivity": "within", "total sensitivity": "differs", "component 1": "within",
        "insensitive part (low)": "same",
    }  # fmt: skip
    assert {name: verdicts(found)[name] for name in expected} == expected
    assert verdicts(found)["component 2"] == "differs"
    assert (found.agrees, found.causes) == (False, ())


def test_more_is_allowed_of_the_information_where_logits_lie_far_apart(root: Path, scan: Path, tmp_path: Path) -> None:
    sidecar = decomposed(root, scan, tmp_path / "out")
    repeated(sidecar, root, tmp_path / "again")
    again = tmp_path / "again" / "scan" / "scan_ifim.json"

    def saturate(content: dict[str, Any]) -> None:
        content["prediction"]["logits"][:2] = [30.0, -30.0]

    edit(sidecar, saturate)
    cases = (RecordedCase(path.parent, json.loads(path.read_text())) for path in (sidecar, again))
    allowed = {quantity.name: quantity.allowed for quantity in compare(*cases)}
    assert [allowed[name] for name in ("sensitivity by component", "total sensitivity", "sensitivity")] == pytest.approx(
        [0.06] * 3
    )
    assert (allowed["probability"], allowed["sensitive part (high)"]) == (1e-3, 1e-2)


def test_eigenvectors_of_equal_eigenvalues_may_turn_into_each_other(root: Path, scan: Path, tmp_path: Path) -> None:
    sidecar = decomposed(root, scan, tmp_path / "out", space="scanner")
    again = tmp_path / "again" / "scan"
    repeated(sidecar, root, tmp_path / "again")
    names = [f"scan_ifim_eigenvector-0{i}.nii.gz" for i in (1, 2)]
    first, second = (nib.load(again / name).get_fdata() for name in names)
    change_map(again / names[0], lambda values: 0.6 * first + 0.8 * second)
    change_map(again / names[1], lambda values: -0.8 * first + 0.6 * second)

    def found() -> dict[str, str]:
        cases = (RecordedCase(path.parent, json.loads(path.read_text())) for path in (sidecar, again / "scan_ifim.json"))
        return {quantity.name: quantity.verdict for quantity in compare(*cases)}

    assert found()["component 1"] == "differs"
    for path in (sidecar, again / "scan_ifim.json"):
        edit(path, lambda content: content.update(eigenvalues=[1.0, 0.999]))
    assert found()["component 1"] == found()["component 2"] == "within"


def test_without_the_maps_their_norms_are_compared_and_nothing_is_called_equal_to_the_last_bit(
    root: Path, scan: Path, tmp_path: Path
) -> None:
    sidecar = decomposed(root, scan, tmp_path / "out")
    for path in sidecar.parent.glob("*.nii.gz"):
        path.unlink()
    found = repeated(sidecar, root, tmp_path / "again")
    assert found.agrees
    assert not found.identical
    assert verdicts(found)["sensitive part (high) (norm alone)"] == "within"


def test_a_case_of_a_batch_agrees_within_rounding_and_the_batch_is_named(
    root: Path, scan: Path, write_scan: Callable[..., Path], oblique: Array, tmp_path: Path
) -> None:
    write_scan(scan.parent / "twin.nii.gz", (11, 8, 13), oblique, shift=0.2)
    sidecar = decomposed(root, scan.parent, tmp_path / "out", batch_size=2)
    found = repeated(sidecar, root, tmp_path / "again")
    assert found.agrees
    assert found.causes == ("the case shared its passes with others",)


def test_a_sidecar_of_schema_1_does_not_state_all_settings(root: Path, scan: Path, tmp_path: Path) -> None:
    sidecar = decomposed(root, scan, tmp_path / "out")

    def age(content: dict[str, Any]) -> None:
        del content["settings"]
        for file in content["files"]:
            file["content"] = " ".join(filter(None, (file.pop("kind"), str(file.pop("component") or ""))))
        content.update(schema_version="1.2")

    edit(sidecar, age)
    with pytest.raises(InputError, match="does not state all settings: decompose the image again"):
        repeated(sidecar, root, tmp_path / "again")


def test_a_sidecar_without_the_computation_is_repeated(root: Path, scan: Path, tmp_path: Path) -> None:
    sidecar = decomposed(root, scan, tmp_path / "out")

    def age(content: dict[str, Any]) -> None:
        del content["computation"]
        content.update(device="cpu:0")
        content["versions"]["torch"] = "1.0"

    edit(sidecar, age)
    found = repeated(sidecar, root, tmp_path / "again")
    assert found.identical
    assert found.causes == ("another version of torch",)


def test_a_device_that_is_not_here_gives_way_to_the_cpu(root: Path, scan: Path, tmp_path: Path) -> None:
    sidecar = decomposed(root, scan, tmp_path / "out")
    edit(sidecar, lambda content: content.update(device="mps"))
    found = repeated(sidecar, root, tmp_path / "again")
    assert found.identical
    assert found.causes == ("another device",)


def test_as_many_threads_as_then_and_afterwards_as_before(root: Path, scan: Path, tmp_path: Path) -> None:
    sidecar = decomposed(root, scan, tmp_path / "out")
    before = torch.get_num_threads()
    edit(sidecar, lambda content: content["computation"].update(threads=before + 1))
    assert repeated(sidecar, root, tmp_path / "again").causes == ()
    assert torch.get_num_threads() == before


def test_a_bundle_is_taken_by_itself_only_where_it_comes_with_the_package(root: Path, scan: Path, tmp_path: Path) -> None:
    """What lies near a sidecar may be anybody's, and a bundle is code."""
    _, case = read_recorded_case(decomposed(root, scan, tmp_path / "out"))
    with pytest.raises(InputError, match="does not come with the package: give its folder, --bundle DIR"):
        find_bundle(case)
    shipped = resolve_bundle("mednist_classification")
    picture = tmp_path / "in" / "picture.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 255, (64, 64), dtype=np.uint8)).save(picture)
    _, case = read_recorded_case(decomposed(shipped, picture, tmp_path / "shipped"))
    assert find_bundle(case).resolve() == shipped.resolve()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.pop("settings"), "'settings' is missing"),
        (lambda content: content["settings"].pop("energy"), "the setting 'energy' is missing"),
        (lambda content: content["settings"].update(force=9), "unknown setting 'force'"),
        (lambda content: content["settings"].update(energy="much"), "energy"),
        (lambda content: content.pop("prediction"), "'prediction' is missing"),
        (lambda content: content.update(files=7), "not iterable"),
        (lambda content: content["input"].update(file="../scan.nii.gz"), "names no input file"),
        (lambda content: content.update(input=None), "'input' is missing"),
        (lambda content: content["settings"].update(head="own"), "unknown head 'own'"),
        (lambda content: content["settings"].update(head={"name": "own", "class": "mine:Own"}), "'own' is a custom class"),
        (lambda content: content["settings"].update(metric={"kind": "Own"}), "'Own' is a custom class"),
        (lambda content: content.update(eigenvalues=["much"]), "does not state how the case was made"),
    ],
)
def test_a_sidecar_that_does_not_tell_how_is_one_error(
    change: Callable[[dict[str, Any]], object], reason: str, root: Path, scan: Path, tmp_path: Path
) -> None:
    sidecar = decomposed(root, scan, tmp_path / "out")
    edit(sidecar, change)
    with pytest.raises(IFIMError, match=reason):
        repeated(sidecar, root, tmp_path / "again")


def test_a_sidecar_of_an_earlier_version_is_refused_before_anything_is_looked_for(root: Path, scan: Path, tmp_path: Path) -> None:
    sidecar = decomposed(root, scan, tmp_path / "out")
    content = json.loads(sidecar.read_text())
    content["files"] = [{"content": file["kind"], **file} for file in content["files"] if file["component"] is None]
    sidecar.write_text(json.dumps(content | {"schema_version": "1.6", "source": None}))
    with pytest.raises(InputError, match="decompose the image again"):
        read_recorded_case(sidecar)


def test_a_repetition_never_writes_over_the_case(root: Path, scan: Path, tmp_path: Path) -> None:
    sidecar = decomposed(root, scan, tmp_path / "out")
    with pytest.raises(OutputError, match="choose another --output"):
        repeated(sidecar, root, tmp_path / "out" / ".." / "out")
    with pytest.raises(InputError, match="give the sidecar of a case"):
        read_recorded_case(tmp_path / "out" / "run.json")


def test_a_file_name_that_leads_out_of_the_folder_is_not_read(root: Path, scan: Path, tmp_path: Path) -> None:
    sidecar = decomposed(root, scan, tmp_path / "out")
    edit(sidecar, lambda content: content["files"][1].update(file="../../in/scan.nii.gz"))
    assert "sensitive part (high) (norm alone)" in verdicts(repeated(sidecar, root, tmp_path / "again"))


def test_a_case_with_a_pseudonym_is_repeated_and_compared(root: Path, scan: Path, tmp_path: Path) -> None:
    settings = RunSettings(tmp_path / "out", CaseSettings("categorical", case_names="hash"))
    [row] = run_cases(load_bundle(root), find_cases([scan]), settings, lambda row: None)
    name, case = read_recorded_case(tmp_path / "out" / row.case / f"{row.case}_ifim.json")
    assert name == row.case
    found = repeat_case(name, case, root, find_image(case, scan), tmp_path / "again")
    assert found.agrees
    [again] = (tmp_path / "again").glob("*/*_ifim.json")
    assert PSEUDONYM.fullmatch(again.parent.name)
    assert again.parent.name != name  # by another key


def test_another_script_of_the_bundle_is_named_as_a_cause(root: Path, scan: Path, tmp_path: Path) -> None:
    sidecar = decomposed(root, scan, tmp_path / "out")
    (root / "steps.py").write_text("")
    assert repeated(sidecar, root, tmp_path / "again").causes == ("another script or file of the bundle",)
