"""The viewer's application: connects the widgets of the page with the stage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trame.app import get_server
from trame_rca.encoders import RcaImageEncoder
from trame_server.utils.asynchronous import create_task
from trame_slicer import module as slicer_module
from trame_slicer.app.logic import connect_slice_view_slider_to_state
from trame_slicer.core import LayoutManager
from trame_slicer.rca_view import register_rca_factories
from trame_slicer.views import Layout, LayoutDirection, SliceView, ThreeDView, ViewLayoutDefinition

from monai_ifim.display.color_tables import CLEAR_SHARE
from monai_ifim.display.color_tables import OPACITY as OVERLAY
from monai_ifim.display.numbers import fixed, number
from monai_ifim.display.saturation import is_saturated
from monai_ifim.display.windows import bar_shape
from monai_ifim.io.units import HOUNSFIELD
from monai_ifim.viewer.cases import ViewedLayer, ViewerError, facts, read_case
from monai_ifim.viewer.page import build_page, view_frame
from monai_ifim.viewer.slice_geometry import depth, edges, orientation, slice_number
from monai_ifim.viewer.stage import LoadedLayer, Point, Stage

NO_OVERLAY = "none"
OPACITY = {"sensitivity": OVERLAY, "signed": OVERLAY, "image": 1.0}  # initial opacity of an overlay, by kind
SAME_QUALITY = 90  # trame-rca's quality of still pictures; with the same for moving ones, each picture is sent once
COLOR_STOPS = 64
# Low and high ends of the usual CT windows, level -/+ half the width (Radiopaedia, "Windowing (CT)").
CT_WINDOWS = {"Soft tissue": (-160.0, 240.0), "Lung": (-1350.0, 150.0), "Bone": (-500.0, 1300.0), "Brain": (0.0, 80.0)}
REDRAWN = 0.05  # seconds that the browser gets to show that a case is being opened
STATE: dict[str, Any] = {
    "answer": None, "saturated": "", "answers": [], "answers_left": 0, "spectrum": [], "spectrum_left": 0, "spectrum_unit": "",
    "settings": [],
    "background_name": "", "background_names": [], "background_scale": {}, "window_names": [],
    "overlay_name": NO_OVERLAY, "overlay_names": [], "overlay_scale": {}, "opacity": OPACITY["sensitivity"],
    "clear_share": CLEAR_SHARE, "dragged": "background", "crosshair_shown": True, "layout_name": "three", "is_flat": False,
    "panel_shown": True, "theme": "light", "cross": {}, "pointer": {}, "problem": "", "loading": "", "case_number": 0,
    "keys_on": True,
}  # fmt: skip
# State that is cleared between cases.
WORDS = (
    "answer", "saturated", "answers", "answers_left", "spectrum", "spectrum_left", "settings", "background_name",
    "background_names", "overlay_name", "overlay_names", "background_scale", "overlay_scale", "window_names", "cross", "pointer",
)  # fmt: skip


class Viewer:
    """The cases of one run on a stage, and the page that controls it. names: the cases that the browser may ask for."""

    def __init__(self, output: Path, names: Sequence[str], first: str) -> None:
        self.server = get_server("monai_ifim_view", client_type="vue3")
        self.server.enable_module(slicer_module)
        self.state = self.server.state
        self.state.update(STATE | {"case_names": list(names), "case_name": first})
        self.state.update({"trame__favicon": None, "trame__title": "monai-ifim view"})
        self._output, self._names = output, tuple(names)
        self._opacity = dict(OPACITY)
        self._backgrounds: dict[str, ViewedLayer] = {}
        self._overlays: dict[str, ViewedLayer] = {}
        self._last_overlay = NO_OVERLAY
        self._shown = first
        self.stage = Stage()
        self.stage.moved, self.stage.crossed, self.stage.windowed = self._on_moved, self._on_crossed, self._show_scales
        self._layouts = self._make_layouts()
        build_page(self.server, self._layouts, self)
        self._listen()
        self._show(first)

    def step_case(self, step: int) -> None:
        """Go to the next (1) or previous (-1) case, if it exists."""
        i = self._names.index(self._shown) + step
        if 0 <= i < len(self._names):
            self.state.case_name = self._names[i]

    def fit(self) -> None:
        """Fit the views."""
        self.stage.fit()

    def reset_windows(self) -> None:
        """Restore the windows of the sidecar."""
        self.stage.reset_windows()

    def choose_window(self, name: str) -> None:
        """Show the background in one of CT_WINDOWS."""
        if self.stage.background is not None and name in CT_WINDOWS:
            self.stage.set_window(self.stage.background, CT_WINDOWS[name])

    def _make_layouts(self) -> LayoutManager:
        """The views and their layouts. The 3D view is slow, so it is made when first chosen."""
        manager = self.stage.app.view_manager
        register_rca_factories(
            manager,
            self.server,
            slice_view_ui_f=self._frame_slice,
            three_d_view_ui_f=self._frame_space,
            rca_encoder=RcaImageEncoder.PNG,  # lossless: the user looks for faint structure
            interactive_quality=SAME_QUALITY,
        )
        views = ViewLayoutDefinition
        axial, coronal, sagittal = views.axial_view(), views.coronal_view(), views.sagittal_view()
        across, down = LayoutDirection.Horizontal, LayoutDirection.Vertical
        space = views.threed_view(background_color="#000000")
        layouts = LayoutManager(self.stage.app.scene, manager, self.server)
        layouts.register_layout("three", Layout(across, [axial, Layout(down, [coronal, sagittal])], ["3", "2"]))
        four = Layout(down, [Layout(across, [axial, space]), Layout(across, [coronal, sagittal])])
        layouts.register_layout("four", four, lazy_initialization=True)
        for name, view in (("axial", axial), ("coronal", coronal), ("sagittal", sagittal)):
            layouts.register_layout(name, Layout(down, [view]))
        layouts.set_layout("three")
        return layouts

    def _frame_slice(self, server: Any, view_id: str, view: SliceView) -> None:
        self.stage.prepare(view)
        names = connect_slice_view_slider_to_state(server, view).name
        slider = {"v_model": (names.value,), "min": (names.min_value,), "max": (names.max_value,), "step": (names.step,)}
        self.state[f"frame_{view_id}"] = {}
        view.modified.connect(lambda changed: self._describe(view_id, changed))
        view_frame(view_id, slider)

    def _frame_space(self, _server: Any, _view_id: str, view: ThreeDView) -> None:
        self.stage.prepare_space(view)

    def _describe(self, view_id: str, view: SliceView) -> None:
        """Update name, depth and edge letters of a view."""
        number_of, count = slice_number(view) if self.stage.flat is None else (1, 1)
        counted = f"  {number_of} of {count}" if count > 1 else ""
        has_world = self.stage.case is None or self.stage.case.has_world
        title = f"{orientation(view)}\n{depth(view)}{counted}" if has_world else "Image without a scale in mm"
        left, right, top, bottom = edges(view) if has_world else ("", "", "", "")
        self.state[f"frame_{view_id}"] = {
            "title": title, "left": left, "right": right, "top": top, "bottom": bottom, "slices": count
        }  # fmt: skip

    def _listen(self) -> None:
        change = self.state.change
        change("case_name")(self._on_case)
        change("background_name")(self._on_background)
        change("overlay_name")(self._on_overlay)
        change("opacity")(self._on_opacity)
        change("clear_share")(self._on_clear_share)
        change("dragged")(lambda dragged, **_: self.stage.set_dragged(dragged))
        change("crosshair_shown")(lambda crosshair_shown, **_: self.stage.set_crosshair(bool(crosshair_shown)))
        change("layout_name")(lambda **_: self._lay_out())
        self.server.controller.trigger("viewer_key")(self._on_key)

    def _on_case(self, case_name: Any, **_: Any) -> None:
        if case_name == self._shown:  # also if the user went back to it before another was opened
            self.state.loading = ""
            return
        if case_name not in self._names:
            self.state.case_name = self._shown
            return
        self.state.loading = f"opening {case_name}"
        create_task(self._open(case_name))

    async def _open(self, name: str) -> None:
        await asyncio.sleep(REDRAWN)
        if name != self.state.case_name:
            return  # the user has gone on meanwhile
        with self.state:
            self._show(name)
            self.state.loading = ""

    def _show(self, name: str) -> None:
        """Put a case on the stage and its texts on the page; damaged files are left out and named."""
        self._shown = name
        self.stage.show(None)
        self.state.update({word: STATE[word] for word in WORDS} | {"problem": "", "case_number": self._names.index(name) + 1})
        self._backgrounds, self._overlays, self._last_overlay = {}, {}, NO_OVERLAY
        try:
            case = read_case(self._output, name)
            self.state.update(facts(case))
        except ViewerError as error:
            self.state.problem = str(error)
            return
        self.stage.show(case)
        self._backgrounds = {layer.content: layer for layer in case.backgrounds}
        self._overlays = {layer.content: layer for layer in case.overlays}
        self.state.background_names = _choices(case.backgrounds)
        self.state.overlay_names = [*_choices(case.overlays), {"title": "None", "value": NO_OVERLAY}]
        muted = is_saturated(case.sidecar)  # grey spots over the scan would look like anatomy
        self._last_overlay = case.overlays[0].content if muted and case.overlays else NO_OVERLAY
        self._show_first(case.backgrounds, () if muted else case.overlays)
        self.stage.go_to_peak()
        self._show_overlay()
        self.stage.set_dragged(self.state.dragged)
        self.stage.set_crosshair(self.state.crosshair_shown)
        self._lay_out()

    def _show_first(self, backgrounds: Sequence[ViewedLayer], overlays: Sequence[ViewedLayer]) -> None:
        """Show the first background and the first overlay; a damaged one is left out and named."""
        problems = []
        for layers, name, show in (
            (backgrounds, "background_name", self.stage.set_background),
            (overlays, "overlay_name", self.stage.set_overlay),
        ):
            for layer in layers[:1]:
                try:
                    show(layer)
                    self.state[name] = layer.content
                except ViewerError as error:
                    problems.append(str(error))
        self.state.problem = " ".join(problems)

    def _lay_out(self) -> None:
        """Set the chosen layout; a single slice has one view only."""
        flat = self.stage.flat
        self.state.is_flat = flat is not None
        name = flat.lower() if flat else self.state.layout_name
        if not self._layouts.has_layout(name):
            return
        self._layouts.set_layout(name)
        for view in self.stage.views:
            view.set_visible_in_3d(name == "four")

    def _on_background(self, background_name: str, **_: Any) -> None:
        layer = self._backgrounds.get(background_name)
        if layer is None or self._is_shown(self.stage.background, layer):
            return
        if self._attempt(partial(self.stage.set_background, layer)):
            self.state.pointer = {}
            self._show_scales()

    def _on_overlay(self, overlay_name: str, **_: Any) -> None:
        layer = self._overlays.get(overlay_name)
        if self._is_shown(self.stage.overlay, layer):
            return
        if self._attempt(partial(self.stage.set_overlay, layer)):
            self._show_overlay()

    def _is_shown(self, volume: LoadedLayer | None, layer: ViewedLayer | None) -> bool:
        return (None if volume is None else volume.layer) == layer

    def _attempt(self, change: Callable[[], None]) -> bool:
        """Call `change`; if it raises ViewerError, show the message on the page and return False."""
        try:
            change()
        except ViewerError as error:
            self.state.problem = str(error)
            return False
        self.state.problem = ""
        return True

    def _show_overlay(self) -> None:
        """Show the overlay with the opacity last chosen for its kind."""
        overlay = self.stage.overlay
        self._last_overlay = self._last_overlay if overlay is None else overlay.layer.content
        self.state.opacity = self._opacity[overlay.layer.kind] if overlay else self.state.opacity
        self.stage.set_opacity(self.state.opacity)
        self.state.pointer = {}
        self._show_scales()

    def _on_opacity(self, opacity: float, **_: Any) -> None:
        if self.stage.overlay is not None:
            self._opacity[self.stage.overlay.layer.kind] = float(opacity)
        self.stage.set_opacity(float(opacity))

    def _on_clear_share(self, clear_share: float, **_: Any) -> None:
        self.stage.set_clear_share(float(clear_share))
        self._show_scales()

    def _show_scales(self) -> None:
        """Update colour bars and the values at the crosshair."""
        for name, volume in (("background", self.stage.background), ("overlay", self.stage.overlay)):
            self.state[f"{name}_scale"] = {} if volume is None else self._scale(volume)
        background = self.stage.background
        self.state.window_names = list(CT_WINDOWS) if background and background.layer.unit == HOUNSFIELD else []
        self.state.cross = self._reading(self.stage.point)

    def _scale(self, volume: LoadedLayer) -> dict[str, Any]:
        low, high = self.stage.window(volume)
        lowest, highest = volume.extremes
        return {
            "low": number(low), "high": number(high), "unit": volume.layer.unit,
            "gradient": _gradient(self.stage.colors(volume.layer.kind)), "can_be_clear": volume.layer.kind != "image",
            "shape": bar_shape(lowest < low, highest > high),
        }  # fmt: skip

    def _on_moved(self, point: Point | None) -> None:
        self.state.pointer = {} if point is None else self._reading(point)

    def _on_crossed(self, point: Point) -> None:
        self.state.cross = self._reading(point)

    def _reading(self, point: Point) -> dict[str, str]:
        """A place and its values as texts; empty outside of the background."""
        background, overlay, case = self.stage.background, self.stage.overlay, self.stage.case
        index = None if background is None else background.index(point)
        if index is None or background is None or case is None:
            return {}
        world = "RAS " + ", ".join(fixed(value, 1) for value in point) + " mm"
        place = world if case.has_world else f"column {index[0] + 1}, row {index[1] + 1}"
        return {"place": place, "background": _value(background, point), "overlay": _value(overlay, point)}

    def _on_key(self, name: str, step: int) -> None:
        if name == "case":
            self.step_case(step)
        elif name == "slice" and self.stage.active is not None:
            self.stage.scroll(self.stage.active, step)
        elif name == "overlay":
            self._hide_or_show_overlay()
        elif name == "fit":
            self.stage.fit()
        elif name == "crosshair":
            self.state.crosshair_shown = not self.state.crosshair_shown

    def _hide_or_show_overlay(self) -> None:
        is_hidden = self.state.overlay_name == NO_OVERLAY
        self.state.overlay_name = self._last_overlay if is_hidden else NO_OVERLAY


def _choices(layers: Sequence[ViewedLayer]) -> list[dict[str, str]]:
    return [{"title": layer.title, "value": layer.content} for layer in layers]


def _value(volume: LoadedLayer | None, point: Point) -> str:
    value = None if volume is None else volume.value(point)
    if value is None or volume is None:
        return ""
    return f"{volume.layer.title.partition(' (')[0]} {number(value)} {volume.layer.unit}"


def _gradient(table: Any) -> str:
    """A colour table as a CSS gradient from left to right."""
    chosen = table[:: len(table) // COLOR_STOPS]
    return f"linear-gradient(to right, {', '.join(f'rgb({r} {g} {b} / {a / 255:.0f})' for r, g, b, a in chosen.tolist())})"
