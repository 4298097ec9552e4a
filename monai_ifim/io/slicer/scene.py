"""The scene of a case for 3D Slicer, CASE.mrml.

It refers to its files by relative paths, so that the folder can be moved. It holds no personal data and no date, and the same
case gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_ifim.display.asked import asked_text
from monai_ifim.display.color_tables import Table, sensitivity_table, signed_table
from monai_ifim.display.saturation import SATURATED, is_saturated
from monai_ifim.display.vocabulary import BY_COMPONENT
from monai_ifim.io import atomic
from monai_ifim.io.containment import is_plain_name
from monai_ifim.io.errors import OutputError
from monai_ifim.io.geometry import Affine, is_invertible
from monai_ifim.io.slicer.color_tables import label_names, labels_table, table_text
from monai_ifim.io.slicer.legend import legend_at
from monai_ifim.io.slicer.spectrum_table import SpectrumTable, read_spectrum
from monai_ifim.io.slicer.views import PRESETS, VIEW_ANGLE, Point, SliceView, camera_before, is_flat, plane_view, slice_view
from monai_ifim.io.slicer.volumes import GREY, LABELS, SENSITIVITY, SIGNED, SceneVolume, first_of, scene_volumes

if TYPE_CHECKING:
    from jinja2 import Template

FOUR_UP, PLOT_3D_AND_SLICES, PLOT_AND_SLICES = 3, 36, 37  # vtkMRMLLayoutNode: FourUp, ConventionalPlot, FourUpPlot
COLOR_IDS = {
    GREY: "vtkMRMLColorTableNodeGrey",
    SENSITIVITY: "vtkMRMLColorTableNode1",
    SIGNED: "vtkMRMLColorTableNode2",
    LABELS: "vtkMRMLColorTableNode3",
}
LONGEST_NAMED = 80  # characters of a file name that an error message quotes
LEGEND_FONT = "font-family:Arial;font-size:12px;color:rgba(255,255,255,1);text-shadow:1px -1px 2px rgba(0,0,0,1.0);"
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2
_FILE_NAME = {ord(sign): f"%{ord(sign):02X}" for sign in "% '\"<>"}  # exactly what 3D Slicer decodes


@dataclass(frozen=True, eq=False)
class View:
    """One slice view and its layers. tag: Red, Green or Yellow; in_3d: whether the 3D view shows the slice too."""

    tag: str
    slice: SliceView
    background: SceneVolume
    foreground: SceneVolume | None
    in_3d: bool


def write_scene(folder: Path, sidecar: Mapping[str, Any], point: Point | None = None) -> dict[str, str]:
    """Write FOLDER/CASE.mrml, its colour tables and the spectrum's table; returns the hex SHA-256 of each by its name.

    folder: of the case, named after it, with all volumes written; sidecar: content of the case's sidecar; point: RAS mm that the
    slices go through, by default the volume's centre. Raises OutputError if a file or a part of the sidecar is missing.
    """
    case = folder.name
    try:
        spectrum = read_spectrum(sidecar)
        volumes = scene_volumes(sidecar, spectrum.shares)
        grid = sidecar["files"][0]
        affine, shape = np.array(grid["affine"], dtype=np.float64), tuple(map(int, grid["shape"]))
        _check_grid(affine, shape)
        views = _views(volumes, affine, shape, point)
        if is_saturated(sidecar):
            views = [replace(view, foreground=None) for view in views]  # over the scan, grey spots would look like anatomy
        title = _title(sidecar)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        cause = f"{type(error).__name__}: {error}"
        raise OutputError(f"{case}: no scene can be made of this sidecar ({cause}): run the case again, overwriting.") from error
    missing = [volume.file for volume in volumes if not (is_plain_name(volume.file) and (folder / volume.file).is_file())]
    if missing:
        named = ", ".join(str(name)[:LONGEST_NAMED] for name in missing)
        raise OutputError(f"{case}: no scene without {named}: run the case again, overwriting.")
    tables, texts = _tables(case, spectrum, sidecar.get("segmentation"))
    camera = camera_before(affine, shape)
    texts[f"{case}.mrml"] = _rendered(
        layout=_layout(shape, spectrum),
        linked=int(not is_flat(shape)),
        labels=first_of(volumes, "labels"),
        views=views,
        presets=PRESETS,
        camera=camera,
        view_angle=VIEW_ANGLE,
        tables=tables,
        volumes=volumes,
        color_ids=COLOR_IDS,
        spectrum=spectrum,
        spectrum_file=f"{case}_spectrum.tsv",
        columns={"component": spectrum.titles[0], "share": spectrum.titles[2]},
        legend_font=LEGEND_FONT,
        legend=legend_at([view.slice for view in views], point),
        chart_title=title,
        by_component=BY_COMPONENT.title,
    )
    return atomic.write_texts(folder, texts)


def _title(sidecar: Mapping[str, Any]) -> str:
    """The title of the spectrum: the answer, or the part of it that was decomposed, and whether it is saturated."""
    asked, answer = sidecar.get("answer"), sidecar["prediction"]["class"]
    title = BY_COMPONENT.title if answer is None else f"{BY_COMPONENT.title} (answer: {answer})"
    if asked is not None:
        title = f"{BY_COMPONENT.title}, of {asked_text(asked, str(sidecar['model']['head']))}"
    return f"{title}, {SATURATED}" if is_saturated(sidecar) else title


def _check_grid(affine: Affine, shape: tuple[int, ...]) -> None:
    if affine.shape != (4, 4) or not is_invertible(affine) or len(shape) != 3 or min(shape) < 1:
        raise ValueError("its affine or shape is not that of a volume")


def _views(volumes: list[SceneVolume], affine: Affine, shape: tuple[int, ...], point: Point | None) -> list[View]:
    """Red, Green and Yellow: three planes of a volume, or three maps of a single slice."""
    background = first_of(volumes, "source", "input")
    if background is None:
        raise ValueError("no image among the files")
    overlay = first_of(volumes, "sensitivity", "high", "eigenvector")
    if is_flat(shape):
        plane = plane_view(affine, shape)
        high, low = first_of(volumes, "high", "eigenvector"), first_of(volumes, "low")
        shown = [(background, overlay), (background, high), (low or background, None)]
        return [View(tag, plane, *layers, tag == "Red") for tag, layers in zip(("Red", "Green", "Yellow"), shown, strict=True)]
    planes = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}
    return [View(tag, slice_view(affine, shape, name, point), background, overlay, True) for tag, name in planes.items()]


def _layout(shape: tuple[int, ...], spectrum: SpectrumTable) -> int:
    """Number of 3D Slicer's layout."""
    if not spectrum.rows:
        return FOUR_UP
    return PLOT_AND_SLICES if is_flat(shape) else PLOT_3D_AND_SLICES


def _tables(
    case: str, spectrum: SpectrumTable, segmentation: Mapping[str, Any] | None
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The tables of the scene: the template's entries for the colour tables, in the order of COLOR_IDS, and the text of each
    file."""
    tables, texts = [], {f"{case}_spectrum.tsv": spectrum.table(), f"{case}_spectrum.schema.tsv": spectrum.schema()}
    made: list[tuple[str, str, Table, tuple[str, ...]]] = [
        ("sensitivity", "Sensitivity", sensitivity_table(), ()),
        ("signed", "Below and above zero", signed_table(), ()),
    ]
    if segmentation is not None and segmentation["labels"]:
        labels = segmentation["labels"]
        made.append(("labels", "Labels", labels_table(labels, segmentation["background"]), label_names(labels)))
    for name, label, table, names in made:
        file = f"{case}_{name}.ctbl"
        texts[file] = table_text(name, table, names)
        tables.append({"file": file, "name": label, "size": len(table)})
    return tables, texts


def _rendered(**content: Any) -> str:
    ids = {
        volume.file: f"vtkMRML{'LabelMap' if volume.colors == LABELS else 'Scalar'}VolumeNode{i}"
        for i, volume in enumerate(content["volumes"], start=1)
    }
    return _template().render(content, ids=ids)


@cache
def _template() -> Template:
    """The scene's template, compiled once in a process."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("monai_ifim.io.slicer", "templates"),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=_attribute,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["file_name"] = lambda name: name.translate(_FILE_NAME)
    environment.filters["number"] = _number
    environment.filters["numbers"] = lambda values: " ".join(map(_number, np.ravel(values)))
    return environment.get_template("scene.mrml.j2")


def _number(value: float) -> str:
    """The shortest text that reads back as the same number, with 0.0 for a negative zero."""
    return repr(float(value) + 0.0)


def _attribute(value: object) -> object:
    """Text for an XML attribute: escaped, line ends kept, characters that XML forbids replaced."""
    from markupsafe import Markup, escape

    if not isinstance(value, str):
        return value
    escaped = str(escape(_NO_XML.sub("?", value))).replace("\n", "&#10;").replace("\t", " ").replace("\r", " ")
    return Markup(escaped)  # nosec B704
