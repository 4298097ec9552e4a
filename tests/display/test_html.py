"""What a notebook shows of a decomposition and the line that names it, and the page that explains them."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet
from PIL import Image
from torch import Tensor

from core_cases import Case, NetworkFactory
from monai_ifim.coordinates import Directions
from monai_ifim.core import Decomposition, Metric, decompose
from monai_ifim.display import html as notebook
from monai_ifim.display.numbers import FIRM_SPACE, MINUS, number
from monai_ifim.display.saturation import SATURATED

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "notebook.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


class Told(HTMLParser):
    """Cells, tags and the picture of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.source = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in ("tr", "caption"):
            self.rows.append([])
        if tag == "img":
            self.source = dict(attributes)["src"] or ""

    def handle_data(self, data: str) -> None:
        self.rows[-1].append(data)

    @property
    def picture(self) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(self.source.removeprefix("data:image/png;base64,"))))


class Weighted(Metric):
    """Twice the change, in a unit that is code."""

    unit = "<script>alert(1)</script> & $\\frac"

    def apply(self, images: Tensor) -> Tensor:
        return 2 * images

    def describe(self) -> dict[str, Any]:
        return {}


def test_html_holds_the_numbers_of_every_image(monkeypatch: pytest.MonkeyPatch, classifier_case: Case) -> None:
    monkeypatch.setattr(notebook, "_preview", lambda _: "")
    d = classifier_case.leading
    told = Told(d._repr_html_())
    assert len(told.rows) == 2 + 2  # caption and head
    for b, (index, _, rank, trace, values, energy, bound) in enumerate(told.rows[2:]):
        assert (index, int(rank), bound) == (str(b), int(d.rank[b]), "0")
        assert float(trace.replace(MINUS, "-")) == pytest.approx(float(d.trace[b]), rel=6e-3)
        listed = [entry for entry in values.split(", ") if entry != "…"]
        assert len(listed) == min(3, int(rank))
        for entry, value in zip(listed, d.eigenvalues[b].tolist(), strict=False):
            text, share = re.fullmatch(r"(\S+) \([<> \xa0]*(\S+)\xa0%\)", entry).groups()  # type: ignore[union-attr]
            assert float(text.replace(MINUS, "-")) == pytest.approx(value, rel=6e-3)
            assert float(share) == pytest.approx(100 * value / float(d.trace[b]), abs=0.11)
        assert float(energy.removesuffix(f"{FIRM_SPACE}%").lstrip("<> \xa0")) == pytest.approx(100 * float(d.energy[b]), abs=0.11)
    caption = told.rows[0][0]
    assert f"{d.record['head']}, exact, {d.record['jacobian_products']} product" in caption
    assert "unit of the image" in caption or "unit: that of the image" in caption


@pytest.mark.parametrize("shape", [(3, 11, 8), (1, 6, 5, 7)], ids=str)
def test_html_is_self_contained_small_and_reads_on_any_ground(cnn: NetworkFactory, shape: tuple[int, ...]) -> None:
    told = Told(decompose(cnn(shape, 4), torch.randn(2, *shape))._repr_html_())
    assert set(told.tags) == {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "img"}
    assert "http" not in told.html.replace(told.source, "")
    assert "color" not in told.html.replace(told.source, "")  # text takes the notebook's own colour
    assert len(told.html) < 300_000
    pixels = np.asarray(told.picture.convert("RGBA"))
    assert (pixels[..., 3] == 255).all()
    assert (pixels[0, 0] == 255).all()
    assert (pixels[..., :3] < 128).any()


def test_predictions_read_as_their_head_means_them(
    monkeypatch: pytest.MonkeyPatch, linear: NetworkFactory, image: Tensor
) -> None:
    monkeypatch.setattr(notebook, "_preview", lambda _: "")
    network = linear((1, 7, 5), 4).double()
    network[1].weight.data *= 1e-6  # so that the biases are the answer, and nothing moves it
    expected = {
        "categorical": ([0.0, 2.0, 1.0, 0.0], f"class 1, p = {number(np.exp(2) / (2 + np.e + np.exp(2)))}"),
        "bernoulli": ([3.0, -3.0, 2.0, -1.0], "labels 0, 2 (p > 0.5)"),
        "gaussian": ([3.0, -3.0, 2.0, -1.0], f"output 3.00, {MINUS}3.00, 2.00, …"),
    }
    for head, (bias, answer) in expected.items():
        network[1].bias.data[:] = torch.tensor(bias)
        assert Told(decompose(network, image, head=head)._repr_html_()).rows[2][1] == f"{answer} ({SATURATED})"
    network[1].bias.data[:] = torch.tensor([20.0, 0.0, 0.0, 0.0])  # saturated: what is missing to 1 is what counts
    answer = Told(decompose(network, image, head="categorical")._repr_html_()).rows[2][1]
    assert answer == f"class 0, p = 1{FIRM_SPACE}{MINUS}{FIRM_SPACE}6.18e{MINUS}9 ({SATURATED})"  # 3 exp(-20)


@pytest.mark.parametrize("shape", [(1, 9, 12), (2, 4, 9, 5)], ids=str)
def test_an_answer_that_nothing_moves_has_no_eigenvalue(linear: NetworkFactory, shape: tuple[int, ...]) -> None:
    network = linear(shape, 4)
    network[1].weight.data.zero_()
    told = Told(decompose(network, torch.zeros(1, *shape))._repr_html_())
    assert told.rows[2] == ["0", told.rows[2][1], "0", "0", "none", f"100{FIRM_SPACE}%", "0"]
    assert told.picture.width > 500


@pytest.mark.parametrize("spatial", [(16, 20), (8, 12, 16)], ids=str)
def test_segmentations_are_told_by_their_mean_probabilities(spatial: tuple[int, ...]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(len(spatial), 1, 3, channels=(4, 8), strides=(2,)).eval()
        image = torch.rand(1, 1, *spatial)
    d = decompose(network, image, head="voxelwise", rank=1, tolerance=0.05)
    assert d.probabilities.shape == (1, 3, *spatial)
    axes = next(axes for axes in d.plot().axes if axes.get_label() == "answers")
    means = d.probabilities[0].numpy().reshape(3, -1).mean(1)
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], means)
    assert axes.get_title(loc="left") == "mean over the voxels: probability"
    assert Told(d._repr_html_()).rows[2][1] == f"class {means.argmax()}, mean p = {means.max():.3g}"


def test_large_batches_are_cut_short(linear: NetworkFactory) -> None:
    d = decompose(linear((1, 7, 5), 3), torch.randn(9, 1, 7, 5))
    rows = Told(d._repr_html_()).rows
    assert [row[0] for row in rows[2:7]] == list("01234")
    assert rows[7:] == [["and 4 more"]]


def test_words_of_others_are_escaped_and_not_taken_for_formulas(linear: NetworkFactory, image: Tensor) -> None:
    d = decompose(linear((1, 7, 5), 3).double(), image, metric=Weighted())
    told = Told(d._repr_html_())
    assert "script" not in told.tags
    assert "img" in told.tags
    assert Weighted.unit in told.rows[0][0]
    assert Weighted.unit in d.plot().texts[0].get_text()


def test_html_never_raises(monkeypatch: pytest.MonkeyPatch, linear: NetworkFactory, image: Tensor) -> None:
    d = decompose(linear((1, 7, 5), 3).double(), image)
    broken = replace(d, record={})._repr_html_()
    assert re.fullmatch(r"<pre>&lt;monai_ifim\.core\.decomposition\.Decomposition object at 0x[0-9a-f]+&gt;</pre>", broken)

    def fail(*_: object) -> None:
        raise RuntimeError("no canvas")

    monkeypatch.setattr(notebook, "draw", fail)
    told = Told(d._repr_html_())
    assert "img" not in told.tags
    assert len(told.rows) == 5


@pytest.mark.slow
def test_picture_of_noise_stays_small(linear: NetworkFactory) -> None:
    noise = torch.randn(1, 1, 71, 83, 90, generator=torch.Generator().manual_seed(7))  # not the seed of the weights
    d = decompose(linear((1, 71, 83, 90), 5), noise, rank=3)
    assert int(d.rank) == 3
    told = Told(d._repr_html_())
    assert 50_000 < len(told.html) < 300_000
    assert told.picture.width > 1000  # its letters are as fine as ever


def test_only_the_channel_that_is_drawn_leaves_the_device(monkeypatch: pytest.MonkeyPatch, linear: NetworkFactory) -> None:
    d = decompose(linear((2, 10, 20, 15), 3), torch.randn(2, 2, 10, 20, 15), rank=1)
    moved: list[int] = []
    move = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda self: moved.append(self.numel()) or move(self))  # type: ignore[func-returns-value]
    d._repr_html_()
    assert max(moved) == 10 * 20 * 15  # of one map: the limits of its scale are those of all of it


def test_line_of_text_is_short_and_says_what_was_kept(case: Case) -> None:
    d = case.leading
    text = repr(d)
    assert len(text) < 160
    assert "\n" not in text
    assert text.startswith(f"Decomposition(2 images {list(case.shape)} {str(case.dtype)[6:]} on cpu: {d.record['head']}, exact, ")
    low, high = int(d.rank.min()), int(d.rank.max())
    assert f"exact, {low if low == high else f'{low} to {high}'} component" in text


@pytest.mark.slow
def test_blocks_of_the_page_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    seen = []
    for place, block in enumerate(BLOCKS):
        exec(compile(block, f"notebook.md: block {place + 1}", "exec"), names)
        seen.append(names["d"])
    assert all(isinstance(d, Decomposition) for d in seen)
    assert {len(d.image.shape) for d in seen} == {4, 5}
    for name in re.findall(r"!\[[^\]]*\]\(figures/(plot-\dd\.png)\)", PAGE):
        with Image.open(tmp_path / name) as made, Image.open(DOCS / "figures" / name) as shown:
            assert made.size == shown.size
    assert len(list(tmp_path.glob("plot-*.png"))) == 2


def test_one_line_is_ascii_for_any_console(cnn: NetworkFactory) -> None:
    d = decompose(cnn((1, 7, 5), 4), torch.randn(2, 1, 7, 5), energy=0.5)
    assert repr(d).isascii()
    assert " %" in repr(d)


def test_coordinates_are_a_table_of_their_own_the_costliest_first(cnn: NetworkFactory) -> None:
    shape = (1, 9, 7)
    images = torch.randn(14, *shape, generator=torch.Generator().manual_seed(2)) * torch.arange(1, 15).reshape(14, 1, 1, 1)
    family = Directions(images, [f"<b>{i}</b>" for i in range(14)], ["HU"] * 14)
    d = decompose(cnn(shape, 3), torch.zeros(1, *shape), coordinates=[family])
    assert d.coordinates is not None
    found = notebook.notebook_html(d)
    assert "<b>" not in found
    told = Told(found)
    rows = [row for row in told.rows if row and row[0].startswith(f"1{FIRM_SPACE}HU of <b>")]
    assert [row[1] for row in rows] == [
        number(nats) for nats in d.coordinates.nats_per_unit[0].sort(descending=True).values[:12].tolist()
    ]
    assert ["and 2 more"] in told.rows
