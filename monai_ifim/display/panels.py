"""The maps of a decomposition as panels of a figure: planes, their resolution, and their colour scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from monai_ifim.core.decomposition import Decomposition
from monai_ifim.core.errors import ImageError
from monai_ifim.display.numbers import MINUS, number, percent
from monai_ifim.display.orientation import PlaneLayout, layouts_of
from monai_ifim.display.style import DIVERGING, GRAY, MUTED, SEQUENTIAL
from monai_ifim.display.vocabulary import COMPONENT, HIGH, LOW, PER_UNIT, SENSITIVITY_MAP
from monai_ifim.display.windows import display_window


@dataclass(frozen=True)
class ColorScale:
    """Colour map and its limits; unit: of the numbers at the colour bar."""

    colors: str
    low: float
    high: float
    unit: str

    @property
    def is_signed(self) -> bool:
        """True for maps about zero."""
        return self.colors != GRAY and self.low < 0

    @property
    def greyed(self) -> ColorScale:
        """The same limits in grey, for maps that are no findings: nothing moves the answer."""
        return self if self.colors == GRAY else replace(self, colors=MUTED)


@dataclass(frozen=True, eq=False)
class Panel:
    """One map, as planes [rows, columns], float64 on the CPU, with name, title and colour scale."""

    name: str
    title: str
    planes: tuple[Tensor, ...]
    scale: ColorScale


@dataclass(frozen=True)
class Viewpoint:
    """Image and channel to draw, and the voxel that the planes of a volume go through.

    shape: of the image, without its channels. step: voxels on a side of a pixel. layouts: of the image, or of each plane.
    """

    index: int
    channel: int
    point: tuple[int, ...]
    shape: tuple[int, ...]
    step: int
    layouts: tuple[PlaneLayout, ...]

    @classmethod
    def of(
        cls,
        d: Decomposition,
        index: int,
        channel: int,
        point: Sequence[int] | None,
        largest: int,
        orientation: Sequence[str] | None = None,
    ) -> Viewpoint:
        """largest: most pixels on a side of a plane; orientation: see `layouts_of`. Raises ImageError for an index, channel or
        point out of range, or an orientation that is none."""
        index = _whole("index", index, d.image.shape[0])
        channel = _whole("channel", channel, d.image.shape[1])
        shape = tuple(d.image.shape[2:])
        step = math.ceil(max(shape) / largest)
        layouts = layouts_of(len(shape), orientation)
        if point is None:
            return cls(index, channel, _most_sensitive(d.sensitivity[index, channel]), shape, step, layouts)
        if len(point) != len(shape):
            raise ImageError(f"point={tuple(point)}: give {len(shape)} indices, one for each axis of an image {shape}.")
        places = tuple(_whole(f"point[{axis}]", place, shape[axis]) for axis, place in enumerate(point))
        return cls(index, channel, places, shape, step, layouts)

    def planes(self, maps: Tensor, pool: Callable[[Tensor, int], Tensor]) -> tuple[Tensor, ...]:
        """The channel of maps [channel, *spatial] in 2D, or its planes through the point across each axis, each in its layout;
        float64, on the CPU.

        pool: turns step x step voxels into one pixel.
        """
        chosen = maps.detach().as_subclass(Tensor)[self.channel]
        cuts = [chosen] if chosen.ndim == 2 else [chosen.select(axis, place) for axis, place in enumerate(self.point)]
        moved = [cut.cpu().to(torch.float64) for cut in cuts]  # in this order: MPS has no float64
        pooled = [pool(cut, self.step) if self.step > 1 else cut for cut in moved]
        return tuple(layout.laid(plane) for layout, plane in zip(self.layouts, pooled, strict=True))

    def values(self, maps: Tensor) -> npt.NDArray[np.float64]:
        """All values of the channel of maps [channel, *spatial], from which a window is taken."""
        return maps.detach().as_subclass(Tensor)[self.channel].cpu().to(torch.float64).numpy()


def panels_of(d: Decomposition, view: Viewpoint, components: int) -> list[Panel]:
    """Panels of the image, high, low, sensitivity and the first `components` eigenvectors, at most those kept.

    Raises ImageError unless `components` is a whole number from 0 on.
    """
    kept = min(_whole("components", components), int(d.rank[view.index]))
    image, low = (view.planes(maps[view.index], _means) for maps in (d.image, d.low))
    high, sensitivity = (view.planes(maps[view.index], _peaks) for maps in (d.high, d.sensitivity))
    whole = view.values(d.image[view.index])
    grey = ColorScale(GRAY, *display_window("input", whole), "unit of the image")
    signed = display_window("high", view.values(d.high[view.index]), largest_of_image=float(abs(whole).max()))
    window = display_window("sensitivity", view.values(d.sensitivity[view.index]))
    saturated = d.saturation[view.index].saturated is True
    panels = [
        Panel("image", "image", image, grey),
        Panel("high", HIGH.label, high, ColorScale(DIVERGING, *signed, "unit of the image")),
        Panel("low", f"{LOW.label}\n= image {MINUS} high", low, grey),
        Panel("sensitivity", SENSITIVITY_MAP.label, sensitivity, ColorScale(SEQUENTIAL, *window, PER_UNIT)),
    ]
    for i in range(kept):
        vector = d.eigenvectors[view.index, i]
        planes, window = view.planes(vector, _peaks), display_window("eigenvector", view.values(vector))
        value, trace = float(d.eigenvalues[view.index, i]), float(d.trace[view.index])
        title = f"{COMPONENT.label} {i + 1}: {number(value)},\n{percent(value / trace)} of the total"
        panels.append(Panel(f"eigenvector {i + 1}", title, planes, ColorScale(DIVERGING, *window, "unit vector")))
    return [replace(panel, scale=panel.scale.greyed) for panel in panels] if saturated else panels


def _most_sensitive(sensitivity: Tensor) -> tuple[int, ...]:
    """Indices of the largest value of a map [*spatial]; the centre if all are 0."""
    sensitivity = sensitivity.detach().as_subclass(Tensor)
    place = tuple(map(int, torch.unravel_index(sensitivity.argmax(), sensitivity.shape)))
    return place if float(sensitivity[place]) > 0 else tuple(size // 2 for size in sensitivity.shape)


def _whole(name: str, value: int, size: int | None = None) -> int:
    """The value as a Python int; raises ImageError unless it is a whole number from 0 on, and below `size`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0 or (size is not None and value >= size):
        raise ImageError(f"{name}={value!r}: give a whole number from 0 {'on' if size is None else f'to {size - 1}'}.")
    return int(value)


def _means(plane: Tensor, step: int) -> Tensor:
    """Means of step x step voxels, of fewer at the far edges; for images."""
    return functional.avg_pool2d(plane[None, None], step, ceil_mode=True, count_include_pad=False)[0, 0]


def _peaks(plane: Tensor, step: int) -> Tensor:
    """Value of largest magnitude of step x step voxels; for maps whose peaks and signs means would lose."""
    places = functional.max_pool2d(plane.abs()[None], step, ceil_mode=True, return_indices=True)[1]
    return plane.flatten()[places[0]]
