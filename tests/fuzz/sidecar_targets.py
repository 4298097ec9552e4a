"""Fuzz targets that read a sidecar and its companions: resuming, tables, pages, the viewer, scenes, repetition."""

from __future__ import annotations

import gzip
import json
import tempfile
import xml.etree.ElementTree as ET
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from fuzz.mutations import mutate_json, mutate_planes, mutate_text
from fuzz.oracle import LONGEST, Target, refusing
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.io import ModelIdentity, Source, read_sidecar
from monai_ifim.io.containment import is_plain_name
from monai_ifim.io.layers import Layer
from monai_ifim.io.older_sidecars import SCHEMA_VERSION
from monai_ifim.io.planes import cut_planes, read_planes, write_planes
from monai_ifim.io.sidecar import write_sidecar
from monai_ifim.report.cohort.page import write_cohort
from monai_ifim.report.cohort.planes import draw_picture_grid
from monai_ifim.report.cohort.records import read_cohort
from monai_ifim.run import repetition
from monai_ifim.run.agreement import compare
from monai_ifim.run.cases import Case
from monai_ifim.run.resume import kept_row
from monai_ifim.run.run_record import Start, tabulate, write_outcome
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import row_from_sidecar
from monai_ifim.run.verification.results import verify_results
from monai_ifim.viewer.cases import check_whole, facts, read_case
from synthetic_case import write_bundle_file, write_scene_file

NAMES = ("input", "high", "low", "sensitivity")
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of no bytes


def read_any_sidecar(content: bytes, folder: Path) -> None:
    """Resumed, tabulated, verified, and shown by the viewer, which opens nothing from outside of the case's folder."""
    path = _write_case(content, folder)
    image = folder / "case.nii.gz"
    image.write_bytes(b"")
    with refusing():
        row_from_sidecar("case", "done", read_sidecar(path))
    settings = RunSettings(folder, CaseSettings())
    kept_row(ModelIdentity(), Case("case", Source(image)), settings)
    tabulate(folder)
    verify_any(folder)
    with refusing():
        seen = read_case(folder, "case")
        for layer in (*seen.backgrounds, *seen.overlays):
            assert layer.file.parent == path.parent, f"{layer.file} lies outside of the case's folder"
        json.dumps(facts(seen), allow_nan=False)


def verify_any(folder: Path) -> None:
    """All that is found is told in printable lines of bounded length."""
    with refusing():
        found = verify_results(folder, folder, [folder])
        for finding in (*found.findings, *found.notes):
            assert finding.line.isprintable(), finding.line
            assert len(finding.line) < LONGEST, finding.line
        json.dumps(found.described(), allow_nan=False)


def use_any_sidecar(content: bytes, folder: Path) -> None:
    """Written again alike, made a scene of, and taken for a repetition."""
    path = _write_case(content, folder)
    (folder / "case.nii.gz").write_bytes(b"")
    with refusing():
        again = folder / "again.json"
        write_sidecar(again, read_sidecar(path))
        once = read_sidecar(again)
        write_sidecar(again, once)
        assert read_sidecar(again) == once
    with refusing():
        scene = write_scene_file(path.parent, read_sidecar(path))
        named = [node.get("fileName", "x") for node in ET.fromstring(scene.read_bytes())]
        assert all(map(is_plain_name, named)), named
        write_bundle_file(scene)
    with refusing():
        name, case = repetition.read_recorded_case(path)
        maps = repetition._checked(lambda: repetition._maps(case.sidecar["settings"], None, None, None), name)
        repetition._checked(lambda: repetition._settings(case.sidecar, folder / "again", "cpu", maps), name)
        repetition._checked(lambda: compare(case, case), name)
    with refusing():
        _, case = repetition.read_recorded_case(path)
        assert repetition.find_image(case).path.name == case.sidecar["input"]["file"]


def bundle_any_scene(content: bytes, folder: Path) -> None:
    """Into one file to hand on, which holds nothing from outside of the scene's folder."""
    secret = folder / "secret.txt"
    secret.write_bytes(b"not for others")
    inside = folder / "case"
    inside.mkdir()
    for name in ("case_ifim_input.nii.gz", "case_spectrum.tsv", "case_spectrum.schema.tsv"):
        (inside / name).write_bytes(b"here")
    scene = inside / "case.mrml"
    scene.write_bytes(content)
    with refusing():
        with zipfile.ZipFile(write_bundle_file(scene)) as archive:
            assert all(name.startswith("case/") and ".." not in name for name in archive.namelist())
            held = [archive.read(name) for name in archive.namelist()]
        assert secret.read_bytes() not in held


def read_any_planes(content: bytes, folder: Path) -> None:
    """The pictures of a case."""
    path = folder / "case_planes.npz"
    path.write_bytes(content)
    with refusing():
        draw_picture_grid(read_planes(path), 1e5)


def read_any_table(content: bytes, folder: Path) -> None:
    """cases.parquet of a run."""
    (folder / "cases.parquet").write_bytes(content)
    verify_any(folder)
    with refusing():
        read_cohort(folder)


def show_any_run(content: bytes, folder: Path) -> None:
    """The page of a run of two whose sidecar and run.json are these: the two parts of a list."""
    try:
        sidecar, run = map(json.dumps, json.loads(content))
    except (ValueError, TypeError, RecursionError):
        sidecar, run = (content.decode("utf-8", "surrogateescape"),) * 2
    for name, text in (("a", sidecar), ("b", json.dumps(sound_sidecar()))):
        (folder / name).mkdir()
        (folder / name / f"{name}_ifim.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    tabulate(folder)
    (folder / "run.json").write_bytes(run.encode("utf-8", "surrogateescape"))
    verify_any(folder)
    with refusing():
        write_cohort(folder)


def view_any_volume(content: bytes, folder: Path) -> None:
    """A map, packed here where it is not, that 3D Slicer's reader would take for whole."""
    path = folder / "map.nii.gz"
    path.write_bytes(content if content.startswith(b"\x1f\x8b") else gzip.compress(content, 1, mtime=0))
    with refusing():
        check_whole(path)


def sound_sidecar() -> dict[str, Any]:
    """With everything in it."""
    files = [
        {
            "file": f"case_ifim_{name}.nii.gz", "kind": name, "component": None, "channel": 1,
            "sha256": EMPTY, "unit": "x", "shape": [5, 4, 3], "affine": np.eye(4).tolist(), "norm": 2.5,
            "scale": 1.0, "window": [-1.0, 1.0],
        }
        for name in NAMES
    ]  # fmt: skip
    return {
        "schema_version": SCHEMA_VERSION,
        "generator": {"name": "monai_ifim", "version": "0.1.0", "paper": "arXiv:2606.16362"},
        "input": {
            "file": "case.nii.gz", "sha256": EMPTY, "shape": [5, 4, 3], "affine": np.eye(4).tolist(),
            "reader": "NibabelReader", "frame": None, "series": None, "resampled": False, "beside": {},
            "files": [{"name": "case.nii.gz", "sha256": EMPTY, "bytes": 0}],
            "tied_channels": {"channels": 3, "factors": [1.0, 1.02, 0.95], "meaning": "one grey image"},
        },
        "model": {
            "bundle": None, "version": None, "weights_sha256": None, "config_sha256": None, "head": "categorical",
            "class_names": [], "bundle_sha256": None, "files": {"configs/inference.json": EMPTY},
        },
        "prediction": {"class": "output 1", "probability": {"output 0": 0.25, "output 1": 0.75}, "logits": [0.0, 1.1]},
        "space": {"name": "native", "meaning": "the input's own grid"},
        "units": {
            "maps": "network input intensity", "eigenvalues": "nats", "sensitivity": "nats", "locality_radius": "x",
            "eigenvectors": "unit norm",
        },
        "eigenvalues": [0.5, 0.25], "rank": 2, "energy_kept": 0.99, "trace": 0.76, "locality_radius": [0.1, None],
        "locality_share": [0.02, None], "locality_rms": [0.0129, None], "high_share": 0.6,
        "norms": {"grid": "network", "values": 60, "input": 5.0, "high": 3.0, "low": 4.0, "sensitivity": 0.1},
        "settings": CaseSettings().describe(), "method": "exact", "method_reason": "few columns", "jacobian_products": 1,
        "error_bound": 0.0, "confidence": 1.0, "residuals": [0.0, 0.0], "metric": None, "preprocessing": None,
        "verification": {"by": "itself", "outcome": "agrees", "deviation": 0.015, "tolerance": 0.1, "passes": 3},
        "dtype": "float32", "device": "cpu", "computation": {"deterministic": False, "threads": 1}, "seconds": 0.5,
        "files": files, "scene": "case.mrml", "planes": "case_planes.npz", "parametric_maps": [],
        "written": {file["file"]: EMPTY for file in files} | {"case.mrml": EMPTY, "case_planes.npz": EMPTY},
        "versions": {}, "peak_memory_bytes": 1,
    }  # fmt: skip


def sound_sidecars() -> list[bytes]:
    """In the space of the network's input and in that of the scan, with the scan itself and an eigenvector."""
    whole = sound_sidecar()
    source = whole["files"][0] | {"kind": "source", "file": "case_ifim_low.nii.gz"}
    vector = whole["files"][1] | {"kind": "eigenvector", "component": 1, "file": "case_ifim_sensitivity.nii.gz"}
    scanner = whole | {
        "settings": CaseSettings(space="scanner", statistics="freeze", resolution=2.5).describe(),
        "space": {"name": "scanner", "meaning": "the scan"},
        "preprocessing": {"steps": [], "equivalents": [], "statistics": "freeze", "resolution": 2.5, "resolution_mm": [2.5] * 3},
        "metric": {"kind": "Gaussian low-pass", "sigma_voxels": [1.0, 1.0, 1.0]},
        "files": [*whole["files"][:3], source, vector],
    }
    return [json.dumps(content).encode() for content in (whole, scanner)]


def sound_scenes() -> list[bytes]:
    """As they are written: nodes whose fileName is a file beside the scene."""
    nodes = '<VolumeArchetypeStorage id="v1" fileName="case_ifim_input.nii.gz"/><TableStorage fileName="case_spectrum.tsv"/>'
    return [
        f'<?xml version="1.0"?><MRML version="Slicer 5">{nodes}</MRML>'.encode(),
        b'<!DOCTYPE MRML [<!ENTITY a "b"><!ENTITY c SYSTEM "file:///etc/passwd">]><MRML><V fileName="%2e%2e/secret.txt"/></MRML>',
    ]


@cache
def sound_volume() -> bytes:
    """A NIfTI file, not packed."""
    written: bytes = nib.Nifti1Image(np.arange(60, dtype=np.float32).reshape(5, 4, 3), np.diag([2.0, 2.0, 3.0, 1.0])).to_bytes()
    return written


@cache
def sound_planes() -> bytes:
    """Three pictures of one map."""
    values = np.arange(60, dtype=np.float32).reshape(5, 4, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "planes.npz")
        write_planes(path, cut_planes([Layer("input", values, (0.0, 60.0), "HU")], np.diag([1.0, 2.0, 3.0, 1.0]), (1, 2, 1)))
        return path.read_bytes()


@cache
def sound_run() -> tuple[bytes, bytes]:
    """cases.parquet and run.json."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [row_from_sidecar("case", "done", sound_sidecar())]
        cases = [Case("case", Source(folder / "case.nii.gz"))]
        write_outcome(ModelIdentity(), RunSettings(folder, CaseSettings()), cases, rows, Start())
        return (folder / "cases.parquet").read_bytes(), (folder / "run.json").read_bytes()


def sound_pages() -> list[bytes]:
    """A sidecar and a run.json, as a list."""
    return [json.dumps([sound_sidecar(), json.loads(sound_run()[1])]).encode()]


def _write_case(content: bytes, folder: Path) -> Path:
    """A case with this sidecar, whose path is returned, and the files that a sound one names."""
    case = folder / "case"
    case.mkdir()
    for name in NAMES:
        (case / f"case_ifim_{name}.nii.gz").write_bytes(_packed_volume())
    path = case / "case_ifim.json"
    path.write_bytes(content)
    return path


@cache
def _packed_volume() -> bytes:
    return gzip.compress(sound_volume(), 1, mtime=0)


TARGETS = (
    Target("sidecar", read_any_sidecar, sound_sidecars, mutate_json),
    Target("sidecar-uses", use_any_sidecar, sound_sidecars, mutate_json, inputs=60),
    Target("scene", bundle_any_scene, sound_scenes, mutate_text),
    Target("planes", read_any_planes, lambda: [sound_planes()], mutate_planes),
    Target("run-table", read_any_table, lambda: [sound_run()[0]]),
    Target("run-page", show_any_run, sound_pages, mutate_json, inputs=5),
    Target("viewer-volume", view_any_volume, lambda: [sound_volume(), gzip.compress(sound_volume(), 1, mtime=0)]),
)
