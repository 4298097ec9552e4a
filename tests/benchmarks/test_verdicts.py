"""The judge's verdicts on the real scans and on the small inputs that went wrong once: each volume has the one that is right."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from benchmarks.geometry.comparison import SAME_PLACE
from benchmarks.geometry.reasons import REASONS
from benchmarks.geometry.verdicts import Row, judge

# Of the functional series, two of ten times are taken; of the slices that drift, every fifth, which drift as far.
TIMES, SLICES, EVERY = 2, 15, 5
LARGE = ("spm152.nii.gz", "MR_Gd.nii.gz")  # which tests/real_scans read
KNOWN = "differs: reason known"
# Volume, or the beginning of several, with its verdict and what the table says of it.
EXPECTED = {
    "dicom/ct_plain": ("same", ""),
    "dicom/ct_tilt": ("refused by us", "a gantry tilted by 18.5 degrees.*--fix-geometry"),
    "dicom/ge_fmri #": ("same", ""),
    "dicom/mixed #": ("same", ""),
    "dicom/mosaic #": ("same", ""),
    "dicom/toshiba_dti #": ("same", ""),
    "dicom/uih_vframe": ("same", ""),
    "compressed/693_J2KR": (KNOWN, "thickness of one slice"),
    "nifti/pcasl.nii.gz frame ": ("same", ""),
    "nifti/spmMotor.nii.gz": ("same", ""),
    "nifti/dcm2niix_near_half_turn.nii": ("same", ""),
    "small/dirfile": ("same", ""),
    "small/dx_nominal": (KNOWN, "no Pixel Spacing"),
    "small/fmri_by_instance_number #": ("same", ""),
    "small/gaps_drift": ("refused by us", r"1\.[12]\d mm off its place.*--fix-geometry"),
    "small/jitter_0.02mm": (KNOWN, "unequal gaps"),
    "small/modality_lut": (KNOWN, "Modality LUT"),
    "small/monochrome1": ("same", ""),
    "small/mosaic": ("refused by us", "NumberOfImagesInMosaic.*dcm2niix"),
    "small/orientation_1e-6": ("same", ""),
    "small/pixel_spacing_1e-7": ("same", ""),
    "small/same_files_twice": ("same", ""),
    "small/spacing_between_slices_0": ("same", ""),
}


@pytest.fixture(scope="module")
def rows(real_data: Path, small_cases: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not installed (Debian package dcm2niix)")
    root = tmp_path_factory.mktemp("judged")
    for link, file in _links(real_data, small_cases):
        (root / link).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(file, root / link)
    return judge(root)


def _links(real_data: Path, small_cases: Path) -> Iterator[tuple[str, Path]]:
    """Names in the tree that is judged, and the files behind them: each compressed or broken file in a folder of its own."""
    for kind, top in (("dicom", real_data / "dicom"), ("small", small_cases / "dicom")):
        for folder in sorted(top.iterdir()):
            alone = folder.name in ("compressed", "broken")
            for file in _some(folder):
                yield f"{folder.name}/{file.stem}/{file.name}" if alone else f"{kind}/{folder.name}/{file.name}", file
    for file in sorted((real_data / "nifti").iterdir()):
        if file.name not in LARGE:
            yield f"nifti/{file.name}", file


def _some(folder: Path) -> list[Path]:
    files = sorted(folder.iterdir())
    if folder.name == "ge_fmri":
        files.sort(key=lambda file: int(pydicom.dcmread(file, specific_tags=["InstanceNumber"]).InstanceNumber))
        return files[: TIMES * SLICES]
    if folder.name == "gaps_drift":
        files.sort(key=lambda file: float(pydicom.dcmread(file).ImagePositionPatient[2]))
        return files[::EVERY]
    return files


def of(rows: list[Row], beginning: str) -> list[Row]:
    ends = beginning.endswith(("#", " "))
    return [row for row in rows if row.volume == beginning or (ends and row.volume.startswith(beginning))]


@pytest.mark.parametrize("name", EXPECTED)
def test_volume_has_its_verdict(name: str, rows: list[Row]) -> None:
    verdict, why = EXPECTED[name]
    found = of(rows, name)
    assert found
    for row in found:
        assert row.verdict == verdict, row
        assert re.search(why, row.why) if why else not row.why


def test_no_volume_lies_elsewhere_than_dcm2niix_puts_it_but_for_a_reason_of_the_table(rows: list[Row]) -> None:
    of_places = {reason.name for reason in REASONS if reason.aspect == "place"}
    assert sum(row.place is not None for row in rows) > 25
    for row in rows:
        assert row.place is None or row.place <= SAME_PLACE or of_places & set(row.why.split(", ")), row


def test_nothing_is_left_for_somebody_to_look_at(rows: list[Row]) -> None:
    assert [row for row in rows if row.is_finding] == []
    assert {row.volume.partition("/")[0] for row in rows} == {"dicom", "small", "nifti", "compressed", "broken"}


def test_times_are_in_the_order_of_dcm2niix(rows: list[Row]) -> None:
    for name, count in (("dicom/ge_fmri #", TIMES), ("dicom/toshiba_dti #", 3), ("dicom/mosaic #", 2)):
        assert [row.which for row in of(rows, name)] == list(range(count))


def test_refusals_name_the_file_and_say_what_to_do(rows: list[Row]) -> None:
    refused = [row for row in rows if row.verdict in ("refused by us", "refused by both")]
    assert len(refused) >= 8
    for row in refused:
        name = Path(row.volume.partition(" ")[0]).name
        assert name.partition("#")[0].strip() in row.why, row
        assert re.search(r": [^:]+\.$", row.why), row  # the cure, after the last colon
