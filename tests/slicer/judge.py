"""Load scenes with 3D Slicer's own libraries, report their contents, and take screenshots.

Run by the tests in an environment that has slicer-core and trame-slicer:  judge.py PICTURES WIDTH HEIGHT SCENE...
Standard output is one JSON object, {scene: report}. monai_ifim is not imported here. WIDTH and HEIGHT: of a slice view. The
pictures in docs/figures/scene*.png are the windows that this draws of the scenes of `monai-ifim demo`, with 400 x 340.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import vtk
from PIL import Image, ImageDraw
from trame_slicer.core import SlicerApp
from trame_slicer.views import NoScheduleRendering, SliceView, ThreeDView, ViewProps
from vtkmodules.util.numpy_support import vtk_to_numpy

import slicer

PLANES = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}
# Views of 3D Slicer's layouts 36 and 37: column in widths of a slice view, row, width in the same.
WINDOWS = {
    36: {"1": (0, 0, 1.5), "plot": (1.5, 0, 1.5), "Red": (0, 1, 1), "Green": (1, 1, 1), "Yellow": (2, 1, 1)},
    37: {"Red": (0, 0, 1), "plot": (1, 0, 1), "Green": (0, 1, 1), "Yellow": (1, 1, 1)},
}
NOISE = ("WindowResizeEvent will not be generated", "GetLastVolumeRenderingDisplayNode")  # of trame-slicer, not of scenes


class Judge:
    """One Slicer session without a window, in which scenes are opened one after another."""

    def __init__(self, width: int, height: int) -> None:
        self.app = SlicerApp()
        self.messages: list[str] = []
        self._listen()
        self._register_all_nodes()
        self.views = [
            SliceView(self.app.scene, self.app.app_logic, name, scheduled_render_strategy=NoScheduleRendering())
            for name in PLANES
        ]
        for view in self.views:
            view.set_view_properties(ViewProps(orientation=PLANES[view.name]))
        self.views.append(ThreeDView(self.app.scene, self.app.app_logic, "1", scheduled_render_strategy=NoScheduleRendering()))
        self.size = (width, height)
        for view in self.views:
            view.render_window().SetMultiSamples(0)
            view.update_size(width, height)
        self.layout = slicer.vtkMRMLLayoutLogic()  # only once there are views
        self.layout.SetMRMLApplicationLogic(self.app.app_logic)
        self.layout.SetMRMLScene(self.app.scene)

    def report(self, path: Path, pictures: Path) -> dict[str, Any]:
        """What the scene at `path` holds once loaded, and pictures of its views."""
        scene = self.app.scene
        scene.Clear(False)
        self.messages.clear()
        collected = slicer.vtkMRMLMessageCollection()
        if path.suffix == ".mrb":
            whole = scene.ReadFromMRB(str(path), True, collected)
        else:
            scene.SetURL(str(path))
            whole = scene.Connect(collected)
        errors = [] if whole else ["the scene was not read"]
        errors += [collected.GetNthMessageText(i) for i in range(collected.GetNumberOfMessages())]
        report: dict[str, Any] = {
            "version": scene.GetLastLoadedVersion(),
            "layout": self._layout(),
            "volumes": {node.GetName(): _volume(node) for node in self._nodes("vtkMRMLVolumeNode")},
            "composites": {node.GetLayoutName(): _composite(node) for node in self._nodes("vtkMRMLSliceCompositeNode")},
            "tables": {node.GetName(): _table(node) for node in self._nodes("vtkMRMLTableNode")},
            "charts": [_chart(node.GetPlotChartNode()) for node in self._nodes("vtkMRMLPlotViewNode") if node.GetPlotChartNode()],
            "pictures": self._pictures(path, pictures),
        }
        report["slices"] = {view.name: _slice(view.get_view_node()) for view in self.views[:3]}
        report["camera"] = self._camera()
        report["errors"] = errors + self.messages
        return report

    def _listen(self) -> None:
        vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
        window = vtk.vtkOutputWindow()
        window.SetDisplayModeToNever()

        def keep(_window: Any, _event: str, text: str) -> None:
            if not any(noise in text for noise in NOISE):
                self.messages.append(" ".join(text.split()))

        keep.CallDataType = vtk.VTK_STRING  # type: ignore[attr-defined]
        for event in ("ErrorEvent", "WarningEvent"):
            window.AddObserver(event, keep)
        vtk.vtkOutputWindow.SetInstance(window)

    def _register_all_nodes(self) -> None:
        """trame-slicer registers fewer classes than the application, and a scene's nodes of other classes are refused."""
        for name in dir(slicer):
            if not (name.startswith("vtkMRML") and name.endswith("Node")):
                continue
            try:
                node = getattr(slicer, name)()
                if node.GetNodeTagName() and not self.app.scene.GetClassNameByTag(node.GetNodeTagName()):
                    self.app.scene.RegisterNodeClass(node)
            except (TypeError, AttributeError, NotImplementedError):  # an abstract class
                continue

    def _nodes(self, name: str) -> Iterator[Any]:
        found = self.app.scene.GetNodesByClass(name)
        found.UnRegister(None)
        return (found.GetItemAsObject(i) for i in range(found.GetNumberOfItems()))

    def _layout(self) -> dict[str, Any]:
        node = self.layout.GetLayoutNode()
        views = self.layout.GetViewNodes()
        return {
            "arrangement": node.GetViewArrangement(),
            "views": [views.GetItemAsObject(i).GetID() for i in range(views.GetNumberOfItems())],
        }

    def _camera(self) -> dict[str, Any]:
        node = next(self._nodes("vtkMRMLCameraNode"))
        active = self.views[3].first_renderer().GetActiveCamera()
        return {"position": node.GetPosition(), "focus": node.GetFocalPoint(), "is_used": active == node.GetCamera()}

    def _pictures(self, path: Path, folder: Path) -> dict[str, str]:
        """Pictures of the views, of the plot and of the whole window: where they are."""
        places = WINDOWS.get(self.layout.GetLayoutNode().GetViewArrangement(), {})
        sizes = {name: (round(self.size[0] * width), self.size[1]) for name, (_, _, width) in places.items()}
        for view in self.views:
            view.update_size(*sizes.get(view.name, self.size))
            if isinstance(view, SliceView):
                view._update_slice_size()  # what the application does once a scene is read
        pictures = {view.name: _picture(view.render_window()) for view in self.views}
        for node in self._nodes("vtkMRMLPlotViewNode"):
            if node.GetPlotChartNode():
                pictures["plot"] = _plot(node.GetPlotChartNode(), sizes.get("plot", self.size))
        if places:
            pictures["window"] = self._window(pictures, places)
        files = {name: str(folder / f"{path.name.replace('.', '_')}_{name}.png") for name in pictures}
        for name, file in files.items():
            pictures[name].save(file)
        return files

    def _window(self, pictures: dict[str, Image.Image], places: dict[str, tuple[float, int, float]]) -> Image.Image:
        """The views where the application's layout puts them, the slices with the volumes' names as it writes them."""
        width, height = self.size
        columns = max(column + share for column, _, share in places.values())
        window = Image.new("RGB", (round(width * columns), 2 * height))
        names = {node.GetID(): node.GetName() for node in self._nodes("vtkMRMLVolumeNode")} | {None: ""}
        shown = {node.GetLayoutName(): node for node in self._nodes("vtkMRMLSliceCompositeNode")}
        for name, (column, row, _) in places.items():
            corner = (round(width * column), height * row)
            window.paste(pictures[name], corner)
            if name in shown:
                over, under = names[shown[name].GetForegroundVolumeID()], names[shown[name].GetBackgroundVolumeID()]
                text = "\n".join(filter(None, [over and f"F: {over} (50%)", f"B: {under}"]))
                ImageDraw.Draw(window).text((corner[0] + 6, corner[1] + height - 6), text, (255, 255, 160), anchor="ld")
        return window


def _volume(node: Any) -> dict[str, Any]:
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    display, image = node.GetDisplayNode(), node.GetImageData()
    values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions(), order="F")
    brightest = [int(i) for i in np.unravel_index(values.argmax(), values.shape)]
    table = display.GetColorNode().GetLookupTable()
    labels = node.IsA("vtkMRMLLabelMapVolumeNode")
    names = [display.GetColorNode().GetColorName(i) for i in range(table.GetNumberOfTableValues())] if labels else []
    legends = [node.GetNthDisplayNode(i) for i in range(1, node.GetNumberOfDisplayNodes())]
    return {
        "id": node.GetID(),
        "dimensions": image.GetDimensions(),
        "ijk_to_ras": _rows(matrix),
        "brightest": matrix.MultiplyPoint((*brightest, 1))[:3],
        "range": [float(values.min()), float(values.max())],
        "class": node.GetClassName(),
        **({} if labels else _window_of(display)),
        "colors": display.GetColorNode().GetName(),
        "table": [table.GetTableValue(i) for i in range(table.GetNumberOfTableValues())],
        "names": names,
        "legends": [legend.GetTitleText() for legend in legends],
    }


def _window_of(display: Any) -> dict[str, Any]:
    return {
        "window": [display.GetWindowLevelMin(), display.GetWindowLevelMax()],
        "automatic": bool(display.GetAutoWindowLevel()),
    }


def _composite(node: Any) -> dict[str, Any]:
    return {
        "background": node.GetBackgroundVolumeID(),
        "foreground": node.GetForegroundVolumeID(),
        "opacity": node.GetForegroundOpacity(),
        "labels": node.GetLabelVolumeID(),
        "linked": bool(node.GetLinkedControl()),
    }


def _slice(node: Any) -> dict[str, Any]:
    return {
        "orientation": node.GetOrientation(),
        "slice_to_ras": _rows(node.GetSliceToRAS()),
        "xy_to_ras": _rows(node.GetXYToRAS()),
        "field": node.GetFieldOfView(),
        "pixels": node.GetDimensions(),
        "in_3d": bool(node.GetSliceVisible()),
        "outline": bool(node.GetUseLabelOutline()),
    }


def _table(node: Any) -> dict[str, list[Any]]:
    """Columns of numbers as lists; of anything else, lists of text."""
    columns = {}
    for i in range(node.GetNumberOfColumns()):
        column = node.GetTable().GetColumn(i)
        read: Callable[[int], Any] = column.GetValue
        columns[column.GetName()] = [read(row) for row in range(node.GetNumberOfRows())]
    return columns


def _chart(chart: Any) -> dict[str, Any]:
    series = chart.GetPlotSeriesNode()
    return {
        "title": chart.GetTitle(),
        "type": series.GetPlotTypeAsString(series.GetPlotType()),
        "table": series.GetTableNode().GetName(),
        "x": series.GetXColumnName(),
        "y": series.GetYColumnName(),
    }


def _plot(chart: Any, size: tuple[int, int]) -> Image.Image:
    """The plot, by the same VTK classes and settings as the application's plot view."""
    view, drawn = vtk.vtkContextView(), vtk.vtkChartXY()
    view.GetRenderWindow().SetOffScreenRendering(1)
    view.GetRenderWindow().SetMultiSamples(0)
    view.GetRenderWindow().SetSize(*size)
    view.GetRenderer().SetBackground(1.0, 1.0, 1.0)
    view.GetScene().AddItem(drawn)
    series, bars = chart.GetPlotSeriesNode(), vtk.vtkPlotBar()
    bars.SetInputData(series.GetTableNode().GetTable(), series.GetXColumnName(), series.GetYColumnName())
    bars.SetColorF(*series.GetColor())
    bars.SetWidth(series.GetLineWidth())
    drawn.AddPlot(bars)
    drawn.SetTitle(chart.GetTitle())
    drawn.GetTitleProperties().SetFontSize(chart.GetTitleFontSize())
    for place, title, limits in (
        (vtk.vtkAxis.BOTTOM, chart.GetXAxisTitle(), chart.GetXAxisRange()),
        (vtk.vtkAxis.LEFT, chart.GetYAxisTitle(), chart.GetYAxisRange()),
    ):
        axis = drawn.GetAxis(place)
        axis.SetTitle(title)
        axis.SetBehavior(vtk.vtkAxis.FIXED)
        axis.SetRange(*limits)
    return _picture(view.GetRenderWindow())


def _picture(window: Any) -> Image.Image:
    window.Render()
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(window)
    grabber.ReadFrontBufferOff()
    grabber.Update()
    image = grabber.GetOutput()
    width, height, _ = image.GetDimensions()
    pixels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)
    return Image.fromarray(np.ascontiguousarray(pixels[::-1, :, :3]))


def _rows(matrix: Any) -> list[list[float]]:
    return [[matrix.GetElement(i, j) for j in range(4)] for i in range(4)]


def main(pictures: str, width: str, height: str, *scenes: str) -> None:
    judge = Judge(int(width), int(height))
    folder = Path(pictures).resolve()  # reading a .mrb changes the working folder
    paths = {scene: Path(scene).resolve() for scene in scenes}
    reports = {scene: judge.report(path, folder) for scene, path in paths.items()}
    sys.stdout.write(json.dumps(reports))


main(*sys.argv[1:])
