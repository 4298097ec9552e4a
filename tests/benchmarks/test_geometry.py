"""The judge of places: what it compares, what it finds, and its verdicts on the real scans and on small inputs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.geometry import dcm2niix, product
from benchmarks.geometry.comparison import compare
from benchmarks.geometry.reasons import REASONS, Difference, reasons_for
from benchmarks.geometry.table import as_json, as_table
from benchmarks.geometry.verdicts import Row, judge
from benchmarks.geometry.volume import Volume, volume_of
from benchmarks.stamp import Stamp
from monai_ifim.io import InputError
from synthetic_series import ORIENTATIONS, Series, write

Array = npt.NDArray[Any]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def volume(oblique: Array) -> Volume:
    return volume_of(np.random.default_rng(2).normal(size=(5, 7, 4)), oblique)


def stored_otherwise(volume: Volume, order: tuple[int, ...], reverse: tuple[int, ...]) -> Volume:
    """The same voxels at the same places, in another order of axes, some reversed."""
    to_old = np.eye(4)[:, [*order, 3]]
    values = np.transpose(volume.values, order)
    for axis in reverse:
        turn = np.eye(4)
        turn[axis, axis], turn[axis, 3] = -1, values.shape[axis] - 1
        to_old, values = to_old @ turn, np.flip(values, axis)
    return Volume(values, volume.affine @ to_old)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("reverse", [(), (1,), (0, 2)])
def test_order_and_direction_of_axes_make_no_difference(volume: Volume, order: Any, reverse: Any) -> None:
    found = compare(stored_otherwise(volume, order, reverse), volume)
    assert found.same
    assert found.place < 1e-9
    assert found.values == 0


def test_a_shift_is_its_length_and_values_are_still_compared(volume: Volume) -> None:
    affine = volume.affine.copy()
    affine[:3, 3] += (0.03, 0.04, 0.12)
    found = compare(replace(volume, affine=affine), volume)
    assert found.place == pytest.approx(0.13)
    assert found.values == 0
    assert not found.same
    assert not found.same_place


@pytest.mark.parametrize(("moved", "same"), [(0.9e-3, True), (1.1e-3, False)])
def test_a_micrometre_is_the_limit_of_places(volume: Volume, moved: float, same: bool) -> None:
    affine = volume.affine.copy()
    affine[0, 3] += moved
    assert compare(replace(volume, affine=affine), volume).same is same


def test_values_reversed_between_the_same_corners_differ(volume: Volume) -> None:
    found = compare(replace(volume, values=np.flip(volume.values, 2)), volume)
    assert found.same_place
    assert found.values is not None
    assert found.values > 0.1


@pytest.mark.parametrize(("changed", "same"), [(0.9e-5, True), (1.1e-5, False)])
def test_one_value_counts_relative_to_the_range(volume: Volume, changed: float, same: bool) -> None:
    values = volume.values.copy()
    values[3, 2, 1] += changed * np.ptp(volume.values)
    assert compare(replace(volume, values=values), volume).same is same


def test_values_that_are_no_numbers_agree_with_each_other_alone(volume: Volume) -> None:
    values = volume.values.copy()
    values[1, 1, 1] = np.nan
    one = replace(volume, values=values)
    assert compare(one, one).same
    assert not compare(one, volume).same
    assert not compare(volume, one).same


def test_a_singular_affine_is_a_difference(volume: Volume) -> None:
    found = compare(volume, replace(volume, affine=volume.affine @ np.diag([1, 1, 0, 1])))
    assert found.place > 1
    assert found.values == 0


def test_thickness_of_one_slice_counts_as_place_and_has_its_reason(volume: Volume) -> None:
    ours = replace(volume, values=volume.values[:, :, :1])
    thicker = volume.affine.copy()
    thicker[:3, 2] *= 1.5
    theirs = replace(ours, affine=thicker)
    found = compare(ours, theirs)
    assert found.place == pytest.approx(0.25 * np.linalg.norm(volume.affine[:3, 2]))
    by_headers = compare(ours, ours)
    known = reasons_for(Difference(ours, theirs, found, by_headers=by_headers)) or []
    assert [reason.name for reason in known] == ["thickness of one slice"]
    assert reasons_for(Difference(ours, theirs, found, by_headers=found)) is None
    elsewhere = thicker.copy()
    elsewhere[0, 3] += 0.5
    theirs = replace(ours, affine=elsewhere)
    assert reasons_for(Difference(ours, theirs, compare(ours, theirs), by_headers=by_headers)) is None


def test_every_aspect_that_differs_needs_a_reason(volume: Volume) -> None:
    affine = volume.affine.copy()
    affine[:3, 3] += 40
    moved, both = replace(volume, affine=affine), Volume(volume.values + np.arange(4.0), affine)
    facts = frozenset({"no position"})
    assert [reason.name for reason in reasons_for(Difference(volume, moved, compare(volume, moved), facts)) or []] == [
        "no position"
    ]
    assert reasons_for(Difference(volume, moved, compare(volume, moved))) is None
    assert reasons_for(Difference(volume, both, compare(volume, both), facts)) is None


@pytest.fixture
def tree(tmp_path: Path, write_scan: Callable[..., Path], oblique: Array) -> Path:
    """A series, a NIfTI file of three volumes, a MetaImage, a truncated file, a photograph and a file of another kind."""
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not installed (Debian package dcm2niix)")
    slices = Series(ORIENTATIONS["oblique"]).slices()
    for k, image in enumerate(slices):
        image.InstanceNumber = k + 1
        image.PatientName, image.SeriesDescription, image.ProtocolName = "Sorrow^Anna", "Sorrow's head", "Sorrow"
    root = tmp_path / "tree"
    write(root / "study" / "series", slices)
    write_scan(root / "nifti" / "times.nii.gz", (6, 5, 4, 3), oblique)
    write_scan(root / "nifti" / "cut.nii.gz", (6, 5, 4), oblique)
    (root / "nifti" / "cut.nii.gz").write_bytes((root / "nifti" / "cut.nii.gz").read_bytes()[:300])
    (root / "nifti" / "notes.txt").write_text("no image")
    nib.save(nib.MGHImage(np.ones((3, 4, 5), np.float32), oblique), root / "nifti" / "brain.mgz")
    return root


def test_a_tree_is_judged_volume_by_volume(tree: Path) -> None:
    rows = {row.volume: row for row in judge(tree)}
    times = [f"nifti/times.nii.gz frame {k} of 3" for k in range(3)]
    assert set(rows) == {"study/series", "nifti/cut.nii.gz", "nifti/brain.mgz", *times}
    assert {name: rows[name].reader for name in ("study/series", times[0])} == {"study/series": "dcm2niix", times[0]: "nibabel"}
    assert all(rows[name].verdict == "same" for name in ("study/series", *times))
    assert rows["study/series"].ours == rows["study/series"].theirs == (7, 5, 6)
    assert rows["nifti/cut.nii.gz"].verdict == "refused by both"
    assert "cut.nii.gz" in rows["nifti/cut.nii.gz"].why
    assert all(row.traceback is None for row in rows.values())


def test_no_text_of_a_header_is_printed(tree: Path) -> None:
    rows = judge(tree)
    printed = as_table(rows) + as_json(rows, Stamp("2000-01-01", "here"))
    assert "Sorrow" not in printed
    assert str(tree) not in printed


def test_an_error_that_is_no_refusal_is_counted_and_quotes_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("Sorrow^Anna")

    monkeypatch.setattr("monai_ifim.io.opened_source.OpenedSource.check", fail)
    rows = judge(tree)
    assert all(row.traceback is not None for row in rows if row.ours is None and row.verdict != "not found by us")
    printed = as_table(rows)
    assert "Sorrow" not in printed
    assert re.search(r"[1-9]\d* tracebacks", printed)
    assert "TRACEBACK: ValueError at" in printed


def test_what_the_product_passes_over_and_others_read_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = product.find_cases
    left = ("series", "times.nii.gz")
    monkeypatch.setattr(
        product,
        "find_cases",
        lambda *words, **options: [each for each in found(*words, **options) if each.source.path.name not in left],
    )
    passed_over = {row.volume: row for row in judge(tree) if row.verdict == "not found by us"}
    assert passed_over["study/series"].theirs == (7, 5, 6)
    assert passed_over["nifti/times.nii.gz"].theirs == (6, 5, 4)


def test_a_run_that_ends_for_one_folder_is_told_and_the_others_are_judged(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = product.find_cases

    def ending(inputs: list[Path], **options: Any) -> Any:
        if inputs[0] in (tree, tree / "study"):
            raise InputError("study: said why.")
        return found(inputs, **options)

    monkeypatch.setattr(product, "find_cases", ending)
    rows = {row.volume: row for row in judge(tree)}
    assert rows["tree"].why == rows["study"].why == "study: said why."
    assert rows["study/series"].verdict == "same"
    assert rows["nifti/times.nii.gz frame 2 of 3"].verdict == "same"


def test_messages_of_dcm2niix_are_told_in_words_of_the_table_alone() -> None:
    lines = [
        "Found 3 DICOM file(s)",
        "Warning: Interslice distance varies in this volume (incompatible with NIfTI format).",
        "Warning: odd things in /archive/Sorrow^Anna/1.dcm",
        "Warning: Unable to determine manufacturer (0008,0070), so conversion is not tuned for vendor.",
        "Convert 3 DICOM as Sorrow",
    ]
    assert dcm2niix.told(lines) == ["gaps vary", "another message"]


def test_reasons_have_names_of_their_own_and_stand_on_the_page() -> None:
    assert len({reason.name for reason in REASONS}) == len(REASONS)
    page = (ROOT / "docs" / "geometry.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+?) \| (place|values|sizes) \| ([^|]+?) \|$", page, flags=re.MULTILINE)
    assert rows == [(reason.name, reason.aspect, reason.words) for reason in REASONS]


def test_json_has_rows_and_reasons(volume: Volume) -> None:
    content = json.loads(
        as_json([Row("a", "nibabel", "same", (1, 2, 3), (1, 2, 3), None, 0.0, 0.0)], Stamp("2000-01-01", "here"))
    )
    assert content["rows"][0]["volume"] == "a"
    assert set(content["reasons"]) == {reason.name for reason in REASONS}
