"""A case's folder is what its sidecar says, or it is not there."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from monai_ifim.io import case
from monai_ifim.io.case import Companions, write_case
from monai_ifim.io.case_files import UNFINISHED, results_in, sidecar_path
from monai_ifim.io.case_maps import CaseMaps, check_contents
from monai_ifim.io.dicom.volume import DicomVolume
from monai_ifim.io.errors import OutputError
from monai_ifim.io.model import ModelIdentity
from monai_ifim.io.parametric_map.source import ReferencedSeries
from monai_ifim.io.sidecar import CaseFacts, InputIdentity, write_sidecar
from monai_ifim.options import CONTENTS

Array = npt.NDArray[Any]
SHAPE = (5, 4, 3)
SERIES = ReferencedSeries(DicomVolume("1.2", (), "CT", (5, 4), 3), np.zeros((3, 3)), np.eye(2, 3).ravel(), (1.0, 1.0), ())


def fail(*_: Any) -> None:
    raise OutputError("planted")


@pytest.fixture
def maps(oblique: Array) -> CaseMaps:
    image, high = np.random.default_rng(2).standard_normal((2, 1, *SHAPE)).astype(np.float32)
    return CaseMaps(oblique, image, high, image - high, np.abs(high), high[None])


@pytest.fixture
def facts(oblique: Array) -> CaseFacts:
    record = {
        "head": "categorical", "probabilities": [0.25, 0.75], "logits": [0.1, 1.2], "eigenvalues": [0.5], "rank": 1,
        "energy_kept": 1.0, "trace": 0.5, "locality_radius": [None], "method": "exact", "device": "cpu", "dtype": "float32",
        "seconds": 0.1,
    }  # fmt: skip
    source = InputIdentity("in.nii.gz", "0" * 64, SHAPE, oblique.tolist(), "NibabelReader")
    return CaseFacts(source, ModelIdentity("Toy", "1.2", "ab" * 32, ("no", "yes"), "cd" * 32), "native", record)


def test_case_that_fails_late_leaves_nothing_of_itself(
    maps: CaseMaps, facts: CaseFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parametric Maps are written last."""
    monkeypatch.setattr("monai_ifim.io.case.write_parametric_maps", fail)
    with pytest.raises(OutputError, match="planted"):
        write_case(tmp_path / "out", "scan", maps, CONTENTS, facts, Companions(series=SERIES, scene_bundle=True))
    assert list((tmp_path / "out").iterdir()) == []


def test_case_that_fails_leaves_what_is_not_its_own(
    maps: CaseMaps, facts: CaseFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar = write_case(tmp_path / "out", "scan", maps, CONTENTS, facts).path
    written = set(sidecar.parent.iterdir())
    assert sidecar == sidecar_path(tmp_path / "out", "scan")
    assert len(written) > 8
    (sidecar.parent / "notes.txt").write_text("mine")
    monkeypatch.setattr("monai_ifim.io.case.write_parametric_maps", fail)
    with pytest.raises(OutputError, match="planted"):
        write_case(tmp_path / "out", "scan", maps, CONTENTS, facts, Companions(series=SERIES))
    assert [path.name for path in sidecar.parent.iterdir()] == ["notes.txt"]


def test_files_of_a_case_are_known_as_results_at_every_moment(
    maps: CaseMaps, facts: CaseFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed before the sidecar leaves files that the next run, if OUT is its input, must not take for images."""
    folder, seen = tmp_path / "out" / "scan", []

    def look(*arguments: Any) -> None:
        seen.append({path.name for path in folder.iterdir()})
        assert seen[-1] - results_in(folder, seen[-1]) == {UNFINISHED}
        write_sidecar(*arguments)

    monkeypatch.setattr("monai_ifim.io.case.write_sidecar", look)
    write_case(tmp_path / "out", "scan", maps, CONTENTS, facts, Companions(scene_bundle=True))
    assert len(seen[-1]) > 8
    names = {path.name for path in folder.iterdir()}
    assert names == results_in(folder, names) == (seen[-1] - {UNFINISHED}) | {"scan_ifim.json"}


def test_a_case_behind_a_link_is_refused_and_the_place_of_the_link_stays(
    maps: CaseMaps, facts: CaseFacts, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("scan_ifim_old.nii.gz", "scan_ifim.json", "scan.mrml", ".partial-0123456789abcdef"):
        (elsewhere / name).write_text("theirs")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scan").symlink_to(elsewhere)
    before = {path: path.read_bytes() for path in elsewhere.iterdir()}
    with pytest.raises(OutputError, match="is a link to another place"):
        write_case(tmp_path / "out", "scan", maps, CONTENTS, facts)
    assert {path: path.read_bytes() for path in elsewhere.iterdir()} == before
    assert (tmp_path / "out" / "scan").is_symlink()


@pytest.mark.parametrize("moment", ["write_volume", "write_planes", "write_scene", "write_sidecar"])
def test_a_folder_that_becomes_a_link_in_the_middle_of_a_case(
    moment: str, maps: CaseMaps, facts: CaseFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "out" / "scan"
    elsewhere.mkdir()
    for name in ("scan_ifim_high.nii.gz", "scan_ifim.json"):
        (elsewhere / name).write_text("theirs")
    write, lock = getattr(case, moment), threading.Lock()

    def swap_and_write(*arguments: Any) -> Any:
        with lock:
            if not folder.is_symlink():
                folder.rename(tmp_path / "moved")
                folder.symlink_to(elsewhere)
        return write(*arguments)

    monkeypatch.setattr(case, moment, swap_and_write)
    with pytest.raises(OutputError, match="is a link to another place|no scene without"):
        write_case(tmp_path / "out", "scan", maps, CONTENTS, facts)
    assert {path.read_text() for path in elsewhere.iterdir()} == {"theirs"}
    assert len(list(elsewhere.iterdir())) == 2


def test_two_that_write_one_case_at_once_leave_it_whole(maps: CaseMaps, facts: CaseFacts, tmp_path: Path) -> None:
    """As two programs that use SaveIFIM: the sidecar is of the maps that lie beside it."""
    others = replace(maps, high=maps.high * 2, low=maps.low * 3, eigenvectors=np.concatenate([maps.eigenvectors] * 2))
    start = threading.Barrier(2)

    def write(each: CaseMaps) -> None:
        start.wait()
        for _ in range(6):
            write_case(tmp_path / "out", "scan", each, CONTENTS, facts)

    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(write, each) for each in (maps, others)]:
            job.result()
    folder = tmp_path / "out" / "scan"
    written = json.loads((folder / "scan_ifim.json").read_text())["written"]
    assert {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in written} == written
    assert {path.name for path in folder.iterdir()} == {*written, "scan_ifim.json"}


def test_contents_are_those_known_in_their_own_order() -> None:
    assert check_contents(["sensitivity", "high"]) == tuple(name for name in CONTENTS if name in ("high", "sensitivity"))
    with pytest.raises(OutputError, match=r"cannot save highest, shape: choose from "):
        check_contents(["shape", "high", "highest"])
