"""The 3D Slicer scene as a file: whole, movable, the same each time, and said in words that a clinician understands."""

from __future__ import annotations

import colorsys
import itertools
import shutil
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from monai_ifim.display.color_tables import sensitivity_table, signed_table
from monai_ifim.io.errors import OutputError
from monai_ifim.io.slicer.color_tables import table_text
from synthetic_case import EIGENVALUES, MAPS, UNIT, place_of, write_bundle_file, write_scene_file, write_synthetic_case

Array = npt.NDArray[Any]
SHAPE, BLOB = (9, 13, 7), (6, 3, 5)
SOURCE, INPUT = "Image (Hounsfield units)", "Image as the network saw it"
SENSITIVITY, HIGH, LOW = f"Sensitivity (nats per ({UNIT})^2)", "Sensitive part (high)", "Insensitive part (low)"
BUILT_IN = {"vtkMRMLColorTableNodeGrey"}  # there in every session of 3D Slicer


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, oblique: Array) -> Path:
    """The scene of an oblique, left-handed case with everything saved."""
    folder = tmp_path_factory.mktemp("scene") / "case-1"
    sidecar = write_synthetic_case(folder, SHAPE, oblique, BLOB)
    place = place_of(oblique, BLOB)
    path = write_scene_file(folder, sidecar, (place[0], place[1], place[2]))
    write_bundle_file(path)
    return path


def _nodes(scene: Path, tag: str) -> list[ET.Element]:
    return list(ET.parse(scene).getroot().iter(tag))


def _numbers(node: ET.Element, name: str) -> Array:
    return np.array(node.attrib[name].split(), dtype=float)


def _matrix(node: ET.Element) -> Array:
    return _numbers(node, "sliceToRAS").reshape(4, 4)


def _file_names(scene: Path) -> list[str]:
    return [node.attrib["fileName"] for node in ET.parse(scene).getroot() if "fileName" in node.attrib]


def _layers(scene: Path) -> list[tuple[str | None, str | None]]:
    """Names of background and foreground of Red, Green and Yellow."""
    names = {node.attrib["id"]: node.attrib["name"] for node in _nodes(scene, "Volume")}
    composites = _nodes(scene, "SliceComposite")
    return [(names.get(node.get("backgroundVolumeID", "")), names.get(node.get("foregroundVolumeID", ""))) for node in composites]


def test_every_id_is_given_once_and_every_reference_leads_to_one(scene: Path) -> None:
    root = ET.parse(scene).getroot()
    ids = [node.attrib["id"] for node in root]
    assert len(ids) == len(set(ids))
    referred = {value for node in root for key, value in node.items() if key.endswith("ID")}
    for node in root:
        for role in filter(None, node.get("references", "").split(";")):
            referred |= set(role.partition(":")[2].split())
    assert referred <= set(ids) | BUILT_IN
    assert len(referred) > 20


def test_scene_names_files_beside_it_and_all_of_them_exist(scene: Path) -> None:
    names = _file_names(scene)
    assert len(names) == len(set(names)) == len(MAPS) + 4  # source, two colour tables, spectrum
    assert all("/" not in name and "\\" not in name and (scene.parent / name).is_file() for name in names)


def test_no_written_text_says_where_it_was_made_or_from_whom(scene: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in scene.parent.iterdir() if path.suffix in (".mrml", ".ctbl", ".tsv")]
    assert len(texts) == 5
    assert not [word for text in texts for word in (str(scene.parent.parent), "Zwetschgenbaum") if word in text]


def test_same_case_gives_same_bytes_wherever_it_lies(tmp_path: Path, oblique: Array) -> None:
    written = []
    for place in ("here", "there"):
        folder = tmp_path / place / "case-1"
        if place == "here":
            sidecar = write_synthetic_case(folder, SHAPE, oblique, BLOB)
        else:
            shutil.copytree(
                tmp_path / "here" / "case-1", folder, ignore=shutil.ignore_patterns("*.mrml", "*.mrb", "*.ctbl", "*.tsv")
            )
        bundle = write_bundle_file(write_scene_file(folder, sidecar))
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert bundle.name in written[-1]
    assert written[0] == written[1]


def test_bundle_is_one_folder_with_the_scene_and_its_files(scene: Path) -> None:
    named = _file_names(scene)
    with zipfile.ZipFile(scene.with_suffix(".mrb")) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert {name.partition("/")[0] for name in names} == {"case-1"}
        assert sorted(names) == sorted(f"case-1/{name}" for name in ["case-1.mrml", "case-1_spectrum.schema.tsv", *named])
        for name in names:
            assert archive.read(name) == (scene.parent.parent / name).read_bytes()


def test_bundle_is_absent_where_a_file_is_missing(scene: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(scene.parent, tmp_path / "case-1"))
    (folder / "case-1.mrb").unlink()
    (folder / "case-1_ifim_low.nii.gz").unlink()
    before = sorted(folder.iterdir())
    with pytest.raises(OutputError, match=r"case-1_ifim_low\.nii\.gz.*run the case again"):
        write_bundle_file(folder / "case-1.mrml")
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("spoil", [None, "<MRML><Volume", "<MRML><V fileName='../a.nii.gz'/></MRML>"])
def test_scene_that_cannot_be_read_or_names_other_places_is_not_bundled(spoil: str | None, tmp_path: Path) -> None:
    scene = tmp_path / "case-1.mrml"
    if spoil is not None:
        scene.write_text(spoil, encoding="utf-8")
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(OutputError, match=r"case-1\.mrml: (not a readable scene|names '\.\./a\.nii\.gz').*run the case again"):
        write_bundle_file(scene)
    assert not list(tmp_path.rglob("*.mrb"))


def test_volumes_have_names_that_a_clinician_understands(scene: Path) -> None:
    assert [node.attrib["name"] for node in _nodes(scene, "Volume")] == [
        SOURCE,
        SENSITIVITY,
        HIGH,
        LOW,
        "Component 1 (60.0\xa0% of the sensitivity)",
        "Component 2 (16.0\xa0% of the sensitivity)",
        INPUT,
    ]


def test_further_channels_are_named_and_stay_behind_the_first(tmp_path: Path, oblique: Array) -> None:
    sidecar = write_synthetic_case(tmp_path / "two", SHAPE, oblique, BLOB, ("input", "sensitivity"), channels=2, source=False)
    path = write_scene_file(tmp_path / "two", sidecar)
    names = [node.attrib["name"] for node in _nodes(path, "Volume")]
    assert names == [SENSITIVITY, INPUT, f"{SENSITIVITY}, channel 2", f"{INPUT}, channel 2"]
    assert set(_layers(path)) == {(INPUT, SENSITIVITY)}


def test_windows_are_those_of_the_sidecar_and_signed_ones_centre_on_zero(tmp_path: Path, oblique: Array) -> None:
    sidecar = write_synthetic_case(tmp_path / "case", SHAPE, oblique, BLOB)
    sidecar["files"][3]["window"] = [0.0, 3.3323807157036337e-15]
    displays = _nodes(write_scene_file(tmp_path / "case", sidecar), "VolumeDisplay")
    found = {float(node.attrib["level"]): float(node.attrib["window"]) for node in displays[1:3]}
    assert found == {1.6661903578518169e-15: 3.3323807157036337e-15, 0.0: 2 * sidecar["files"][1]["window"][1]}
    assert {node.attrib["autoWindowLevel"] for node in displays} == {"0"}


def test_stored_scale_is_part_of_the_unit(tmp_path: Path, oblique: Array) -> None:
    sidecar = write_synthetic_case(tmp_path / "case", SHAPE, oblique, BLOB, ("input", "sensitivity"))
    sidecar["files"][1]["scale"] = 1e-30
    path = write_scene_file(tmp_path / "case", sidecar)
    assert _nodes(path, "Volume")[1].attrib["name"] == f"Sensitivity (1e-30 x nats per ({UNIT})^2)"
    assert _nodes(path, "ColorLegendDisplay")[0].attrib["titleText"].startswith("Sensitivity\n1e-30 x nats per")


@pytest.mark.parametrize(
    ("saved", "shown"),
    [
        (MAPS, SENSITIVITY),
        (("input", "high", "low", "eigenvector 1"), HIGH),
        (("input", "low", "eigenvector 1"), "Component 1 (60.0\xa0% of the sensitivity)"),
        (("input", "low"), None),
    ],
    ids=["all", "no sensitivity", "no high", "nothing to lay over"],
)
@pytest.mark.parametrize("source", [True, False], ids=["source", "no source"])
def test_foreground_is_the_best_that_was_saved(
    tmp_path: Path, oblique: Array, saved: tuple[str, ...], shown: str | None, source: bool
) -> None:
    sidecar = write_synthetic_case(tmp_path / "case", SHAPE, oblique, BLOB, saved, source=source)
    path = write_scene_file(tmp_path / "case", sidecar)
    assert _layers(path) == [(SOURCE if source else INPUT, shown)] * 3
    assert {node.attrib["foregroundOpacity"] for node in _nodes(path, "SliceComposite")} == {"0.5" if shown else "0"}


def test_views_hold_the_whole_volume_and_pass_through_the_point(scene: Path, oblique: Array) -> None:
    corners = np.array([place_of(oblique, index) for index in itertools.product(*[(-0.5, size - 0.5) for size in SHAPE])])
    slices = _nodes(scene, "Slice")
    assert [node.attrib["orientation"] for node in slices] == ["Axial", "Coronal", "Sagittal"]
    for node in slices:
        matrix, field = _matrix(node), _numbers(node, "fieldOfView")
        seen = (np.linalg.inv(matrix) @ np.column_stack([corners, np.ones(8)]).T)[:2].T
        assert (np.abs(seen) <= field[:2] / 2).all()
        assert (np.ptp(seen, axis=0) > 0.9 * field[:2]).all()  # and fill it
        pixels = _numbers(node, "dimensions")
        np.testing.assert_allclose(field[0] / pixels[0], field[1] / pixels[1])
        height = np.linalg.inv(matrix) @ np.append(place_of(oblique, BLOB), 1)
        assert abs(height[2]) < 1e-9


def test_without_a_point_slices_pass_through_the_centre(tmp_path: Path, oblique: Array) -> None:
    path = write_scene_file(tmp_path / "case", write_synthetic_case(tmp_path / "case", SHAPE, oblique, BLOB))
    centre = place_of(oblique, (np.array(SHAPE) - 1) / 2)
    for node in _nodes(path, "Slice"):
        np.testing.assert_allclose(_matrix(node)[:3, 3], centre)


SEEN_FROM = {"axial": ((-1, 0, 0), (0, 1, 0)), "coronal": ((-1, 0, 0), (0, 0, 1)), "sagittal": ((0, -1, 0), (0, 0, 1))}
EXTENT = (21 * 0.7, 11 * 1.9)  # mm across and up


@pytest.mark.parametrize("thin", [0, 1, 2])
@pytest.mark.parametrize("view", SEEN_FROM)
def test_single_slice_is_seen_face_to_face_as_radiologists_look_at_it(
    tmp_path: Path, turned: Callable[..., Array], view: str, thin: int
) -> None:
    """A slice tilted by some degrees, with its array axes in any direction and the single one first, second or last."""
    right, up = (np.array(axis, dtype=float) for axis in SEEN_FROM[view])
    tilt = turned((1.0, 1.0, 1.0), (0.11, -0.07, 0.13))[:3, :3]
    across, upward = (axis for axis in range(3) if axis != thin)
    axes, shape = np.zeros((3, 3)), [1, 1, 1]
    axes[:, across], axes[:, upward], axes[:, thin] = 0.7 * right, 1.9 * up, 5.0 * np.cross(right, up)
    shape[across], shape[upward] = 21, 11
    for i, flips in enumerate(itertools.product((1, -1), repeat=3)):
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = tilt @ axes * flips, (12.0, -80.5, 33.25)
        folder = tmp_path / f"flat-{i}"
        path = write_scene_file(
            folder, write_synthetic_case(folder, (shape[0], shape[1], shape[2]), affine, (0, 0, 0), ("input",))
        )
        for node in _nodes(path, "Slice"):
            matrix, field = _matrix(node), _numbers(node, "fieldOfView")
            np.testing.assert_allclose(matrix[:3, 0], tilt @ right, atol=1e-12)
            np.testing.assert_allclose(matrix[:3, 1], tilt @ up, atol=1e-12)
            np.testing.assert_allclose(matrix[:3, 3], place_of(affine, (np.array(shape) - 1) / 2))
            assert "orientation" not in node.attrib  # of its own; 3D Slicer 5.11 complains of "Reformat"
            assert (field[:2] > EXTENT).all()
            assert (field[:2] < 1.1 * np.array(EXTENT)).all()
        camera = _nodes(path, "Camera")[0]
        towards = _numbers(camera, "position") - _numbers(camera, "focalPoint")
        np.testing.assert_allclose(towards / np.linalg.norm(towards), tilt @ np.cross(right, up), atol=1e-9)  # not mirrored


def test_photograph_stands_upright_in_three_pictures(tmp_path: Path) -> None:
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])  # where ITK and 3D Slicer place a picture without a world frame
    path = write_scene_file(tmp_path / "photo", write_synthetic_case(tmp_path / "photo", (24, 18, 1), affine, (5, 4, 0)))
    for node in _nodes(path, "Slice"):
        assert node.attrib["orientation"] == "Axial"
        np.testing.assert_array_equal(_matrix(node)[:3, 3], place_of(affine, (11.5, 8.5, 0)))
    assert _layers(path) == [(SOURCE, SENSITIVITY), (SOURCE, HIGH), (LOW, None)]
    assert [node.attrib["sliceVisibility"] for node in _nodes(path, "Slice")] == ["true", "false", "false"]
    assert {node.attrib["linkedControl"] for node in _nodes(path, "SliceComposite")} == {"0"}


def test_any_class_name_is_said_and_breaks_nothing(tmp_path: Path, oblique: Array) -> None:
    name = "a < b & \"c\" 'd' > %41 é ]]> \x07 {{ 7 }}"
    path = write_scene_file(tmp_path / "case", write_synthetic_case(tmp_path / "case", SHAPE, oblique, BLOB, answer=name))
    chart = _nodes(path, "PlotChart")[0]
    assert chart.attrib["title"] == f"Sensitivity by component (answer: {name})".replace("\x07", "?")


def test_scene_of_a_saturated_answer_is_grey_without_overlays_and_says_so(tmp_path: Path, oblique: Array) -> None:
    sidecar = write_synthetic_case(tmp_path / "case", SHAPE, oblique, BLOB)
    usual = write_scene_file(tmp_path / "case", sidecar)
    windows = [(node.attrib["window"], node.attrib["level"]) for node in _nodes(usual, "VolumeDisplay")]
    path = write_scene_file(tmp_path / "case", sidecar | {"saturation": {"nats": 1e-9, "saturated": True}})
    assert (
        _nodes(path, "PlotChart")[0].attrib["title"]
        == "Sensitivity by component (answer: lesion), saturated: nothing here moves the answer"
    )
    assert {node.attrib["colorNodeID"] for node in _nodes(path, "VolumeDisplay")} == {"vtkMRMLColorTableNodeGrey"}
    assert [overlay for _, overlay in _layers(path)] == [None] * 3
    assert [(node.attrib["window"], node.attrib["level"]) for node in _nodes(path, "VolumeDisplay")] == windows


def test_file_names_are_encoded_as_slicer_decodes_them(tmp_path: Path, oblique: Array) -> None:
    folder = tmp_path / "100% 'odd' & größer"
    path = write_scene_file(folder, write_synthetic_case(folder, SHAPE, oblique, BLOB, ("input",)))
    assert "100%25%20%27odd%27%20&%20größer_ifim_input.nii.gz" in _file_names(path)
    with zipfile.ZipFile(write_bundle_file(path)) as archive:
        assert f"{folder.name}/{folder.name}_ifim_input.nii.gz" in archive.namelist()


def test_spectrum_reads_back_exactly(scene: Path) -> None:
    table = pd.read_csv(scene.with_name("case-1_spectrum.tsv"), sep="\t")
    assert table["Component"].tolist() == [1, 2, 3]
    assert table["Sensitivity"].tolist() == list(EIGENVALUES)
    np.testing.assert_allclose(table["Share of the total (%)"], [60.0, 16.0, 5.0])
    assert table["Holds up to (% of |x|)"][0] == 2.0
    assert table["Holds up to (% of |x|)"][1:].isna().all()
    schema = pd.read_csv(scene.with_name("case-1_spectrum.schema.tsv"), sep="\t")
    assert schema["columnName"].tolist() == table.columns.tolist()
    assert schema["type"].tolist() == ["int", "double", "double", "double"]


def test_a_scene_is_made_where_numbers_are_not_finite(tmp_path: Path, oblique: Array) -> None:
    sidecar = write_synthetic_case(tmp_path / "case", SHAPE, oblique, BLOB)
    path = write_scene_file(tmp_path / "case", sidecar | {"trace": None, "eigenvalues": [None, 0.25, 0.0]})
    table = pd.read_csv(path.with_name("case_spectrum.tsv"), sep="\t")
    assert table["Component"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(table["Sensitivity"], [np.nan, 0.25, 0.0])
    assert table["Share of the total (%)"].isna().all()
    (chart,) = _nodes(path, "PlotChart")
    assert chart.attrib["yAxisRange"] == "0 1.0"
    assert not any("of the sensitivity)" in node.attrib["name"] for node in _nodes(path, "Volume"))


def test_lower_bounds_are_said_in_the_table(tmp_path: Path, oblique: Array) -> None:
    sidecar = write_synthetic_case(tmp_path / "case", SHAPE, oblique, BLOB)
    path = write_scene_file(tmp_path / "case", sidecar | {"locality_is_lower_bound": True})
    assert "Holds up to at least (% of |x|)" in pd.read_csv(path.with_name("case_spectrum.tsv"), sep="\t").columns


@pytest.mark.parametrize(
    ("index", "orientation", "edge"),
    [((11, 8, 4), "Vertical", "right"), ((2, 8, 4), "Vertical", "right"), ((21, 8, 4), "Vertical", "left")],
)
def test_colour_bars_are_away_from_the_most_sensitive_point(
    tmp_path: Path, index: tuple[int, int, int], orientation: str, edge: str
) -> None:
    """In axial and coronal views the patient's right is at the left: with this affine the largest index is at the right."""
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    shape = (24, 17, 9)
    folder = tmp_path / "case"
    point = tuple(float(place) for place in place_of(affine, index))
    path = write_scene_file(folder, write_synthetic_case(folder, shape, affine, index), (point[0], point[1], point[2]))
    bars = _nodes(path, "ColorLegendDisplay")
    assert bars
    for bar in bars:
        across = _numbers(bar, "position")[0]
        assert (bar.attrib["orientation"], across) == (orientation, {"right": 0.98, "left": 0.02}[edge])


def test_colour_bars_lie_below_or_above_where_views_leave_no_side_free(tmp_path: Path) -> None:
    """The spot is at the right of the axial view and at the left of the sagittal one."""
    affine, shape, index = np.diag([-1.0, 1.0, 1.0, 1.0]), (24, 17, 9), (22, 15, 4)
    folder = tmp_path / "case"
    point = place_of(affine, index)
    sidecar = write_synthetic_case(folder, shape, affine, index)
    path = write_scene_file(folder, sidecar, (float(point[0]), float(point[1]), float(point[2])))
    assert {bar.attrib["orientation"] for bar in _nodes(path, "ColorLegendDisplay")} == {"Horizontal"}
    assert {tuple(_numbers(bar, "size")) for bar in _nodes(path, "ColorLegendDisplay")} == {(0.55, 0.12)}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda sidecar: sidecar["files"][0].pop("kind"), "kind"),
        (lambda sidecar: sidecar["files"][1].pop("window"), "window"),
        (lambda sidecar: sidecar["files"][1].update(window=[1.0, 1.0]), "window of .* is empty"),
        (lambda sidecar: sidecar["files"][1].update(window=None), "TypeError"),
        (lambda sidecar: sidecar["files"][1].update(kind="halo"), "halo"),
        (lambda sidecar: sidecar.update(files=sidecar["files"][1:-1]), "no image"),
        (lambda sidecar: sidecar.update(files=[]), "IndexError"),
        (lambda sidecar: sidecar.update(trace="much"), "ValueError"),
        (lambda sidecar: sidecar["files"][2].update(file="gone.nii.gz"), r"no scene without gone\.nii\.gz"),
    ],
)
def test_spoilt_sidecar_is_refused_with_a_cure_and_leaves_no_scene(
    tmp_path: Path, oblique: Array, spoil: Callable[[dict[str, Any]], None], words: str
) -> None:
    sidecar = write_synthetic_case(tmp_path / "case", SHAPE, oblique, BLOB)
    spoil(sidecar)
    with pytest.raises(OutputError, match=rf"^case: .*{words}.*: run the case again") as caught:
        write_scene_file(tmp_path / "case", sidecar)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "case").glob("*.mrml"))


def test_sensitivity_colours_rise_evenly_and_are_clear_where_there_is_none() -> None:
    table = sensitivity_table()
    steps = np.diff(_lightness(table)[::15])  # finer ones are lost in 8 bits
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.2)
    assert (table[:51, 3] == 0).all()
    assert (table[51:, 3] == 255).all()


def test_signed_colours_are_blue_below_and_red_above_and_clear_between() -> None:
    table = signed_table()
    np.testing.assert_array_equal(table[:, 3], table[::-1, 3])
    assert (table[102:154, 3] == 0).all()
    assert (table[:102, 3] == 255).all()
    lightness = _lightness(table)
    np.testing.assert_allclose(lightness[:102], lightness[::-1][:102], atol=8)  # neither sign outshines the other
    hues = [colorsys.rgb_to_hsv(*(table[i, :3] / 255))[0] * 360 for i in (20, 60, 195, 235)]
    assert all(180 < hue < 260 for hue in hues[:2])
    assert all(hue < 30 or hue > 330 for hue in hues[2:])


def test_colour_table_is_text_that_slicer_5_reads() -> None:
    lines = table_text("sensitivity", sensitivity_table()).splitlines()
    entries = [line.split() for line in lines if not line.startswith("#")]
    assert [int(entry[0]) for entry in entries] == list(range(256))
    assert {len(entry) for entry in entries} == {6}
    assert entries[255][2:] == ["253", "231", "37", "255"]


def _lightness(table: Array) -> Array:
    """CIE L* of sRGB colours."""
    linear = np.where(table[:, :3] / 255 <= 0.04045, table[:, :3] / 255 / 12.92, ((table[:, :3] / 255 + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.asarray(116 * np.cbrt(np.maximum(luminance, 1e-6)) - 16)
