"""A file of an input that becomes another one while its case is made fails that case; every file of an input is in its hash."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.io import OpenedSource, Source, digests, read_sidecar
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import CaseRow
from synthetic_series import ORIENTATIONS, Series, write

OPTIONS = CaseSettings("categorical", rank=1, space="network", contents="low")
CHANGED = "the file changed while its case was made: wait until nothing writes to it any more, and run the same command again."


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Bundle:
    return load_bundle(make_bundle(tmp_path_factory.mktemp("changing") / "bundle"))


@pytest.fixture
def scan(tmp_path: Path, write_scan: Callable[..., Path], oblique: npt.NDArray[Any]) -> Path:
    return write_scan(tmp_path / "in" / "scan.nii", (7, 6, 5), oblique)


def made(bundle: Bundle, *inputs: Path, output: Path) -> list[CaseRow]:
    return run_cases(bundle, find_cases(inputs), RunSettings(output, OPTIONS), lambda row: None)


def statuses(bundle: Bundle, *inputs: Path, output: Path) -> list[str]:
    return [row.status for row in made(bundle, *inputs, output=output)]


def disturbed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, step: str, disturb: Callable[[], Any]) -> None:
    """Let something happen right before a step of the bundle."""
    own = getattr(Bundle, step)

    def step_after(self: Bundle, *arguments: Any, **options: Any) -> Any:
        disturb()
        return own(self, *arguments, **options)

    monkeypatch.setattr(Bundle, step, step_after)


def another(scan: Path) -> bytes:
    image = nib.load(scan)
    return nib.Nifti1Image(np.asarray(image.dataobj)[::-1].copy(), image.affine, image.header).to_bytes()


def renamed(scan: Path) -> None:
    scan.with_name("new").write_bytes(another(scan))
    os.replace(scan.with_name("new"), scan)


def rewritten(scan: Path) -> None:
    """In place, of the same size and with the same time of its last change."""
    before = scan.stat()
    scan.write_bytes(another(scan))
    os.utime(scan, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert scan.stat().st_size == before.st_size


def appended(scan: Path) -> None:
    with scan.open("ab") as file:
        file.write(b"more")


DISTURBANCES: dict[str, Callable[[Path], None]] = {
    "renamed over": renamed,
    "rewritten in place": rewritten,
    "appended to": appended,
}


@pytest.mark.parametrize("seconds", [digests.SETTLED, -1.0], ids=["just written", "of yesterday"])
@pytest.mark.parametrize("step", ["read", "prepare"])
@pytest.mark.parametrize("disturb", DISTURBANCES.values(), ids=DISTURBANCES)
def test_a_file_that_changes_after_it_was_hashed_fails_its_case(
    disturb: Callable[[Path], None],
    step: str,
    seconds: float,
    bundle: Bundle,
    scan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(digests, "SETTLED", seconds)
    disturbed(bundle, monkeypatch, step, lambda: disturb(scan))
    [row] = made(bundle, scan, output=tmp_path / "out")
    assert (row.status, row.reason) == ("failed", f"scan.nii: {CHANGED}")
    assert not list((tmp_path / "out").rglob("*.nii.gz"))
    monkeypatch.undo()
    assert statuses(bundle, scan, output=tmp_path / "out") == ["done"]  # the cure


def test_a_link_that_is_switched_fails_its_case(
    bundle: Bundle, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.nii").write_bytes(another(scan))
    link = tmp_path / "link.nii"
    link.symlink_to(scan)

    def switch() -> None:
        link.unlink()
        link.symlink_to(tmp_path / "other.nii")

    disturbed(bundle, monkeypatch, "read", switch)
    [row] = made(bundle, link, output=tmp_path / "out")
    assert (row.status, row.reason) == ("failed", f"link.nii: {CHANGED}")


def test_a_file_that_is_only_touched_or_copied_over_itself_is_done(
    bundle: Bundle, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touch() -> None:
        shutil.copy(scan, scan.with_name("copy"))
        os.replace(scan.with_name("copy"), scan)
        os.utime(scan)

    disturbed(bundle, monkeypatch, "read", touch)
    assert statuses(bundle, scan, output=tmp_path / "out") == ["done"]


def test_a_change_between_computing_and_writing_fails_the_case(
    bundle: Bundle, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = OpenedSource.refuse_changed
    calls: list[str] = []

    def refuse(self: OpenedSource) -> None:
        if calls:
            renamed(scan)
        calls.append("called")
        own(self)

    monkeypatch.setattr(OpenedSource, "refuse_changed", refuse)
    [row] = made(bundle, scan, output=tmp_path / "out")
    assert (len(calls), row.status, row.reason) == (2, "failed", f"scan.nii: {CHANGED}")


def test_a_slice_that_changes_between_its_header_and_its_hash_fails_the_case(bundle: Bundle, tmp_path: Path) -> None:
    """Of two series in one folder: the headers say which files are whose."""
    first, second = Series(ORIENTATIONS["axial"]), Series(ORIENTATIONS["coronal"], slices=5)
    folder = write(tmp_path / "in", [*first.slices(), *second.slices()])
    [case, _] = find_cases([folder], series="all")
    opened = OpenedSource(case.source)
    changing = Path(opened.volume.files[2])
    content = changing.read_bytes()
    os.replace(shutil.copy(changing, tmp_path / "copy"), changing)
    changing.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"{changing.name}: the file changed"):
        opened.take_hashes()


def written_by_itk(path: Path, compressed: bool = False) -> Path:
    """An image of voxels apart from the header, as ITK writes it."""
    values = np.random.default_rng(3).random((5, 6, 7), dtype=np.float32)
    itk.imwrite(itk.image_from_array(values), str(path), compression=compressed)
    return path


def analyze_pair(folder: Path) -> Path:
    values = np.random.default_rng(3).random((7, 6, 5), dtype=np.float32)
    nib.save(nib.Nifti1Pair(values, np.diag([2.0, 2.0, 2.0, 1.0])), folder / "scan.hdr")
    return folder / "scan.hdr"


PAIRS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "mhd and raw": (lambda folder: written_by_itk(folder / "scan.mhd"), "scan.raw"),
    "mhd and zraw": (lambda folder: written_by_itk(folder / "scan.mhd", compressed=True), "scan.zraw"),
    "nhdr and raw": (lambda folder: written_by_itk(folder / "scan.nhdr"), "scan.raw"),
    "hdr and img": (analyze_pair, "scan.img"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_voxels_apart_from_their_header_are_in_the_hash_and_noticed_by_resume(name: str, bundle: Bundle, tmp_path: Path) -> None:
    make, of_voxels = PAIRS[name]
    (tmp_path / "in").mkdir()
    header = make(tmp_path / "in")
    output = tmp_path / "out"
    [row] = made(bundle, header, output=output)
    assert row.status == "done", row.reason
    stated = read_sidecar(output / row.case / f"{row.case}_ifim.json")["input"]
    parts = sorted(path.name for path in header.parent.iterdir())
    assert sorted(file["name"] for file in stated["files"]) == parts == sorted([header.name, of_voxels])
    for file in stated["files"]:
        content = (header.parent / file["name"]).read_bytes()
        assert file == {"name": file["name"], "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    lines = "".join(f"{file['sha256']}  {file['name']}\n" for file in stated["files"])
    assert stated["sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    assert statuses(bundle, header, output=output) == ["kept"]
    voxels = header.with_name(of_voxels)
    content = bytearray(voxels.read_bytes())
    content[-1] ^= 1
    voxels.write_bytes(bytes(content))
    assert OpenedSource(Source(header)).digest != stated["sha256"]


@pytest.mark.parametrize("several", [False, True], ids=["one series", "two series"])
def test_one_changed_slice_is_another_input(several: bool, bundle: Bundle, tmp_path: Path) -> None:
    slices = Series(ORIENTATIONS["axial"]).slices()
    other = Series(ORIENTATIONS["coronal"], slices=5).slices() if several else []
    folder = write(tmp_path / "in", [*slices, *other])
    cases = find_cases([folder], series="all")
    before = [OpenedSource(case.source).digest for case in cases]
    changing = OpenedSource(cases[0].source).parts[0]
    content = changing.read_bytes()
    changing.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    after = [OpenedSource(case.source).digest for case in cases]
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_results_in_the_folder_of_the_series_itself_are_no_part_of_it(bundle: Bundle, tmp_path: Path) -> None:
    folder = write(tmp_path / "in", Series(ORIENTATIONS["axial"]).slices())
    lines = "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(folder.iterdir()))
    expected = hashlib.sha256(lines.encode()).hexdigest()  # as before version 2.2 of the sidecar
    assert OpenedSource(Source(folder)).digest == expected
    assert statuses(bundle, folder, output=folder) == ["done"]
    (folder / "index.html").write_text("a page")
    (folder / ".DS_Store").write_text("hidden")
    assert OpenedSource(Source(folder)).digest == expected
    (folder / "IM0001").write_text("a file that some reader might take for a slice")
    assert OpenedSource(Source(folder)).digest != expected


def test_files_beside_the_image_are_hashed_whole_and_watched_too(
    bundle: Bundle, scan: Path, tmp_path: Path, write_scan: Callable[..., Path], oblique: npt.NDArray[Any]
) -> None:
    (tmp_path / "masks").mkdir()
    mask = written_by_itk(tmp_path / "masks" / "mask.mhd")
    datalist = tmp_path / "list.json"
    datalist.write_text(json.dumps([{"image": str(scan), "mask": str(mask), "age": 70}]))
    [case] = find_cases([datalist])
    opened = OpenedSource(case.source)
    opened.take_hashes()
    assert {file["name"] for file in opened.beside["mask"]["files"]} == {"mask.mhd", "mask.raw"}
    assert opened.beside["age"] == {"file": None, "sha256": hashlib.sha256(b"70").hexdigest()}
    appended(mask.with_name("mask.raw"))
    with pytest.raises(ValueError, match=r"mask\.raw: the file changed"):
        opened.refuse_changed()
