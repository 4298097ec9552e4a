"""The segmentation of a case, from the network's answer to the file, the page and the scene, on an oblique scan."""

from __future__ import annotations

import base64
import csv
import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy.ndimage import map_coordinates
from torch import nn
from typer.testing import CliRunner

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.cli.main import app

Array = npt.NDArray[Any]
SHAPE = (11, 9, 13)
EDGES = (0.9, 1.7)  # intensities at which the network changes its label
NAMES = {"0": "background", "1": "tumour", "2": "oedema"}
STEPS = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
    {"_target_": "Orientationd", "keys": "image", "axcodes": "LAS", "labels": None},
    {"_target_": "Spacingd", "keys": "image", "pixdim": [1.4, 1.9, 2.6]},
]
CROP = {"_target_": "CenterSpatialCropd", "keys": "image", "roi_size": [8, 7, 9]}
pytestmark = pytest.mark.usefixtures("blank_figure")


@pytest.fixture
def make_segmenter(tmp_path: Path, make_bundle: Callable[..., Path]) -> Callable[..., Path]:
    """A bundle whose network labels each voxel by its intensity."""

    def make(names: dict[str, str] | None = None, steps: list[dict[str, Any]] | None = None, dims: int = 3) -> Path:
        root = make_bundle(tmp_path / "segmenter", dims=dims, steps=steps or STEPS)
        config = json.loads((root / "configs" / "inference.json").read_text())
        config["network_def"] = {"_target_": f"torch.nn.Conv{dims}d", "in_channels": 1, "out_channels": 3, "kernel_size": 1}
        (root / "configs" / "inference.json").write_text(json.dumps(config))
        metadata = json.loads((root / "configs" / "metadata.json").read_text())
        metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = NAMES if names is None else names
        metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] = ["*"] * dims
        (root / "configs" / "metadata.json").write_text(json.dumps(metadata))
        network = nn.Conv3d(1, 3, 1) if dims == 3 else nn.Conv2d(1, 3, 1)
        with torch.no_grad():
            network.weight.copy_(torch.tensor([0.0, 6.0, 12.0]).reshape(3, *[1] * (dims + 1)))
            network.bias.copy_(torch.tensor([0.0, -6 * EDGES[0], -6 * (EDGES[0] + EDGES[1])]))
        torch.save(network.state_dict(), root / "models" / "model.pt")
        return root

    return make


@pytest.fixture
def scan(tmp_path: Path, write_scan: Callable[..., Path], oblique: Array) -> Path:
    return write_scan(tmp_path / "in" / "head.nii.gz", SHAPE, oblique)


def decomposed(bundle: Path, image: Path, output: Path, *words: str, head: str = "volumes") -> dict[str, Any]:
    """The sidecar of the one case."""
    given = ["decompose", str(image), "--bundle", str(bundle), "--output", str(output), "--head", head, "--no-locality", *words]
    result = CliRunner().invoke(app, given, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    (path,) = output.glob("*/*_ifim.json")
    return {"folder": path.parent, **json.loads(path.read_text())}


def label_file(sidecar: dict[str, Any]) -> Path:
    (entry,) = [file for file in sidecar["files"] if file["kind"] == "labels"]
    return Path(sidecar["folder"]) / entry["file"]


def answer_of(bundle: Path, image: Path) -> tuple[Array, Array]:
    """(label of each voxel of the network's grid, that grid's affine)."""
    loaded = load_bundle(bundle)
    prepared = loaded.preprocess(image)
    with torch.no_grad():
        logits = loaded.network(prepared.as_tensor()[None])[0]
    return logits.argmax(0).numpy(), prepared.affine.numpy()


def carried(labels: Array, source: Array, affine: Array, shape: tuple[int, ...], mode: str = "nearest") -> Array:
    """By SciPy's nearest neighbour; -1 beyond the ends with mode "constant"."""
    places = np.linalg.inv(source) @ affine
    index = np.moveaxis(np.moveaxis(np.indices(shape), 0, -1) @ places[:3, :3].T + places[:3, 3], -1, 0)
    return np.asarray(map_coordinates(labels.astype(np.int64), index, order=0, mode=mode, cval=-1))


def dice(first: Array, second: Array) -> float:
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())


def test_the_label_map_is_the_networks_answer_on_the_scans_own_grid(
    tmp_path: Path, make_segmenter: Callable[..., Path], scan: Path, oblique: Array, read_alike: Callable[[Path], Any]
) -> None:
    bundle = make_segmenter()
    sidecar = decomposed(bundle, scan, tmp_path / "out")
    found = read_alike(label_file(sidecar))  # nibabel and ITK agree
    np.testing.assert_allclose(found.affine, oblique, atol=1e-4)
    labels, source = answer_of(bundle, scan)
    wanted = carried(labels, source, oblique, SHAPE)
    for value in range(3):
        assert (wanted == value).sum() > 50
        assert dice(found.values == value, wanted == value) > 0.999
    image = nib.load(label_file(sidecar))
    assert image.get_data_dtype() == np.uint8
    assert image.header.get_intent()[0] == "label"
    stated = sidecar["segmentation"]
    assert (stated["rule"], stated["background"], stated["left_out"]) == ("largest", 0, None)
    voxel = abs(np.linalg.det(oblique[:3, :3])) / 1000
    for value, each in enumerate(stated["labels"]):
        count = int((found.values == value).sum())
        assert (each["value"], each["name"], each["voxels"]) == (value, NAMES[str(value)], count)
        assert each["ml"] == pytest.approx(count * voxel)


def test_labels_lie_where_the_intensities_say(tmp_path: Path, make_segmenter: Callable[..., Path], scan: Path) -> None:
    """The scan is a linear function of the place, which resampling keeps: its own values tell the label of each voxel, but for
    those nearer to an edge than half a voxel of the network's grid."""
    sidecar = decomposed(make_segmenter(), scan, tmp_path / "out")
    values, labels = nib.load(scan).get_fdata(), np.asarray(nib.load(label_file(sidecar)).dataobj)
    half = 0.5 * np.abs(np.array([0.05, -0.03, 0.02])).sum() * 2.6
    apart = np.abs(values[..., None] - np.array(EDGES)).min(-1) > half
    inside = (values > values.min() + 0.15) & (values < values.max() - 0.15)  # of what padding at the border repeats
    assert (apart & inside).sum() > 400
    np.testing.assert_array_equal(labels[apart & inside], np.digitize(values, EDGES)[apart & inside])


def test_independent_labels_are_the_likeliest_above_one_half(
    tmp_path: Path, make_segmenter: Callable[..., Path], scan: Path, oblique: Array
) -> None:
    bundle = make_segmenter({"0": "vessel", "1": "tumour", "2": "oedema"})
    sidecar = decomposed(bundle, scan, tmp_path / "out", head="volumes_bernoulli")
    loaded = load_bundle(bundle)
    prepared = loaded.preprocess(scan)
    with torch.no_grad():
        p = loaded.network(prepared.as_tensor()[None])[0].sigmoid().numpy()
    labels = np.where(p.max(0) > 0.5, p.argmax(0) + 1, 0)
    wanted = carried(labels, prepared.affine.numpy(), oblique, SHAPE)
    found = np.asarray(nib.load(label_file(sidecar)).dataobj)
    assert (found == wanted).mean() > 0.999
    assert len(np.unique(found)) > 2
    assert [each["name"] for each in sidecar["segmentation"]["labels"]] == ["no label", "vessel", "tumour", "oedema"]
    assert "labels may overlap" in sidecar["segmentation"]["meaning"]


def test_the_scans_own_components_have_the_same_label_map(
    tmp_path: Path, make_segmenter: Callable[..., Path], scan: Path
) -> None:
    bundle = make_segmenter()
    native = decomposed(bundle, scan, tmp_path / "native")
    scanner = decomposed(bundle, scan, tmp_path / "scanner", "--space", "scanner")
    first, second = (nib.load(label_file(each)) for each in (native, scanner))
    np.testing.assert_allclose(first.affine, second.affine, atol=1e-5)
    assert (np.asarray(first.dataobj) == np.asarray(second.dataobj)).mean() > 0.999
    assert scanner["segmentation"]["left_out"] is None


@pytest.mark.parametrize(("first", "outside"), [("background", 0), ("cerebellum", 3)])
def test_voxels_that_the_network_did_not_see_are_background_or_a_label_of_their_own(
    tmp_path: Path, make_segmenter: Callable[..., Path], scan: Path, oblique: Array, first: str, outside: int
) -> None:
    bundle = make_segmenter(NAMES | {"0": first}, [*STEPS, CROP])
    sidecar = decomposed(bundle, scan, tmp_path / "out")
    labels, source = answer_of(bundle, scan)
    wanted = carried(np.pad(labels, 1, mode="edge"), source @ shifted(-1), oblique, SHAPE, "constant")
    found = np.asarray(nib.load(label_file(sidecar)).dataobj)
    seen = wanted >= 0
    assert 50 < seen.sum() < 0.9 * seen.size
    assert (found[seen] == wanted[seen]).mean() > 0.995
    far = carried(np.pad(labels, 2, mode="edge"), source @ shifted(-2), oblique, SHAPE, "constant") < 0
    assert (found[far] == outside).all()
    assert far.sum() <= sidecar["segmentation"]["outside"] <= (~seen).sum() + 30
    names = [each["name"] for each in sidecar["segmentation"]["labels"]]
    assert names == [first, "tumour", "oedema", *(["outside of the network's image"] if outside else [])]


def shifted(by: int) -> Array:
    affine = np.eye(4)
    affine[:3, 3] = by
    return affine


class Card(HTMLParser):
    """Legends, captions and pictures of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.path: list[str] = []
        self.captions: list[str] = []
        self.legend: list[list[str]] = []
        self.colors: list[str] = []
        self.pictures: dict[str, list[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "img":
            self.pictures.setdefault(self.captions[-1], []).append(given["src"] or "")
            return
        self.path.append(f"{tag}.{given.get('class') or ''}")
        if tag == "li" and "ul.legend" in self.path:
            self.legend.append([])
        if tag == "i" and "ul.legend" in self.path:
            self.colors.append((given.get("style") or "").removeprefix("background:"))

    def handle_endtag(self, tag: str) -> None:
        while self.path and self.path.pop().partition(".")[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.path and self.path[-1].startswith("figcaption") and data.strip():
            self.captions.append(data.strip())
        elif "ul.legend" in self.path and data.strip():
            self.legend[-1].append(data.strip())


def card_of(output: Path) -> Card:
    page = (output / "index.html").read_text(encoding="utf-8")
    start = page.index("<noscript>")
    card = Card()
    card.feed(page[start : page.index("</noscript>", start)])
    return card


def test_the_page_shows_the_labels_over_the_scan_with_a_legend_of_their_volumes(
    tmp_path: Path, make_segmenter: Callable[..., Path], scan: Path
) -> None:
    sidecar = decomposed(make_segmenter(), scan, tmp_path / "out")
    card = card_of(tmp_path / "out")
    assert card.captions[:2] == ["Image", "Segmentation"]
    largest_first = sorted(sidecar["segmentation"]["labels"][1:], key=lambda each: -each["voxels"])
    assert [row[0] for row in card.legend] == [each["name"] for each in largest_first]
    for row, each in zip(card.legend, largest_first, strict=True):
        number = float(row[1].partition("\N{NO-BREAK SPACE}")[0])
        assert number == pytest.approx(each["ml"], rel=0.01)
        assert "expected" in row[1]
        assert "tolerance" in row[1]
    assert card.colors == ["#E69F00", "#56B4E9"]
    wanted = {tuple(bytes.fromhex(color[1:])) for color in card.colors}
    found = set()
    for source in card.pictures["Segmentation"]:
        picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB")
        found |= {color for _, color in picture.getcolors(2**24) or ()}
    assert wanted <= found  # outlines in the legend's very colours
    assert len(card.pictures["Segmentation"]) == len(card.pictures["Image"]) == 3


def test_verify_and_resume_know_the_label_map(tmp_path: Path, make_segmenter: Callable[..., Path], scan: Path) -> None:
    bundle, output = make_segmenter(), tmp_path / "out"
    sidecar = decomposed(bundle, scan, output)
    path = label_file(sidecar)
    verify = ["verify", str(output), "--bundle", str(bundle), "--input", str(scan)]
    assert CliRunner().invoke(app, verify).exit_code == 0
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    spoilt = CliRunner().invoke(app, verify, env={"COLUMNS": "200"})
    assert spoilt.exit_code != 0
    assert f"{path.name}" in spoilt.output
    decomposed(bundle, scan, output)
    assert path.read_bytes() == before
    path.unlink()
    decomposed(bundle, scan, output)
    assert path.read_bytes() == before


def test_pseudonyms_and_private_folders_hold_for_the_label_map(
    tmp_path: Path, make_segmenter: Callable[..., Path], scan: Path
) -> None:
    output = tmp_path / "out"
    sidecar = decomposed(make_segmenter(), scan, output, "--case-names", "hash", "--private")
    path = label_file(sidecar)
    assert "head" not in path.name
    assert path.is_file()
    assert path.stat().st_mode & 0o077 == 0
    assert not [file for file in output.rglob("*") if "head" in file.name]


def test_a_repetition_compares_the_labels(tmp_path: Path, make_segmenter: Callable[..., Path], scan: Path) -> None:
    bundle = make_segmenter()
    sidecar = decomposed(bundle, scan, tmp_path / "out")
    words = ["decompose", "--from", str(next((tmp_path / "out").glob("*/*_ifim.json"))), "--image", str(scan)]
    words += ["--bundle", str(bundle)]
    result = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "again")], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "segmentation" in result.output
    image = nib.load(label_file(sidecar))
    other = nib.Nifti1Image((np.asarray(image.dataobj) + 1) % 3, image.affine, image.header)
    nib.save(other, label_file(sidecar))
    result = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "third")], env={"COLUMNS": "200"})
    assert result.exit_code == 1, result.output


def test_the_scene_has_a_label_map_with_names_and_colours(
    tmp_path: Path, make_segmenter: Callable[..., Path], scan: Path
) -> None:
    sidecar = decomposed(make_segmenter(NAMES | {"1": "tumour core"}), scan, tmp_path / "out")
    folder = Path(sidecar["folder"])
    root = ET.parse(folder / "head.mrml").getroot()
    (node,) = root.iter("LabelMapVolume")
    (display,) = root.iter("LabelMapVolumeDisplay")
    storages = {each.get("id"): each.get("fileName") for each in root.iter("VolumeArchetypeStorage")}
    storage = (node.get("references") or "").partition("storage:")[2].strip(";")
    assert storages[storage] == label_file(sidecar).name
    assert {each.get("labelVolumeID") for each in root.iter("SliceComposite")} == {node.get("id")}
    tables = {each.get("id"): each.get("references", "") for each in root.iter("ColorTable")}
    of_table = tables[display.get("colorNodeID")].partition("storage:")[2].strip(";")
    (file,) = [each.get("fileName") for each in root.iter("ColorTableStorage") if each.get("id") == of_table]
    lines = [line.split() for line in (folder / str(file)).read_text().splitlines() if not line.startswith("#")]
    assert [line[1] for line in lines] == ["background", "tumour_core", "oedema"]
    assert lines[0][2:] == ["0", "0", "0", "0"]
    assert {line[5] for line in lines[1:]} == {"255"}


def test_expected_volumes_have_columns_in_the_table(tmp_path: Path, make_segmenter: Callable[..., Path], scan: Path) -> None:
    sidecar = decomposed(make_segmenter(), scan, tmp_path / "out")
    with (tmp_path / "out" / "cases.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["decomposed"] == ""
    for name, value in sidecar["prediction"]["mean"].items():
        assert float(row[f"volume (ml): {name}"]) == value


@pytest.mark.parametrize(("head", "said"), [("volumes", "the volume of tumour"), ("voxelwise", "the voxels predicted as tumour")])
def test_part_of_a_segmentation_shows_all_of_it_and_says_which_part_was_decomposed(
    tmp_path: Path, make_segmenter: Callable[..., Path], scan: Path, head: str, said: str
) -> None:
    bundle, output = make_segmenter(), tmp_path / "out"
    words = ["--answer", "tumour", *(["--rank", "1"] if head == "voxelwise" else [])]
    part = decomposed(bundle, scan, output, *words, head=head)
    whole = decomposed(bundle, scan, tmp_path / "whole", "--rank", "1", head=head)
    assert label_file(part).read_bytes() == label_file(whole).read_bytes()
    with (output / "cases.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["decomposed"].startswith(said)
    assert f'<b>Decomposed:</b> <bdi dir="auto">{said}' in (output / "index.html").read_text(encoding="utf-8")
    root = ET.parse(Path(part["folder"]) / "head.mrml").getroot()
    titles = [str(node.get("title")) for node in root.iter("PlotChart")]  # of voxels that answer apart no pair leads
    assert all(title.startswith(f"Sensitivity by component, of {said}") for title in titles)
    assert len(titles) == 1 or head == "voxelwise"


def test_a_photograph_is_segmented_pixel_by_pixel(tmp_path: Path, make_segmenter: Callable[..., Path]) -> None:
    steps = [
        *STEPS[:2],
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 255, "b_min": 0, "b_max": 2.6},
    ]
    steps.append({"_target_": "Resized", "keys": "image", "spatial_size": [14, 20]})
    pixels = np.add.outer(np.arange(22) * 7, np.arange(31) * 3).astype(np.uint8)
    Image.fromarray(pixels.T).save(tmp_path / "photo.png")
    bundle = make_segmenter(steps=steps, dims=2)
    sidecar = decomposed(bundle, tmp_path / "photo.png", tmp_path / "out")
    found = np.asarray(nib.load(label_file(sidecar)).dataobj)[..., 0]
    value = pixels / 255 * 2.6
    apart = np.abs(value[..., None] - np.array(EDGES)).min(-1) > 0.15
    assert apart.sum() > 300
    np.testing.assert_array_equal(found[apart], np.digitize(value, EDGES)[apart])
    assert sidecar["segmentation"]["labels"][1]["ml"] is None
    assert card_of(tmp_path / "out").captions[:2] == ["Image", "Segmentation"]
