"""The tables of a run: what the sidecars say, in CSV and Parquet alike; how they are read; which cases stand out."""

from __future__ import annotations

import copy
import csv
import json
import math
import pickle
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from monai.networks.nets import UNet
from rich.console import Console

import monai_ifim
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.cli.progress import case_progress
from monai_ifim.io import InputError
from monai_ifim.run.cases import find_cases
from monai_ifim.run.cohort import SMALLEST_GROUP, confidence, find_outliers, read_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import CaseRow, row_from_sidecar, write_table

Content = dict[str, Any]
CSV_HEADER = (
    "case,status,reason,input,prediction,probability,rank,energy_kept,eigenvalue,trace,seconds,"
    "verification,path,input_sha256,warnings,decomposed,convergence,residual,saturated"
)
TYPES = {
    "case": "string", "status": "string", "reason": "string", "input": "string", "prediction": "string",
    "probability": "double", "rank": "int64", "energy_kept": "double", "eigenvalue": "double", "trace": "double",
    "seconds": "double", "eigenvalues": "[double]", "class_names": "[string]", "probabilities": "[double]",
    "means": "[double]", "means_unit": "string",
    "norm_input": "double", "norm_high": "double", "norm_low": "double", "norm_sensitivity": "double",
    "norms_grid": "string", "locality_radius": "[double]", "locality_share": "[double]", "locality_rms": "[double]",
    "channels": "string", "head": "string", "decomposed": "string", "method": "string", "jacobian_products": "int64",
    "verification": "string", "deviation": "double", "verified_by": "string", "space": "string",
    "unit": "string", "frame": "int64", "input_sha256": "string", "weights_sha256": "string",
    "path": "string", "warnings": "string", "convergence": "string", "residual": "double", "trace_error": "double",
    "stopped": "string",
    "volume_sentence": "string", "volume_labels": "[string]", "volume_tolerances": "[double]", "volume_slopes": "[double]",
    "volume_changes": "[double]", "saturation": "double", "saturated": "string",
    "locality_is_lower_bound": "string",
}  # fmt: skip
HOSTILE = (
    "plain", "with,comma", 'with "quotes"', "two\nlines", "lone\rreturn", "both\r\n", "tab\t", "ümläut 肺 🫁", "<i>",
    "=1+1", "NA", "null", "nan", "'", " spaces ", "\\", "a;b", "C:\\x", "\u202egnp", "0012", "1e5",
)  # fmt: skip
FULL = CaseRow(
    case="a",
    status="done",
    input="a.nii.gz",
    prediction="yes",
    probability=0.75,
    rank=2,
    energy_kept=0.995,
    eigenvalue=3.5,
    trace=4.0,
    seconds=1.5,
    eigenvalues=(3.5, 0.25),
    class_names=("no", "yes"),
    probabilities=(0.25, 0.75),
    norm_input=10.0,
    norm_high=3.0,
    norm_low=9.5,
    norm_sensitivity=1e-300,
    norms_grid="network",
    locality_radius=(0.5, None),
    locality_share=(0.05, None),
    locality_rms=(0.125, None),
    channels="tied",
    head="categorical",
    method="exact",
    jacobian_products=1,
    verification="agrees",
    deviation=0.015,
    verified_by="a",
    space="native",
    unit="network input intensity",
    frame=3,
    input_sha256="0" * 64,
    weights_sha256="f" * 64,
    path="b/a.nii.gz",
    volume_sentence="One unit raises it.",
    volume_labels=("tumour",),
    volume_tolerances=(0.2,),
    volume_slopes=(0.01,),
    volume_changes=(-0.005,),
)
OF_VOLUMES = [f"volume_{name}" for name in ("sentence", "labels", "tolerances", "slopes", "changes")]
SINCE_1_4 = [
    "norms_grid", "locality_share", "locality_rms", "channels", "decomposed", "means_unit", "convergence", "residual",
    "trace_error", "stopped", *OF_VOLUMES, "saturation", "saturated",
    "locality_is_lower_bound",
]  # fmt: skip
FAILED = CaseRow("b", "failed", "it is broken", "b.nii.gz")


def csv_rows(output: Path) -> list[dict[str, str]]:
    with (output / "cases.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def parquet_rows(output: Path) -> list[Content]:
    found: list[Content] = pq.read_table(output / "cases.parquet").to_pylist()
    return found


def types_of(output: Path) -> dict[str, str]:
    schema = pq.read_schema(output / "cases.parquet")
    return {f.name: f"[{f.type.value_type}]" if pa.types.is_list(f.type) else str(f.type) for f in schema}


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory, make_bundle: Any, write_scan: Any, turned: Any) -> Path:
    """Three volumes of two channels, one of them broken, decomposed by the tiny bundle."""
    folder = tmp_path_factory.mktemp("table")
    for i, shape in enumerate([(9, 11, 7, 2), (8, 6, 10, 2), (7, 9, 8, 2)]):
        write_scan(folder / "in" / f"s{i}.nii.gz", shape, turned((1.1, 2.3, 3.1), (0.2 * i + 0.1, 0.1, -0.3)), shift=0.3 * i)
    broken = folder / "in" / "s1.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-60])
    bundle = load_bundle(make_bundle(folder / "bundle", channels=2))
    settings = RunSettings(folder / "out", CaseSettings("categorical", locality=True))
    run_cases(bundle, find_cases([folder / "in"]), settings, lambda row: None)
    return folder / "out"


@pytest.fixture(scope="module")
def sidecar(real_run: Path) -> Content:
    """A sidecar of the run."""
    content: Content = json.loads((real_run / "s0" / "s0_ifim.json").read_text(encoding="utf-8"))
    return content


def test_parquet_says_what_the_sidecars_say(real_run: Path) -> None:
    rows = {row["case"]: row for row in parquet_rows(real_run)}
    assert list(rows) == ["s0", "s1", "s2"]
    for name in ("s0", "s2"):
        row, said = rows[name], json.loads((real_run / name / f"{name}_ifim.json").read_text(encoding="utf-8"))
        assert row["eigenvalues"] == said["eigenvalues"] != []
        assert dict(zip(row["class_names"], row["probabilities"], strict=True)) == said["prediction"]["probability"]
        assert row["class_names"] == ["class 0", "class 1", "class 2"]
        assert row["locality_radius"] == said["locality_radius"] != []
        assert (row["rank"], row["method"], row["jacobian_products"]) == (said["rank"], "exact", 2)
        assert (row["head"], row["space"], row["unit"]) == ("categorical", "native", said["units"]["maps"])
        assert row["weights_sha256"] == said["model"]["weights_sha256"]
        assert row["input_sha256"] == said["input"]["sha256"]
        assert (row["frame"], row["means"], row["reason"]) == (None, None, None)


def test_norms_are_those_of_all_channels_of_what_the_network_saw(real_run: Path) -> None:
    """Of the files, on another grid, they are others; where both are one, tests/run/test_grids.py reads the files."""
    (row,) = [row for row in parquet_rows(real_run) if row["case"] == "s2"]
    image = load_bundle(real_run.parent / "bundle").preprocess(real_run.parent / "in" / "s2.nii.gz")
    assert image.shape[0] == 2
    assert row["norms_grid"] == "network"
    assert row["norm_input"] == pytest.approx(float(np.linalg.norm(image.numpy())), rel=1e-6)
    assert np.hypot(row["norm_high"], row["norm_low"]) == pytest.approx(row["norm_input"], rel=1e-5)
    assert row["channels"] == "each"


def test_a_failed_case_has_nothing_but_its_reason(real_run: Path) -> None:
    (row,) = [row for row in parquet_rows(real_run) if row["case"] == "s1"]
    known = {name: value for name, value in row.items() if value is not None}
    assert set(known) == {"case", "status", "reason", "input", "path"}
    assert (known["status"], known["input"]) == ("failed", "s1.nii.gz")
    assert "s1.nii.gz" in known["reason"]


def test_csv_has_the_columns_it_always_had(real_run: Path) -> None:
    assert (real_run / "cases.csv").read_text(encoding="utf-8").splitlines()[0] == CSV_HEADER


@pytest.mark.parametrize("rows", [[], [FAILED], [FULL], [FULL, FAILED], [replace(FULL, eigenvalues=(), locality_radius=())]])
def test_types_do_not_depend_on_the_cases(tmp_path: Path, rows: list[CaseRow]) -> None:
    write_table(tmp_path, rows)
    assert types_of(tmp_path) == TYPES
    assert (tmp_path / "cases.csv").read_text(encoding="utf-8").splitlines()[0] == CSV_HEADER
    assert len(read_cases(tmp_path)) == len(csv_rows(tmp_path)) == len(rows)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    write_table(tmp_path, [FULL, FAILED])
    full, failed = parquet_rows(tmp_path)
    for name, value in full.items():
        expected = getattr(FULL, name)
        assert value == (list(expected) if isinstance(expected, tuple) else expected or None), name
    assert {name: value for name, value in failed.items() if value is not None} == {
        "case": "b",
        "status": "failed",
        "reason": "it is broken",
        "input": "b.nii.gz",
    }


def random_row(generator: np.random.Generator, number: int) -> CaseRow:
    def text() -> str:
        return "".join(generator.choice(HOSTILE, generator.integers(0, 3)))

    def value() -> float | None:
        return None if generator.random() < 0.2 else float(generator.standard_normal() * 10.0 ** generator.integers(-300, 300))

    many = tuple(value() for _ in range(generator.integers(0, 4)))
    count = None if generator.random() < 0.2 else int(generator.integers(0, 2**40))
    return replace(
        FULL, case=f"{text()}{number}", reason=text(), input=text(), prediction=text(), probability=value(), rank=count,
        energy_kept=value(), eigenvalue=value(), trace=value(), seconds=value(), eigenvalues=many, class_names=(text(), text()),
        status=str(generator.choice(["done", "kept", "failed"])),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_csv_and_parquet_agree_whatever_the_cases_are_called(tmp_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = [random_row(generator, number) for number in range(60)]
    write_table(tmp_path, rows)
    mine, theirs = csv_rows(tmp_path), parquet_rows(tmp_path)
    assert len(mine) == len(theirs) == len(rows)
    for row, text, value in zip(rows, mine, theirs, strict=True):
        for name in CSV_HEADER.split(","):
            expected = getattr(row, name)
            if isinstance(expected, str):
                assert text[name] == expected == (value[name] or "")
            elif expected is None:
                assert (text[name], value[name]) == ("", None)
            else:
                assert float(text[name]) == value[name] == expected
        assert value["class_names"] == list(row.class_names or ())


def test_a_name_that_is_no_utf8_is_spelt_out(tmp_path: Path) -> None:
    write_table(tmp_path, [CaseRow("r\udce9sum", "failed", "no", "r\udce9sum.png", class_names=("\udcff",))])
    assert csv_rows(tmp_path)[0]["case"] == parquet_rows(tmp_path)[0]["case"] == "r\\udce9sum"
    assert parquet_rows(tmp_path)[0]["class_names"] == ["\\udcff"]


def test_the_file_states_version_and_units(tmp_path: Path) -> None:
    write_table(tmp_path, [])
    metadata = pq.read_schema(tmp_path / "cases.parquet").metadata
    units = json.loads(metadata[b"monai_ifim.units"])
    assert metadata[b"monai_ifim.schema_version"] == b"1.4"
    assert {units[name] for name in ("eigenvalue", "eigenvalues", "trace", "norm_sensitivity")} == {"nats per unit^2"}
    numbers = {name for name, kind in TYPES.items() if "string" not in kind} - {"frame"}
    assert set(units) == numbers
    labels = json.loads(metadata[b"monai_ifim.labels"])
    assert set(labels) == set(TYPES)
    assert (labels["trace"], labels["rank"]) == ("total sensitivity", "components kept")


def test_a_row_travels_between_processes() -> None:
    assert pickle.loads(pickle.dumps(FULL)) == FULL  # noqa: S301
    assert hash(FULL) == hash(replace(FULL))


def test_nothing_is_written_of_rows_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises((pa.ArrowException, TypeError)):
        write_table(tmp_path, [replace(FULL, rank="two")])  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        write_table(tmp_path / name, [FULL, FAILED])
        contents.append([(tmp_path / name / file).read_bytes() for file in ("cases.csv", "cases.parquet")])
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(eigenvalues=["a"]),
        lambda c: c.update(eigenvalues=3.0),
        lambda c: c.update(rank=1.5),
        lambda c: c.update(rank=10**40),
        lambda c: c.update(trace="0.5"),
        lambda c: c.update(trace=True),
        lambda c: c.update(prediction=[1]),
        lambda c: c["prediction"].update(probability=[0.5]),
        lambda c: c["prediction"].update({"class": "not one of them"}),
        lambda c: c["prediction"].update({"class": 4}),
        lambda c: c.update(files=[{"file": "x"}]),
        lambda c: c.update(files=7),
        lambda c: c["input"].update(file=["a"]),
        lambda c: c.pop("model"),
        lambda c: c.pop("locality_radius"),
    ],
)
def test_a_damaged_sidecar_is_an_input_error_and_no_bad_row(sidecar: Content, change: Callable[[Content], Any]) -> None:
    damaged = copy.deepcopy(sidecar)
    change(damaged)
    with pytest.raises(InputError, match=r"s0: its sidecar is damaged .*: remove it and run again"):
        row_from_sidecar("s0", "kept", damaged)


def test_what_is_not_finite_is_missing(sidecar: Content) -> None:
    changed = {**sidecar, "trace": None, "energy_kept": math.nan, "locality_radius": [math.inf, 0.5], "eigenvalues": []}
    of_high = next(file for file in sidecar["files"] if file["kind"] == "high")
    changed["files"] = [of_high | {"channel": 1, "norm": 3.0}, of_high | {"channel": 2, "norm": None}]
    changed["norms"] = None  # as before schema 2.4
    row = row_from_sidecar("s0", "done", changed, 1.25)
    assert (row.trace, row.energy_kept, row.locality_radius, row.seconds) == (None, None, (None, 0.5), 1.25)
    assert (row.eigenvalue, row.eigenvalues, row.norm_high, row.norm_low) == (0.0, (), None, None)


def test_what_was_guessed_in_reading_is_in_the_row_and_in_the_line_of_the_case(sidecar: Content) -> None:
    warned = row_from_sidecar("s0", "done", {**sidecar, "warnings": ["One thing is assumed.", "And another."]}, 1.0)
    assert warned.warnings == "One thing is assumed. And another."
    output = Console(file=StringIO(), width=200)
    with case_progress(output, 1) as report:
        report(warned)
    assert "One thing is assumed. And another." in output.file.getvalue()  # type: ignore[attr-defined]
    assert row_from_sidecar("s0", "done", {name: value for name, value in sidecar.items() if name != "warnings"}).warnings == ""


def test_a_regression_has_means_and_no_probability(sidecar: Content) -> None:
    changed = {**sidecar, "prediction": {"class": None, "mean": {"output 0": 2.5, "output 1": -1.0}, "logits": [2.5, -1.0]}}
    row = row_from_sidecar("s0", "done", changed)
    assert (row.prediction, row.probability, row.probabilities) == ("", None, None)
    assert (row.class_names, row.means) == (("output 0", "output 1"), (2.5, -1.0))


def test_the_reader_gives_what_is_in_the_file(real_run: Path) -> None:
    for source in (real_run, str(real_run), real_run / "cases.parquet"):
        frame = monai_ifim.read_cases(source)
        assert list(frame.columns) == list(TYPES)
        for row, (_, case) in zip(parquet_rows(real_run), frame.iterrows(), strict=True):
            for name, expected in row.items():
                if isinstance(expected, list):
                    assert isinstance(case[name], np.ndarray)
                    assert case[name].tolist() == expected
                elif expected is None:
                    assert case[name] is None or pd.isna(case[name])
                else:
                    assert case[name] == expected
    assert frame["rank"].dtype == pd.Int64Dtype()
    assert frame.attrs["units"]["trace"] == "nats per unit^2"
    assert frame.attrs["schema_version"] == "1.4"


def test_no_table_says_what_to_do(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent", tmp_path / "absent.parquet"):
        with pytest.raises(InputError, match="no such file: pass the folder .* give the same command again"):
            read_cases(place)


def with_metadata(path: Path, **changes: str) -> None:
    table = pq.read_table(path)
    metadata = {**table.schema.metadata, **{f"monai_ifim.{k}".encode(): v.encode() for k, v in changes.items()}}
    pq.write_table(table.replace_schema_metadata(metadata), path)


@pytest.mark.parametrize("version", ["2.0", "0.9", "", "x"])
def test_another_major_version_is_refused(tmp_path: Path, version: str) -> None:
    write_table(tmp_path, [FULL])
    with_metadata(tmp_path / "cases.parquet", schema_version=version)
    with pytest.raises(InputError, match=rf"schema version ({version or 'missing'}); this program reads 1\.4: read it with"):
        read_cases(tmp_path)


def test_a_later_minor_version_with_a_new_column_is_read(tmp_path: Path) -> None:
    write_table(tmp_path, [FULL, FAILED])
    path = tmp_path / "cases.parquet"
    pq.write_table(pq.read_table(path).append_column("new", pa.array([1, 2])), path)
    with_metadata(path, schema_version="1.5")
    assert read_cases(path)["new"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("version", "newer"),
    [
        ("1.0", ["verification", "deviation", "verified_by", "path", "warnings", *SINCE_1_4]),
        ("1.1", ["path", "warnings", *SINCE_1_4]),
        ("1.2", ["warnings", *SINCE_1_4]),
        ("1.3", SINCE_1_4),
    ],
)
def test_a_table_of_an_earlier_version_is_read_without_its_newer_columns(tmp_path: Path, version: str, newer: list[str]) -> None:
    write_table(tmp_path, [FULL, FAILED])
    path = tmp_path / "cases.parquet"
    pq.write_table(pq.read_table(path).drop_columns(newer), path)
    with_metadata(path, schema_version=version)
    frame = read_cases(path)
    assert frame["trace"].tolist()[0] == FULL.trace
    assert frame[newer].isna().all(axis=None)


@pytest.mark.parametrize("change", ["drop", "type", "list"])
def test_a_column_that_is_missing_or_of_another_type_is_refused(tmp_path: Path, change: str) -> None:
    write_table(tmp_path, [FULL])
    table = pq.read_table(tmp_path / "cases.parquet")
    column = "eigenvalues" if change == "list" else "trace"
    place = table.schema.get_field_index(column)
    changed = table.remove_column(place)
    if change != "drop":
        changed = changed.add_column(place, column, pa.array([["a"]] if change == "list" else ["a"]))
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), tmp_path / "cases.parquet")
    with pytest.raises(InputError, match=f"column {column} missing or of another type"):
        read_cases(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"case,status\n", b"PAR1" + bytes(100) + b"PAR1"])
def test_what_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cases.parquet").write_bytes(content)
    with pytest.raises(InputError, match="not a readable Parquet file .*: run the same command again"):
        read_cases(tmp_path)


def test_the_floor_and_the_name_cost_nothing_until_used() -> None:
    probe = "import sys, monai_ifim, monai_ifim.run; print({'pandas', 'pyarrow', 'torch'} & set(sys.modules), dir(monai_ifim))"
    said = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert said.startswith("set()")
    assert "'read_cases'" in said


def cohort(
    tmp_path: Path, traces: Any, answers: Any = "yes", sure: Any = 0.9, ranks: Any = 2, head: str = "categorical"
) -> pd.DataFrame:
    """The frame of cases c0, c1, ... with these traces."""
    columns = np.broadcast_arrays(np.asarray(traces, dtype=float), np.asarray(answers, dtype=object), sure, ranks)
    rows = [
        replace(FULL, case=f"c{i}", trace=float(t), prediction=a, probability=float(p), rank=int(k), head=head)
        for i, (t, a, p, k) in enumerate(zip(*columns, strict=True))
    ]
    write_table(tmp_path, rows)
    return read_cases(tmp_path)


def found(frame: pd.DataFrame) -> set[tuple[str, str, str]]:
    return set(find_outliers(frame)[["case", "quantity", "kind"]].itertuples(index=False, name=None))


def test_planted_outliers_are_found_with_the_z_that_plain_arithmetic_gives(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    traces = np.exp(generator.uniform(-8, -6, 120))
    answers = np.array(["yes", "no"] * 60, dtype=object)
    traces[answers == "no"] *= 1e-5  # ordinary among its own class only
    traces[10] = 2.0
    traces[30] = 1e-5  # low for "yes", and yet above all of "no"
    sure, ranks = np.full(120, 0.9) + generator.uniform(-0.05, 0.05, 120), generator.integers(2, 4, 120)
    sure[45], ranks[50] = 0.4, 9
    frame = cohort(tmp_path, traces, answers, sure, ranks)
    outliers = find_outliers(frame)
    assert found(frame) == {
        ("c10", "trace", "high"), ("c30", "trace", "low"), ("c45", "confidence", "low"), ("c50", "rank", "high"),
    }  # fmt: skip
    logs = [math.log(trace) for trace, answer in zip(traces, answers, strict=True) if answer == "yes"]
    middle = statistics.median(logs)
    spread = statistics.median([abs(value - middle) for value in logs]) / statistics.NormalDist().inv_cdf(0.75)
    row = outliers[outliers["case"] == "c10"].iloc[0]
    assert row["z"] == pytest.approx((math.log(2.0) - middle) / spread, rel=1e-9)
    assert (row["value"], row["among"], row["cases"]) == (2.0, "yes", 60)
    assert outliers["z"].abs().is_monotonic_decreasing


@pytest.mark.parametrize("number", [20, 200, 2000])
def test_a_clean_normal_cohort_has_no_more_than_chance_gives(tmp_path: Path, number: int) -> None:
    expected = {20: 1 / 150, 200: 1 / 1300, 2000: 1 / 2000}[number] * 2 * number  # two quantities
    counts = []
    for seed in range(10):
        generator = np.random.default_rng(seed)
        logits = generator.normal(2.0, 0.7, number)
        frame = cohort(tmp_path, np.exp(generator.normal(-5, 2, number)), sure=1 / (1 + np.exp(-logits)))
        counts.append(len(find_outliers(frame)))
    assert sum(counts) <= 10 * expected + 4 * math.sqrt(10 * expected) + 2


@pytest.mark.parametrize("number", [1, 9, 10, 300])
def test_equal_cases_have_no_outliers(tmp_path: Path, number: int) -> None:
    generator = np.random.default_rng(0)
    noise = 1 + 1e-5 * generator.standard_normal(number)  # as much as a GPU may differ from itself
    assert found(cohort(tmp_path, np.full(number, 0.5))) == set()
    assert found(cohort(tmp_path, 0.5 * noise, sure=0.9 * noise)) == set()


def test_one_that_differs_from_equal_ones_is_found(tmp_path: Path) -> None:
    traces = np.full(50, 0.5)
    traces[7] = 0.7
    assert found(cohort(tmp_path, traces)) == {("c7", "trace", "high")}


def test_the_neighbouring_rank_is_never_far_and_the_next_is(tmp_path: Path) -> None:
    ranks = np.full(100, 2)
    ranks[[3, 4, 5]] = 1, 3, 4
    assert found(cohort(tmp_path, np.full(100, 0.5), ranks=ranks)) == {("c5", "rank", "high")}


def test_fewer_than_ten_cases_are_compared_with_nothing(tmp_path: Path) -> None:
    traces = [*[0.5] * 8, 1e9]
    assert found(cohort(tmp_path, traces)) == set()
    assert found(cohort(tmp_path, [*traces, 0.5])) == {("c8", "trace", "high")}


def test_a_small_class_is_compared_with_all(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    traces = np.exp(generator.uniform(-8, -6, 60))
    answers = np.array(["yes"] * 55 + ["rare"] * 5, dtype=object)
    traces[57] = 50.0
    outliers = find_outliers(cohort(tmp_path, traces, answers))
    assert outliers[["case", "among", "cases"]].values.tolist() == [["c57", "", 60]]


@pytest.mark.parametrize(("number", "among"), [(SMALLEST_GROUP - 1, ""), (SMALLEST_GROUP, "rare")])
def test_twenty_cases_of_an_answer_are_a_group_of_their_own(number: int, among: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    traces = np.exp(generator.uniform(-8, -6, 40 + number))
    traces[-1] = 50.0
    outliers = find_outliers(cohort(tmp_path, traces, np.array(["yes"] * 40 + ["rare"] * number, dtype=object)))
    compared = 40 + number if among == "" else number
    assert outliers[["case", "among", "cases"]].values.tolist() == [[f"c{39 + number}", among, compared]]


def test_traces_at_zero_vanish_and_do_not_spoil_the_comparison(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    traces = np.exp(generator.uniform(-8, -6, 100))
    traces[:40], traces[41], traces[42] = 0.0, 1e-20, 5.0
    outliers = find_outliers(cohort(tmp_path, traces))
    vanishing = outliers[outliers["kind"] == "vanishing"]
    assert vanishing["case"].tolist() == [*[f"c{i}" for i in range(40)], "c41"]
    assert outliers[outliers["kind"] != "vanishing"]["case"].tolist() == ["c42"]
    assert found(cohort(tmp_path, np.zeros(30))) == {(f"c{i}", "trace", "vanishing") for i in range(30)}


def test_saturated_answers_vanish_too(tmp_path: Path) -> None:
    rows = [replace(FULL, case=f"c{i}", trace=1.0 + i / 100, saturated="no") for i in range(30)]
    write_table(tmp_path, [*rows, replace(FULL, case="still", saturation=3e-9, saturated="yes")])
    cases = read_cases(tmp_path)
    assert found(cases) == {("still", "trace", "vanishing")}
    assert cases["saturation"].iloc[-1] == 3e-9


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"nats": 2e-9, "saturated": True}, (2e-9, "yes")), ({"nats": 3.0, "saturated": False}, (3.0, "no")),
        ({"nats": None, "saturated": None}, (None, "")), (None, (None, "")),
    ],
)  # fmt: skip
def test_saturation_is_that_of_the_sidecar(sidecar: Content, stated: Content | None, expected: tuple[Any, str]) -> None:
    row = row_from_sidecar("s0", "done", {**sidecar, "saturation": stated}, 1.0)
    assert (row.saturation, row.saturated) == expected
    output = Console(file=StringIO(), width=200)
    with case_progress(output, 1) as report:
        report(row)
    said = output.file.getvalue()  # type: ignore[attr-defined]
    assert ("saturated: nothing here moves the answer" in said) == (expected[1] == "yes")


def test_failed_and_missing_are_left_out(tmp_path: Path) -> None:
    write_table(tmp_path, [FAILED] * 30)
    assert find_outliers(read_cases(tmp_path)).empty
    write_table(tmp_path, [])
    assert find_outliers(read_cases(tmp_path)).empty
    write_table(tmp_path, [replace(FULL, trace=None, probability=None, prediction="", rank=None, probabilities=None)])
    assert found(read_cases(tmp_path)) == {("a", "trace", "vanishing")}


def test_a_sure_no_is_sure(tmp_path: Path) -> None:
    for head, expected in (("bernoulli", 0.98), ("bernoulli_probabilities", 0.98), ("categorical", 0.02)):
        frame = cohort(tmp_path, [0.5], sure=0.02, head=head)
        assert confidence(frame).tolist() == pytest.approx([expected])
    write_table(tmp_path, [replace(FULL, probability=0.02, probabilities=(0.02,), head="mine"), FAILED])
    np.testing.assert_allclose(confidence(read_cases(tmp_path)), [0.98, np.nan])


def test_a_segmentation_s_volumes_are_the_means_of_its_row(tmp_path: Path) -> None:
    wanted = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2]}
    steps = [{"_target_": name, "keys": "image"} for name in ("LoadImaged", "EnsureChannelFirstd")]
    config = {
        "network_def": {"_target_": "monai.networks.nets.UNet", **wanted},
        "preprocessing": {"_target_": "Compose", "transforms": steps},
    }
    for folder in ("configs", "models"):
        (tmp_path / "bundle" / folder).mkdir(parents=True)
    (tmp_path / "bundle" / "configs" / "inference.json").write_text(json.dumps(config))
    network = UNet(**wanted).eval()  # type: ignore[arg-type]
    torch.save(network.state_dict(), tmp_path / "bundle" / "models" / "model.pt")
    values = np.random.default_rng(0).normal(size=(8, 6, 10)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 2.0, 3.0, 1.0])), tmp_path / "scan.nii")
    settings = RunSettings(tmp_path / "out", CaseSettings("volumes", contents=()))
    (row,) = run_cases(load_bundle(tmp_path / "bundle"), find_cases([tmp_path / "scan.nii"]), settings, lambda row: None)
    assert (row.status, row.head, row.method, row.jacobian_products) == ("done", "volumes", "exact", 2)
    assert (row.prediction, row.probability, row.probabilities) == ("", None, None)
    with torch.no_grad():
        shares = network(torch.as_tensor(values)[None, None]).softmax(1)
    voxel = 1.0 * 2.0 * 3.0 / 1000  # ml
    assert row.means == pytest.approx((voxel * shares.flatten(2).sum(2)[0]).tolist(), rel=1e-5)
    assert sum(row.means or ()) == pytest.approx(voxel * values.size)
