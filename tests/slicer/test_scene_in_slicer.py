"""Scenes opened by 3D Slicer's own libraries: places, windows, colours, views and tables as they come out there.

The libraries live in an environment of their own, whose Python the environment variable IFIM_SLICER_PYTHON names
(`pip install "trame-slicer[standalone]"`); the judge beside this file runs in it.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from monai_ifim.display.color_tables import sensitivity_table, signed_table
from monai_ifim.io.maps import MapContent
from synthetic_case import LABEL_NAMES, MAPS, UNIT, place_of, write_bundle_file, write_scene_file, write_synthetic_case

Array = npt.NDArray[Any]
Shape = tuple[int, int, int]
WIDTH, HEIGHT = 460, 340
LEGEND_FROM = 300  # pixel column from which a picture may hold the colour bar; fields of view are narrower
SOURCE = "Image (Hounsfield units)"
SENSITIVITY, HIGH, LOW = f"Sensitivity (nats per ({UNIT})^2)", "Sensitive part (high)", "Insensitive part (low)"
VIEWS = ("Red", "Green", "Yellow")
THICK = ("oblique", "coronal", "sagittal", "two-channels", "network-space", "odd 100% 'name' & é", "moved")
FLAT = ("tilted-slice", "photograph")
ALL = [*THICK, *FLAT]


def source_of(sidecar: dict[str, Any]) -> dict[str, Any] | None:
    """The entry of the scan among the files, where it is one."""
    return next((file for file in sidecar["files"] if file["kind"] == "source"), None)


class Opened(NamedTuple):
    """A case and the judge's report of its scene. blob: the one voxel where sensitivity is not zero."""

    folder: Path
    shape: Shape
    affine: Array
    blob: Shape
    sidecar: dict[str, Any]
    report: dict[str, Any]

    @property
    def image(self) -> str:
        """Name of the volume in the background."""
        return SOURCE if source_of(self.sidecar) else "Image as the network saw it"


@pytest.fixture(scope="module")
def opened(
    tmp_path_factory: pytest.TempPathFactory, slicer_python: str, oblique: Array, turned: Callable[..., Array]
) -> dict[str, Opened]:
    """Every case's scene, and the oblique one's bundle, loaded in one Slicer session."""
    root = tmp_path_factory.mktemp("scenes")
    coronal, sagittal = np.eye(4), np.eye(4)
    coronal[:3] = [[-0.9, 0, 0, 40.0], [0, 0, 3.1, -12.5], [0, -1.3, 0, 77.0]]
    sagittal[:3] = [[0, 0, 2.7, -9.0], [-1.1, 0, 0, 30.25], [0, -1.4, 0, -21.0]]
    grids: dict[str, tuple[Shape, Array, Shape]] = dict.fromkeys(THICK, ((19, 15, 11), oblique, (13, 4, 7)))
    grids["segmented"] = grids["oblique"]
    grids["coronal"] = ((21, 17, 9), coronal, (15, 5, 6))
    grids["sagittal"] = ((17, 23, 7), sagittal, (4, 16, 5))
    grids["tilted-slice"] = ((23, 1, 15), turned((1.2, 5.0, 2.1), (0.2, 0.1, -0.15), flip=True), (6, 0, 4))
    grids["photograph"] = ((24, 18, 1), np.diag([-1.0, -1.0, 1.0, 1.0]), (5, 4, 0))
    made: dict[str, tuple[Path, dict[str, Any]]] = {}
    for name, (shape, affine, blob) in grids.items():
        channels, source = (2 if name == "two-channels" else 1), name not in ("two-channels", "network-space")
        contents = (*MAPS, "labels") if name == "segmented" else MAPS
        sidecar = write_synthetic_case(root / name, shape, affine, blob, contents, channels, source)
        place = place_of(affine, blob)
        scene = write_scene_file(root / name, sidecar, (place[0], place[1], place[2]))
        made[name] = (scene, sidecar)
    moved = root / "elsewhere" / "moved"
    moved.parent.mkdir()
    (root / "moved").rename(moved)
    made["moved"] = (moved / "moved.mrml", made["moved"][1])
    made["bundle"], grids["bundle"] = (write_bundle_file(made["oblique"][0]), made["oblique"][1]), grids["oblique"]
    reports = _judged(slicer_python, [scene for scene, _ in made.values()], tmp_path_factory.mktemp("pictures"))
    return {name: Opened(scene.parent, *grids[name], sidecar, reports[str(scene)]) for name, (scene, sidecar) in made.items()}


def _judged(python: str, scenes: list[Path], pictures: Path) -> dict[str, Any]:
    judge = Path(__file__).with_name("judge.py")
    command = [python, str(judge), str(pictures), str(WIDTH), str(HEIGHT), *map(str, scenes)]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["VTK_DEFAULT_OPENGL_WINDOW"] = "vtkEGLRenderWindow"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"the judge ended with {done.returncode}: {done.stderr[-2000:]}"
    return dict(json.loads(done.stdout))


def _voxel(case: Opened) -> Array:
    """Lengths of a voxel's edges in mm."""
    return np.asarray(np.linalg.norm(case.affine[:3, :3], axis=0))


def _picture(case: Opened, view: str) -> Array:
    """Pixels [rows, columns, RGB], rows from the bottom as the view counts them, without the colour bar."""
    return np.asarray(Image.open(case.report["pictures"][view]), dtype=float)[::-1, :LEGEND_FROM]


def _colored(picture: Array) -> Array:
    return np.asarray(np.ptp(picture, axis=2) > 20)


def _places(case: Opened, view: str, chosen: Array) -> Array:
    """RAS mm [pixels, 3] of the chosen pixels."""
    rows, columns = np.nonzero(chosen)
    points = np.column_stack([columns, rows, np.zeros_like(rows), np.ones_like(rows)])
    return np.asarray((np.array(case.report["slices"][view]["xy_to_ras"]) @ points.T)[:3].T)


@pytest.mark.parametrize("name", [*ALL, "bundle"])
def test_scene_loads_without_a_word_of_complaint(opened: dict[str, Opened], name: str) -> None:
    report = opened[name].report
    assert report["errors"] == []
    assert report["version"] == "Slicer 5.0.3 30893"


@pytest.mark.parametrize("name", [*ALL, "bundle"])
def test_every_volume_lies_where_nibabel_says(opened: dict[str, Opened], name: str) -> None:
    case = opened[name]
    named = [file["file"] for file in case.sidecar["files"]]
    volumes = case.report["volumes"].values()
    assert len(volumes) == len(named)
    image = nib.load(case.folder / named[0])
    corners = {tuple(np.round(place_of(image.affine, index), 3)) for index in _ends(image.shape)}
    for volume in volumes:
        assert sorted(volume["dimensions"]) == sorted(image.shape)
        found = {tuple(np.round(place_of(np.array(volume["ijk_to_ras"]), index), 3)) for index in _ends(volume["dimensions"])}
        assert all(min(np.abs(np.subtract(one, other)).max() for other in corners) <= 2e-3 for one in found)


def _ends(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*[(0, size - 1) for size in shape]))


@pytest.mark.parametrize("name", [*ALL, "bundle"])
def test_planted_voxel_is_at_its_place(opened: dict[str, Opened], name: str) -> None:
    case = opened[name]
    off = np.subtract(case.report["volumes"][SENSITIVITY]["brightest"], place_of(case.affine, case.blob))
    assert np.linalg.norm(off) < 1e-3 * _voxel(case).min()  # half a voxel is asked for


@pytest.mark.parametrize(("name", "view"), [*itertools.product(THICK, VIEWS), *itertools.product(FLAT, ["Red"])])
def test_planted_voxel_is_pictured_at_its_place_and_nothing_else_is_coloured(
    opened: dict[str, Opened], name: str, view: str
) -> None:
    case = opened[name]
    truth = place_of(case.affine, case.blob)
    places = _places(case, view, _colored(_picture(case, view)))
    assert len(places) > 20
    away = np.abs(np.linalg.inv(case.affine[:3, :3]) @ (places - truth).T)  # in voxels
    assert away.max() < 1.05  # linear interpolation ends one voxel away
    middle = np.linalg.inv(case.affine[:3, :3]) @ (places.mean(0) - truth)
    assert np.abs(middle).max() < 0.25  # half a voxel is asked for


@pytest.mark.parametrize(("name", "view"), [*itertools.product(ALL, VIEWS)])
def test_view_holds_the_whole_volume_with_the_patients_right_on_the_left(opened: dict[str, Opened], name: str, view: str) -> None:
    case = opened[name]
    seen = case.report["slices"][view]
    assert seen["pixels"][:2] == [WIDTH, HEIGHT]
    to_pixels = np.linalg.inv(np.array(seen["xy_to_ras"]))
    ends = list(itertools.product(*[(-0.5, size - 0.5) for size in case.shape]))
    pixels = np.array([(to_pixels @ np.append(place_of(case.affine, index), 1))[:2] for index in ends])
    assert (pixels >= 0).all()
    assert (pixels <= (WIDTH, HEIGHT)).all()
    assert max(np.ptp(pixels, axis=0) / (WIDTH, HEIGHT)) > 0.85
    right, up = (np.array(seen["slice_to_ras"])[:3, axis] for axis in (0, 1))
    towards = {"Sagittal": ((0, -1, 0), (0, 0, 1)), "Coronal": ((-1, 0, 0), (0, 0, 1)), "Axial": ((-1, 0, 0), (0, 1, 0))}
    plane = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}[view]
    plane = {"tilted-slice": "Coronal", "photograph": "Axial"}.get(name, plane)
    assert right @ towards[plane][0] > 0.9
    assert up @ towards[plane][1] > 0.9


def test_anatomy_is_pictured_in_its_window_where_nothing_lies_over_it(opened: dict[str, Opened]) -> None:
    """Pixels of the photograph against its file: row by row, column by column, grey by grey."""
    case = opened["photograph"]
    picture = _picture(case, "Red")
    values = np.asarray(nib.load(case.folder / source_of(case.sidecar)["file"]).dataobj, dtype=float)[..., 0]
    low, high = source_of(case.sidecar)["window"]
    to_pixels = np.linalg.inv(np.array(case.report["slices"]["Red"]["xy_to_ras"]))
    checked = 0
    for i, j in itertools.product(range(24), range(18)):
        column, row = np.rint((to_pixels @ np.append(place_of(case.affine, (i, j, 0)), 1))[:2]).astype(int)
        if column < LEGEND_FROM and max(abs(i - 5), abs(j - 4)) > 1:
            expected = 255 * (values[i, j] - low) / (high - low)
            np.testing.assert_allclose(picture[row, column], expected, atol=6)
            checked += 1
    assert checked > 250


@pytest.mark.parametrize("name", ALL)
def test_windows_and_colours_are_those_meant(opened: dict[str, Opened], name: str) -> None:
    case = opened[name]
    volumes = case.report["volumes"]
    tables = {SENSITIVITY: ("Sensitivity", sensitivity_table()), HIGH: ("Below and above zero", signed_table())}
    for volume, (table, colors) in tables.items():
        assert volumes[volume]["colors"] == table
        np.testing.assert_allclose(np.array(volumes[volume]["table"]) * 255, colors, atol=0.51)
        assert [title.splitlines()[0] for title in volumes[volume]["legends"]] == [volume.partition(" (nats")[0]]
        assert " ".join(volumes[volume]["legends"][0].splitlines()[1:]).endswith(UNIT if volume == HIGH else f"({UNIT})^2")
    windows = {MapContent.of(file).label: file["window"] for file in case.sidecar["files"]}
    windows["image"] = (source_of(case.sidecar) or case.sidecar["files"][0])["window"]
    for volume, content in ((SENSITIVITY, "sensitivity"), (HIGH, "high"), (LOW, "low"), (case.image, "image")):
        np.testing.assert_allclose(volumes[volume]["window"], windows[content], rtol=1e-6, atol=1e-9)
        assert not volumes[volume]["automatic"]
    assert volumes[case.image]["colors"] == volumes[LOW]["colors"] == "Grey"


@pytest.mark.parametrize("name", THICK)
def test_three_planes_show_the_image_under_half_the_sensitivity(opened: dict[str, Opened], name: str) -> None:
    report = opened[name].report
    ids = {volume: facts["id"] for volume, facts in report["volumes"].items()}
    for view in VIEWS:
        shown = {"background": ids[opened[name].image], "foreground": ids[SENSITIVITY], "opacity": 0.5, "linked": True}
        shown |= {"labels": None}
        assert report["composites"][view] == shown
        assert report["slices"][view]["in_3d"]
    assert [report["slices"][view]["orientation"] for view in VIEWS] == ["Axial", "Coronal", "Sagittal"]
    assert report["layout"]["arrangement"] == 36
    views = ["vtkMRMLViewNode1", "vtkMRMLPlotViewNodePlotView1", *(f"vtkMRMLSliceNode{view}" for view in VIEWS)]
    assert report["layout"]["views"] == views


@pytest.mark.parametrize("name", FLAT)
def test_single_slice_is_shown_three_times_and_no_view_stays_dark(opened: dict[str, Opened], name: str) -> None:
    report = opened[name].report
    ids = {facts["id"]: volume for volume, facts in report["volumes"].items()} | {None: None}
    shown = [(ids[report["composites"][view][layer]]) for view in VIEWS for layer in ("background", "foreground")]
    assert shown == [SOURCE, SENSITIVITY, SOURCE, HIGH, LOW, None]
    assert report["layout"]["arrangement"] == 37
    for view in VIEWS:
        assert (_picture(opened[name], view).max(axis=2) > 8).mean() > 0.4


@pytest.mark.parametrize("name", ["oblique", "photograph", "bundle", "moved"])
def test_spectrum_is_a_table_of_numbers_and_plotted(opened: dict[str, Opened], name: str) -> None:
    report = opened[name].report
    table = report["tables"]["Sensitivity by component"]
    assert table["Component"] == [1, 2, 3]
    assert table["Sensitivity"] == opened[name].sidecar["eigenvalues"]
    np.testing.assert_allclose(table["Share of the total (%)"], [60, 16, 5])
    np.testing.assert_equal(table["Holds up to (% of |x|)"], [2.0, np.nan, np.nan])
    plotted = {"type": "ScatterBar", "table": "Sensitivity by component", "x": "Component", "y": "Share of the total (%)"}
    assert report["charts"] == [{"title": "Sensitivity by component (answer: lesion)", **plotted}]


@pytest.mark.parametrize("name", ALL)
def test_camera_of_the_3d_view_looks_at_the_volume(opened: dict[str, Opened], name: str) -> None:
    case = opened[name]
    camera = case.report["camera"]
    assert camera["is_used"]
    np.testing.assert_allclose(camera["focus"], place_of(case.affine, (np.array(case.shape) - 1) / 2), atol=1e-3)
    picture = np.asarray(Image.open(case.report["pictures"]["1"]), dtype=float)
    assert _colored(picture).any()  # the planted voxel


def test_bundle_holds_the_same_as_the_folder(opened: dict[str, Opened]) -> None:
    folder, bundle = opened["oblique"].report, opened["bundle"].report
    differing = {key for key in folder if folder[key] != bundle[key]}
    assert differing <= {"pictures"}


def test_a_segmentation_is_a_label_map_with_its_names_and_outlines_in_every_view(opened: dict[str, Opened]) -> None:
    case = opened["segmented"]
    assert case.report["errors"] == []
    volume = case.report["volumes"]["Segmentation"]
    assert volume["class"] == "vtkMRMLLabelMapVolumeNode"
    assert volume["names"] == list(LABEL_NAMES)  # Slicer reads an underscore as a space
    assert [round(alpha) for *_, alpha in volume["table"]] == [0, 1, 1]
    image = nib.load(case.folder / "segmented_ifim_labels.nii.gz")
    corners = {tuple(np.round(place_of(image.affine, index), 3)) for index in _ends(image.shape)}
    found = {tuple(np.round(place_of(np.array(volume["ijk_to_ras"]), index), 3)) for index in _ends(volume["dimensions"])}
    assert all(min(np.abs(np.subtract(one, other)).max() for other in corners) <= 2e-3 for one in found)
    labels = np.asarray(image.dataobj)
    for view in VIEWS:
        assert case.report["composites"][view]["labels"] == volume["id"]
        assert case.report["slices"][view]["outline"]
        picture = _picture(case, view)
        for value in (1, 2):
            color = 255 * np.array(volume["table"][value][:3])
            places = _places(case, view, np.abs(picture - color).max(2) < 12)
            assert len(places) > 20
            index = np.rint((np.linalg.inv(case.affine) @ np.column_stack([places, np.ones(len(places))]).T)[:3]).astype(int)
            inside = ((index >= 0) & (labels.shape > index.T).T).all(0)
            assert (labels[tuple(index[:, inside])] == value).mean() > 0.75  # an outline is a pixel wide, a voxel several
