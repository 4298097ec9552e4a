"""The view in a notebook, its volumes read back by nibabel, against the tensors and the figure of `plot`."""

from __future__ import annotations

import base64
import gzip
import re
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from matplotlib import colormaps
from torch import Tensor, nn

import monai_ifim
from core_cases import Case
from monai_ifim.core import Decomposition, ImageError, decompose
from monai_ifim.core.errors import IFIMError
from monai_ifim.display.orientation import affine_of

pytest.importorskip("ipyniivue", reason="needs the extra notebook: pip install '.[notebook]'")

PACKAGE = Path(monai_ifim.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
OBLIQUE = np.array([[0.3, -1.9, 0.1, 12.0], [1.4, 0.4, -0.2, -7.0], [0.2, 0.1, 3.1, 5.5], [0.0, 0.0, 0.0, 1.0]])


def decomposed(*shape: int, scale: float = 0.1, seed: int = 0) -> Decomposition:
    """Two images with the shape [channel, *spatial] in a linear network of four classes."""
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 4, dtype=torch.float64)).eval()
    with torch.no_grad():
        network[1].weight.copy_(scale * torch.randn(network[1].weight.shape, generator=generator, dtype=torch.float64))
    images = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return decompose(network, images, head="categorical", energy=1.0)


@pytest.fixture(scope="module")
def volumes() -> Decomposition:
    """Two channels, odd and unequal sizes."""
    return decomposed(2, 7, 4, 5)


def read(volume: Any) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(volume.data)


def heading(view: Any) -> str:
    return str(view.children[0].value)


@pytest.mark.parametrize(
    ("overlay", "maps"), [("sensitivity", "sensitivity"), ("high", "high"), ("low", "low"), ("eigenvector 2", "eigenvectors")]
)
def test_volumes_are_the_image_and_the_map_of_the_tensors_on_an_oblique_grid(
    volumes: Decomposition, overlay: str, maps: str
) -> None:
    view = volumes.view(overlay, index=1, channel=1, affine=torch.as_tensor(OBLIQUE))
    expected: Tensor = getattr(volumes, maps)[1]
    expected = expected[1] if maps == "eigenvectors" else expected
    for volume, values in zip(view.children[1].volumes, (volumes.image[1], expected), strict=True):
        file = read(volume)
        np.testing.assert_allclose(file.get_fdata(), values[1].numpy(), rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(file.affine, OBLIQUE, rtol=1e-6)
        assert file.header.get_xyzt_units()[0] == "mm"


def test_limits_and_colours_are_those_of_the_plot(case: Case) -> None:
    d, channel = case.leading, case.shape[0] - 1
    panels = {axes.get_label(): axes.images[0] for axes in d.plot(1, channel, 1).figure.axes if axes.images}
    for overlay in ("sensitivity", "high", "low", "eigenvector 1"):
        volumes = d.view(overlay, index=1, channel=channel).children[1].volumes
        for volume, name in zip(volumes, ("image", overlay), strict=True):
            drawn = panels.get(name) or panels[f"{name}, axis 0"]
            power = 10.0 ** np.round(np.log10(drawn.get_clim()[1] / volume.cal_max))
            np.testing.assert_allclose(np.multiply(power, (volume.cal_min, volume.cal_max)), drawn.get_clim(), rtol=1e-12)
            assert volume.colormap == drawn.get_cmap().name


def test_faint_maps_are_scaled_by_a_power_of_ten_as_niivue_draws_no_window_below_a_hundred_thousandth() -> None:
    d = decomposed(1, 5, 6, 3, scale=1e-5)
    (_, volume) = d.view("sensitivity").children[1].volumes
    assert float(d.sensitivity.max()) < 1e-9
    assert 1.0 <= volume.cal_max < 10.0
    share = read(volume).get_fdata() / volume.cal_max
    limit = d.plot(components=0).axes
    high = next(axes.images[0].get_clim()[1] for axes in limit if axes.get_label() == "sensitivity, axis 0")
    np.testing.assert_allclose(share, d.sensitivity[0, 0].numpy() / high, rtol=1e-6)
    assert re.search(r"[\d.]+e\N{MINUS SIGN}1\d nats per unit", heading(d.view("sensitivity")))


@pytest.mark.parametrize("matrix", [OBLIQUE, None])
@pytest.mark.parametrize("shape", [(1, 7, 4, 5), (3, 6, 9)])
def test_lines_cross_in_the_most_sensitive_voxel(shape: tuple[int, ...], matrix: npt.NDArray[Any] | None) -> None:
    d = decomposed(*shape)
    canvas = d.view("sensitivity", affine=matrix).children[1]
    turned = nib.as_closest_canonical(read(canvas.volumes[1])).get_fdata()  # NiiVue turns arrays to RAS too
    place = np.unravel_index(turned.argmax(), turned.shape)
    np.testing.assert_allclose(canvas.scene.crosshair_pos, (np.array(place) + 0.5) / turned.shape)


@pytest.mark.parametrize("matrix", [OBLIQUE, None])
def test_values_below_the_picture_follow_the_lines_in_the_units_of_the_tensors(matrix: npt.NDArray[Any] | None) -> None:
    d = decomposed(1, 5, 6, 3, scale=1e-5)
    view = d.view("sensitivity", affine=matrix)
    turned = nib.as_closest_canonical(read(view.children[1].volumes[0])).get_fdata()  # as NiiVue counts voxels
    place = np.argwhere(np.isclose(turned, float(d.image[0, 0, 4, 1, 2]), rtol=1e-6))[0]
    location = {"event": "location_change", "data": {"vox": place.tolist()}}
    view.children[1]._handle_custom_msg(location, [])
    said = re.findall(r"(?:image|sensitivity) (\S+?),", view.children[2].value)
    digits = [float(text.replace("\N{MINUS SIGN}", "-")) for text in said]
    expected = [float(d.image[0, 0, 4, 1, 2]), float(d.sensitivity[0, 0, 4, 1, 2])]
    np.testing.assert_allclose(digits, expected, rtol=5e-3)
    view.children[1]._handle_custom_msg({"event": "location_change", "data": {"vox": [9, 9, 9]}}, [])
    assert view.children[2].value == ""


def test_browser_gets_the_tables_of_matplotlib_once_the_picture_has_a_place(volumes: Decomposition) -> None:
    canvas = volumes.view("high").children[1]
    sent: list[Any] = []
    canvas.send = sent.append
    assert sent == []
    canvas.set_trait("_canvas_attached", True)
    (kind, (name, table)), (last, _) = [(message["type"], message["data"]) for message in sent]
    assert (kind, name, last) == ("add_colormap", "coolwarm", "update_gl_volume")
    colors = np.rint(255 * colormaps["coolwarm"](np.arange(256))[:, :3])
    np.testing.assert_array_equal(np.transpose([table[each] for each in "RGB"]), colors)
    clear = np.array(table["A"]) == 0
    assert clear[103:153].all()
    assert not clear[:102].any()
    assert not clear[154:].any()


def test_saturated_answer_shows_no_map_unless_it_is_asked_for_and_then_in_grey() -> None:
    d = decomposed(1, 5, 6, scale=1e-9)
    assert d.saturation[0].saturated
    view = d.view()
    assert "nothing here moves the answer" in heading(view)
    assert len(view.children[1].volumes) == 1
    assert [volume.colormap for volume in d.view("sensitivity").children[1].volumes] == ["gray", "Greys_r"]
    assert "nothing here" not in heading(decomposed(1, 5, 6).view())


def test_slices_lie_as_the_plot_lays_them_and_letters_stand_only_where_sides_are_known(volumes: Decomposition) -> None:
    known, unknown = volumes.view(orientation="PIR").children[1], volumes.view().children[1]
    assert (known.opts.is_radiological_convention, known.opts.is_orientation_text_visible) == (True, True)
    assert (unknown.opts.is_radiological_convention, unknown.opts.is_orientation_text_visible) == (False, False)
    assert nib.aff2axcodes(read(known.volumes[0]).affine) == ("P", "I", "R")
    assert read(known.volumes[0]).header.get_xyzt_units()[0] == "unknown"
    flat = decomposed(1, 5, 6)
    names = {letters: flat.view(orientation=letters).children[1].opts.slice_type.name for letters in ("LP", "SA", "RI")}
    assert names == {"LP": "AXIAL", "SA": "SAGITTAL", "RI": "CORONAL"}
    assert flat.view().children[1].opts.slice_type.name == "AXIAL"


@pytest.mark.parametrize("letters", ["LPS", "RAS", "PIR", "SLA", "iar"])
def test_matrix_of_letters_is_read_back_as_these_letters(letters: str) -> None:
    assert nib.aff2axcodes(affine_of(3, letters)) == tuple(letters.upper())
    assert nib.aff2axcodes(affine_of(2, letters[:2]))[:2] == tuple(letters[:2].upper())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"overlay": "eigenvector 4"}, r"'eigenvector 4': give .*'eigenvector 1' to 'eigenvector 3' or 'none'"),
        ({"overlay": "saliency"}, r"'saliency': give 'sensitivity', 'high', 'low'"),
        ({"affine": OBLIQUE, "orientation": "LPS"}, "give one of them"),
        ({"affine": np.zeros((4, 4))}, r"invertible matrix \[4, 4\]"),
        ({"affine": np.eye(3)}, r"invertible matrix \[4, 4\]"),
        ({"index": 2}, "from 0 to 1"),
        ({"orientation": "LLS"}, "give 3 letters"),
        ({"class_names": ["a"]}, "1 name for 4 outputs"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_the_cure(volumes: Decomposition, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ImageError, match=words):
        volumes.view(**arguments)


def test_without_ipyniivue_the_extra_is_named(volumes: Decomposition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipyniivue", None)
    with pytest.raises(IFIMError, match=r'pip install "monai-ifim\[notebook\]"'):
        volumes.view()


def test_sizes_that_the_page_of_cohorts_states_are_those_of_the_scripts() -> None:
    import ipyniivue

    bundle = (Path(ipyniivue.__file__).parent / "static" / "widget.js").read_bytes()
    scripts = (PACKAGE / "report" / "cohort" / "templates" / name for name in ("slices.js", "cohort.js"))
    own = sum(len(script.read_bytes()) for script in scripts)
    packed = len(base64.b64encode(gzip.compress(bundle)))
    said = " ".join((ROOT / "docs" / "cohorts.md").read_text(encoding="utf-8").split())
    assert f"scripts of its own, {own / 1e3:.0f} KB together" in said
    assert f"{len(bundle) / 1e6:.1f} MB, compressed and in base64 {packed / 1e6:.1f} MB" in said
