"""Kinds of DICOM objects by their SOP class (PS3.4, B.5): which hold an image, and which lie beside images.

Only standard names are told: a header's own texts may be about a person.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydicom.uid import UID

from monai_ifim.io.errors import InputError

MANUFACTURER = "monai_ifim contributors"  # of the Parametric Maps that this program writes
MODEL = "monai_ifim"
LABEL = "IFIM_"  # their Content Label begins so
KIND_TAGS = ("SOPClassUID", "Manufacturer", "ManufacturerModelName", "ContentLabel", "FileSetID")

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"  # PS3.3, F: a DICOMDIR, whatever its file is called
PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
# Classes with pixels that were computed from images, or drawn on them, and that ITK does not read as an image.
DERIVED = {
    PARAMETRIC_MAP: "Parametric Map Storage",
    "1.2.840.10008.5.1.4.1.1.66.4": "Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.8": "Height Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.481.2": "RT Dose Storage",
}
# Standard classes by their names in pydicom's dictionary: of those that hold pixels, all but DERIVED.
IMAGES = re.compile(r"\bImage\b|Volume Storage|Volume Analysis|Map Storage|DICOS")


@dataclass(frozen=True)
class ObjectKind:
    """What an object is that holds no image of its own. name: the standard one of its SOP class; own: a map that this program
    wrote; derived: its pixels were computed from images or drawn on them."""

    name: str
    own: bool = False
    derived: bool = False


class NoImageError(InputError):
    """A DICOM file that holds no image of its own: a report, a plan, a segmentation, a media directory."""

    def __init__(self, file: str, kind: ObjectKind) -> None:
        super().__init__(f"{file}: {_said(kind)}")
        self.file, self.kind = file, kind

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.file, self.kind)


DIRECTORY = ObjectKind("Media Storage Directory Storage")
UNKNOWN = ObjectKind("a private or unknown SOP class, without rows and columns")


def kind_without_image(header: Any, sized: bool, pixels: bool) -> ObjectKind | None:
    """What an object is that holds no image; None for an image, and for a SOP class that pydicom does not know.

    header: the attributes KIND_TAGS; sized: it states rows and columns; pixels: it has an element of pixel data.
    """
    meta = str(header.file_meta.get("MediaStorageSOPClassUID") or "")
    if meta == MEDIA_DIRECTORY or "FileSetID" in header:
        return DIRECTORY
    uid = UID(str(header.get("SOPClassUID") or meta))
    if uid in DERIVED:
        return ObjectKind(DERIVED[uid], own=uid == PARAMETRIC_MAP and _is_own(header), derived=True)
    name = uid.name
    if "Storage" not in name or IMAGES.search(name) or (sized and pixels):
        return None
    return ObjectKind(name)


def is_known_image_class(header: Any) -> bool:
    """True for a standard SOP class of images."""
    name = UID(str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")).name
    return "Storage" in name and IMAGES.search(name) is not None


def _is_own(header: Any) -> bool:
    """True for a map of this program; the label tells it where the manufacturer was taken out."""
    made_by = (str(header.get("Manufacturer") or ""), str(header.get("ManufacturerModelName") or ""))
    return made_by == (MANUFACTURER, MODEL) or str(header.get("ContentLabel") or "").startswith(LABEL)


def _said(kind: ObjectKind) -> str:
    if kind == DIRECTORY:
        return "a media directory (DICOMDIR), which is an index of other files and no image: name the folder that holds those."
    if kind.own:
        return (
            "a Parametric Map of an earlier run of monai_ifim: give the images that it was computed from, or the NIfTI file that "
            "the run wrote beside it."
        )
    if kind.name == DERIVED[PARAMETRIC_MAP]:
        return (
            "a Parametric Map, which was computed from images and which ITK does not read: give those images, or convert the map "
            "to NIfTI (dcm2niix, or highdicom)."
        )
    return f"it holds no image ({kind.name}): give the images that it belongs to."
