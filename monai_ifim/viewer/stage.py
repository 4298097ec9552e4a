"""The stage: 3D Slicer's scene, volumes and slice views, shown in a browser by trame-slicer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from trame_slicer.core import SlicerApp
from trame_slicer.views import SliceView, ThreeDView
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkCommand, vtkLogger, vtkOutputWindow
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from monai_ifim.display.color_tables import sensitivity_table, signed_table
from monai_ifim.viewer.cases import Kind, ViewedCase, ViewedLayer, ViewerError, check_whole
from monai_ifim.viewer.slice_geometry import matrix_array, nearest_plane
from slicer import (
    vtkMRMLAbstractViewNode,
    vtkMRMLColorTableNode,
    vtkMRMLCrosshairDisplayableManager,
    vtkMRMLCrosshairNode,
    vtkMRMLInteractionNode,
    vtkMRMLScalarBarDisplayableManager,
    vtkMRMLSliceIntersectionWidget,
)

CLICK = 4  # pixels: a press that moves less is a click
FIRST, LAST = 10.0, -10.0  # priorities: before and after Slicer's own observers
FROM_FRONT = np.array([-0.5, 1.0, 0.5])  # RAS direction towards the camera

Point = tuple[float, float, float]
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LoadedLayer:
    """A layer in the scene. values: [k, j, i] as stored; to_voxel: matrix from RAS mm to voxel indices."""

    layer: ViewedLayer
    node: Any
    values: npt.NDArray[Any]
    to_voxel: Matrix

    @cached_property
    def extremes(self) -> tuple[float, float]:
        """The smallest and the largest value, in the layer's unit."""
        return float(self.values.min()) * self.layer.scale, float(self.values.max()) * self.layer.scale

    def index(self, point: Point) -> tuple[int, int, int] | None:
        """Indices of the voxel at a point, None outside."""
        i, j, k = (round(float(value)) for value in (self.to_voxel @ (*point, 1.0))[:3])
        inside = all(0 <= n < size for n, size in zip((k, j, i), self.values.shape, strict=True))
        return (i, j, k) if inside else None

    def value(self, point: Point) -> float | None:
        """Value of the voxel at a point, in the layer's unit; None outside."""
        found = self.index(point)
        if found is None:
            return None
        return float(self.values[found[::-1]]) * self.layer.scale

    def place(self, index: Sequence[int]) -> Point:
        """Centre of a voxel in RAS mm."""
        x, y, z = (np.linalg.inv(self.to_voxel) @ (*index, 1.0))[:3]
        return float(x), float(y), float(z)


class Stage:
    """One scene and its views. active: the view under the pointer.

    Callbacks: moved(place of the pointer, None outside), crossed(new place of the crosshair), windowed() after a display window
    has changed.
    """

    def __init__(self) -> None:
        self.app = SlicerApp()
        vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_ERROR)  # warnings concern trame-slicer only
        vtkOutputWindow.GetInstance().SetDisplayModeToNever()  # otherwise each message appears twice
        self.moved: Callable[[Point | None], None] = lambda _: None
        self.crossed: Callable[[Point], None] = lambda _: None
        self.windowed: Callable[[], None] = lambda: None
        self.case: ViewedCase | None = None
        self.background: LoadedLayer | None = None
        self.overlay: LoadedLayer | None = None
        self.active: SliceView | None = None
        self.point: Point = (0.0, 0.0, 0.0)
        self._volumes: dict[str, LoadedLayer] = {}
        self._press: tuple[int, int] = (0, 0)
        self._colors = self._color_tables()
        self._crosshair = self.app.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        self._crosshair.SetCrosshairThickness(vtkMRMLCrosshairNode.Fine)
        self._crosshair.AddObserver(vtkMRMLCrosshairNode.CursorPositionModifiedEvent, self._on_cursor)
        self._crosshair.AddObserver(vtkCommand.ModifiedEvent, self._on_crosshair)
        self.app.app_logic.GetInteractionNode().SetCurrentInteractionMode(vtkMRMLInteractionNode.AdjustWindowLevel)

    @property
    def flat(self) -> str | None:
        """Orientation of the view that shows a single-slice image; None for a volume."""
        if self.background is None or min(self.background.values.shape) > 1:
            return None
        axis = int(np.argmin(self.background.values.shape[::-1]))
        normal = np.linalg.inv(self.background.to_voxel)[:3, axis]
        return nearest_plane(normal)

    @property
    def views(self) -> list[SliceView]:
        """The slice views made so far."""
        return list(self.app.view_manager.get_slice_views())

    def prepare(self, view: SliceView) -> None:
        """Set up a new slice view, with those mouse actions that the page lists."""
        view.render_window().SetMultiSamples(0)  # multisampling takes seconds in software OpenGL
        kinds = vtkMRMLSliceIntersectionWidget
        for action in (kinds.ActionBlend, kinds.ActionSelectVolume, kinds.ActionShowSlice, kinds.ActionRotate):
            _intersections(view).SetActionEnabled(action, False)  # they would make the pictures differ from the panel
        interactor = view.interactor()
        interactor.AddObserver(vtkCommand.LeftButtonPressEvent, self._on_press, FIRST)
        interactor.AddObserver(vtkCommand.LeftButtonReleaseEvent, lambda *_: self._on_release(view), FIRST)
        interactor.AddObserver(vtkCommand.WindowResizeEvent, lambda *_: self._on_resize(view), LAST)
        interactor.AddObserver(vtkCommand.MouseMoveEvent, lambda *_: self._on_move(view), FIRST)

    def prepare_space(self, view: ThreeDView) -> None:
        """Set up a new 3D view, which shows the slices in space."""
        view.render_window().SetMultiSamples(0)
        view.set_box_visible(False)
        view.set_orientation_marker(vtkMRMLAbstractViewNode.OrientationMarkerTypeAxes)
        view.interactor().AddObserver(vtkCommand.WindowResizeEvent, lambda *_: self.reset_camera(view), LAST)

    def show(self, case: ViewedCase | None) -> None:
        """Remove the earlier case from the stage; the layers of the new one are set next."""
        self.background = self.overlay = None
        self.case = case
        for view in self.views:
            view.set_background_volume_id(None)
            view.set_foreground_volume_id(None)
        for volume in self._volumes.values():
            for node in (volume.node, volume.node.GetDisplayNode(), volume.node.GetStorageNode()):
                self.app.scene.RemoveNode(node)
        self._volumes = {}

    def set_background(self, layer: ViewedLayer) -> None:
        """Show a layer as background; raises ViewerError for a damaged file and keeps the earlier background."""
        self.background = self._loaded(layer)
        for view in self.views:
            view.set_background_volume_id(self.background.node.GetID())
            _intersections(view).SetActionEnabled(vtkMRMLSliceIntersectionWidget.ActionBrowseSlice, self.flat is None)

    def set_overlay(self, layer: ViewedLayer | None) -> None:
        """Show a layer as overlay, or none; raises ViewerError for a damaged file and keeps the earlier overlay."""
        self.overlay = None if layer is None else self._loaded(layer)
        for view in self.views:
            view.set_foreground_volume_id(None if self.overlay is None else self.overlay.node.GetID())

    def set_opacity(self, opacity: float) -> None:
        """Set the opacity of the overlay, 0 to 1."""
        for view in self.views:
            view.set_foreground_opacity(opacity)

    def set_clear_share(self, share: float) -> None:
        """Make the overlay transparent where its distance from zero is below this share of its window."""
        for kind, (node, distance) in self._colors.items():
            if kind != "image":
                self._set_clear(node, distance, share)

    def set_dragged(self, name: str) -> None:
        """Choose the layer whose window the left button drags: "background" or "overlay"."""
        for view in self.views:
            widget = view.get_displayable_manager_by_class(vtkMRMLScalarBarDisplayableManager).GetWindowLevelWidget()
            widget.SetBackgroundVolumeEditable(name == "background")
            widget.SetForegroundVolumeEditable(name == "overlay")

    def set_crosshair(self, shown: bool) -> None:
        """Show or hide the lines through the point."""
        mode = vtkMRMLCrosshairNode.ShowIntersection if shown else vtkMRMLCrosshairNode.NoCrosshair
        self._crosshair.SetCrosshairMode(mode)

    def window(self, volume: LoadedLayer) -> tuple[float, float]:
        """Low and high end of the display window of a volume, in its unit."""
        display = volume.node.GetDisplayNode()
        low, high = display.GetLevel() - display.GetWindow() / 2, display.GetLevel() + display.GetWindow() / 2
        return low * volume.layer.scale, high * volume.layer.scale

    def reset_windows(self) -> None:
        """Restore the windows of the sidecar."""
        for volume in self._volumes.values():
            self.set_window(volume, volume.layer.window)

    def set_window(self, volume: LoadedLayer, window: tuple[float, float]) -> None:
        """Set the display window of a volume, in stored values."""
        low, high = window
        display = volume.node.GetDisplayNode()
        display.SetAutoWindowLevel(0)
        display.SetWindowLevel(high - low, (high + low) / 2)

    def go_to_peak(self) -> None:
        """Fit all views and go to the most sensitive voxel."""
        self.point = self._peak()
        self.fit()

    def fit(self) -> None:
        """Fit all views to the background, along its own axes, and go to the point."""
        for view in self.views:
            view.reset_view()
        for space in self.app.view_manager.get_threed_views():
            self.reset_camera(space)
        self.go_to(self.point)

    def reset_camera(self, view: ThreeDView) -> None:
        """Point the camera of a 3D view at the whole background, from the front, a little from above and from the side."""
        if self.background is None:
            return
        bounds = [0.0] * 6
        self.background.node.GetRASBounds(bounds)
        low, high = np.array(bounds[::2]), np.array(bounds[1::2])
        camera = view.get_camera_node()
        distance = np.linalg.norm(high - low) / 2 / np.sin(np.deg2rad(camera.GetViewAngle() / 2))
        camera.SetFocalPoint(*(low + high) / 2)
        camera.SetPosition(*((low + high) / 2 + distance * FROM_FRONT / np.linalg.norm(FROM_FRONT)))
        camera.SetViewUp(0, 0, 1)
        camera.ResetClippingRange()
        view.schedule_render()

    def go_to(self, point: Point) -> None:
        """Move all views and the crosshair to the centre of the background's voxel at a point."""
        index = None if self.background is None else self.background.index(point)
        if index is not None and self.background is not None:
            point = self.background.place(index)
        self.point = point  # the crosshair sends no event if it is there already
        self._crosshair.SetCrosshairRAS(list(point))
        for view in self.views:
            view.get_view_node().JumpSliceByOffsetting(*point)
            view.schedule_render()

    def scroll(self, view: SliceView, steps: int) -> None:
        """Move one view by whole slices."""
        if self.flat is not None:
            return
        low, high = view.get_slice_range()
        view.set_slice_value(min(high, max(low, view.get_slice_value() + steps * view.get_slice_step())))

    def colors(self, kind: Kind) -> npt.NDArray[np.uint8]:
        """Current colour table of a kind of layer: RGBA [256, 4]."""
        lookup = self._colors[kind][0].GetLookupTable()
        return np.rint([np.multiply(255, lookup.GetTableValue(i)) for i in range(256)]).astype(np.uint8)

    def _loaded(self, layer: ViewedLayer) -> LoadedLayer:
        """The layer in the scene, read at its first use."""
        if layer.content in self._volumes:
            return self._volumes[layer.content]
        check_whole(layer.file)
        node = self.app.volumes_logic.AddArchetypeVolume(str(layer.file), layer.content, 0, None)
        if node is None or node.GetImageData() is None:
            raise ViewerError(f"{layer.file.name}: 3D Slicer's reader cannot open it; run the case again.")
        matrix = vtkMatrix4x4()
        node.GetRASToIJKMatrix(matrix)
        image = node.GetImageData()
        values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
        volume = LoadedLayer(layer, node, values, matrix_array(matrix))
        display = node.GetDisplayNode()
        display.SetAndObserveColorNodeID(self._colors[layer.kind][0].GetID())
        self.set_window(volume, layer.window)
        display.AddObserver(vtkCommand.ModifiedEvent, lambda *_: self.windowed())
        self._volumes[layer.content] = volume
        return volume

    def _peak(self) -> Point:
        """The overlay's voxel of largest magnitude, or else the centre of the background."""
        if self.overlay is not None and np.any(self.overlay.values):
            k, j, i = np.unravel_index(int(np.abs(self.overlay.values).argmax()), self.overlay.values.shape)
            return self.overlay.place((int(i), int(j), int(k)))
        if self.background is None:
            return (0.0, 0.0, 0.0)
        return self.background.place([(size - 1) / 2 for size in self.background.values.shape[::-1]])

    def _color_tables(self) -> dict[Kind, tuple[Any, npt.NDArray[np.float64]]]:
        """For each kind of layer: colour node, and distance of its entries from zero as a share of the window."""
        steps = np.linspace(0.0, 1.0, 256)
        distances: dict[Kind, npt.NDArray[np.float64]] = {
            "image": np.ones(256), "sensitivity": steps, "signed": np.abs(2 * steps - 1)
        }  # fmt: skip
        return {kind: (self._color_node(kind), distance) for kind, distance in distances.items()}

    def _color_node(self, kind: Kind) -> Any:
        node = vtkMRMLColorTableNode()
        node.SetTypeToUser()
        node.SetName(f"monai_ifim {kind}")
        table = _table(kind) / 255.0
        node.SetNumberOfColors(len(table))
        for entry, color in enumerate(table):
            node.SetColor(entry, f"{entry}", *(float(part) for part in color))
        return self.app.scene.AddNode(node)

    def _set_clear(self, node: Any, distance: npt.NDArray[np.float64], share: float) -> None:
        """Make entries transparent; Slicer's slice views know only transparent and opaque entries."""
        was_modifying = node.StartModify()
        lookup = node.GetLookupTable()
        for entry, far in enumerate(distance):
            red, green, blue, _ = lookup.GetTableValue(entry)
            node.SetColor(entry, red, green, blue, float(far >= share))
        node.EndModify(was_modifying)

    def _on_press(self, interactor: Any, _event: str) -> None:
        self._press = interactor.GetEventPosition()

    def _on_release(self, view: SliceView) -> None:
        x, y = view.interactor().GetEventPosition()
        if max(abs(x - self._press[0]), abs(y - self._press[1])) < CLICK:
            place = matrix_array(view.get_view_node().GetXYToRAS()) @ (x, y, 0.0, 1.0)
            self.go_to((float(place[0]), float(place[1]), float(place[2])))

    def _on_resize(self, view: SliceView) -> None:
        """Fit the picture into the new size, and keep its slice."""
        place = view.get_slice_value()
        view.fit_view_to_content()
        view.set_slice_value(place)

    def _on_move(self, view: SliceView) -> None:
        self.active = view

    def _on_cursor(self, *_: Any) -> None:
        place = [0.0, 0.0, 0.0]
        known = self._crosshair.GetCursorPositionRAS(place)
        self.moved((place[0], place[1], place[2]) if known else None)

    def _on_crosshair(self, *_: Any) -> None:
        x, y, z = self._crosshair.GetCrosshairRAS()
        self.point = (x, y, z)
        self.crossed(self.point)


def _intersections(view: SliceView) -> Any:
    """Slicer's widget for mouse actions in a slice view, except for windows."""
    return view.get_displayable_manager_by_class(vtkMRMLCrosshairDisplayableManager).GetSliceIntersectionWidget()


def _table(kind: Kind) -> npt.NDArray[np.uint8]:
    if kind == "image":
        grey = np.arange(256, dtype=np.uint8)
        return np.stack([grey, grey, grey, np.full(256, 255, np.uint8)], axis=1)
    return sensitivity_table() if kind == "sensitivity" else signed_table()
