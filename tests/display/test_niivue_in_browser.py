"""What NiiVue draws of a view in Chromium, against the planes and colours that matplotlib draws."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import nn

from docs.figures.notebook import opened_view, photograph_view
from monai_ifim.core import Decomposition, decompose

ipyniivue = pytest.importorskip("ipyniivue", reason="needs the extra notebook: pip install '.[notebook]'")
if not (shutil.which("chromium") and shutil.which("chromedriver")):
    pytest.skip("needs Chromium and its driver", allow_module_level=True)

POINT = (2, 5, 3)
PLANES = {"SAGITTAL": 0, "CORONAL": 1, "AXIAL": 2}  # the axis of RAS that each lies across


@pytest.fixture(scope="module")
def d() -> Decomposition:
    """A volume of unequal sizes whose values say where they are."""
    generator = torch.Generator().manual_seed(3)
    image = 0.3 + 0.7 * torch.rand(1, 1, 6, 9, 7, generator=generator, dtype=torch.float64)
    network = nn.Sequential(nn.Flatten(), nn.Linear(6 * 9 * 7, 3, bias=False, dtype=torch.float64)).eval()
    with torch.no_grad():
        network[1].weight.copy_(torch.randn(3, 6 * 9 * 7, generator=generator, dtype=torch.float64) / 10)
    return decompose(network, image, head="categorical")


def drawn(view: Any, plane: str, folder: Path) -> npt.NDArray[np.float64]:
    """RGB of the picture's plane, from 0 to 1, without its black surroundings."""
    canvas = view.children[1]
    canvas.opts.slice_type = ipyniivue.SliceType[plane]
    canvas.opts.crosshair_width = 0.0
    canvas.opts.is_orientation_text_visible = False
    photograph_view(view, folder, folder / "view.png")
    picture = np.asarray(Image.open(folder / "view.png").convert("RGB"), dtype=np.float64) / 255
    canvas_rows = np.flatnonzero((picture[:, 13] < 0.01).all(1))  # the black edge of NiiVue's place
    inside = picture[canvas_rows.min() + 1 : canvas_rows.max()]
    lit = (inside > 0.02).any(2) & (inside < 0.999).any(2)
    rows, columns = np.flatnonzero(lit.mean(1) > 0.1), np.flatnonzero(lit.mean(0) > 0.1)
    return inside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def sampled(picture: npt.NDArray[np.float64], shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The colour in the middle of each voxel."""
    rows, columns = (((np.arange(n) + 0.5) / n * size).astype(int) for n, size in zip(shape, picture.shape, strict=False))
    return picture[np.ix_(rows, columns)]


@pytest.mark.soak
@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("orientation", [None, "PIR", "RAS"])
def test_planes_are_those_of_the_plot(d: Decomposition, orientation: str | None, plane: str, tmp_path: Path) -> None:
    view = d.view("none", point=POINT, orientation=orientation)
    letters = "IPR" if orientation is None else orientation
    axis = next(i for i, letter in enumerate(letters) if letter in ("RL", "AP", "SI")[PLANES[plane]])
    panels = {each.get_label(): each for each in d.plot(point=POINT, components=0, orientation=orientation).axes}
    expected = panels[f"image, axis {axis}"].images[0]
    grey = expected.get_cmap()(expected.norm(expected.get_array()))[..., :3]
    np.testing.assert_allclose(sampled(drawn(view, plane, tmp_path), grey.shape[:2]), grey, atol=0.03)


@pytest.mark.soak
def test_colours_of_a_signed_map_are_those_of_the_plot_where_it_is_not_clear(d: Decomposition, tmp_path: Path) -> None:
    view = d.view("eigenvector 1", point=POINT)
    view.children[1].volumes[1].opacity = 1.0
    panel = next(each for each in d.plot(point=POINT, components=1).axes if each.get_label() == "eigenvector 1, axis 0").images[0]
    share = np.asarray(panel.norm(panel.get_array()))
    found = sampled(drawn(view, "AXIAL", tmp_path), share.shape)
    opaque = np.abs(2 * share - 1) > 0.22
    np.testing.assert_allclose(found[opaque], panel.get_cmap()(share)[..., :3][opaque], atol=0.03)
    clear = np.abs(2 * share - 1) < 0.18
    assert np.ptp(found[clear], axis=1).max() < 0.02  # the grey image is seen
    assert min(opaque.sum(), clear.sum()) > 5


@pytest.mark.soak
@pytest.mark.parametrize("orientation", [None, "PIR", "RAS"])
def test_values_below_a_click_are_those_that_niivue_reads_there(
    d: Decomposition, orientation: str | None, tmp_path: Path
) -> None:
    from selenium.webdriver import ActionChains

    view = d.view("sensitivity", point=POINT, orientation=orientation)
    canvas, place = view.children[1:3]
    place.value = ""
    with opened_view(view, tmp_path) as driver:
        target = driver.find_element("css selector", "canvas")
        ActionChains(driver).move_to_element_with_offset(target, -75, -50).click().perform()
        (*_, message) = driver.execute_script("return window.sent.filter((each) => each.event === 'location_change')")
    canvas._handle_custom_msg(message, [])
    index = tuple(int(number) for number in re.findall(r"\d+", place.value.split(":")[0]))
    image, sensitivity = (value["value"] for value in message["data"]["values"])
    assert float(d.image[(0, 0, *index)]) == pytest.approx(image, rel=1e-5)
    assert float(d.sensitivity[(0, 0, *index)]) == pytest.approx(sensitivity, rel=1e-5)
