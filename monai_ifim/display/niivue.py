"""The interactive view of a decomposition in a notebook: NiiVue by ipyniivue, the extra `notebook`.

NiiVue draws NIfTI volumes with WebGL 2 in the browser. Its slices lie along the axes of the array: voxels are shown as they are.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from monai_ifim.core.decomposition import Decomposition
from monai_ifim.core.errors import IFIMError, ImageError
from monai_ifim.display.color_tables import OPACITY, Table, sensitivity_table, signed_table
from monai_ifim.display.figure import CLEAR
from monai_ifim.display.numbers import number, sizes
from monai_ifim.display.orientation import affine_of
from monai_ifim.display.panels import ColorScale, Panel, Viewpoint, panels_of
from monai_ifim.display.saturation import saturation_sentence
from monai_ifim.display.vocabulary import OVERLAY
from monai_ifim.display.windows import bar_shape, beyond
from monai_ifim.display.wording import answer

__all__ = ["NOTHING", "view"]

NOTHING = "none"  # the name of no overlay
INSTALL = 'd.view() needs ipyniivue: pip install "monai-ifim[notebook]", in a clone pip install ".[notebook]".'
# NiiVue divides by the width of a window, but never by less than 1e-5, and keeps voxels as float32.
NARROWEST, WIDEST = 1e-3, 1e6
GUIDE = (0.94, 0.63, 0.13, 1.0)  # the orange of the other pictures, style.ORANGE
THIN = 0.003  # of the longest side of the image: width of the lines through the point
APART = 4  # pixels between two planes
BAR = "display: inline-block; width: 12em; height: 0.7em"
STOPS = 15  # entries of a table from one stop of the bar to the next: the last is the last

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Layer:
    """One map as NiiVue gets it.

    values: [i, j, k] float64, one k for a 2D image. shape: of the image. power: in the browser values are divided by 10^power.
    """

    panel: Panel
    values: npt.NDArray[np.float64]
    shape: tuple[int, ...]
    power: int

    @property
    def scale(self) -> ColorScale:
        return self.panel.scale

    def file(self, affine: Matrix, unit: str) -> bytes:
        """The map as a NIfTI file, float32; unit: of the affine."""
        import nibabel as nib

        image = nib.Nifti1Image((self.values / 10.0**self.power).astype(np.float32), affine)
        image.header.set_xyzt_units(unit)
        content: bytes = image.to_bytes()
        return content

    def legend(self) -> str:
        """HTML: name, colour bar, limits and unit; an end of the bar is pointed where values lie beyond it."""
        low, high = self.scale.low, self.scale.high
        stops = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue, _ in self.table()[::STOPS].tolist())
        shape = bar_shape(*beyond(self.values, (low, high)))
        bar = f"background: linear-gradient(to right, {stops}); clip-path: {shape}; {BAR}"
        name = html.escape(" ".join(self.panel.title.split()))
        return f"{name}; {number(low)} <span style='{bar}'></span> {number(high)} {html.escape(self.scale.unit)}"

    def table(self) -> Table:
        """RGBA [256, 4]; where it is transparent the image is seen."""
        return signed_table(self.scale.colors) if self.scale.is_signed else sensitivity_table(self.scale.colors)


def view(
    d: Decomposition,
    overlay: str | None,
    index: int,
    channel: int,
    point: Sequence[int] | None,
    affine: Any,
    orientation: Sequence[str] | None,
    class_names: Sequence[str] | None,
    height: int,
) -> Any:
    """The widget of `Decomposition.view`."""
    ipyniivue, widgets = _libraries()
    shown = Viewpoint.of(d, index, channel, point, max(d.image.shape[2:]), orientation)
    saturation = d.saturation[shown.index]
    name = overlay if overlay is not None else NOTHING if saturation.saturated else "sensitivity"
    image, *above = _layers(d, shown, name)
    matrix = _matrix(affine, orientation, len(shown.point))
    canvas = _canvas(ipyniivue, shown, matrix, affine is None and orientation is None, height)
    canvas.load_volumes(
        [_volume(ipyniivue, layer, matrix, "mm" if affine is not None else "unknown") for layer in (image, *above)]
    )
    _send_tables(canvas, above)
    said = f"image {shown.index}, channel {shown.channel}, {sizes(d.image.shape[2:])}: {answer(d, shown.index, class_names)}"
    sentences = [said, saturation_sentence(saturation.nats)] if saturation.saturated else [said]
    lines = [*map(html.escape, sentences), *(layer.legend() for layer in (*above, image))]
    place = widgets.HTML(_place_text((image, *above), shown.point))
    canvas.on_location_change(_follow(place, (image, *above), matrix))
    rows = [widgets.HTML("<br>".join(lines)), canvas, place]
    if above:
        slider = widgets.FloatSlider(OPACITY, min=0.0, max=1.0, step=0.05, description=OVERLAY.label, tooltip=OVERLAY.tip)
        widgets.jslink((slider, "value"), (canvas.volumes[1], "opacity"))
        rows.append(slider)
    return widgets.VBox(rows)


def _libraries() -> tuple[ModuleType, ModuleType]:
    """(ipyniivue, ipywidgets); raises IFIMError with the cure where they are not installed."""
    try:
        import ipyniivue
        import ipywidgets
    except ImportError as error:
        raise IFIMError(INSTALL) from error
    return ipyniivue, ipywidgets


def _layers(d: Decomposition, shown: Viewpoint, name: str) -> list[_Layer]:
    """The image and, unless the name is NOTHING, the map of that name; raises ImageError for a name that is none."""
    maps = {"sensitivity": d.sensitivity[shown.index], "high": d.high[shown.index], "low": d.low[shown.index]}
    kept = int(d.rank[shown.index])
    maps |= {f"eigenvector {i + 1}": d.eigenvectors[shown.index, i] for i in range(kept)}
    if name != NOTHING and name not in maps:
        vectors = f", 'eigenvector 1' to 'eigenvector {kept}'" if kept > 1 else ", 'eigenvector 1'" if kept else ""
        raise ImageError(f"overlay={name!r}: give 'sensitivity', 'high', 'low'{vectors} or {NOTHING!r}.")
    component = int(name.split()[-1]) if name.startswith("eigenvector") else 0
    panels = {panel.name: panel for panel in panels_of(d, shown, component)}
    chosen = {"image": d.image[shown.index]} | ({} if name == NOTHING else {name: maps[name]})
    return [_layer(panels[each], shown.values(values)) for each, values in chosen.items()]


def _layer(panel: Panel, values: npt.NDArray[np.float64]) -> _Layer:
    width = panel.scale.high - panel.scale.low
    power = 0 if NARROWEST <= width <= WIDEST else math.floor(math.log10(width))
    return _Layer(panel, values.reshape(*values.shape[:2], -1), values.shape, power)


def _matrix(affine: Any, orientation: Sequence[str] | None, dims: int) -> Matrix:
    """Voxel indices to RAS, [4, 4]; raises ImageError for what is none, and where two say the same."""
    if affine is None:
        return affine_of(dims, orientation)
    if orientation is not None:
        raise ImageError("affine and orientation both say where the axes run: give one of them.")
    matrix = torch.as_tensor(affine, dtype=torch.float64).detach().cpu().numpy()
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) == 0:
        raise ImageError(
            f"affine {matrix.tolist()}: give an invertible matrix [4, 4] from voxel indices to RAS millimetres, such as "
            "`image.affine` of a MetaTensor that MONAI's readers made."
        )
    return matrix


def _canvas(ipyniivue: ModuleType, shown: Viewpoint, matrix: Matrix, as_in_memory: bool, height: int) -> Any:
    """NiiVue without volumes, its lines through the point.

    as_in_memory: planes lie as `Decomposition.plot` draws them without an orientation; otherwise as readers of medical images
    expect them.
    """
    planes = (ipyniivue.SliceType.SAGITTAL, ipyniivue.SliceType.CORONAL, ipyniivue.SliceType.AXIAL)
    flat = len(shown.point) == 2
    voxel = np.linalg.norm(matrix[:3, :3], axis=0)
    largest = float((voxel * _three(shown.shape, 1)).max())
    gap = max(CLEAR * largest, float(voxel.max()))  # so that what lies at the point is seen
    canvas = ipyniivue.NiiVue(
        height,
        slice_type=planes[int(np.abs(matrix[:3, 2]).argmax())] if flat else ipyniivue.SliceType.MULTIPLANAR,
        multiplanar_show_render=ipyniivue.ShowRender.NEVER,
        is_radiological_convention=not as_in_memory,
        sagittal_nose_left=True,
        is_orientation_text_visible=not as_in_memory,
        is_nearest_interpolation=True,
        multiplanar_pad_pixels=APART,
        font_color=GUIDE,
        crosshair_color=GUIDE,
        crosshair_width=THIN * largest / float(voxel.min()),  # in the smallest side of a voxel
        crosshair_gap=2 * gap / (THIN * largest),  # in half widths of a line
        drag_and_drop_enabled=False,
    )
    canvas.scene.crosshair_pos = _share(matrix, shown)
    return canvas


def _share(matrix: Matrix, shown: Viewpoint) -> list[float]:
    """The point as a share of the volume's size along each of NiiVue's axes, which are those of the array nearest to RAS."""
    import nibabel as nib

    share = (np.array(_three(shown.point, 0)) + 0.5) / _three(shown.shape, 1)
    turned = [0.0, 0.0, 0.0]
    for place, (axis, sign) in zip(share, nib.io_orientation(matrix), strict=True):
        turned[int(axis)] = float(place if sign > 0 else 1 - place)
    return turned


def _index(matrix: Matrix, shape: Sequence[int], turned: Sequence[float]) -> list[int]:
    """Indices of a voxel in the array [i, j, k] of this shape from those along NiiVue's axes; see `_share`."""
    import nibabel as nib

    along = [round(turned[int(axis)]) for axis, _ in nib.io_orientation(matrix)]
    return [
        place if sign > 0 else size - 1 - place
        for place, size, (_, sign) in zip(along, shape, nib.io_orientation(matrix), strict=True)
    ]


def _volume(ipyniivue: ModuleType, layer: _Layer, matrix: Matrix, unit: str) -> Any:
    """A layer as NiiVue's volume; the tables of maps follow by `_send_tables`."""
    scale = layer.scale
    return ipyniivue.Volume(
        data=layer.file(matrix, unit),
        name=f"{layer.panel.name}.nii",
        colormap=scale.colors,
        cal_min=scale.low / 10.0**layer.power,
        cal_max=scale.high / 10.0**layer.power,
        opacity=1.0 if layer.panel.name == "image" else OPACITY,
    )


def _send_tables(canvas: Any, layers: Sequence[_Layer]) -> None:
    """Give the browser the tables that it lacks, once NiiVue has a place there: before, it hears nothing."""
    tables = {layer.scale.colors: layer.table() for layer in layers}

    def send(*_: Any) -> None:
        for name, table in tables.items():
            canvas.add_colormap(name, {**dict(zip("RGBA", table.T.tolist(), strict=True)), "I": list(range(len(table)))})
        canvas.send({"type": "update_gl_volume", "data": []})

    canvas.on_canvas_attached(send)


def _follow(place: Any, layers: Sequence[_Layer], matrix: Matrix) -> Callable[[Mapping[str, Any]], None]:
    """What writes the values at the lines' crossing below the picture whenever it moves."""

    def write(location: Mapping[str, Any]) -> None:
        place.value = _place_text(layers, _index(matrix, layers[0].values.shape, location["vox"]))

    return write


def _place_text(layers: Sequence[_Layer], point: Sequence[int]) -> str:
    """Indices of a voxel and the values there, in their units; nothing outside of the image."""
    shape = layers[0].shape
    index = _three(point, 0)
    if not all(0 <= i < size for i, size in zip(index, layers[0].values.shape, strict=True)):
        return ""
    values = [f"{layer.panel.name} {number(float(layer.values[index]))}" for layer in layers]
    return html.escape(
        f"{'pixel' if len(shape) == 2 else 'voxel'} {index[: len(shape)]}: {', '.join(values)}, in the units above"
    )


def _three(numbers: Sequence[int], last: int) -> tuple[int, ...]:
    """The numbers of a 2D image with one for the third axis; those of a volume."""
    return (*numbers, last)[:3]
