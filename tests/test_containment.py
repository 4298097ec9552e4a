"""No path in anybody's input, sidecar, scene or table leads out of OUT: a tree with traps around OUT stays as it was."""

from __future__ import annotations

import ast
import csv
import gzip
import hashlib
import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from monai.data import NumpyReader
from monai.transforms import EnsureChannelFirst, LoadImage
from monai.utils.misc import CheckKeyDuplicatesYamlLoader
from pydicom.config import disable_value_validation
from typer.testing import CliRunner, Result

import monai_ifim
from monai_ifim.adapt import IFIMDecompose, SaveIFIM
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.cli.main import app
from monai_ifim.io import InputError, OutputError
from monai_ifim.io.case import write_case
from monai_ifim.io.containment import is_plain_name
from monai_ifim.report.cohort.page import write_cohort
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.ranks import Rank, run_shard
from monai_ifim.run.run_record import tabulate
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import CaseRow, write_table
from monai_ifim.viewer.cases import ViewerError, read_case, viewable_cases
from planted import spoilt
from synthetic_case import write_bundle_file, write_scene_file, write_synthetic_case
from synthetic_series import ORIENTATIONS, Series

PACKAGE = Path(monai_ifim.__file__).parent
TRAP = "trap_ifim_input.nii.gz"  # a name that every cleaning of old results would take for its own
ODD_NAMES = [
    "..", "....", "a..b", " ", "-rf", "~", "$(touch x)", "`id`", "a;b", "a|b", "a\\..\\b", "new\nline", "\u202egnp", "%2e%2e%2f",
    "case.partial-x", ".hidden", "con", "*", "[ab]", "Ünï", "\udcff",
]  # fmt: skip
pytestmark = pytest.mark.usefixtures("blank_figure")


def tree(root: Path, without: Path | None = None) -> dict[str, Any]:
    """Every file, folder and link below `root`, without OUT, with its content and time of change."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        if without is not None and (path == without or without in path.parents):
            continue
        state = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        found[str(path.relative_to(root))] = (state.st_mode, None if path.is_dir() else state.st_mtime_ns, content)
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with traps on all sides of PLACE/a/out, where results go."""
    for folder in (tmp_path, tmp_path / "a", tmp_path / "a" / "b", tmp_path / "inputs"):
        folder.mkdir(exist_ok=True)
        for name in (TRAP, "trap_ifim.json", "trap.mrml", "trap_planes.npz", ".partial-trap"):
            (folder / name).write_bytes(b"do not touch")
    return tmp_path


@pytest.fixture
def out(place: Path) -> Path:
    return place / "a" / "out"


@contextmanager
def nothing_outside_changes(root: Path, out: Path) -> Iterator[None]:
    before = tree(root, out)
    yield
    assert tree(root, out) == before


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def scan(place: Path) -> Path:
    return save_scan(place / "inputs" / "scan.nii.gz")


def save_scan(path: Path, seed: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).normal(size=(7, 6, 5)).astype(np.float32)
    content = nib.Nifti1Image(values, np.diag([2.0, 1.0, 1.5, 1.0])).to_bytes()  # nibabel would judge the name
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def decompose(bundle: Path, out: Path, *inputs: object) -> Result:
    words = ("decompose", *inputs, "--bundle", bundle, "-o", out, "--rank", 1, "--mrb")
    return CliRunner().invoke(app, [str(word) for word in words])


def statuses(out: Path) -> list[str]:
    with (out / "cases.csv").open(encoding="utf-8", newline="") as file:
        return [row["status"] for row in csv.DictReader(file)]


def test_a_tree_that_changed_is_told_apart(place: Path, out: Path) -> None:
    with pytest.raises(AssertionError), nothing_outside_changes(place, out):
        (place / "a" / TRAP).unlink()
    with pytest.raises(AssertionError), nothing_outside_changes(place, out):
        (place / "new").mkdir()
    with nothing_outside_changes(place, out):
        (out / "case").mkdir(parents=True)


def test_entries_of_a_datalist_lead_nowhere_but_to_what_is_read(place: Path, out: Path, bundle: Path, scan: Path) -> None:
    save_scan(place / "elsewhere" / "trap.nii", 4)
    there = [scan.name, "../elsewhere/trap.nii", f"{scan.parent}/../inputs/{scan.name}"]
    gone = ["../inputs/../../nowhere.nii", "..", "/", "/dev/null", "/dev/zero", "\0", "a\0b.nii", "~/trap.nii"]
    datalist = place / "inputs" / "list.json"
    datalist.write_text(json.dumps({"testing": [{"image": entry} for entry in there + gone]}))
    with nothing_outside_changes(place, out):
        assert decompose(bundle, out, datalist).exit_code == 3
    assert statuses(out) == ["done"] * (len(there) - 1) + ["failed"] * len(gone)  # two entries name the scan
    assert all(is_plain_name(path.name) for path in out.iterdir())


def test_an_image_reads_only_itself(place: Path, out: Path, bundle: Path) -> None:
    """Headers that name another file as their voxels, given as they are, in a datalist and by a link in a folder."""
    inputs, secret = place / "inputs", place / "elsewhere" / "secret"
    secret.parent.mkdir(exist_ok=True)
    secret.write_bytes(b"SecretVoxels" * 48)
    meta = "NDims = 3\nDimSize = 9 8 8\nElementType = MET_UCHAR\nElementDataFile = {}\n"
    nrrd = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 9 8 8\nencoding: raw\ndata file: {}\n"
    headers = {"a.mhd": meta, "b.mha": meta, "c.nhdr": nrrd, "d.nrrd": nrrd, "e.png": nrrd}
    for name, text in headers.items():
        (inputs / name).write_text(text.format(secret))
    (inputs / "f.mhd").write_text(meta.format("link.raw"))
    (inputs / "link.raw").symlink_to(secret)
    (place / "linked").mkdir(exist_ok=True)
    (place / "linked" / "g.mhd").symlink_to(inputs / "a.mhd")
    datalist = place / "list.json"
    datalist.write_text(json.dumps([{"image": f"inputs/{name}"} for name in headers]))
    (inputs / "own.raw").write_bytes(np.random.default_rng(3).integers(0, 255, 9 * 8 * 8).astype(np.uint8).tobytes())
    (inputs / "own.mhd").write_text(meta.format("own.raw"))
    with nothing_outside_changes(place, out):
        result = decompose(bundle, out, *(inputs / name for name in (*headers, "f.mhd", "own.mhd")), datalist, place / "linked")
    assert result.exit_code == 3
    with (out / "cases.csv").open(encoding="utf-8", newline="") as file:
        done = {row["input"]: row["status"] for row in csv.DictReader(file)}
    assert done == {**dict.fromkeys((*headers, "f.mhd", "g.mhd"), "failed"), "own.mhd": "done"}
    written = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    unpacked = [gzip.decompress(content) for content in written if content.startswith(b"\x1f\x8b")]
    assert not [content for content in (*written, *unpacked) if b"SecretVoxels" in content]
    voxels = np.frombuffer(b"SecretVoxels", np.uint8).astype(np.float32).tobytes()
    assert not [content for content in unpacked if voxels in content]


def test_names_of_files_become_names_of_folders_in_out(place: Path, out: Path, bundle: Path) -> None:
    inputs = place / "odd"
    for i, name in enumerate(ODD_NAMES):
        save_scan(inputs / f"{name}.nii", i)
    for i, name in enumerate(ODD_NAMES[2:8]):
        save_scan(inputs / f"{name}x" / "scan.nii", 100 + i)
    with nothing_outside_changes(place, out):
        result = decompose(bundle, out, inputs)
    assert result.exit_code == 0
    seen = [name for name in ODD_NAMES if not name.startswith(".")]  # what is hidden is no input
    assert statuses(out) == ["done"] * (len(seen) + 6)
    folders = [path.name for path in out.iterdir() if path.is_dir()]
    assert all(name.isascii() and is_plain_name(name) and not name.startswith((".", "-", "_")) for name in folders)
    assert len({name.lower() for name in folders}) == len(folders)


def test_series_that_are_called_like_paths_stay_in_out(place: Path, out: Path, bundle: Path) -> None:
    folder = place / "inputs" / "dicom"
    folder.mkdir()
    with disable_value_validation():
        for i, uid in enumerate(("../../trap", "/tmp/trap", "1.2/../../3")):
            slices = Series(ORIENTATIONS["axial"], slices=3 + i).slices()
            for k, image in enumerate(slices):
                called = spoilt(spoilt(image, "SeriesInstanceUID", uid), "SeriesDescription", "../../../trap")
                called.save_as(folder / f"{i}{k}")
    with nothing_outside_changes(place, out):
        assert decompose(bundle, out, folder, "--series", "all").exit_code == 0
    assert statuses(out) == ["done"] * 3
    assert all(path.name.startswith("dicom_series-") for path in out.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Path:
    """Results of the scan."""
    folder = tmp_path_factory.mktemp("made")
    assert decompose(bundle, folder / "out", save_scan(folder / "scan.nii.gz")).exit_code == 0
    return folder / "out"


@pytest.fixture
def case(out: Path, made: Path, scan: Path) -> Path:
    """The sidecar of a whole case in OUT."""
    shutil.copytree(made, out)
    return out / "scan" / "scan_ifim.json"


OTHER_FILES = ("scene", "planes", "parametric_maps")
OUTSIDE = [f"../{TRAP}", f"../../{TRAP}", "..", "/etc/passwd", f"scan_ifim_input.nii.gz/../../../{TRAP}"]


@pytest.mark.parametrize(
    ("where", "name"), [*(("files", name) for name in OUTSIDE), *((where, OUTSIDE[1]) for where in OTHER_FILES)]
)
def test_a_sidecar_that_names_files_elsewhere_is_no_whole_case(
    where: str, name: str, case: Path, place: Path, out: Path, bundle: Path, scan: Path
) -> None:
    content = json.loads(case.read_text())
    if where == "files":
        content["files"][0]["file"] = name
    else:
        content[where] = [name] if where == "parametric_maps" else name
    case.write_text(json.dumps(content))
    settings = RunSettings(out, CaseSettings("auto", rank=1, locality=True, scene_bundle=True))
    with nothing_outside_changes(place, out):
        [row] = run_cases(load_bundle(bundle), find_cases([scan]), settings, lambda _: None)
        write_cohort(out)
    assert row.status == "done"  # made again, not kept
    assert json.loads(case.read_text())["files"][0]["file"] == "scan_ifim_input.nii.gz"


def test_whole_cases_are_kept(case: Path, out: Path, bundle: Path, scan: Path) -> None:
    """The counterpart of the test above, with a sound sidecar."""
    decompose(bundle, out, scan)
    assert statuses(out) == ["kept"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_scene_takes_no_file_from_elsewhere(name: str, place: Path, out: Path, oblique: Any) -> None:
    sidecar = write_synthetic_case(out / "scan", (5, 4, 3), oblique, (1, 1, 1))
    with nothing_outside_changes(place, out):
        scene = write_scene_file(out / "scan", sidecar)
        scene.write_text(scene.read_text().replace("scan_ifim_high.nii.gz", name))
        with pytest.raises(OutputError, match="which is not in its folder"):
            write_bundle_file(scene)
        scene.unlink()
        sidecar["files"][1]["file"] = name
        with pytest.raises(OutputError, match="no scene without"):
            write_scene_file(out / "scan", sidecar)
    assert list(out.glob("**/*.mrb")) == []
    assert not scene.exists()


def test_a_scene_bundle_holds_names_below_one_folder(case: Path) -> None:
    with zipfile.ZipFile(case.parent / "scan.mrb") as archive:
        names = archive.namelist()
    assert all(name.startswith("scan/") and is_plain_name(name.removeprefix("scan/")) for name in names)


@pytest.mark.parametrize("name", ["../trap", "..", "/etc", "", "a/../../trap"])
def test_a_table_with_cases_elsewhere_makes_no_page(name: str, place: Path, out: Path) -> None:
    out.mkdir()
    write_table(out, [CaseRow("fine", "failed", "why"), CaseRow(name, "done")])
    with nothing_outside_changes(place, out), pytest.raises(InputError, match="not a name of a folder"):
        write_cohort(out)
    assert not (out / "index.html").exists()


@pytest.mark.parametrize("name", OUTSIDE)
def test_the_viewer_opens_no_file_elsewhere(name: str, case: Path, out: Path) -> None:
    assert viewable_cases(out) == ("scan",)
    content = json.loads(case.read_text())
    content["files"][1]["file"] = name
    case.write_text(json.dumps(content))
    with pytest.raises(ViewerError, match="not a volume in its folder"):
        read_case(out, "scan")


def test_the_table_is_made_of_cases_in_out_alone(case: Path, place: Path, out: Path) -> None:
    (out / "..trap").mkdir()
    (out / "..trap" / "..trap_ifim.json").write_text(case.read_text().replace("scan.nii.gz", "../../scan.nii.gz"))
    with nothing_outside_changes(place, out):
        rows = tabulate(out)
    assert [row.case for row in rows] == ["..trap", "scan"]


@pytest.mark.parametrize("name", ["../trap", "..", ".", "", "/trap", "a/b", "a\\b", "a\0b"])
def test_a_case_cannot_be_called_like_a_path(name: str, place: Path, out: Path, make_network: Any, scan: Path) -> None:
    image = EnsureChannelFirst()(LoadImage(image_only=True)(scan))
    components = IFIMDecompose(make_network(3), head="categorical")(image)
    if name:
        with nothing_outside_changes(place, out), pytest.raises(OutputError, match="cannot be called"):
            SaveIFIM(out, space="network")(image, components, case=name)
    with nothing_outside_changes(place, out), pytest.raises(OutputError, match="cannot be called"):
        write_case(out, name, *[None] * 3)  # type: ignore[arg-type, call-arg]
    assert not out.exists()


def test_links_in_old_results_are_removed_and_not_followed(case: Path, place: Path, out: Path, bundle: Path, scan: Path) -> None:
    case.unlink()
    for name in ("scan_ifim_old.nii.gz", "scan_ifim_high.nii.gz", "scan.mrml", ".partial-x", "scan_planes.npz"):
        (case.parent / name).unlink(missing_ok=True)
        (case.parent / name).symlink_to(place / "a" / TRAP)
    with nothing_outside_changes(place, out):
        assert decompose(bundle, out, scan).exit_code == 0
    assert [path for path in case.parent.iterdir() if path.is_symlink()] == []


@pytest.mark.parametrize("kind", ["whole case", "folder", "dangling", "file", "itself"])
def test_a_link_in_place_of_a_case_fails_that_case_alone_until_it_is_removed(
    kind: str, place: Path, out: Path, bundle: Path, scan: Path, made: Path
) -> None:
    """The place of the link holds, at its worst, a whole case that the run would keep, or files that it would replace."""
    other, elsewhere = save_scan(place / "inputs" / "other.nii.gz", 4), place / "elsewhere"
    shutil.copytree(made / "scan", elsewhere)
    if kind != "whole case":
        (elsewhere / "scan_ifim.json").unlink()
    (elsewhere / ".partial-0123456789abcdef").write_text("do not touch")
    out.mkdir()
    targets = {"dangling": place / "nothing", "file": place / "a" / TRAP, "itself": out / "scan"}
    (out / "scan").symlink_to(targets.get(kind, elsewhere))
    settings = RunSettings(out, CaseSettings("auto", rank=1, locality=True, scene_bundle=True))
    cases, loaded = find_cases([scan, other]), load_bundle(bundle)
    with nothing_outside_changes(place, out):
        rows = run_cases(loaded, cases, settings, lambda _: None)
        sharded = run_shard(loaded, cases, settings, lambda _: None, Rank())
        write_cohort(out)
        tabulate(out)
    assert [row.status for row in rows] == ["failed", "done"]
    assert [row.status for row in sharded] == ["failed", "kept"]
    assert f"{out / 'scan'}: is a link to another place" in rows[0].reason
    assert rows[0].reason.endswith(f"remove the link (rm {out / 'scan'}), or choose another --output.")
    (out / "scan").unlink()
    with nothing_outside_changes(place, out):
        rows = run_cases(loaded, cases, settings, lambda _: None)
    assert [row.status for row in rows] == ["done", "kept"]


@pytest.mark.parametrize("name", ["cases.csv", "cases.parquet", "run.json", "index.html"])
@pytest.mark.parametrize("hard", [False, True], ids=["link", "hard link"])
def test_a_link_in_place_of_a_table_is_replaced(
    hard: bool, name: str, place: Path, out: Path, case: Path, scan: Path, bundle: Path
) -> None:
    (out / name).unlink()
    (out / name).hardlink_to(place / "a" / TRAP) if hard else (out / name).symlink_to(place / "a" / TRAP)
    with nothing_outside_changes(place, out):
        assert decompose(bundle, out, scan).exit_code == 0
    assert (out / name).is_file()
    assert not (out / name).is_symlink()
    assert (out / name).read_bytes() != b"do not touch"


def test_out_itself_may_be_a_link(place: Path, out: Path, scan: Path, bundle: Path) -> None:
    real = place / "a" / "real"
    real.mkdir()
    out.symlink_to(real)
    with nothing_outside_changes(place, real):
        assert decompose(bundle, out, scan).exit_code == 0
        assert decompose(bundle, out, scan).exit_code == 0
    assert statuses(real) == ["kept"]


class Spy:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["spy.npy", "spy.npz", "spy.nii", "spy.nii.gz", "spy.png", "spy.mha"])
@pytest.mark.parametrize("reader", [None, "NibabelReader", "PILReader"], ids=str)
def test_pickled_code_in_an_input_is_not_run(
    reader: str | None, name: str, place: Path, out: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    load = {"_target_": "LoadImaged", "keys": "image"} | ({} if reader is None else {"reader": reader})
    root = make_bundle(place / "tiny", steps=[load, {"_target_": "EnsureChannelFirstd", "keys": "image"}])
    file, made = place / "inputs" / name, place / "made"
    if name.endswith((".npy", ".npz")):
        buffer = io.BytesIO()
        save = np.savez if name.endswith("z") else np.save
        save(buffer, np.array([Spy(made)], dtype=object), allow_pickle=True)
        file.write_bytes(buffer.getvalue())
        np.load(file, allow_pickle=True) if name.endswith("y") else np.load(file, allow_pickle=True)["arr_0"]
        assert made.exists()  # it would
        made.unlink()
    else:
        file.write_bytes(pickle.dumps(Spy(made)))
    with nothing_outside_changes(place, out):
        assert decompose(root, out, file).exit_code == 3
    assert not made.exists()


MODULES = [path for folder in (PACKAGE, PACKAGE.parent / "bundles") if folder.is_dir() for path in sorted(folder.rglob("*.py"))]
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
RUN_CODE = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.full_load", "yaml.unsafe_load"}
RUN_CODE |= {"pandas.read_pickle", "pd.read_pickle", "torch.package.PackageImporter", "yaml.load_all"}


def dotted(node: ast.expr) -> str:
    """A call's name as it is written: torch.load."""
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def unsafe_calls(text: str) -> list[str]:
    """Lines that would execute a file's content."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLERS:
            found += [f"{node.lineno}: {alias.name}" for alias in node.names if not alias.name.endswith("Error")]
        if isinstance(node, ast.ImportFrom) and node.module in ("torch", "numpy", "yaml"):
            found += [f"{node.lineno}: {alias.name}" for alias in node.names if alias.name.endswith("load")]
        if isinstance(node, ast.Import):
            found += [f"{node.lineno}: {alias.name}" for alias in node.names if alias.name.split(".")[0] in UNPICKLERS]
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        said = {word.arg: word.value for word in node.keywords}
        constant = {word: value.value for word, value in said.items() if isinstance(value, ast.Constant)}
        if name in RUN_CODE or (constant.get("shell") is True):
            found.append(f"{node.lineno}: {name}")
        if name == "torch.load" and constant.get("weights_only") is not True:
            found.append(f"{node.lineno}: {name} without weights_only=True")
        if "allow_pickle" in said and constant.get("allow_pickle") is not False:  # False is what numpy takes it for
            found.append(f"{node.lineno}: {name} with allow_pickle")
    return found


def test_no_module_runs_what_a_file_holds() -> None:
    assert {path: calls for path in MODULES if (calls := unsafe_calls(path.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)", "torch.load(path, weights_only=False)", "torch.load(path, weights_only=flag)", "import pickle",
        "from pickle import loads", "from torch import load", "np.load(path, allow_pickle=flag)", "eval(text)",
        "yaml.load(text, Loader=yaml.SafeLoader)", "subprocess.run(text, shell=True)", "import joblib.numpy_pickle",
    ],
)  # fmt: skip
def test_the_test_above_sees_what_is_unsafe(line: str) -> None:
    assert unsafe_calls(line) != []


def test_safe_calls_are_seen_as_such() -> None:
    lines = ("torch.load(p, weights_only=True)", "np.load(p)", "yaml.safe_load(t)", "from pickle import UnpicklingError")
    assert unsafe_calls("\n".join(lines)) == []


def test_the_loaders_that_are_not_ours_are_the_safe_ones() -> None:
    """MONAI reads a bundle's YAML and an input's .npy: an unsafe loader there fails here."""
    assert issubclass(CheckKeyDuplicatesYamlLoader, yaml.SafeLoader)
    assert NumpyReader().allow_pickle is False
