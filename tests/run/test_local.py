"""The local engine: failures, resuming, batches, and the two files that sum up a run."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.core import IFIMError
from monai_ifim.io import OutputError
from monai_ifim.io.seal import is_unaltered
from monai_ifim.report.cohort.page import write_cohort
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import SEAL, CaseRow

Array = npt.NDArray[Any]


@pytest.fixture
def bundle(tmp_path: Path, make_bundle: Callable[..., Path]) -> Bundle:
    return load_bundle(make_bundle(tmp_path / "bundle"))


@pytest.fixture
def scans(tmp_path: Path, write_scan: Callable[..., Path], turned: Callable[..., Array]) -> Path:
    """Four volumes of different grids; the second of them broken, the last of a constant value in one half."""
    for i, shape in enumerate([(9, 11, 7), (8, 6, 10), (12, 7, 9), (10, 9, 8)]):
        affine = turned((1.1, 2.3, 3.1 + i), (0.2 * i, 0.1, -0.3), flip=i % 2 == 0)
        write_scan(tmp_path / "in" / f"s{i}.nii.gz", shape, affine, shift=0.3 * i)
    broken = tmp_path / "in" / "s1.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-60])
    return tmp_path / "in"


def run(bundle: Bundle, inputs: Path, output: Path, **settings: Any) -> list[CaseRow]:
    options = settings.pop("options", CaseSettings("categorical", rank=2))
    own = {name: settings.pop(name) for name in ("batch_size", "device", "overwrite") if name in settings}
    wanted = RunSettings(output, CaseSettings.of(options, settings), **own)
    return run_cases(bundle, find_cases([inputs]), wanted, lambda row: None)


def table(output: Path) -> list[dict[str, str]]:
    with (output / "cases.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digests(output: Path) -> dict[str, str]:
    files = [path for path in output.rglob("*") if path.is_file() and path.parent != output]
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_broken_file_is_a_failed_row_and_the_others_are_done(bundle: Bundle, scans: Path, tmp_path: Path) -> None:
    seen: list[CaseRow] = []
    settings = RunSettings(tmp_path / "out", CaseSettings("categorical"))
    rows = run_cases(bundle, find_cases([scans]), settings, seen.append)
    assert [(row.case, row.status) for row in rows] == [("s0", "done"), ("s1", "failed"), ("s2", "done"), ("s3", "done")]
    assert sorted(row.case for row in seen) == ["s0", "s1", "s2", "s3"]
    assert "s1.nii.gz" in rows[1].reason
    assert rows[1].input == "s1.nii.gz"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"s0", "s2", "s3", "cases.csv", "cases.parquet", "run.json"}


def test_a_whole_case_is_kept_and_a_failed_one_tried_again(
    bundle: Bundle, scans: Path, tmp_path: Path, write_scan: Callable[..., Path], oblique: Array
) -> None:
    run(bundle, scans, tmp_path / "out")
    before = digests(tmp_path / "out")
    write_scan(scans / "s1.nii.gz", (8, 6, 10), oblique)
    rows = run(bundle, scans, tmp_path / "out")
    assert [row.status for row in rows] == ["kept", "done", "kept", "kept"]
    assert {name: digests(tmp_path / "out")[name] for name in before} == before


def test_a_case_without_sidecar_is_made_again(bundle: Bundle, scans: Path, tmp_path: Path) -> None:
    run(bundle, scans, tmp_path / "out")
    (tmp_path / "out" / "s2" / "s2_ifim.json").unlink()
    assert [row.status for row in run(bundle, scans, tmp_path / "out")] == ["kept", "failed", "done", "kept"]


def test_overwrite_makes_every_case_again_with_the_new_settings(bundle: Bundle, scans: Path, tmp_path: Path) -> None:
    run(bundle, scans, tmp_path / "out")
    rows = run(bundle, scans, tmp_path / "out", overwrite=True, options=CaseSettings("categorical", rank=1))
    assert [(row.status, row.rank) for row in rows if row.case != "s1"] == [("done", 1)] * 3
    assert not list((tmp_path / "out").rglob("*eigenvector-02*"))


def test_a_damaged_sidecar_does_not_end_the_run(bundle: Bundle, scans: Path, tmp_path: Path) -> None:
    run(bundle, scans, tmp_path / "out")
    (tmp_path / "out" / "s0" / "s0_ifim.json").write_text("{")
    rows = run(bundle, scans, tmp_path / "out")
    assert [row.status for row in rows[1:]] == ["failed", "kept", "kept"]
    assert rows[0].status in ("done", "failed")


@pytest.mark.parametrize("space", ["native", "network"])
def test_batches_of_three_give_the_files_of_batches_of_one(space: str, bundle: Bundle, scans: Path, tmp_path: Path) -> None:
    for size in (1, 3):
        run(bundle, scans, tmp_path / f"out{size}", batch_size=size, space=space)
    names = {str(path.relative_to(tmp_path / "out1")) for path in (tmp_path / "out1").rglob("*.nii.gz")}
    assert names == {str(path.relative_to(tmp_path / "out3")) for path in (tmp_path / "out3").rglob("*.nii.gz")}
    assert len(names) == 3 * (7 if space == "native" else 6)  # on the native grid the scan itself lies beside
    for name in names:
        one, three = (nib.load(tmp_path / f"out{size}" / name) for size in (1, 3))
        scale = np.abs(one.get_fdata()).max()
        np.testing.assert_allclose(three.get_fdata(), one.get_fdata(), rtol=0, atol=1e-6 * max(scale, 1))
        np.testing.assert_array_equal(three.affine, one.affine)


def test_an_image_that_spoils_its_batch_is_lost_alone(
    bundle: Bundle, tmp_path: Path, write_scan: Callable[..., Path], oblique: Array
) -> None:
    for i in range(3):
        write_scan(tmp_path / "in" / f"s{i}.nii.gz", (9, 8, 7), oblique, shift=float(i))
    image = nib.load(tmp_path / "in" / "s1.nii.gz")
    spoilt = image.get_fdata(dtype=np.float32)
    spoilt[4, 4, 4] = np.nan
    nib.save(nib.Nifti1Image(spoilt, image.affine), tmp_path / "in" / "s1.nii.gz")
    rows = run(bundle, tmp_path / "in", tmp_path / "out", batch_size=3)
    assert [row.status for row in rows] == ["done", "failed", "done"]
    assert "NaN" in rows[1].reason


def test_the_table_says_what_the_sidecars_say(bundle: Bundle, scans: Path, tmp_path: Path) -> None:
    run(bundle, scans, tmp_path / "out")
    for row in table(tmp_path / "out"):
        if row["status"] == "failed":
            assert (row["probability"], row["rank"], row["trace"]) == ("", "", "")
            continue
        sidecar = json.loads((tmp_path / "out" / row["case"] / f"{row['case']}_ifim.json").read_text())
        assert row["prediction"] == sidecar["prediction"]["class"]
        assert float(row["probability"]) == max(sidecar["prediction"]["probability"].values())
        assert (float(row["eigenvalue"]), float(row["trace"])) == (sidecar["eigenvalues"][0], sidecar["trace"])
        assert (int(row["rank"]), row["input"], row["reason"]) == (2, f"{row['case']}.nii.gz", "")


def test_run_json_says_how_it_was_done(bundle: Bundle, scans: Path, tmp_path: Path) -> None:
    run(bundle, scans, tmp_path / "out", batch_size=2, space="network", contents=("low",))
    content = json.loads((tmp_path / "out" / "run.json").read_text())
    weights = (bundle.root / "models" / "model.pt").read_bytes()
    assert content["bundle"]["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert content["settings"]["rank"] == 2
    assert content["settings"]["head"] == "categorical"
    assert (content["settings"]["space"], content["settings"]["contents"], content["batch_size"]) == ("network", ["low"], 2)
    assert content["cases"] == {"done": 3, "kept": 0, "failed": 1}
    assert content["versions"]["nibabel"] == nib.__version__


def test_a_network_that_does_not_fit_fails_case_by_case(bundle: Bundle, scans: Path, tmp_path: Path) -> None:
    rows = run(bundle, scans, tmp_path / "out", options=CaseSettings("probabilities"))
    assert {row.status for row in rows} == {"failed"}
    assert "--head probabilities does not fit" in rows[0].reason


def test_one_frame_of_a_4d_file_is_decomposed_as_the_3d_file_it_is(
    bundle: Bundle, tmp_path: Path, write_scan: Callable[..., Path], oblique: Array
) -> None:
    path = write_scan(tmp_path / "four.nii.gz", (9, 8, 7, 3), oblique)
    source = nib.load(path)
    nib.save(nib.Nifti1Image(source.get_fdata(dtype=np.float32)[..., 2], source.affine), tmp_path / "three.nii.gz")
    cases = [*find_cases([path], frame=2), *find_cases([tmp_path / "three.nii.gz"])]
    run_cases(bundle, cases, RunSettings(tmp_path / "out", CaseSettings("categorical", rank=1)), lambda row: None)
    files = [f"{case.name}/{case.name}_ifim_high.nii.gz" for case in cases]
    first, second = (nib.load(tmp_path / "out" / name).get_fdata() for name in files)
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)
    sidecar = json.loads((tmp_path / "out" / "four_frame-002" / "four_frame-002_ifim.json").read_text())
    assert (sidecar["input"]["file"], sidecar["input"]["frame"]) == ("four.nii.gz", 2)
    assert sidecar["input"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_wrong_settings_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(IFIMError, match="batch size 0"):
        RunSettings(tmp_path, CaseSettings(), batch_size=0)
    with pytest.raises(OutputError, match="halves"):
        CaseSettings(contents=("halves",))


def test_what_the_exact_method_does_not_heed_makes_no_case_again(bundle: Bundle, scans: Path, tmp_path: Path) -> None:
    run(bundle, scans, tmp_path / "out")
    options = CaseSettings("categorical", rank=2, tolerance=0.1, seed=4, memory_budget="1GiB")
    rows = run(bundle, scans, tmp_path / "out", options=options)
    assert [row.status for row in rows if row.case != "s1"] == ["kept", "kept", "kept"]  # s1 cannot be read at all


def test_an_output_that_is_a_file_is_refused(bundle: Bundle, scans: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(OutputError, match="out: cannot be made"):
        run(bundle, scans, tmp_path / "out")


@pytest.mark.parametrize("change", ["rank", "head", "space", "contents", "input", "file", "method", "metric", "precision"])
def test_a_case_made_otherwise_is_made_again(bundle: Bundle, scans: Path, tmp_path: Path, change: str) -> None:
    (scans / "s1.nii.gz").unlink()
    out = tmp_path / "out"
    run(bundle, scans, out)
    settings: dict[str, Any] = {
        "rank": {"options": CaseSettings("categorical", rank=1)},
        "head": {"options": CaseSettings("bernoulli", rank=2)},
        "method": {"options": CaseSettings("categorical", rank=2, method="matrix_free")},
        "metric": {"options": CaseSettings("categorical", rank=2, metric=0.5)},
        "precision": {"options": CaseSettings("categorical", rank=2, precision="float64")},
        "space": {"space": "network"},
        "contents": {"contents": ("high",)},
    }.get(change, {})
    if change == "input":
        shutil.copy(scans / "s2.nii.gz", scans / "s0.nii.gz")
    if change == "file":
        (out / "s0" / "s0_ifim_low.nii.gz").unlink()
    again = ["done", "done", "done"] if settings else ["done", "kept", "kept"]
    assert [row.status for row in run(bundle, scans, out, **settings)] == again


def test_the_profile_of_a_run_is_what_its_cases_took_and_the_page_at_the_end(bundle: Bundle, scans: Path, tmp_path: Path) -> None:
    run(bundle, scans, tmp_path / "out", batch_size=3)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    profile = record["profile"]
    assert sum(profile["seconds"].values()) == pytest.approx(sum(float(row["seconds"] or 0) for row in table(tmp_path / "out")))
    assert all(seconds > 0 for seconds in profile["seconds"].values())
    assert profile["shares"]["writing"] == pytest.approx(profile["seconds"]["writing"] / record["seconds"])
    write_cohort(tmp_path / "out")
    paged = json.loads((tmp_path / "out" / "run.json").read_text())
    page = paged["profile"]["seconds"].pop("page")
    assert paged["profile"]["shares"].pop("page") == pytest.approx(page / record["seconds"])
    assert (page > 0, paged["profile"]) == (True, profile)
    assert is_unaltered((tmp_path / "out" / "run.json").read_bytes(), SEAL)


def test_of_kept_cases_their_check_alone_counts(bundle: Bundle, scans: Path, tmp_path: Path) -> None:
    (scans / "s1.nii.gz").unlink()
    run(bundle, scans, tmp_path / "out")
    assert {row.status for row in run(bundle, scans, tmp_path / "out")} == {"kept"}
    seconds = json.loads((tmp_path / "out" / "run.json").read_text())["profile"]["seconds"]
    assert (seconds["computing"], seconds["writing"], seconds["reading"] > 0) == (0, 0, True)
