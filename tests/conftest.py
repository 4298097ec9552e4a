"""Fixtures for the tests of several floors: real scans, independent readers, generated scans and bundles."""

from __future__ import annotations

import io
import itertools
import json
import locale
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import itk
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from meshnet_bundle import write_meshnet_bundle
from monai_ifim.report.pages.blocks import Picture

Array = npt.NDArray[Any]
SLOW_FIXTURES = {  # other programs, and bundles and experiments that are run whole
    "axe", "browser", "cluster", "endoscopic", "orthanc", "quick", "site", "slicer_python", "template",
}  # fmt: skip
ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # behind the installed package: `benchmarks` and `docs` are not installed

RAS_FROM_LPS = np.array([-1.0, -1.0, 1.0])


class Volume(NamedTuple):
    """A volume as one reader sees it: values [i, j, k] and the RAS millimetres of its eight corner voxels [8, 3]."""

    values: Array
    affine: Array
    corners: Array


def pytest_configure(config: pytest.Config) -> None:
    """Of several processes, each has a thread, and so have the programs that its tests start."""
    if hasattr(config, "workerinput"):
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_sessionstart() -> None:
    """Restore Ctrl-C: a background process of a script ignores it, and so would the programs that tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest picks tests by their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests slow that use one of the slow fixtures; of several processes, start with the files that have slow tests."""
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    if hasattr(config, "workerinput"):  # a long file that comes last leaves the other process idle
        long = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in long)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With IFIM_NO_SKIPS=1, which .ci/run sets, a skipped test is a failure: all that tests need is installed there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("IFIM_NO_SKIPS") == "1" and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def own_locale() -> Iterator[None]:
    """Restore the locale: ITK sets that of C where it writes VTK, and a later test would read texts as ASCII."""
    stated = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, stated)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scans, named by the environment variable IFIM_TEST_DATA."""
    folder = os.environ.get("IFIM_TEST_DATA")
    if not folder:
        pytest.skip("set IFIM_TEST_DATA to the folder of real scans to run this test")
    return Path(folder)


@pytest.fixture(scope="session")
def meshnet_bundle(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The bundle of `meshnet_bundle.py` for images of so many voxels along each axis, each made once."""

    @cache
    def make(size: int) -> Path:
        return write_meshnet_bundle(tmp_path_factory.mktemp("meshnet") / "meshnet_gw", real_data, size)

    return make


@pytest.fixture(scope="session")
def small_cases(real_data: Path) -> Path:
    """Folder of small inputs that went wrong once, beside that of real scans."""
    folder = real_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"put the folder of small inputs that went wrong once at {folder} to run this test")
    return folder


@pytest.fixture(scope="session")
def dcm2niix() -> Callable[[Path, Path], nib.Nifti1Image]:
    """Converts a file or folder into a new folder with dcm2niix, and gives the only image that it makes."""
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not installed (Debian package dcm2niix)")

    def convert(source: Path, folder: Path) -> nib.Nifti1Image:
        folder.mkdir()
        command = ["dcm2niix", "-b", "n", "-z", "n", "-f", "%s_%j", "-o", str(folder), str(source)]
        subprocess.run(command, check=True, capture_output=True)
        [file] = folder.glob("*.nii")
        return nib.load(file)

    return convert


@pytest.fixture
def blank_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """index.html of a run with a blank figure: drawing takes a second, and most tests of runs are about other things."""
    picture = Picture("figures/distributions.png", _blank_png(), (1, 1), alt="Histograms", caption="Distribution of the cases.")
    monkeypatch.setattr("monai_ifim.report.cohort.page.distribution_picture", lambda cohort: picture)


@pytest.fixture(scope="session")
def slicer_python() -> str:
    """The Python of an environment with 3D Slicer's libraries, named by the environment variable IFIM_SLICER_PYTHON."""
    python = os.environ.get("IFIM_SLICER_PYTHON")
    if not python:
        pytest.skip("set IFIM_SLICER_PYTHON to a Python that has trame-slicer (tests/slicer/requirements.txt) to run this test")
    return python


@pytest.fixture(scope="session")
def corners_of() -> Callable[[Array, tuple[int, ...]], Array]:
    """RAS millimetres [8, 3] of the corner voxels of a grid, from its affine."""
    return _corners


@pytest.fixture(scope="session")
def read_itk() -> Callable[[Path], Volume]:
    """A file as ITK reads it, turned from ITK's LPS to RAS here; a flat image gets a third axis."""
    return _read_itk


@pytest.fixture(scope="session")
def read_alike() -> Callable[[Path], Volume]:
    """Reads a NIfTI file with nibabel and asserts that ITK reads the same values at the same places."""

    def read(path: Path) -> Volume:
        image = nib.load(path)
        values = np.asarray(image.dataobj)
        mine, theirs = Volume(values, image.affine, _corners(image.affine, values.shape)), _read_itk(path)
        np.testing.assert_array_equal(theirs.values, mine.values)
        np.testing.assert_allclose(theirs.corners, mine.corners, rtol=0, atol=1e-3)
        return mine

    return read


@pytest.fixture(scope="session")
def oblique() -> Array:
    """A left-handed affine turned about all three axes, of unequal spacing, far from the origin."""
    return rotated((1.1, 2.3, 3.7), (0.3, -0.5, 0.8), flip=True)


@pytest.fixture(scope="session")
def turned() -> Callable[..., Array]:
    """Affine from spacing, a rotation vector and a flip."""
    return rotated


@pytest.fixture(scope="session")
def write_scan() -> Callable[..., Path]:
    """Writes a NIfTI file whose values are a linear function of the position, so that every resampling
    inside the field of view keeps them; a second channel holds another function."""

    def write(path: Path, shape: tuple[int, ...], affine: Array, shift: float = 0.0) -> Path:
        world = np.moveaxis(np.indices(shape[:3]), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
        values = (world - world.mean((0, 1, 2))) @ np.array([0.05, -0.03, 0.02]) + 1.5 + shift
        if len(shape) == 4:
            values = np.stack([values * (1 - 0.7 * i) for i in range(shape[3])], axis=-1)
        image = nib.Nifti1Image(values.astype(np.float32), affine)
        image.set_qform(affine, 1)
        image.set_sform(affine, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(image, path)
        return path

    return write


@pytest.fixture(scope="session")
def make_network() -> Callable[..., nn.Module]:
    """A small curved network, seeded and in eval mode, for images of any size."""
    return _network


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    """A MONAI classification bundle in a folder: config, metadata and weights."""

    def make(
        root: Path,
        dims: int = 3,
        channels: int = 1,
        classes: int = 3,
        steps: list[dict[str, Any]] | None = None,
        config: str = "inference.json",
        state: Callable[[dict[str, Any]], Any] = dict,
    ) -> Path:
        content = {
            "imports": ["$import torch"],
            "network_def": _network_expression(dims, channels, classes),
            "preprocessing": {"_target_": "Compose", "transforms": _steps(dims) if steps is None else steps},
        }
        (root / "configs").mkdir(parents=True)
        (root / "models").mkdir()
        text = json.dumps(content) if config.endswith("json") else yaml.safe_dump(content)
        (root / "configs" / config).write_text(text, encoding="utf-8")
        (root / "configs" / "metadata.json").write_text(json.dumps(_metadata(dims, channels, classes)), encoding="utf-8")
        torch.save(state(_network(dims, channels, classes).state_dict()), root / "models" / "model.pt")
        return root

    return make


def rotated(spacing: tuple[float, ...], vector: tuple[float, ...], flip: bool = False) -> Array:
    """Affine: columns of length `spacing`, turned by Rodrigues' formula; the first axis reversed where `flip`."""
    angle = float(np.linalg.norm(vector))
    x, y, z = np.asarray(vector) / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    affine[:3, :3] *= np.asarray(spacing) * (-1 if flip else 1, 1, 1)
    affine[:3, 3] = (-73.25, 41.5, 118.75)
    return affine


def _blank_png() -> bytes:
    content = io.BytesIO()
    Image.new("L", (1, 1)).save(content, "png")
    return content.getvalue()


def _corners(affine: Array, shape: tuple[int, ...]) -> Array:
    indices = np.array(list(itertools.product(*[(0, size - 1) for size in (*shape, 1)[:3]])))
    return np.asarray(indices @ affine[:3, :3].T + affine[:3, 3])


def _read_itk(path: Path) -> Volume:
    image = itk.imread(str(path))
    dims = image.GetImageDimension()
    values = itk.array_from_image(image)
    values = values.transpose(*reversed(range(dims)), *range(dims, values.ndim))
    shape = (*values.shape[:dims], 1)[:3]

    def place(*index: int) -> Array:
        point = np.zeros(3)
        point[:dims] = image.TransformIndexToPhysicalPoint(index[:dims])
        return point * RAS_FROM_LPS

    affine = np.eye(4)
    affine[:3, 3] = place(0, 0, 0)
    for axis in range(dims):
        affine[:3, axis] = place(*np.eye(3, dtype=int)[axis].tolist()) - affine[:3, 3]
    corners = np.array([place(*index) for index in itertools.product(*[(0, size - 1) for size in shape])])
    return Volume(values, affine, corners)


def _network(dims: int = 3, channels: int = 1, classes: int = 3) -> nn.Module:
    convolution, pool = (nn.Conv2d, nn.AdaptiveAvgPool2d) if dims == 2 else (nn.Conv3d, nn.AdaptiveAvgPool3d)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7 + dims)
        layers = (convolution(channels, 4, 3, padding=1), nn.GELU(), pool(2), nn.Flatten(), nn.Linear(4 * 2**dims, classes))
    return nn.Sequential(*layers).eval()


def _network_expression(dims: int, channels: int, classes: int) -> str:
    layers = (
        f"torch.nn.Conv{dims}d({channels}, 4, 3, padding=1), torch.nn.GELU(), torch.nn.AdaptiveAvgPool{dims}d(2), "
        f"torch.nn.Flatten(), torch.nn.Linear({4 * 2**dims}, {classes})"
    )
    return f"$torch.nn.Sequential({layers})"


def _steps(dims: int) -> list[dict[str, Any]]:
    load = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd", "keys": "image"}]
    if dims == 2:
        return [*load, {"_target_": "Resized", "keys": "image", "spatial_size": [12, 10]}]
    return [
        *load,
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
        {"_target_": "Spacingd", "keys": "image", "pixdim": [2.0, 2.5, 3.0]},
        {"_target_": "Resized", "keys": "image", "spatial_size": [9, 8, 7]},
    ]


def _metadata(dims: int, channels: int, classes: int) -> dict[str, Any]:
    size = [12, 10] if dims == 2 else [9, 8, 7]
    names = {str(i): f"class {i}" for i in range(classes)}
    return {
        "name": "tiny",
        "version": "9.8.7",
        "network_data_format": {
            "inputs": {"image": {"num_channels": channels, "spatial_shape": size}},
            "outputs": {"pred": {"num_channels": classes, "channel_def": names}},
        },
    }
